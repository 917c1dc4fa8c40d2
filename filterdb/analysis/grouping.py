"""Groups of layers: by any label, by depth decile, by layer, and by products of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from filterdb.arguments import as_names
from filterdb.errors import InputError, UsageError
from filterdb.numerics.modes import AnyMode, Mode, as_mode
from filterdb.reduce.basis import has_scale
from filterdb.schema import distinct
from filterdb.store.database import Database
from filterdb.version import __version__

Key = str | Sequence[str]

DECILE_EDGES = np.arange(0, 1.1, 0.1)
DECILES = ["[0.0, 0.1]", *(f"({low / 10:.1f}, {(low + 1) / 10:.1f}]" for low in range(1, 10))]
"""P1's labels of `pandas.cut(x, numpy.arange(0, 1.1, 0.1), include_lowest=True)`."""

TIMES = " × "
WHOLE = "all"


@dataclass(frozen=True, slots=True)
class Grouping:
    """Groups of a view's layers: `index` (layers,) gives each layer's position in `labels`."""

    by: str
    labels: list[str]
    index: np.ndarray
    ordered: bool
    parts: dict[str, list[str]] = field(default_factory=dict)
    """Of a product: the label of each key, by group."""

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of integer values (layers, …) by group, (groups, …); the values themselves where each is a group."""
        if np.array_equal(self.index, np.arange(len(self.labels))):
            return values
        total = np.zeros((len(self.labels), *values.shape[1:]), values.dtype)
        np.add.at(total, self.index, values)
        return total


def group(db: Database, by: Key | None, mode: AnyMode = "sound") -> Grouping:
    """Group a view's layers by a label, by "depth_decile" or "layer", or by several: "task,depth_decile" or a list.

    None: one group, "all". In `paper` mode every task that contains "Segmentation" becomes "Segmentation". Raises
    UsageError for an unknown label, InputError where the view has no layers.
    """
    mode = as_mode(mode)
    layers = db.layers.sizes["layer"]
    if not layers:
        raise InputError(f"{db.url}: expected at least one layer with 3×3 filters, got none")
    if by is None:
        return Grouping(WHOLE, [WHOLE], np.zeros(layers, np.int64), ordered=True)
    keys = [key.strip() for key in by.split(",")] if isinstance(by, str) else as_names(by, "by")
    if not keys or not all(keys):
        raise UsageError(f"by: expected labels joined with commas, got {by!r}")
    parts = [_single(db, key, mode) for key in keys]
    if len(parts) == 1:
        return parts[0]
    codes = np.ravel_multi_index([part.index for part in parts], [len(part.labels) for part in parts])
    found, index = np.unique(codes, return_inverse=True)
    picks = np.unravel_index(found, [len(part.labels) for part in parts])
    labels = [
        TIMES.join(part.labels[i] for part, i in zip(parts, pick, strict=True)) for pick in zip(*picks, strict=True)
    ]
    of_key = {part.by: [part.labels[i] for i in pick] for part, pick in zip(parts, picks, strict=True)}
    return Grouping(",".join(keys), distinct(labels), index, ordered=False, parts=of_key)


def _single(db: Database, key: str, mode: Mode) -> Grouping:
    if key == "depth_decile":
        codes = depth_decile(db.layers["conv_depth_norm"].values)
        found, index = np.unique(codes, return_inverse=True)
        return Grouping(key, [DECILES[code] for code in found], index, ordered=True)
    if key == "layer":
        return Grouping(key, db.layers["layer"].values.tolist(), np.arange(db.layers.sizes["layer"]), ordered=False)
    column = mode.labels(key, db.column(key))
    values, index = np.unique(column if column.dtype.kind in "biuf" else column.astype(str), return_inverse=True)
    return Grouping(key, [str(value) for value in values.tolist()], index, ordered=False)


def depth_decile(conv_depth_norm: np.ndarray) -> np.ndarray:
    """Decile 0 … 9 of normalised depths in [0, 1], as pandas.cut has it."""
    cut: Any = pd.cut(pd.Series(conv_depth_norm), DECILE_EDGES.tolist(), include_lowest=True, labels=False)
    return np.asarray(cut, dtype=np.int64)


def with_scale(db: Database, *, scaled: bool) -> Database:
    """The view itself; for raw filters without the layers whose scale is unknown."""
    known = has_scale(db, scaled=scaled)
    return db if known.all() else db.keep(known, "scale known")


def chosen(db: Database) -> slice | np.ndarray:
    """What picks the view's layers out of the snapshot's."""
    return slice(None) if db.chosen is None else db.chosen


def provenance(db: Database, **more: Any) -> dict[str, Any]:
    """The attributes that every result carries."""
    return {
        "snapshot": db.snapshot,
        "database": db.url,
        "selection": " and ".join(db.conditions) or WHOLE,
        "filterdb_version": __version__,
        **db.counts,
        **{name: value for name, value in more.items() if value is not None},
    }
