"""Check model files without a database: find degenerated layers, and report what could not be checked."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from filterdb.analysis.peers import add_database, add_peers
from filterdb.analysis.reference import read_reference
from filterdb.analysis.returning import returns_result
from filterdb.analysis.rules import (
    LAYER_MEASURES,
    LAYER_RULES,
    LEAST_COMPARED,
    UNREAD_RULES,
    Rules,
    as_rules,
    as_settings,
    is_ignored,
    judge,
)
from filterdb.analysis.shapes import are_stored, weights_of
from filterdb.analysis.untrained import untrained
from filterdb.arguments import formerly_positional
from filterdb.columns import Columns
from filterdb.errors import InputError, UsageError
from filterdb.extras import require
from filterdb.ledger import is_unread
from filterdb.models.answers import DESCRIBED, EXAMINED, EXAMINED_OTHERS
from filterdb.models.catalog import ModelSource
from filterdb.models.inputs import expand
from filterdb.models.model import Skip
from filterdb.models.sandbox import Limits
from filterdb.models.scan import Examination, examine
from filterdb.models.sources import NamedFile, as_sources, on_disk, with_distinct_aliases
from filterdb.numerics.directions import direction_names
from filterdb.numerics.modes import SOUND
from filterdb.numerics.quality import paper_thresholds
from filterdb.schema import Kernel, Variable, as_kernel, distinct, kernel_name, parse_shape
from filterdb.version import __version__

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.models.sources import Order, Sources
    from filterdb.schema import AnyKernel
    from filterdb.store.database import AnyDatabase

Path = str | os.PathLike[str]

Bools = npt.NDArray[np.bool_]
Strings = npt.NDArray[np.object_]
Table = Mapping[str, npt.NDArray[Any]]
"""Columns by name, (layers,) each."""

MEASURES = {
    **LAYER_MEASURES,
    "channel_p_value": "of a 1×1 layer: probability that its output channels are isotropic noise, for `untrained` only",
    "duplicate_filters": "filters (1×1: output channels) that equal an earlier one of the layer and are not sparse",
    "prunable_filters": "filters whose |w| are all below a hundredth of their own output channel's peak, or zero",
    "prunable_parameters": "weights of these; 0 where an earlier layer uses the same stored weight",
    "small_filters": "further filters whose |w| are all below peak/100: small only next to the layer's largest channel",
    "zero_channels": "output channels whose weights are all zero",
    "small_channels": "further output channels whose weights are all below peak/100",
    "outlier_ratio": "peak / upper quartile of the output channels' peaks",
    "parameters": "weights of the layer; 0 where an earlier layer uses the same stored weight",
    "norm": "√Σw²",
    "centre_energy": "share of Σf² in the centre weight, (rows // 2, columns // 2)",
}
GEOMETRY = ("rank", "conv_depth", "conv_depth_norm", "in_channels", "out_channels", "groups", "depthwise")
"""Further columns of a layer that was read."""

COUNTED = ("prunable_filters", "prunable_parameters", "small_filters", "zero_channels", "small_channels")
"""Measures that are counted only in layers of k×k filters, of 2 to 256 weights."""


class CheckedFile(NamedTuple):
    """Hold what was read from one file.

    `rows` has the layers that were read, then those that could not be. `skipped` has all convolutions without numbers.
    `filter_shapes` has the filters by kernel shape, as JSON. `reason` says why the file could not be read; it is empty
    if the file was read. `facts` has what the file says of its model, if first filters were asked for.
    """

    name: str
    rows: list[dict[str, Any]]
    skipped: list[Skip]
    filter_shapes: str
    reason: str
    facts: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def of(cls, name: str, answer: Examination) -> CheckedFile:
        """Return a file that was read. A layer that should have been read but was not becomes a row without numbers."""
        rows, skipped = [*answer.rows, *map(_other, answer.others)], answer.skipped
        if answer.others:
            rows.sort(key=lambda row: int(row["conv_depth"]))
        read = [{**_UNREAD, **row} for row in rows]
        unread = [
            {**_UNREAD, "layer_name": skip.layer, "unread_code": skip.code, "unread_reason": skip.reason}
            for skip in skipped
            if is_unread(skip.code)
        ]
        return cls(name, read + unread, skipped, answer.filter_shapes, "", answer.facts)


def _other(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a layer whose filters no bank has, of which less is known, in the form of the others."""
    weights = row["row_size"] * math.prod(parse_shape(row["kernel"]))
    nonfinite = f"{row['nonfinite']} of {weights} weights are NaN or infinite" if row["nonfinite"] else ""
    kept = (*_UNREAD, *(variable.name for variable in DESCRIBED))
    return {**{name: row[name] for name in kept if name in row}, "nonfinite": nonfinite}


