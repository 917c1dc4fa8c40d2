"""The result of an ingest."""

from __future__ import annotations

from dataclasses import dataclass, field

from filterdb.store.database import Database


@dataclass(frozen=True, slots=True)
class Ingested:
    """The result of an ingest.

    `segment` is the id of the new segment, or None if nothing was new. If there are several, it is the last, and
    `segments` has all. `added` and `present` are ids of models; `rejected` has the reason for each rejected file.
    `widened` are present models of which filters of more kernel shapes were added, and `left` those of which they could
    not be, because other models of their segment were not given.
    """

    database: Database
    segment: str | None
    added: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    segments: list[str] = field(default_factory=list)
    widened: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def duplicates(self) -> list[str]:
        """Added models whose content the database also has under another name."""
        models = self.database.model_columns
        duplicate_of = dict(
            zip(models["model"].values.astype(str), models["duplicate_of"].values.astype(str), strict=True)
        )
        return [model for model in self.added if duplicate_of.get(model)]

    @property
    def unread(self) -> list[tuple[str, str, str]]:
        """Model, layer and reason of each convolution of these models that should have been read but could not be."""
        ledger, models = self.database.unread_columns, {*self.added, *self.present}
        columns = (ledger[f"skipped_{name}"].values.astype(str).tolist() for name in ("model", "layer", "reason"))
        return [row for row in zip(*columns, strict=True) if row[0] in models]
