"""Families of related models: parents and relatives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import xarray as xr

from filterdb.analysis.kinship import MODEL_LIMIT, has_sketches
from filterdb.analysis.lineage import lineage
from filterdb.page.results import Results
from filterdb.page.section import Section, Table
from filterdb.plotting.drawing import visible_all

NO_FAMILIES = "No two models share an ancestor, as far as their weights show."
NO_SKETCHES = (
    "This database was made by an earlier version and has no sketches of its weights, so its relatives are not known, "
    "and fine-tuned copies count as independent models. Run `filterdb lineage DB` once, which reads all filters, and "
    "make this page again."
)
TOO_MANY = f"More than {MODEL_LIMIT:,} models are too many to compare all pairs; choose some with --where."


class Lineage(Section):
    """Show which models descend from which."""

    position = 75
    title = "Lineage"
    template = """\
<section id="lineage">
<h2>Lineage</h2>
<figure aria-labelledby="f-lineage">
<div class="head"><h3 id="f-lineage">Families of models</h3>{{ files(table="lineage", title="Families of models", holds="each model with its parent and the evidence") }}</div>
<p>Each model is listed below its likeliest parent, with the cosine similarity of their weights. “= related” marks pairs where it is unknown which came first. Copies with permuted, pruned or rescaled channels are not recognised.</p>
<div data-figure="lineage"></div>
</figure>
</section>
"""  # noqa: E501

    def __init__(self, results: Results) -> None:
        super().__init__(results)
        self.lineage: xr.Dataset | None = None
        self.why_missing = TOO_MANY
        if not has_sketches(results.db):
            self.why_missing = NO_SKETCHES
        elif results.db.models.sizes["model"] <= MODEL_LIMIT:
            result = lineage(results.db)
            self.lineage = result.isel(model=result["family"].values > 0)
            self.why_missing = NO_FAMILIES

    @property
    def has_families(self) -> bool:
        """Return whether there are related models."""
        return self.lineage is not None and self.lineage.sizes["model"] > 0

    def is_listed(self) -> bool:
        """Return whether there are families."""
        return self.has_families

    def missing(self) -> list[tuple[str, str]]:
        """Return why there are no families."""
        return [] if self.has_families else [("lineage", self.why_missing)]

    def core(self) -> Any:
        """Return the models of all families: name, position of the parent (null for a root), evidence, similarity."""
        if self.lineage is None:
            return None
        models = self.lineage["model"].values.tolist()
        position = {model: i for i, model in enumerate(models)}
        similarity = self.lineage["similarity"].values.tolist()
        return {
            "models": visible_all(models),
            "parents": [position.get(parent) for parent in self.lineage["parent"].values.tolist()],
            "evidence": self.lineage["evidence"].values.tolist(),
            "directed": [bool(direction) for direction in self.lineage["direction"].values.tolist()],
            "similarity": [None if math.isnan(value) else value for value in similarity],
        }

    def tables(self) -> Iterator[Table]:
        """Yield the models of all families with their parents."""
        if self.lineage is not None and self.has_families:
            yield Table("lineage", self.lineage.to_dataframe().reset_index())


SECTION = Lineage