Visit = Callable[[NamedFile, CheckedFile], None]
"""A function of where a file is and what was read from it."""

_COLUMNS = (
    *EXAMINED,
    EXAMINED_OTHERS[1],
    Variable("kernel", ("layer",), "str", "shape of the filters, such as 5x5; empty if the layer could not be read"),
    Variable("rank", ("layer",), "int64", "dimensions of the convolution: 2, or 1 for one that is read as 1×k", "1"),
    Variable("unread_code", ("layer",), "str", "the ledger's code of a layer that could not be read, or empty"),
    Variable("unread_reason", ("layer",), "str", "why the layer could not be read, or empty"),
)

_EMPTY = {"int64": 0, "float64": math.nan, "bool": True, "str": ""}
_UNREAD = {variable.name: _EMPTY[variable.dtype] for variable in _COLUMNS} | {"depthwise": False}
"""The row of a layer that could not be read."""


@formerly_positional("db", "rules")
@returns_result
def check(
    paths: Sources,
    *,
    db: AnyDatabase | None = None,
    reference: Path | None = None,
    rules: Rules | Mapping[str, Any] | Path | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    key: str = "",
    order: Order | None = None,
    kernel: AnyKernel | None = None,
) -> xr.Dataset:
    """Judge the convolutions of model files, without a database.

    Files are read in a child process with `limits`, one layer in memory at a time. A layer that should have been read
    but was not stays in the result without numbers: its file was not checked completely.

    Parameters
    ----------
    paths : str, path, onnx.ModelProto, torch.nn.Module, keras.Model, or list or mapping of these
        Files, folders, globs, URLs, or models in memory. A mapping has names for them, which the result shows.
    db : Database, str or path, optional
        A database or a view of it, to compare each layer with the layers of the same depth decile and size class
        (⌊log₁₆ n⌋). Default: the layers of `reference`.
    reference : str or path, optional
        A file of `write_reference`, to compare with instead of a database. Default: the one that filterdb contains,
        made from the real models of its demo.
    rules : Rules, mapping, str or path, optional
        Thresholds, what fails and what is ignored; a path is a TOML or YAML file. Default: `Rules()`.
    limits : Limits
        Time and memory for reading one file. Default: `Limits()`.
    key : str
        Which network to read of a checkpoint with several, such as "ema".
    order : str, path or list of str, optional
        The names of the weights in the order of execution, or a JSON file with them, for a file without a graph.
    kernel : tuple of int or str, optional
        Judge only the layers with filters of this shape, such as (5, 5) or "5x5". Default: layers of every shape.

    Returns
    -------
    xarray.Dataset
        With dims layer (FILE:LAYER), rule, file:

        - filters, duplicate_filters, prunable_filters, prunable_parameters, small_filters, zero_channels,
          small_channels, parameters (layer), int64; 0 where the layer was not read.
        - sparsity, variance_entropy, threshold, ratio, p_value, relative_spread, peak, outlier_ratio, norm (√Σw²),
          centre_energy (share of Σf² in the centre weight) (layer), float64; NaN where the layer was not read, its
          scale is unknown, or its weights are not finite (`threshold` only where it was not read; `p_value` also for
          fewer than 16 filters). All but sparsity, peak and norm are NaN for 1×1 kernels and those of more than 256
          weights, threshold and ratio for all that have not nine.
        - channel_p_value (layer), float64: of a 1×1 layer, the p-value of a test of its output channels.
        - scale_known (layer), bool.
        - verdict (layer, rule), bool: dead, sparse, collapsed and random as in `degeneration`; nonfinite; duplicate
          (it has the content of another layer but is stored separately, or many of its filters equal an earlier one);
          outlier; dead-channels; unread; ambiguous.
        - ignored (layer) and ignored_file (file), bool: matched by the patterns of `rules.ignore`.
        - untrained (file), bool: whether no more of its layers differ from isotropic noise than chance allows; only
          where the tested layers have at least half of the convolution weights.
        - unread (file), int64: layers that could not be read.
        - reason (file), str: why the file could not be read, or empty.
        - skipped (file), str: JSON of ledger code → number of convolutions without numbers.
        - Coordinates along layer: layer_file, layer_name, duplicate_of (the first layer with the same content, or
          empty), direction and direction_share (as in `degeneration`), unread_code, unread_reason, shared_with,
          hash, fingerprint, nonfinite, str; stored_in (the first layer of `db` with the same filters apart from the
          scales of output channels, as MODEL/LAYER, or empty), str; conv_depth, conv_depth_norm, in_channels,
          out_channels, groups, depthwise, kernel (such as "5x5"), rank (1 for a one-dimensional convolution, which is
          read as 1×k).
        - percentile (layer), float64, and percentile_peers (layer), int64: the place of H among the compared layers
          of the same kernel shape, as in `degeneration`, and their number. The packaged reference has 3×3 layers only.
        - sparsity_percentile and ratio_percentile (layer), float64: the share of layers of the same depth decile and
          size class that are less sparse, or have a smaller H / T_H, in percent; ties count half.
        - peers (layer), int64: the number of these layers.

        The attribute `long_name` describes each measure, the attribute `reference` what was compared with (JSON).

    Raises
    ------
    UsageError
        For invalid rules. A model file that cannot be read is reported in `reason`, not raised.
    InputError
        If the reference cannot be read.

    Notes
    -----
    Source: docs/explanation/method.md.

    Examples
    --------
    >>> result = fdb.check("models/fresh.onnx")
    >>> result["variance_entropy"].values.round(2)
    array([0.95, 0.95, 0.95])
    >>> result["verdict"].sel(rule="random").values
    array([ True,  True,  True])
    >>> result["untrained"].item()
    True
    """
    require("xarray")
    return check_files(
        paths, db=db, reference=reference, rules=rules, limits=limits, key=key, order=order, kernel=kernel
    ).to_dataset()


