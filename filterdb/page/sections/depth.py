"""Show how layers change over the depth of their model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from filterdb.analysis.degeneration import degeneration
from filterdb.analysis.drift import drift
from filterdb.analysis.grouping import provenance
from filterdb.analysis.strata import align, strata
from filterdb.analysis.surveys import filter_scale
from filterdb.numerics.modes import ModeName
from filterdb.page import tables
from filterdb.page.results import Results
from filterdb.page.section import Picture, Section, Table
from filterdb.plotting import box_numbers, figures
from filterdb.store.database import Database

NO_DECILES = "No two models have layers in the same tenth of the depth."


class Depth(Section):
    """Show entropy, sparsity, drift between models and scale of the filters over the depth."""

    position = 60
    title = "Over the depth"
    template = """\
<section id="depth">
<h2>Over the depth</h2>
{% if left_out %}<p class="soft">Of the scale and the box plots, {{ left_out[0] | lower }}{{ left_out[1:] }}</p>{% endif %}

{{ figure("depth", "Entropy and sparsity of every layer", "High entropy: the layer uses all components, as untrained weights do; near 0: it uses only one. Sparsity is the share of filters that are nearly zero. Lines are means of a tenth of the depth.", "entropy_and_sparsity", "degeneration", holds="the measures of every layer", more=[("box plots by tenth of the depth", "degeneration_boxes", "degeneration_boxes")]) }}
{% if deciles %}{{ figure("deciles", "Drift between models at the same depth", "Each box holds all pairs of models, compared on their layers in that tenth of the depth only.", "deciles", "deciles", holds="the numbers of the boxes") }}{% endif %}
{{ figure("scale", "Scale of the filters", "The scale of a filter is its largest weight minus its smallest. There is one mean for each model and tenth of its depth.", "filter_scale", "filter_scale", holds="the scale of each model and tenth") }}
</section>
"""  # noqa: E501

    def __init__(self, results: Results) -> None:
        super().__init__(results)
        raw, _ = results.raw
        self.by_depth = self.attempt("over the depth", lambda: degeneration(raw, by="depth_decile", mode=results.mode))
        self.scale = filter_scale(raw, "model")
        has_groups = "model" in results.drifts and "depth_decile" in results.drifts
        deciles = _deciles(results.db, results.mode) if has_groups else None
        self.deciles = deciles if deciles is not None and box_numbers.by_stratum(deciles) else None

    def is_listed(self) -> bool:
        """Return whether there are layers of known depth."""
        return self.by_depth is not None

    def missing(self) -> list[tuple[str, str]]:
        """Return why there is nothing over the depth, or why models are not compared at the same depth."""
        return self.refused if self.refused or self.deciles is not None else [("drift at the same depth", NO_DECILES)]

    def context(self) -> dict[str, Any]:
        """Return whether models can be compared at the same depth, and which layers are left out."""
        return {"deciles": self.deciles is not None, "left_out": self.results.raw[1]}

    def core(self) -> Any:
        """Return the box plots."""
        return {
            "deciles": [] if self.deciles is None else box_numbers.as_json(box_numbers.by_stratum(self.deciles)),
            "scale": box_numbers.as_json(box_numbers.by_decile(self.scale)),
        }

    def pictures(self) -> Iterator[Picture]:
        """Yield entropy and sparsity, scale and deciles."""
        if self.by_depth is None:
            return
        tasks = self.results.db.layers["task"].values.astype(str)
        groups = tasks if len(np.unique(tasks)) > 1 else None
        yield Picture("entropy_and_sparsity", partial(figures.entropy_and_sparsity, self.results.degeneration, groups))
        yield Picture("degeneration_boxes", partial(figures.degeneration_boxes, self.by_depth))
        yield Picture("filter_scale", partial(figures.filter_scale, self.scale))
        if self.deciles is not None:
            yield Picture("deciles", partial(figures.deciles, self.deciles))

    def tables(self) -> Iterator[Table]:
        """Yield scale and deciles."""
        if self.by_depth is None:
            return
        yield Table("degeneration_boxes", tables.degeneration_groups(self.by_depth))
        yield Table("filter_scale", tables.filter_scale(self.scale))
        if self.deciles is not None:
            yield Table("deciles", tables.box_rows(box_numbers.by_stratum(self.deciles)))


def _deciles(db: Database, mode: ModeName) -> xr.Dataset:
    """Compute the drift between models within each tenth of the depth, `drift` (stratum, group, other)."""
    views = strata(db, "depth_decile", mode)
    results = {label: drift(view, "model", mode=mode, noise=False)[["drift"]] for label, view in views.items()}
    aligned = align(results, np.unique(db.layers["model"].values.astype(str)))
    aligned.attrs = provenance(db, by="model", within="depth_decile", mode=mode)
    return aligned


SECTION = Depth
