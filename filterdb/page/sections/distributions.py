"""Distributions of the coefficients: of each component by group, and of pairs of components."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from filterdb.analysis.distributions import distributions
from filterdb.page import tables
from filterdb.page.joint_densities import JointDensities, fits, is_affordable, joint_densities
from filterdb.page.payload import pack
from filterdb.page.results import Results
from filterdb.page.section import Picture, Section, Table
from filterdb.plotting import figures
from filterdb.plotting.drawing import visible_all
from filterdb.plotting.figures_density import extent

NEEDS_PASS = "Their densities need another pass over the filters: filterdb report --densities."


class Distributions(Section):
    """Ridges of the coefficients, and densities of pairs of components."""

    position = 50
    title = "Distributions"
    template = """\
<section id="distributions">
<h2>Distributions</h2>
{{ figure("ridges", "The coefficients of each group", "Each curve is the distribution of a group’s coefficients on one component. A narrow peak at 0 means that the filters hardly use the component; two peaks mean that they use it in two ways.", "ridges", "histograms", each=true, holds="the histogram of each group and component", more=[("all filters, with a density estimate", "ridges_all", "histograms_all")]) }}
{% if planes %}{{ figure("planes", "Pairs of components", "Bright areas have many filters; each square has its own logarithmic scale. Sun: round, similar to a normal distribution. Spikes: hot spots. Symbols: several peaks, or a peak off the centre. Point: nearly all filters at the centre.", "corner", "phenotypes", holds="the phenotype of each group and pair", more=[("all filters, the leading two components", "density", "density"), ("the counts of all filters", "", "corner")]) }}{% endif %}
</section>
"""  # noqa: E501

    def __init__(self, results: Results) -> None:
        super().__init__(results)
        db, wanted = results.db, results.densities
        self.whole = distributions(db, mode=results.mode)
        self.joint: JointDensities | None = None
        if wanted or (wanted is None and is_affordable(db)):
            by = next((by for by, result in results.drifts.items() if fits(result.sizes["group"])), None)
            self.joint = joint_densities(db, by, results.mode)

    def is_listed(self) -> bool:
        """Return whether there are groups."""
        return bool(self.results.drifts)

    def missing(self) -> list[tuple[str, str]]:
        """Return why there are no densities."""
        if not self.is_listed() or self.joint is not None:
            return []
        return [("pairs of components", NEEDS_PASS)]

    def context(self) -> dict[str, Any]:
        """Return whether the densities of two components were computed."""
        return {"planes": self.joint is not None}

    def data(self) -> dict[str, Any]:
        """Return the densities of two components."""
        return {} if self.joint is None else {"planes": _shades(self.joint)}

    def pictures(self) -> Iterator[Picture]:
        """Yield the ridges of each grouping and the densities."""
        for by, result in self.results.drifts.items():
            yield Picture(f"ridges_{by}", partial(figures.ridges, result))
        yield Picture("ridges_all", partial(figures.ridges, self.whole))
        if self.joint is not None:
            yield Picture("corner", partial(figures.corner, self.joint.densities))
            yield Picture("density", partial(figures.density, self.joint.densities[0, 1], self.joint.phenotypes))

    def tables(self) -> Iterator[Table]:
        """Yield the histograms of each grouping and the densities."""
        for by, result in self.results.drifts.items():
            yield Table(f"histograms_{by}", tables.histograms(result))
        yield Table("histograms_all", tables.histograms(self.whole))
        if self.joint is not None:
            yield Table("phenotypes", self.joint.table())
            yield Table("corner", self.joint.cells())
            yield Table("density", self.joint.groups((0, 1)))


def _shades(joint: JointDensities) -> dict[str, Any]:
    """Return the logarithms of the counts of each group and pair, scaled to 0 … 255, in the bins that are visible."""
    windows = [extent(joint.counts(pair)[0]) for pair in joint.pairs]
    first, last = min(low for low, _ in windows), max(high for _, high in windows)
    shades = []
    for pair in joint.pairs:
        logs = np.log1p(joint.counts(pair)[:, first:last, first:last])
        most = logs.max(axis=(1, 2), keepdims=True)
        shades.append(np.rint(255 * logs / np.where(most > 0, most, 1.0)).astype(np.uint8))
    return {
        "by": joint.by,
        "groups": visible_all(joint.labels),
        "pairs": joint.pairs,
        "kinds": joint.kinds(),
        "edges": [joint.edges[first], joint.edges[last]],
        "bins": last - first,
        "shades": pack(np.stack(shades, axis=1)),
    }


SECTION = Distributions