def check_files(
    paths: Sources,
    *,
    db: AnyDatabase | None,
    reference: Path | None,
    rules: Rules | Mapping[str, Any] | Path | None,
    limits: Limits,
    key: str,
    order: Order | None,
    kernel: AnyKernel | None,
) -> Columns:
    """Return what `check` does, without importing xarray."""
    return read_and_judge(
        paths, db=db, reference=reference, rules=rules, limits=limits, key=key, order=order, kernel=kernel
    )[1]


def read_and_judge(
    paths: Sources,
    *,
    db: AnyDatabase | None,
    reference: Path | None,
    rules: Rules | Mapping[str, Any] | Path | None,
    limits: Limits,
    first: int = 0,
    kernel: AnyKernel | None = None,
    visit: Visit = lambda source, file: None,
    **network: Any,
) -> tuple[list[CheckedFile], Columns]:
    """Return what was read from each file, with the `first` filters of each layer, and what `check` returns.

    `visit` is called with each file after it was read, while a model from memory is still on disk.
    `network` has `key` and `order`, as in `check`. The layers of the result are the rows of the files, in order.
    """
    rules, only = as_rules(rules), None if kernel is None else as_kernel(kernel)
    if db is not None and reference is not None:
        raise UsageError("reference: expected none together with `db`, got both")
    if db is not None:  # fail on an invalid database or reference before files are read
        from filterdb.store.database import as_database

        db = as_database(db)
    compared = read_reference(reference) if db is None else None
    seen: set[str] = set()
    with on_disk(as_sources(paths, "paths"), network["key"], network["order"]) as named:
        files = []
        for source in with_distinct_aliases(named):
            for read, file in _files(source, limits, seen, only, first):
                visit(read, file)
                files.append(file)
    result = _judge_files(files, rules, only)
    if db is not None:
        add_database(result, db)
    if compared is not None:
        add_peers(result, {kernel_name(compared.kernel): compared})
    return files, result


def _files(
    source: NamedFile, limits: Limits, seen: set[str], kernel: Kernel | None, first: int
) -> Iterator[tuple[NamedFile, CheckedFile]]:
    """Read the files of a source that are not in `seen`; a source without files counts as one unreadable file."""
    try:
        listed = [source.single()] if source.alias else [replace(source, path=name) for name in expand(source.path)]
    except InputError as error:
        shown = ModelSource(source.path, source.path).shown
        if (source.alias or source.path) not in seen:
            seen.add(source.alias or source.path)
            yield source, CheckedFile(source.alias or shown, [], [], "", str(error).replace(source.path, shown))
        return
    for file in listed:
        identity = file.alias or _identity(file.path)
        if identity not in seen:
            seen.add(identity)
            yield file, _read(file, limits, kernel, first)


