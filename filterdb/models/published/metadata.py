"""Read the metadata of the published data set: models and layers, from a table with a row per layer.

The table comes from the HDF5 file (hdf5.py) or from the CSV files of the authors' extraction. Contradictory metadata
is rejected.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import onnx

from filterdb.models.catalog import RESERVED
from filterdb.models.published.columns import Table, as_text, csv_table, refusal, refusing
from filterdb.schema import KERNEL, LABELS, UNKNOWN, distinct

MAX_LAYERS = 2**22
"""Most rows of the metadata; the published data set has 21,436."""

type Runs = tuple[tuple[int, int], ...]
"""Consecutive rows of filters: (first, count) for each run."""

_LABEL_COLUMNS = {
    "task": ("Task",),
    "visual_category": ("Visual Category", "Datatype"),
    "training_dataset": ("Training-Dataset",),
    "pretraining_dataset": ("Pretraining-Dataset",),
    "family": ("Family",),
    "architecture": ("Architecture",),
    "precision": ("Precision",),
    "paper": ("Paper",),
    "url": ("Accessible",),
}
_RENAMED = {("Datatype", "formula"): "fractals"}
_LAYER_COLUMNS = ("layer_id", "conv_depth", "conv_depth_norm", "in_channels", "out_channels")
_KNOWN = {
    *_LAYER_COLUMNS,
    *("model_id", "model", "conv_depth.1", "filter_ids", "filter_id_start", "filter_id_end"),
    *("producer", "op_set", "depth", "total_filters", "3x3_filter_share"),
}
_TAKEN = RESERVED | {*LABELS, "path", "name"}
"""Names with a meaning in a database. Other columns of the table with these names are renamed."""

_SHAPE = re.compile(r"\(\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*\) filters")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PublishedLayer:
    """A layer. Its filters are the rows of `runs`. A number of channels is 0 if it is unknown."""

    model: str
    name: str
    runs: Runs
    conv_depth: int
    conv_depth_norm: float
    in_channels: int
    out_channels: int

    @property
    def count(self) -> int:
        """Number of filters."""
        return sum(count for _, count in self.runs)


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A model's facts. `labels` has every name in schema.LABELS, `extra` all other columns as text."""

    id: str
    labels: dict[str, str]
    extra: dict[str, str]
    producer: str
    opset: int
    model_depth: int
    operators: dict[str, int]
    filter_shapes: dict[str, int]
    total_filters: int
    share_3x3: float


@dataclass(frozen=True, slots=True)
class Published:
    """The metadata of `rows` filters: models, and their layers in the same order, sorted by (conv_depth, row)."""

    rows: int
    models: list[PublishedModel]
    layers: list[PublishedLayer]


def read_tables(filters_csv: bytes, models_csv: bytes, where: str) -> Published:
    """Read metadata from filterinfo.csv and datastorage.meta.csv of the authors' extraction.

    `where` names them in messages. The number of filters follows from the highest filter id. Raises InputError.
    """
    with refusing(where):
        layers = csv_table(filters_csv, f"{where} (filters)")
        models = csv_table(models_csv, f"{where} (models)")
        names = ("model", "filter_id_start", "filter_id_end")
        layers.require(*names)
        owners, starts, ends = ([layers.natural(name, row) for row in range(len(layers))] for name in names)
        # The first column has no name. It is the index that a layer's `model` refers to.
        index = next(iter(models.columns))
        is_index = index in {"", "Unnamed: 0", "model_id"}
        position = {models.natural(index, row) if is_index else row: row for row in range(len(models))}
        if len(position) < len(models):
            raise refusal(f"{where} (models)", "each number of a model once", "one of them twice", "remove one")
        if lost := sorted(set(owners) - set(position)):
            got = f"none of model {lost[0]}"
            raise refusal(where, "a row of the models for each layer", got, "take both of a kind")
        columns = {
            **{name: [cells[position[owner]] for owner in owners] for name, cells in models.columns.items()},
            **{name: layers.columns[name] for name in _LAYER_COLUMNS if name in layers.columns},
            "model_id": owners,
            "filter_ids": [f"{start}:{end - 1}" for start, end in zip(starts, ends, strict=True)],
        }
        return from_table(Table(columns, where), max(ends))


