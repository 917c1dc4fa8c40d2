"""The frequencies of the filters over the depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from filterdb.analysis.spectrum import spectrum
from filterdb.page import figures, tables
from filterdb.page.results import Results
from filterdb.page.section import Picture, Section, Table


class Spectrum(Section):
    """Show the energy of the filters by frequency in each tenth of the depth."""

    position = 35
    title = "Frequencies"
    template = """\
<section id="spectrum">
<h2>Frequencies</h2>
{{ figure("spectrum", "Energy by frequency over the depth", "Each square has the DCT terms: the constant term at the top left, faster changes to the right and downwards. Darker terms have more of the energy of the raw filters in that tenth of the depth. Low is the share of the terms of at most half the Nyquist frequency, aliased the share of the strided layers’ energy above the Nyquist frequency after striding.", "spectrum", "spectrum", holds="the shares of every layer") }}
</section>
"""  # noqa: E501

    def __init__(self, results: Results) -> None:
        super().__init__(results)
        self.spectrum = spectrum(results.db, "depth_decile")

    def core(self) -> Any:
        """Return the shares of each tenth of the depth."""
        return {
            "deciles": self.spectrum["group"].values.tolist(),
            "terms": self.spectrum["term"].values.tolist(),
            "shares": self.spectrum["share"].values,
            **{name: self.spectrum[name].values for name in ("low", "aliasing", "count")},
        }

    def pictures(self) -> Iterator[Picture]:
        """Yield the figure of the shares over the depth."""
        yield Picture("spectrum", lambda: figures.spectrum(self.spectrum))

    def tables(self) -> Iterator[Table]:
        """Yield the shares of every layer."""
        layers = tables.spectrum(self.results.db, spectrum(self.results.db, "layer"))
        yield Table("spectrum", layers, "csv" in tables.formats(len(layers)))


SECTION = Spectrum