def _identity(name: str) -> str:
    """Return the same text for every name of one file, so that it is read only once."""
    return name if "://" in name else os.path.realpath(name)


def _read(file: NamedFile, limits: Limits, kernel: Kernel | None, first: int) -> CheckedFile:
    """Read a file in a child process; one that cannot be read has a reason instead of layers."""
    source = file.source()
    try:
        kernels = None if kernel is None else (kernel,)
        return CheckedFile.of(source.shown, examine(source, limits, kernels, first=first))
    except InputError as error:
        return CheckedFile(source.shown, [], [], "", str(error))


def _judge_files(files: list[CheckedFile], rules: Rules, kernel: Kernel | None) -> Columns:
    """Return the result of `check` without a database, of all layers or those of one kernel shape."""
    rows = [row for file in files for row in file.rows]
    table = {v.name: v.array([row[v.name] for row in rows]) for v in _COLUMNS}
    owner = np.repeat(np.arange(len(files)), [len(file.rows) for file in files])
    names = np.array([file.name for file in files], dtype=object)
    duplicate_of = _duplicates(table, names[owner])
    weights = weights_of(table["kernel"])
    values = _values(table, weights)
    verdicts = _verdicts(table, values, weights, duplicate_of != "", rules)
    ignored = [
        is_ignored(names[i], str(name), rules.ignore) for i, name in zip(owner, table["layer_name"], strict=True)
    ]
    layer = ("layer",)
    layers = {
        **values,
        **verdicts,
        **{name: table[name] for name in ("in_channels", "out_channels")},
        "weights": weights,
    }
    texts = ("shared_with", "hash", "fingerprint", "unread_code", "unread_reason", "kernel")
    unread = table["unread_code"] != ""
    return Columns.of(
        {
            **{name: (layer, array, {"long_name": MEASURES[name]}) for name, array in values.items()},
            "verdict": (("layer", "rule"), np.stack([verdicts[name] for name in LAYER_RULES], axis=1)),
            "ignored": (layer, np.array(ignored, bool)),
            "ignored_file": ("file", np.array([is_ignored(name, "", rules.ignore) for name in names], bool)),
            "untrained": (
                "file",
                untrained(owner, layers, [file.filter_shapes for file in files], rules, SOUND, kernel),
            ),
            "reason": ("file", np.array([file.reason for file in files], dtype=object)),
            "skipped": ("file", np.array([_skipped_counts(file.skipped) for file in files], dtype=object)),
            "unread": ("file", np.bincount(owner, unread, minlength=len(files)).astype(np.int64)),
        },
        coords={
            "file": names,
            "rule": list(LAYER_RULES),
            "layer": _labels(names[owner], table["layer_name"]),
            "layer_file": (layer, names[owner]),
            "layer_name": (layer, table["layer_name"].astype(object)),
            "duplicate_of": (layer, duplicate_of),
            "stored_in": (layer, np.full(len(owner), "", object)),
            "direction": (layer, _directions(table, verdicts["collapsed"])),
            "direction_share": (layer, np.where(verdicts["collapsed"], table["direction_share"], np.nan)),
            **{name: (layer, table[name].astype(object)) for name in texts},
            **{name: (layer, table[name]) for name in (*GEOMETRY, "nonfinite")},
        },
        attrs={
            "selection": "all",
            "kernel": "all" if kernel is None else kernel_name(kernel),
            "filters": int(table["row_size"][weights > 1].sum()),  # a 1×1 layer has no filters but weights
            "layers": int((~unread).sum()),
            "models": sum(not file.reason for file in files),
            "mode": "sound",
            "rules": json.dumps(as_settings(rules)),
            "formula": "P1 eq. 7-8; method 5",
            "filterdb_version": __version__,
        },
    )


def _labels(files: Strings, layers: Strings) -> Strings:
    """Return FILE:LAYER of each layer, with a number added where two would be equal."""
    labels = distinct([f"{file}:{layer}" for file, layer in zip(files, layers, strict=True)])
    return np.array(labels, dtype=object)


def _directions(table: Table, collapsed: Bools) -> Strings:
    """Return the direction of each collapsed layer, (layers,) texts."""
    texts: Strings = np.full(len(collapsed), "", object)
    for name in np.unique(table["kernel"][collapsed].astype(object)).tolist():
        here = collapsed & (table["kernel"] == name)
        texts[here] = direction_names(table["direction"][here], collapsed[here], parse_shape(name))
    return texts