def from_table(table: Table, rows: int) -> Published:
    """Return the models and layers of `rows` filters from a table with a row per layer. Raises InputError."""
    key = next((name for name in ("model_id", "model") if name in table.columns), "model_id")
    table.require("conv_depth", key, "filter_ids")
    if not 0 < len(table) <= MAX_LAYERS:
        raise refusal(table.where, f"1 to {MAX_LAYERS:,} layers", f"{len(table):,}")
    groups: dict[str, list[int]] = {}
    names: dict[str, str] = {}
    depths: list[int] = []
    runs: list[Runs] = []
    unassigned = rows
    for row in range(len(table)):
        with _refusing_row(table, row):
            if not (model := table.text(key, row)):
                raise ValueError("nothing as model_id")
            groups.setdefault(model, []).append(row)
            if (name := table.text("model", row)) != names.setdefault(model, name):
                raise refusal(table.where, f"one name for model_id {model}", f"{names[model]!r} and {name!r}")
            depths.append(table.natural("conv_depth", row))
            own_runs = _runs(table.cell("filter_ids", row), unassigned)
            if not own_runs or any(first < 0 or count < 1 or first + count > rows for first, count in own_runs):
                shown = ", ".join(f"{first}:{first + count - 1}" for first, count in own_runs[:3]) or "(none)"
                raise ValueError(f"filters {shown} of {rows:,}")
            unassigned = max(0, unassigned - sum(count for _, count in own_runs))
            runs.append(own_runs)
    spans = sorted((first, first + count, row) for row, layer in enumerate(runs, start=1) for first, count in layer)
    for (_, end, a), (first, _, b) in itertools.pairwise(spans):
        if first < end:
            got = f"filter {first} in those of rows {a} and {b}"
            raise refusal(table.where, "each filter in one layer", got, "correct filter_ids (start:end has its end)")
    if unassigned:
        log.warning("%s: %s of %s filters belong to no layer", table.where, f"{unassigned:,}", f"{rows:,}")
    facts = _Facts(table, groups.values())
    models: list[PublishedModel] = []
    layers: list[PublishedLayer] = []
    ids = distinct([name or f"model {model}" for model, name in names.items()])
    for name, group in zip(ids, groups.values(), strict=True):
        with _refusing_row(table, group[0]):
            models.append(facts.model(name, group[0]))
        layers += _layers(table, name, sorted(group, key=depths.__getitem__), depths, runs)
    return Published(rows, models, layers)


def _refusing_row(table: Table, row: int) -> AbstractContextManager[None]:
    return refusing(f"{table.where} row {row + 1}", "the values of a layer")


def _runs(value: object, most: int) -> Runs:
    """Parse `filter_ids`: either "start:end", end included, or at most `most` single ids. Raises ValueError."""
    if isinstance(value, str):
        if match := re.fullmatch(r"\s*([0-9]{1,18})\s*:\s*([0-9]{1,18})\s*", value):
            first, last = int(match[1]), int(match[2])
            return ((first, last - first + 1),)
        if re.fullmatch(r"\s*\[[0-9,\s]*\]\s*", value):
            value = [int(number) for number in re.findall("[0-9]+", value)]
    if not isinstance(value, list | np.ndarray):
        raise ValueError(f"{str(value)[:80]!r} as filter_ids")
    if len(value) > most:
        raise ValueError("more filter_ids than there are filters")
    if isinstance(value, list) and not all(type(number) is int for number in value):
        raise ValueError("filter_ids that are not all integers")
    ids = np.asarray(value, dtype=np.int64)
    starts = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 2) != 1)
    return tuple(zip(ids[starts].tolist(), np.diff(starts, append=len(ids)).tolist(), strict=True))


