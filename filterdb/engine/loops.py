"""Reductions that a compiled loop computes, several of them in one loop over the filters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from filterdb.engine.reduction import Block, LayerReduction, Reduction
from filterdb.numerics import without_numba
from filterdb.numerics.loops import compiled
from filterdb.store.summary import Arrays

KINDS = 3
"""Number of kinds of states that one loop can update."""

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of coefficients: mean (weights,), components (weights, weights), and whether filters are max-scaled."""

    mean: tuple[float, ...]
    components: Rows
    scaled: bool

    @classmethod
    def of(cls, mean: np.ndarray, components: np.ndarray, *, scaled: bool) -> Axes:
        """Return the axes with these arrays, mean (weights,) and components (weights, weights)."""
        return cls(tuple(mean.tolist()), tuple(map(tuple, components.tolist())), scaled)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean (weights,) and components (weights, weights), float64."""
        return np.array(self.mean), np.array(self.components)

    @property
    def weights(self) -> int:
        """Return the number of weights of a filter, which is that of components."""
        return len(self.mean)

    @property
    def content(self) -> dict[str, object]:
        """Return the part of a summary's name that depends on the axes."""
        return {"mean": self.mean, "components": self.components, "scaled": self.scaled}


class LoopReduction(LayerReduction):
    """A reduction that `compiled.reduce_together` computes."""

    kind: ClassVar[Literal["moments", "extremes", "histograms"]]
    """Which of the loop's states the arrays are. One loop adds to one reduction of each kind."""

    @property
    def loop_axes(self) -> Axes | None:
        """Return the axes of the coefficients that the loop needs."""
        return None

    @abstractmethod
    def loop_state(self, arrays: Arrays, block: Block) -> tuple[Any, ...]:
        """Return the loop's state of this kind, which it updates; update here what the loop does not."""

    def add(self, arrays: Arrays, block: Block) -> None:
        add_together([self], [arrays], block)

    def add_uncompiled(self, arrays: Arrays, block: Block) -> None:
        """Add a block without Numba: extremes and histograms byte for byte as `add` does, in ten times the time."""
        add_together([self], [arrays], block, without_numba)


def add_together(
    reductions: Sequence[LoopReduction], arrays: Sequence[Arrays], block: Block, loops: Any = compiled
) -> None:
    """Add a block to the arrays of reductions of different kinds, byte for byte as `add` of each of them does."""
    axes = next(((*r.loop_axes.arrays, r.loop_axes.scaled) for r in reductions if r.loop_axes), None)
    states = {r.kind: r.loop_state(own, block) for r, own in zip(reductions, arrays, strict=True)}
    loops.reduce_together(block.columns, block.starts, block.stops, axes, **states)


def grouped(reductions: Sequence[Reduction]) -> list[list[int]]:
    """Return the numbers of the reductions in groups, each for one loop: all kinds in the same axes, or one reduction.

    Two reductions share no loop: Numba would compile one for each pair of kinds, which takes ten seconds.
    """
    groups: list[list[int]] = []
    for i, reduction in enumerate(reductions):
        fitting = (group for group in groups if all(_fit(reduction, reductions[j]) for j in group))
        group = next(fitting, None)
        if group is None:
            groups.append([i])
        else:
            group.append(i)
    return [part for group in groups for part in ([group] if len(group) == KINDS else [[i] for i in group])]


def add_group(group: Sequence[Reduction], arrays: Sequence[Arrays], block: Block) -> None:
    """Add a block to the arrays of a group of reductions."""
    if len(group) == 1:
        group[0].add(arrays[0], block)
    else:
        add_together([reduction for reduction in group if isinstance(reduction, LoopReduction)], arrays, block)


def _fit(a: Reduction, b: Reduction) -> bool:
    """Return whether one loop can add to both reductions."""
    if not isinstance(a, LoopReduction) or not isinstance(b, LoopReduction) or a.kind == b.kind:
        return False
    return a.loop_axes is None or b.loop_axes is None or a.loop_axes == b.loop_axes
