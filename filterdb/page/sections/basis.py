"""The basis: the components of all filters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from filterdb.analysis.pca import pca
from filterdb.choices import COMPONENTS
from filterdb.page import tables
from filterdb.page.results import Results
from filterdb.page.section import Picture, Section, Table
from filterdb.plotting import figures


class Basis(Section):
    """The components as pictures with their share of the variance."""

    position = 30
    title = "Basis"
    template = """\
<section id="basis">
<h2>The {{ weights }} components</h2>
<p>Every filter, divided by its largest weight, is the mean filter plus a weighted sum of these {{ weights }} components. If filters are similar, a few components explain most of their variance.{% if shown %} The pictures show the leading {{ shown }}; the tables have all.{% endif %}</p>
{{ figure("basis", "Components of all filters", "Purple and orange are opposite signs. Below each component are its share of the variance and the cumulative share.", "basis", "basis", holds="the share and the weights of each component", more=bases) }}
</section>
"""  # noqa: E501

    def __init__(self, results: Results) -> None:
        super().__init__(results)
        db = results.db
        self.bases = {f"basis_{by}": pca(db, by) for by in results.drifts if by not in ("model", "depth_decile")}
        first = db.layers["conv_depth"].values == 0
        if first.any():
            self.bases["basis_first_layers"] = pca(db.keep(first, "conv_depth = 0"))

    def context(self) -> dict[str, Any]:
        """Return the files of the groups' own components, for the menu."""
        words = {name: name.removeprefix("basis_").replace("_", " ") for name in self.bases}
        words = {name: text if text == "first layers" else f"each {text}" for name, text in words.items()}
        return {"bases": [(f"the components of {text}", name, name) for name, text in words.items()]}

    def core(self) -> Any:
        """Return the leading components and their shares of the variance."""
        basis = self.results.basis
        leading = {name: basis[name].values[0, :COMPONENTS] for name in ("components", "explained_variance_ratio")}
        return {"components": leading["components"], "ratios": leading["explained_variance_ratio"]}

    def pictures(self) -> Iterator[Picture]:
        """Yield the figure of the components."""
        yield Picture("basis", lambda: figures.basis(self.results.basis))
        for name, result in self.bases.items():
            yield Picture(name, partial(figures.bases, result))

    def tables(self) -> Iterator[Table]:
        """Yield the components with their shares."""
        yield Table("basis", tables.basis(self.results.basis))
        for name, result in self.bases.items():
            yield Table(name, tables.bases(result))


SECTION = Basis
