"""The codes of the filters, compared with noise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import xarray as xr

from filterdb.analysis.codebook import codebook
from filterdb.errors import UsageError
from filterdb.page import tables
from filterdb.page.joint_densities import is_affordable
from filterdb.page.results import Results
from filterdb.page.section import Picture, Section, Table
from filterdb.plotting import figures

CODES = 32
"""Codes on the page. With many more, noise is described nearly as well as filters."""

NEEDS_PASSES = "They need passes over the filters: filterdb report --densities."


class Codebook(Section):
    """Show the filters that k-means finds, with the share of the filters that each stands for."""

    position = 33
    title = "Codes"
    template = """\
<section id="codebook">
<h2>Codes</h2>
<p>Each filter, divided by its norm, is represented by the nearest of these {{ codes }} codes. They explain <b>{{ explained }}</b> of the variance. The same number of codes, fitted to random filters, explain <b>{{ noise }}</b>, so only the difference is structure.</p>
{{ figure("codebook", "The most frequent filters", "Purple and orange are opposite signs. Below each code is the share of the filters that it stands for.", "codebook", "codebook", holds="the share and the weights of each code", more=[("the same for each model", "", "codebook_models")]) }}
</section>
"""  # noqa: E501

    def __init__(self, results: Results) -> None:
        super().__init__(results)
        self.codebook: xr.Dataset | None = None
        self.why_missing = NEEDS_PASSES
        if results.densities or (results.densities is None and is_affordable(results.db)):
            self.why_missing = f"There are fewer than {CODES} distinct filters."
            with suppress(UsageError):  # for that reason
                self.codebook = codebook(results.db, "model", k=CODES)

    def is_listed(self) -> bool:
        """Return whether codes were fitted, which takes passes over the filters."""
        return self.codebook is not None

    def missing(self) -> list[tuple[str, str]]:
        """Return why there are no codes."""
        return [] if self.is_listed() else [("codes", self.why_missing)]

    def context(self) -> dict[str, Any]:
        """Return how much of the variance the codes explain, and of that of noise."""
        if self.codebook is None:
            return {}
        attrs = self.codebook.attrs
        shares = {"explained": attrs["explained_variance"], "noise": attrs["noise_explained_variance"]}
        return {"codes": CODES, **{name: f"{100 * share:.0f} %" for name, share in shares.items()}}

    def core(self) -> Any:
        """Return the codes and their shares of the filters."""
        if self.codebook is None:
            return None
        return {"codes": self.codebook["codes"].values, "shares": self.codebook["share"].values}

    def pictures(self) -> Iterator[Picture]:
        """Yield the figure of the codes."""
        if self.codebook is not None:
            result = self.codebook
            yield Picture("codebook", lambda: figures.codebook(result))

    def tables(self) -> Iterator[Table]:
        """Yield the codes, and the figures of each model."""
        if self.codebook is not None:
            yield Table("codebook", tables.codes(self.codebook))
            yield Table("codebook_models", tables.codebook(self.codebook))


SECTION = Codebook
