"""Checking ONNX files without a database: degenerated layers, and what could not be checked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from filterdb.analysis.rules import (
    LAYER_MEASURES,
    LAYER_RULES,
    UNREAD_RULES,
    Rules,
    is_ignored,
    judge,
    rules_of,
    settings,
)
from filterdb.arguments import formerly_positional
from filterdb.errors import InputError
from filterdb.ledger import is_unread
from filterdb.models.catalog import ModelSource
from filterdb.models.inputs import expand
from filterdb.models.model import Skip
from filterdb.models.sandbox import Limits
from filterdb.models.scan import EXAMINED, examine
from filterdb.models.sources import NamedFile, as_sources, on_disk
from filterdb.numerics.quality import randomness_threshold
from filterdb.schema import WEIGHTS, Variable, distinct
from filterdb.version import __version__

if TYPE_CHECKING:
    from filterdb.models.sources import Sources
    from filterdb.store.database import AnyDatabase, Database

Path = str | os.PathLike[str]

MEASURES = {
    **LAYER_MEASURES,
    "duplicate_filters": "filters that equal an earlier one of the layer and are not sparse",
    "prunable_filters": "filters whose |w| are all below a hundredth of their own output channel's peak, or zero",
    "prunable_parameters": "weights of these; 0 where an earlier layer uses the same stored weight",
    "small_filters": "further filters whose |w| are all below peak/100: small only beside the layer's largest channel",
    "zero_channels": "output channels whose weights are all zero",
    "small_channels": "further output channels whose weights are all below peak/100",
    "outlier_ratio": "peak / upper quartile of the output channels' peaks",
    "parameters": "weights of the layer; 0 where an earlier layer uses the same stored weight",
}
GEOMETRY = ("conv_depth", "conv_depth_norm", "in_channels", "out_channels", "groups", "depthwise")
"""Further facts of a layer that was read."""

AGAINST = {
    "sparsity_percentile": "share of like layers that are less sparse, ties half, in percent",
    "ratio_percentile": "share of like layers with a smaller H / T_H, ties half, in percent",
    "peers": "layers of the database in the same depth decile and size class",
}


class _File(NamedTuple):
    """One file: its layers, those that could not be read last; what has no numbers; or why it could not be read."""

    name: str
    rows: list[dict[str, Any]]
    skipped: list[Skip]
    reason: str

    @classmethod
    def of(cls, name: str, rows: list[dict[str, Any]], skipped: list[Skip]) -> _File:
        """Return a file that was read. A layer that could not be, and should have been, is a row without numbers."""
        read = [{**row, "unread_code": "", "unread_reason": ""} for row in rows]
        unread = [
            {**_UNREAD, "layer_name": skip.layer, "unread_code": skip.code, "unread_reason": skip.reason}
            for skip in skipped
            if is_unread(skip.code)
        ]
        return cls(name, read + unread, skipped, "")


_EMPTY = {"int64": 0, "float64": float("nan"), "bool": True, "str": ""}
_UNREAD = {variable.name: _EMPTY[variable.dtype] for variable in EXAMINED} | {"depthwise": False}
"""The row of a layer that could not be read."""

_COLUMNS = (
    *EXAMINED,
    Variable("unread_code", ("layer",), "str", "the ledger's code of a layer that could not be read, or empty"),
    Variable("unread_reason", ("layer",), "str", "why the layer could not be read, or empty"),
)


@formerly_positional("db", "rules")
def check(
    paths: Sources,
    *,
    db: AnyDatabase | None = None,
    rules: Rules | Mapping[str, Any] | Path | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> xr.Dataset:
    """Judge the 3×3 layers of ONNX files, without a database. Dims: layer, rule, file.

    Files are read in a child process with `limits`, a layer in memory at a time. A layer that should have been read and
    was not is among the layers, without numbers: its file was not checked completely.

    Parameters
    ----------
    paths
        Files, folders, globs, URLs or onnx.ModelProto, one or a list.
    rules
        Rules, a mapping, or a TOML or YAML file (`rules.SETTINGS`).
    db
        A database; adds AGAINST, from its summaries: where each layer stands among the view's layers of its depth
        decile and size class (⌊log₁₆ n⌋).

    Returns
    -------
    xarray.Dataset
        MEASURES (layer), float64 and int64: NaN or 0 where the layer was not read, S and H also where its scale is
        unknown or its weights are not finite.
        verdict (layer, rule) bool: dead, sparse, collapsed, random as `degeneration` has them; nonfinite; duplicate
        (the content of another layer that is stored apart, or many filters that equal an earlier one); outlier;
        dead-channels; unread; ambiguous.
        ignored (layer) bool, ignored_file (file) bool: by the rules' patterns.
        The index `layer` is FILE:LAYER. duplicate_of (layer) str: the first layer with the content.
        unread_code, unread_reason (layer) str.
        reason (file) str: why a file could not be read, else empty. untrained (file) bool. unread (file) int64: layers
        that could not be read. skipped (file) str: JSON of ledger code → number of convolutions without numbers.

    Raises
    ------
    UsageError
        For rules that do not fit. A file that cannot be read is a finding, no error.

    Notes
    -----
    Source: method §5.
    """
    rules = rules_of(rules)
    if db is not None:  # before the work of reading files
        from filterdb.store.database import as_database

        db = as_database(db)
    seen: set[str] = set()
    with on_disk(as_sources(paths, "paths")) as named:
        files = [file for source in named for file in _files(source, limits, seen)]
    result = _judged(files, rules)
    if db is not None:
        _place(result, db)
    return result


def _files(source: NamedFile, limits: Limits, seen: set[str]) -> Iterator[_File]:
    """Read the files that a source stands for and that are not `seen`; one that stands for none is unreadable."""
    try:
        listed = [source] if source.alias else [NamedFile(name) for name in expand(source.path)]
    except InputError as error:
        shown = ModelSource(source.path, source.path).shown
        if source.path not in seen:
            seen.add(source.path)
            yield _File(shown, [], [], str(error).replace(source.path, shown))
        return
    for file in listed:
        place = _place_of(file.path)
        if place not in seen:
            seen.add(place)
            yield _read(file, limits)


def _place_of(name: str) -> str:
    """Return the same text for every name of one file, which is looked at once."""
    return name if "://" in name else os.path.realpath(name)


def _read(file: NamedFile, limits: Limits) -> _File:
    source = ModelSource(file.path, file.path, alias=file.alias)
    try:
        return _File.of(source.shown, *examine(source, limits))
    except InputError as error:
        return _File(source.shown, [], [], str(error))


def _judged(files: list[_File], rules: Rules) -> xr.Dataset:
    rows = [row for file in files for row in file.rows]
    table = {v.name: v.array([row[v.name] for row in rows]) for v in _COLUMNS}
    owner = np.repeat(np.arange(len(files)), [len(file.rows) for file in files])
    names = np.array([file.name for file in files], dtype=object)
    duplicate_of = _duplicates(table, names[owner])
    values = _values(table)
    verdicts = _verdicts(table, values, duplicate_of != "", rules)
    ignored = [
        is_ignored(names[i], str(name), rules.ignore) for i, name in zip(owner, table["layer_name"], strict=True)
    ]
    layer = ("layer",)
    texts = ("shared_with", "hash", "unread_code", "unread_reason")
    unread = table["unread_code"] != ""
    return xr.Dataset(
        {
            **{name: (layer, array, {"long_name": MEASURES[name]}) for name, array in values.items()},
            "verdict": (("layer", "rule"), np.stack([verdicts[name] for name in LAYER_RULES], axis=1)),
            "ignored": (layer, np.array(ignored, bool)),
            "ignored_file": ("file", np.array([is_ignored(name, "", rules.ignore) for name in names], bool)),
            "untrained": ("file", _untrained(owner, len(files), values, verdicts, rules)),
            "reason": ("file", np.array([file.reason for file in files], dtype=object)),
            "skipped": ("file", np.array([_counted(file.skipped) for file in files], dtype=object)),
            "unread": ("file", np.bincount(owner, unread, minlength=len(files)).astype(np.int64)),
        },
        coords={
            "file": names,
            "rule": list(LAYER_RULES),
            "layer": _labels(names[owner], table["layer_name"]),
            "layer_file": (layer, names[owner]),
            "layer_name": (layer, table["layer_name"].astype(object)),
            "duplicate_of": (layer, duplicate_of),
            **{name: (layer, table[name].astype(object)) for name in texts},
            **{name: (layer, table[name]) for name in (*GEOMETRY, "nonfinite")},
        },
        attrs={
            "selection": "all",
            "filters": int(table["row_size"].sum()),
            "layers": int((~unread).sum()),
            "models": sum(not file.reason for file in files),
            "mode": "sound",
            "rules": json.dumps(settings(rules)),
            "formula": "P1 eq. 7-8; method 5",
            "filterdb_version": __version__,
        },
    )


def _labels(files: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Return FILE:LAYER for each layer, told apart where two read the same."""
    labels = distinct([f"{file}:{layer}" for file, layer in zip(files, layers, strict=True)])
    return np.array(labels, dtype=object)