def _layers(
    table: Table, model: str, group: list[int], depths: Sequence[int], runs: Sequence[Runs]
) -> list[PublishedLayer]:
    """Return the layers of a model in the order of `group`, its rows from the shallowest layer to the deepest."""
    norm_column = "conv_depth_norm" if "conv_depth_norm" in table.columns else "conv_depth.1"
    has_ids = "layer_id" in table.columns
    sides = [name for name in ("in_channels", "out_channels") if name in table.columns]
    deepest = depths[group[-1]]
    layers = []
    for row in group:
        with _refusing_row(table, row):
            norm = table.real(norm_column, row)
            if math.isnan(norm):
                norm = depths[row] / deepest if deepest else 0.0
            if not 0 <= norm <= 1:
                raise ValueError(f"{norm} as conv_depth_norm")
            name = f"layer{table.natural('layer_id', row)}" if has_ids else f"conv{depths[row]}"
            channels = [table.natural(side, row, missing=0) for side in sides] if len(sides) == 2 else (0, 0)
            layers.append(PublishedLayer(model, name, runs[row], depths[row], norm, *channels))
    names = [layer.name for layer in layers]
    if has_ids and len(set(names)) < len(names):
        repeated = Counter(names).most_common(1)[0][0].removeprefix("layer")
        raise refusal(table.where, f"each layer_id of model {model} once", f"{repeated} twice")
    return [replace(layer, name=name) for layer, name in zip(layers, distinct(names), strict=True)]


class _Facts:
    """Read the facts of models from the columns of a table."""

    def __init__(self, table: Table, groups: Collection[list[int]]) -> None:
        self.table = table
        names = {label: (*_LABEL_COLUMNS[label], label) for label in LABELS}
        self.sources = {label: [name for name in names[label] if name in table.columns] for label in LABELS}
        labels = {names[0] for names in self.sources.values() if names}
        for name in sorted(labels):
            if table.varies(name, groups):
                log.warning("%s: %s is not the same in all layers of a model; the first is taken", table.where, name)
        matches = {name: _SHAPE.fullmatch(name.strip()) for name in table.columns}
        self.shapes = {name: (int(match[1]), int(match[2])) for name, match in matches.items() if match}
        known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
        self.operators = sorted(known & set(table.columns) - labels)
        # The other columns are extra facts of models if they are the same for all layers of a model and have a name.
        self.extra = {
            name: f"published_{title}" if (title := as_text(name)) in _TAKEN else title
            for name in table.columns
            if name not in {*labels, *_KNOWN, *self.shapes, *self.operators}
            and not re.fullmatch(r"\s*|Unnamed: [0-9]+", name)
            and not table.varies(name, groups)
        }

    def model(self, name: str, row: int) -> PublishedModel:
        """Return a model's facts from one of its rows."""
        extra = {title: self.table.text(column, row) or UNKNOWN for column, title in self.extra.items()}
        operators: dict[str, int] = {}
        for operator in self.operators:
            try:
                operators[operator] = self.table.natural(operator, row, missing=0)
            except ValueError:
                extra[operator] = self.table.text(operator, row)
        shapes: Counter[tuple[int, int]] = Counter()
        for column, shape in self.shapes.items():
            shapes[shape] += self.table.natural(column, row, missing=0)
        total = self.table.natural("total_filters", row, missing=0) or shapes.total() - shapes[1, 1]
        share = self.table.real("3x3_filter_share", row)
        if math.isnan(share) and total and KERNEL in shapes:
            share = shapes[KERNEL] / total
        return PublishedModel(
            id=name,
            labels={label: self._label(label, row) for label in LABELS},
            extra=dict(sorted(extra.items())),
            producer=self.table.text("producer", row),
            opset=self.table.natural("op_set", row, missing=0),
            model_depth=self.table.natural("depth", row, missing=0),
            operators={operator: n for operator, n in operators.items() if n},
            filter_shapes={str(shape): n for shape, n in sorted(shapes.items()) if n},
            total_filters=total,
            share_3x3=share if 0 <= share <= 1 else math.nan,
        )

    def _label(self, label: str, row: int) -> str:
        for name in self.sources[label]:
            if value := self.table.text(name, row):
                return _RENAMED.get((name, value), value)
        return UNKNOWN
