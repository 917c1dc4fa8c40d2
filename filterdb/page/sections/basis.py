"""The basis: the nine components of all filters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from filterdb.page import figures, tables
from filterdb.page.section import Picture, Section, Table


class Basis(Section):
    """The components as pictures with their share of the variance."""

    position = 30
    title = "Basis"
    template = """\
<section id="basis">
<h2>The nine components</h2>
<p>Every filter, divided by its largest weight, is the mean filter plus a weighted sum of these nine components. If filters are similar, a few components explain most of their variance.</p>
{{ figure("basis", "Components of all filters", "Purple and orange are opposite signs. Below each component are its share of the variance and the cumulative share.", "basis", "basis") }}
</section>
"""  # noqa: E501

    def core(self) -> Any:
        """Return the components and their shares of the variance."""
        basis = self.results.basis
        return {"components": basis["components"].values[0], "ratios": basis["explained_variance_ratio"].values[0]}

    def pictures(self) -> Iterator[Picture]:
        """Yield the figure of the components."""
        yield Picture("basis", lambda: figures.basis(self.results.basis))

    def tables(self) -> Iterator[Table]:
        """Yield the components with their shares."""
        yield Table("basis", tables.basis(self.results.basis))


SECTION = Basis