def _values(table: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return MEASURES of every layer, (layers,) each."""
    filters = table["row_size"]
    measured = _measured(table)
    threshold = np.where(table["unread_code"] == "", randomness_threshold(np.maximum(filters, 1)), np.nan)
    entropy = np.where(measured, table["variance_entropy"], np.nan)
    prunable = np.where(measured, table["prunable_filters"], 0)
    own = table["shared_with"] == ""
    return {
        "filters": filters,
        "sparsity": np.where(measured, table["sparse_filters"] / np.maximum(filters, 1), np.nan),
        "variance_entropy": entropy,
        "threshold": threshold,
        "ratio": np.divide(entropy, threshold, out=np.full(len(filters), np.nan), where=threshold > 0),
        "peak": np.where(measured, table["peak"], np.nan),
        "duplicate_filters": table["duplicate_filters"],
        "prunable_filters": prunable,
        "prunable_parameters": np.where(own, prunable * WEIGHTS, 0),
        # A filter that is small beside its own channel is small beside the layer's peak as well.
        "small_filters": np.where(measured, table["sparse_filters"] - table["prunable_filters"], 0),
        "zero_channels": np.where(measured, table["zero_channels"], 0),
        "small_channels": np.where(measured, table["small_channels"], 0),
        "outlier_ratio": np.where(measured, table["outlier_ratio"], np.nan),
        "parameters": np.where(own, filters * WEIGHTS, 0),
        "scale_known": table["scale_known"],
    }


def _measured(table: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return which layers have numbers."""
    measured: np.ndarray = table["scale_known"] & (table["nonfinite"] == "") & (table["unread_code"] == "")
    return measured


def _verdicts(
    table: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray], is_copy: np.ndarray, rules: Rules
) -> dict[str, np.ndarray]:
    """Return which layers break which of LAYER_RULES, (layers,) bool each."""
    filters, measured, code = values["filters"], _measured(table), table["unread_code"]
    dead = (table["peak"] == 0) & measured
    sparsity, entropy, threshold = (values[name] for name in ("sparsity", "variance_entropy", "threshold"))
    dead_channels = values["zero_channels"] > rules.dead_channels * table["out_channels"]
    named = np.isin(code, UNREAD_RULES)  # a code that is a rule of its own
    return {
        **judge(filters, sparsity, entropy, threshold, dead, rules, rules.smallest),
        "nonfinite": table["nonfinite"] != "",
        "duplicate": is_copy | (measured & (table["duplicate_filters"] > rules.duplicate * filters)),
        "outlier": values["outlier_ratio"] >= rules.outlier,
        "dead-channels": dead_channels & ~dead,
        **{rule: (code == rule) | ((code != "") & ~named & (rule == "unread")) for rule in UNREAD_RULES},
    }


