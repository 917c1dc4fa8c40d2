"""Show the layers: their first filters, and every layer with its verdict."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from filterdb.analysis.rules import VERDICTS, Rules, fewest_directions
from filterdb.numerics.modes import as_mode
from filterdb.page import tables
from filterdb.page.first_filters import first_filters
from filterdb.page.payload import pack
from filterdb.page.results import Results
from filterdb.page.section import Picture, Section, Table
from filterdb.plotting import figures
from filterdb.plotting.drawing import visible_all

MEASURES = {
    "depth": "conv_depth_norm",
    "sparsity": "sparsity",
    "entropy": "variance_entropy",
    "ratio": "ratio",
    "p": "p_value",
}
"""Measures of a layer: their names in JavaScript and in the `degeneration` result."""

TOO_MANY_CHUNKS = "Reading them would take too many chunks."


class Layers(Section):
    """Show the first filters of some models, and the table of all layers."""

    position = 80
    title = "Layers"
    template = """\
<section id="layers">
<h2>Layers</h2>
{% if tiles %}{{ figure("tiles", "First filters of each layer", "Orange is negative and purple positive, every layer on its own scale. Grainy rows look like noise; rows that repeat one picture have collapsed.", "first_filters", "first_filters", holds="the weights of these filters") }}{% endif %}
<figure aria-labelledby="f-layers">
<div class="head"><h3 id="f-layers">Every layer and its verdict</h3>{{ files(table="degeneration", title="Layers", holds="the measures and verdicts of every layer") }}</div>
<p>Dead: all weights zero. Sparse: over half of the filters near zero. Collapsed: fewer than {{ directions }} effective components. {% if tested %}Random: a test cannot tell the filters from isotropic noise (p ≥ {{ p }}), so the layer has hardly moved from its initialisation.{% else %}Random: as varied as untrained weights.{% endif %} The last two need at least {{ smallest }} filters.</p>
<div data-figure="layers"></div>
</figure>
</section>
"""  # noqa: E501

    def __init__(self, results: Results) -> None:
        super().__init__(results)
        self.tiles = first_filters(results.db)

    def missing(self) -> list[tuple[str, str]]:
        """Return why there are no first filters."""
        return [] if self.tiles is not None else [("first filters of each layer", TOO_MANY_CHUNKS)]

    def context(self) -> dict[str, Any]:
        """Return whether first filters are shown, and how layers are judged."""
        mode, rules = as_mode(self.results.mode), Rules()
        bound = fewest_directions(rules.collapsed, self.results.db.weights)
        return {
            "tiles": self.tiles is not None,
            "smallest": mode.smallest_random(rules),
            "directions": "two" if bound == 2 else f"{bound:.2g}",
            "tested": mode.tests_randomness,
            "p": rules.random_p,
        }

    def data(self) -> dict[str, Any]:
        """Return the layers and the first filters."""
        files = {"layers": self._layers()}
        if self.tiles is not None:
            files["tiles"] = self._tiles(self.tiles)
        return files

    def pictures(self) -> Iterator[Picture]:
        """Yield the first filters."""
        if self.tiles is not None:
            yield Picture("first_filters", partial(figures.first_filters, self.tiles))

    def tables(self) -> Iterator[Table]:
        """Yield the layers and the first filters."""
        layers = tables.degeneration(self.results.degeneration)
        yield Table("degeneration", layers, "csv" in tables.formats(len(layers)))
        if self.tiles is not None:
            yield Table("first_filters", tables.first_filters(self.tiles))

    def _layers(self) -> dict[str, Any]:
        """Return the columns of the table of layers."""
        result = self.results.degeneration
        models = self.results.db.layers["model_index"].values
        bits = (result["verdict"].values.astype(bool) * (1 << np.arange(len(VERDICTS)))).sum(axis=1)
        return {
            "names": visible_all(result["layer_name"].values),
            "model": pack(np.searchsorted(self.results.model_index, models)),
            "filters": pack(result["filters"].values),
            "verdict": pack(bits),
            **{key: pack(result[name].values) for key, name in MEASURES.items()},
        }

    def _tiles(self, tiles: xr.Dataset) -> dict[str, Any]:
        """Return the first filters, each layer scaled to its largest weight, as int8."""
        filters = tiles["filters"].values
        largest = np.nanmax(np.abs(filters), axis=(1, 2), keepdims=True, initial=0.0)
        scaled = np.nan_to_num(filters / np.where(largest > 0, largest, 1.0))
        return {
            "most": tiles.sizes["number"],
            "number": np.isfinite(filters).all(axis=2).sum(axis=1),
            "model": np.searchsorted(self.results.model_index, tiles["model_index"].values),
            "layer": visible_all(tiles["layer_name"].values),
            "weights": pack(np.rint(127 * scaled).astype(np.int8)),
        }


SECTION = Layers
