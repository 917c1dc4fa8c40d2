"""Three rows of three small pictures with one scale, in a single Axes: nine of them take several times as long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE = 3
WIDTH = 0.92
"""Width of a picture as a part of its column."""


class Panels:
    """A picture for each of up to nine components, all with the same range of coefficients and the same `height`."""

    def __init__(self, axes: Axes, window: tuple[float, float], height: float, titles: list[str]) -> None:
        from matplotlib.ticker import MaxNLocator

        self.low, self.high = window
        self.height, self.step = height, height * 1.12 + 0.25
        self.axes: Any = axes
        self.axes.set_xlim(0, SIDE - 1 + WIDTH)
        self.axes.set_ylim(-0.03 * height, SIDE * self.step)
        self.axes.spines[:].set_visible(False)
        values = [value for value in MaxNLocator(4).tick_values(*window) if self.low <= value <= self.high]
        ticks = [column + self._right(value) for column in range(SIDE) for value in values]
        self.axes.set_xticks(ticks, [f"{value:g}" for value in values] * SIDE, fontsize=8)
        self.axes.set_yticks([])
        self.axes.set_xlabel("coefficient", fontsize=9)
        for i, title in enumerate(titles):
            x, y = self._corner(i)
            self.axes.text(x, y + height, title, fontsize=8, fontweight="bold", va="bottom")
            self.axes.vlines(
                [x + self._right(value) for value in values], y, y + height, color="#e3e6ea", lw=0.6, zorder=0
            )

    def hill(self, panel: int, edges: np.ndarray, heights: np.ndarray, base: float, **style: Any) -> None:
        """Draw the steps of a histogram over a base line, without the bins outside of the range."""
        from matplotlib.patches import Polygon

        first, last = np.searchsorted(edges, [self.low, self.high])
        x, y = self._corner(panel)
        across = np.repeat(x + self._right(edges[first : last + 1]), 2)
        up = y + base + np.concatenate([[0.0], np.repeat(heights[first:last], 2), [0.0]])
        # add_patch would update the limits each time, but they are fixed here.
        self.axes.add_artist(Polygon(np.column_stack([across, up]), closed=True, **style))

    def line(self, panel: int, at: np.ndarray, heights: np.ndarray, base: float, **style: Any) -> None:
        """Draw a curve over a base line, without its points outside of the range."""
        inside = (at >= self.low) & (at <= self.high)
        x, y = self._corner(panel)
        self.axes.plot(x + self._right(at[inside]), y + base + heights[inside], **style)

    def labels(self, labels: list[str]) -> None:
        """Write the names of the base lines 0, 1, 2 … to the left of the pictures."""
        bottoms = [self._corner(SIDE * row)[1] for row in range(SIDE)]
        ticks = [bottom + line for bottom in bottoms for line in range(len(labels))]
        self.axes.set_yticks(ticks, labels * SIDE, fontsize=7)
        self.axes.tick_params(axis="y", left=False)

    def _right(self, value: Any) -> Any:
        return WIDTH * (value - self.low) / (self.high - self.low)

    def _corner(self, panel: int) -> tuple[float, float]:
        row, column = divmod(panel, SIDE)
        return float(column), (SIDE - 1 - row) * self.step
