"""Checking ONNX files without a database: which layers are dead, sparse, collapsed, random, non-finite, duplicates."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from filterdb.analysis.rules import CHECKS, LAYER_MEASURES, Rules, is_ignored, judge, rules_of, settings
from filterdb.errors import InputError
from filterdb.extract.catalog import ModelSource
from filterdb.extract.layers import Skip
from filterdb.extract.sandbox import Limits
from filterdb.ingest.query import UNREAD
from filterdb.ingest.scan import EXAMINED, examine
from filterdb.ingest.sources import NamedFile, as_sources, on_disk
from filterdb.numerics.quality import randomness_threshold
from filterdb.schema import WEIGHTS
from filterdb.store.inputs import expand
from filterdb.version import __version__

if TYPE_CHECKING:
    from filterdb.ingest.sources import Sources
    from filterdb.store.database import AnyDatabase, Database

Path = str | os.PathLike[str]

LAYER_RULES = CHECKS[:-1]
"""The verdicts of a layer that was read; what was not, file or layer, is `unreadable`."""

MEASURES = {
    **LAYER_MEASURES,
    "duplicate_filters": "filters that equal an earlier one of the layer and are not sparse",
    "prunable_filters": "sparse filters and duplicates",
    "prunable_parameters": "weights of these; 0 where an earlier layer uses the same stored weight",
    "parameters": "weights of the layer; 0 where an earlier layer uses the same stored weight",
}
AGAINST = {
    "sparsity_percentile": "share of like layers that are less sparse, ties half, in percent",
    "ratio_percentile": "share of like layers with a smaller H / T_H, ties half, in percent",
    "peers": "layers of the database in the same depth decile and size class",
}


class _File(NamedTuple):
    """One file: what was found, or why it could not be read."""

    name: str
    rows: list[dict[str, Any]]
    skipped: list[Skip]
    reason: str


def check(
    paths: Sources,
    db: AnyDatabase | None = None,
    rules: Rules | Mapping[str, Any] | Path | None = None,
    *,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> xr.Dataset:
    """Verdicts of the 3×3 layers of ONNX files, without a database. Dims: layer, rule, file.

    `paths`: files, folders, globs, URLs or onnx.ModelProto, one or a list.

    Files are read in a child process with `limits`, a layer in memory at a time. Per layer MEASURES, float64 and int64;
    verdict (layer, rule) bool: dead, sparse, collapsed, random as `degeneration` has them; nonfinite; duplicate (the
    same content as another layer's that is stored apart, or many filters that equal an earlier one); ignored (layer)
    by the rules' patterns; duplicate_of (layer), the first layer with the content. Where a scale is unknown or weights
    are not finite, S and H are NaN. Per file: reason (str; empty: it was read); untrained (bool); skipped, JSON of code
    → number of convolutions that were not looked at; unread, JSON of layer → why it could not be.

    `rules`: Rules, a mapping, or a TOML or YAML file (`rules.SETTINGS`). With `db` AGAINST as well, from its summaries:
    where each layer stands among the view's layers of its depth decile and size class (⌊log₁₆ n⌋).

    A file that cannot be read is a finding, no error. Raises UsageError for rules that do not fit. Source: method §5.
    """
    rules = rules_of(rules)
    if db is not None:  # before the work of reading files
        from filterdb.store.database import as_database

        db = as_database(db)
    with on_disk(as_sources(paths, "paths")) as named:
        once: dict[str, NamedFile] = {}
        for file in (file for source in named for file in _files(source)):
            once.setdefault(_place_of(file.path), file)
        files = [_read(file, limits) for file in once.values()]
    result = _judged(files, rules)
    if db is not None:
        _place(result, db)
    return result


def _files(source: NamedFile) -> list[NamedFile]:
    """Return the files that a source stands for; itself where there are none, to be reported as unreadable."""
    if source.alias:
        return [source]
    try:
        return [NamedFile(name) for name in expand(source.path)]
    except InputError:
        return [source]


def _place_of(name: str) -> str:
    """The same for one file named in two ways, which is looked at once."""
    return name if "://" in name else os.path.realpath(name)


def _read(file: NamedFile, limits: Limits) -> _File:
    source = ModelSource(file.path, file.path, alias=file.alias)
    try:
        return _File(source.shown, *examine(source, limits), "")
    except InputError as error:
        return _File(source.shown, [], [], str(error))


def _judged(files: list[_File], rules: Rules) -> xr.Dataset:
    rows = [row for file in files for row in file.rows]
    table = {v.name: v.array([row[v.name] for row in rows]) for v in EXAMINED}
    owner = np.repeat(np.arange(len(files)), [len(file.rows) for file in files])
    names = np.array([file.name for file in files], dtype=object)
    filters, known = table["row_size"], table["scale_known"]
    nonfinite = table["nonfinite"] != ""
    measured = known & ~nonfinite
    sparsity = np.where(measured, table["sparse_filters"] / np.maximum(filters, 1), np.nan)
    entropy = np.where(measured, table["variance_entropy"], np.nan)
    threshold = randomness_threshold(np.maximum(filters, 1))
    dead = (table["peak"] == 0) & measured
    prunable = np.where(measured, table["sparse_filters"] + table["duplicate_filters"], 0)
    own = table["shared_with"] == ""
    duplicate_of = _duplicates(table, names[owner], dead)
    repeated = measured & (table["duplicate_filters"] > rules.duplicate * filters)
    verdicts = {
        **judge(filters, sparsity, entropy, threshold, dead, rules, rules.smallest),
        "nonfinite": nonfinite,
        "duplicate": repeated | (duplicate_of != ""),
    }
    values = {
        "filters": filters,
        "sparsity": sparsity,
        "variance_entropy": entropy,
        "threshold": threshold,
        "ratio": np.divide(entropy, threshold, out=np.full(len(rows), np.nan), where=threshold > 0),
        "peak": np.where(measured, table["peak"], np.nan),
        "duplicate_filters": table["duplicate_filters"],
        "prunable_filters": prunable,
        "prunable_parameters": np.where(own, prunable * WEIGHTS, 0),
        "parameters": np.where(own, filters * WEIGHTS, 0),
        "scale_known": known,
    }
    enough, fresh = filters >= rules.smallest, verdicts["random"] & (sparsity < rules.untrained_sparsity)
    untrained = [bool(enough[owner == i].any() and fresh[(owner == i) & enough].all()) for i in range(len(files))]
    ignored = [
        is_ignored(names[i], str(name), rules.ignore) for i, name in zip(owner, table["layer_name"], strict=True)
    ]
    one = ("layer",)
    labels = ("conv_depth", "conv_depth_norm", "in_channels", "out_channels", "groups", "depthwise", "nonfinite")
    return xr.Dataset(
        {
            **{name: (one, array, {"long_name": MEASURES[name]}) for name, array in values.items()},
            "verdict": (("layer", "rule"), np.stack([verdicts[name] for name in LAYER_RULES], axis=1)),
            "ignored": (one, np.array(ignored, bool)),
            "untrained": ("file", np.array(untrained, bool)),
            "reason": ("file", np.array([file.reason for file in files], dtype=object)),
            "skipped": ("file", np.array([_counted(file.skipped) for file in files], dtype=object)),
            "unread": ("file", np.array([_unread(file.skipped) for file in files], dtype=object)),
        },
        coords={
            "file": names,
            "rule": list(LAYER_RULES),
            "layer_file": (one, names[owner]),
            "layer_name": (one, table["layer_name"].astype(object)),
            "duplicate_of": (one, duplicate_of),
            "shared_with": (one, table["shared_with"].astype(object)),
            "hash": (one, table["hash"].astype(object)),
            **{name: (one, table[name]) for name in labels},
        },
        attrs={
            "selection": "all",
            "filters": int(filters.sum()),
            "layers": len(rows),
            "models": sum(not file.reason for file in files),
            "mode": "sound",
            "rules": json.dumps(settings(rules)),
            "formula": "P1 eq. 7-8; method 5",
            "filterdb_version": __version__,
        },
    )


def _duplicates(table: Mapping[str, np.ndarray], files: np.ndarray, dead: np.ndarray) -> np.ndarray:
    """For each layer the first one with the same content that is stored apart, as LAYER or FILE:LAYER, or nothing.

    Dead layers are all alike, and say so by themselves.
    """
    first: dict[str, int] = {}
    found = np.full(len(files), "", dtype=object)
    layers = table["layer_name"]
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


def _unread(skipped: list[Skip]) -> str:
    return json.dumps({skip.layer: skip.reason for skip in skipped if skip.code in UNREAD}, ensure_ascii=False)


def _place(result: xr.Dataset, db: Database) -> None:
    """Add AGAINST: where each layer stands among the database's of its depth decile and size class."""
    from filterdb.analysis.degeneration import degeneration
    from filterdb.analysis.grouping import depth_decile

    corpus = degeneration(db)

    def classes(of: xr.Dataset) -> np.ndarray:
        size = np.log2(np.maximum(of["filters"].values, 1)) // 4
        found: np.ndarray = 100 * depth_decile(of["conv_depth_norm"].values) + size.astype(np.int64)
        return found

    mine, theirs = classes(result), classes(corpus)
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