def _untrained(
    owner: np.ndarray, files: int, values: Mapping[str, np.ndarray], verdicts: Mapping[str, np.ndarray], rules: Rules
) -> np.ndarray:
    """Return for each file whether all its layers of enough filters are random and not sparse, (files,) bool."""
    enough = values["filters"] >= rules.smallest
    fresh = verdicts["random"] & (values["sparsity"] < rules.untrained_sparsity)
    return np.array([enough[owner == i].any() and fresh[(owner == i) & enough].all() for i in range(files)], bool)


def _duplicates(table: Mapping[str, np.ndarray], files: np.ndarray) -> np.ndarray:
    """For each layer the first one with the same content that is stored apart, as LAYER or FILE:LAYER, or nothing.

    Dead layers are all alike, and say so by themselves.
    """
    first: dict[str, int] = {}
    found = np.full(len(files), "", dtype=object)
    layers, dead = table["layer_name"], (table["peak"] == 0) & table["scale_known"]
    for i, content in enumerate(map(str, table["hash"])):
        if not content or dead[i] or table["shared_with"][i] != "":
            continue
        j = first.setdefault(content, i)
        if j != i:
            found[i] = str(layers[j]) if files[i] == files[j] else f"{files[j]}:{layers[j]}"
    return found


def _counted(skipped: list[Skip]) -> str:
    counts: dict[str, int] = {}
    for skip in skipped:
        counts[skip.code] = counts.get(skip.code, 0) + 1
    return json.dumps(counts, sort_keys=True)


def _place(result: xr.Dataset, db: Database) -> None:
    """Add AGAINST: where each layer stands among the database's of its depth decile and size class."""
    from filterdb.analysis.degeneration import degeneration
    from filterdb.analysis.grouping import depth_decile

    corpus = degeneration(db)

    def classes(of: xr.Dataset) -> np.ndarray:
        size = np.log2(np.maximum(of["filters"].values, 1)) // 4
        kind: np.ndarray = 100 * depth_decile(np.nan_to_num(of["conv_depth_norm"].values)) + size.astype(np.int64)
        return kind

    # What was not read is like nothing.
    mine, theirs = np.where(result["unread_code"].values == "", classes(result), -1), classes(corpus)
    kinds, numbers = np.unique(theirs, return_counts=True)
    result["peers"] = ("layer", (mine[:, None] == kinds).astype(np.int64) @ numbers)
    for name in ("sparsity", "ratio"):
        values = np.full(len(mine), np.nan)
        for kind in np.unique(mine):
            here, there = mine == kind, corpus[name].values[theirs == kind]
            values[here] = percentiles(result[name].values[here], there[np.isfinite(there)])
        result[f"{name}_percentile"] = ("layer", values)
    for name, doc in AGAINST.items():
        result[name].attrs["long_name"] = doc
    result.attrs |= {"snapshot": db.snapshot, "database": db.url, "corpus": " and ".join(db.conditions) or "all"}


def percentiles(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Per value the share of `among` (m,) below it, ties counted half, in percent; NaN for NaN, and where m = 0."""
    ordered = np.sort(among)
    rank = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
    found: np.ndarray = np.where(np.isnan(values) | (len(among) == 0), np.nan, 100 * rank / max(len(among), 1))
    return found
