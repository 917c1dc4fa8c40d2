"""The frequencies of the filters over the depth."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from filterdb.analysis.spectrum import spectrum
from filterdb.page import tables
from filterdb.page.results import Results
from filterdb.page.section import Picture, Section, Table
from filterdb.plotting import figures


class Spectrum(Section):
    """Show the energy of the filters by frequency in each tenth of the depth."""

    position = 35
    title = "Frequencies"
    template = """\
<section id="spectrum">
<h2>Frequencies</h2>
{% if left_out %}<p class="soft">{{ left_out }}</p>{% endif %}

{{ figure("spectrum", "Energy by frequency over the depth", "Each square has the DCT terms: the constant term at the top left, faster changes to the right and downwards. Darker terms have more of the energy of the raw filters in that tenth of the depth. Low is the share of the terms of at most half the Nyquist frequency, aliased the share of the strided layers’ energy above the Nyquist frequency after striding.", "spectrum", "spectrum", holds="the shares of every layer") }}
</section>
"""  # noqa: E501

    def __init__(self, results: Results) -> None:
        super().__init__(results)
        self.spectrum = self.attempt("frequencies", lambda: spectrum(results.raw[0], "depth_decile"))

    def is_listed(self) -> bool:
        """Return whether there are layers of known depth and scale."""
        return self.spectrum is not None

    def context(self) -> dict[str, Any]:
        """Return which layers are left out."""
        return {"left_out": self.results.raw[1]}

    def core(self) -> Any:
        """Return the shares of each tenth of the depth."""
        if self.spectrum is None:
            return None
        return {
            "deciles": self.spectrum["group"].values.tolist(),
            "terms": self.spectrum["term"].values.tolist(),
            "shares": self.spectrum["share"].values,
            **{name: self.spectrum[name].values for name in ("low", "aliasing", "count")},
        }

    def pictures(self) -> Iterator[Picture]:
        """Yield the figure of the shares over the depth."""
        if self.spectrum is not None:
            yield Picture("spectrum", partial(figures.spectrum, self.spectrum))

    def tables(self) -> Iterator[Table]:
        """Yield the shares of every layer."""
        if self.spectrum is None:
            return
        db, _ = self.results.raw
        layers = tables.spectrum(db, spectrum(db, "layer"))
        yield Table("spectrum", layers, "csv" in tables.formats(len(layers)))


SECTION = Spectrum