def _values(table: Table, weights: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
    """Return each of MEASURES as an array (layers,)."""
    filters = table["row_size"]
    measured = _measured(table)
    threshold = paper_thresholds(filters, weights)
    entropy = np.where(measured, table["variance_entropy"], np.nan)
    prunable = np.where(measured, table["prunable_filters"], 0)
    own = table["shared_with"] == ""
    return {
        "filters": filters,
        "sparsity": np.where(measured, table["sparse_filters"] / np.maximum(filters, 1), np.nan),
        "variance_entropy": entropy,
        "threshold": threshold,
        "ratio": np.divide(entropy, threshold, out=np.full(len(filters), np.nan), where=threshold > 0),
        "p_value": np.where(measured, table["p_value"], np.nan),
        "channel_p_value": np.where(measured, table["channel_p_value"], np.nan),
        "relative_spread": np.where(measured, table["relative_spread"], np.nan),
        "peak": np.where(measured, table["peak"], np.nan),
        "duplicate_filters": table["duplicate_filters"],
        "prunable_filters": prunable,
        "prunable_parameters": np.where(own, prunable * weights, 0),
        # A filter that is small compared with its own channel is also small compared with the layer's peak.
        "small_filters": np.where(
            measured & are_stored(weights), table["sparse_filters"] - table["prunable_filters"], 0
        ),
        "zero_channels": np.where(measured, table["zero_channels"], 0),
        "small_channels": np.where(measured, table["small_channels"], 0),
        "outlier_ratio": np.where(measured, table["outlier_ratio"], np.nan),
        "parameters": np.where(own, filters * weights, 0),
        **{name: np.where(measured, table[name], np.nan) for name in ("norm", "centre_energy")},
        "scale_known": table["scale_known"],
    }


def _measured(table: Table) -> Bools:
    """Return which layers have numbers, (layers,) bool."""
    measured: Bools = table["scale_known"] & (table["nonfinite"] == "") & (table["unread_code"] == "")
    return measured


def _verdicts(
    table: Table, values: Table, weights: npt.NDArray[np.int64], is_copy: Bools, rules: Rules
) -> dict[str, Bools]:
    """Return which layers break which of LAYER_RULES, (layers,) bool each."""
    filters, measured, code = values["filters"], _measured(table), table["unread_code"]
    dead = (table["peak"] == 0) & measured
    dead_channels = values["zero_channels"] > rules.dead_channels * table["out_channels"]
    named = np.isin(code, UNREAD_RULES)  # codes with a rule of their own
    pointwise = weights == 1
    judged = judge(values, dead, rules, SOUND, np.maximum(weights, 1))
    # The parts of a layer that may repeat: filters, or the output channels of a 1×1 layer.
    parts = np.where(pointwise, table["out_channels"], filters)
    comparable = np.where(pointwise, table["in_channels"], weights) >= LEAST_COMPARED
    repeats = comparable & measured & (table["duplicate_filters"] > rules.duplicate * parts)
    return {
        **judged,
        "sparse": judged["sparse"] & ~pointwise,  # most single weights are small beside the largest of thousands
        "nonfinite": table["nonfinite"] != "",
        "duplicate": is_copy | repeats,
        "outlier": values["outlier_ratio"] >= rules.outlier,
        "dead-channels": dead_channels & ~dead,
        **{rule: (code == rule) | ((code != "") & ~named & (rule == "unread")) for rule in UNREAD_RULES},
    }


def _duplicates(table: Table, files: Strings) -> Strings:
    """Return for each layer the first layer with the same content, as LAYER or FILE:LAYER, or an empty text.

    Layers that share one stored weight are not duplicates. Dead layers are left out: they are all equal, and already
    have a verdict that says so.
    """
    first: dict[tuple[str, str], int] = {}
    originals = np.full(len(files), "", dtype=object)
    layers, dead = table["layer_name"], (table["peak"] == 0) & table["scale_known"]
    for i, content in enumerate(map(str, table["hash"])):
        if not content or dead[i] or table["shared_with"][i] != "":
            continue
        j = first.setdefault((str(table["kernel"][i]), content), i)
        if j != i:
            originals[i] = str(layers[j]) if files[i] == files[j] else f"{files[j]}:{layers[j]}"
    return originals


def _skipped_counts(skipped: list[Skip]) -> str:
    """Return JSON of ledger code → number of convolutions."""
    counts: dict[str, int] = {}
    for skip in skipped:
        counts[skip.code] = counts.get(skip.code, 0) + 1
    return json.dumps(counts, sort_keys=True)
