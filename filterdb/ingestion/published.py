"""Import the published data set (CNN Filter DB, CVPR 2022) as one segment, on Dask."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from filterdb import cluster, plan, schema
from filterdb.arguments import as_path
from filterdb.cluster import Memory, Work
from filterdb.engine.partition import Partition
from filterdb.errors import InputError, MissingExtraError
from filterdb.ingestion.duplicates import Stored
from filterdb.ingestion.ingested import Ingested
from filterdb.ingestion.run import commit_models, known_models
from filterdb.ingestion.segment_writer import FillRows, new_segment, stack
from filterdb.models.parse_errors import PARSE_ERRORS
from filterdb.models.published.file import LayerScan, PublishedFile
from filterdb.models.published.metadata import PublishedLayer, PublishedModel, Runs
from filterdb.models.sandbox import Limits
from filterdb.schema import WEIGHTS
from filterdb.store import snapshot as snapshots
from filterdb.store.database import AnyDatabase, Database, as_url
from filterdb.store.files import Files
from filterdb.store.snapshot import Snapshot


def import_hdf5(
    url: AnyDatabase,
    file: str | os.PathLike[str],
    *,
    tables: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
    chunk_rows: int = schema.CHUNK_ROWS,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Ingested:
    """Import the published data set into a database, as one segment.

    Labels are kept as published. Models that the database already has are skipped. Nothing in the file is executed;
    a child process with limits reads it. A re-run keeps intact chunks of an interrupted run.

    Parameters
    ----------
    url
        Path or URL of the database, or a Database.
    file
        Path of the data set's HDF5 file, which workers must see too. All layouts of its metadata are supported.
    tables
        Paths of the CSV files filterinfo and datastorage of the authors' extraction tool, which replace the metadata
        in the file.
    chunk_rows
        Filters in a chunk of the new segment.
    limits
        What reading the file may take.

    Returns
    -------
    Ingested
        The models that were added and those that were present.

    Raises
    ------
    MissingExtraError
        If h5py is not installed.
    InputError
        If the file cannot be used, or if the database has a model of the same name with other content.
    StoreError
        If the store fails.

    Examples
    --------
    >>> fdb.import_hdf5("db", "dataset.h5").added  # doctest: +SKIP
    """
    place, path = as_url(url), Path(as_path(file, "file", "a path"))
    if importlib.util.find_spec("h5py") is None:
        raise MissingExtraError("import-hdf5: reading HDF5 needs the extra: pip install 'filterdb[hdf5]'")
    source = PublishedFile.at(path, limits)
    files = Files.at(place)
    base = snapshots.latest(files)
    if base is None:
        files.probe()
    csv = None if tables is None else (Path(tables[0]), Path(tables[1]))
    return _import(source, csv, chunk_rows, files, base)


def _import(
    source: PublishedFile, csv: tuple[Path, Path] | None, chunk_rows: int, files: Files, base: Snapshot | None
) -> Ingested:
    """Scan the file and commit its new models on top of `base`."""
    source, models, layers = source.describe(csv)
    scans = _scan(source, layers)
    old = None if base is None else Database(files, base)
    known = {} if old is None else known_models(old)
    hashes = _model_hashes(models, layers, scans)
    present = [model.id for model in models if known.get(model.id, {}).get("file_hash") == hashes[model.id]]
    other = [model.id for model in models if model.id in known and model.id not in present]
    if other:
        raise InputError(
            f"model {other[0]!r}: {source.path} has different content from the model stored under this name; import it "
            "into a new database"
        )
    new = [model for model in models if model.id not in present]
    if not new:
        if old is None:
            raise InputError(f"{source.path}: expected at least one model, got none")
        return Ingested(old, None, [], present)
    arrays, kept = _tables(source, new, layers, scans, hashes, old)
    segment = new_segment(files, arrays, {"published": 1}, chunk_rows, base)
    return replace(commit_models(segment, arrays, _filler(source, arrays, kept), old, known), present=present)


def _scan(file: PublishedFile, layers: list[PublishedLayer]) -> list[LayerScan]:
    """Scan the layers, with one task for each group of layers of about the size of a default chunk."""
    token = uuid.uuid4().hex[:8]
    tasks = [
        cluster.task(f"scan-{token}-{position}", partial(file.scan, group))
        for position, group in enumerate(_groups(layers))
    ]
    widest = max((layer.count for layer in layers), default=0) * WEIGHTS * 4
    return [scan for part in cluster.run(tasks, "scan", Memory(4 * widest), Work(file.size)) for scan in part]


def _groups(layers: list[PublishedLayer]) -> Iterator[list[PublishedLayer]]:
    group: list[PublishedLayer] = []
    rows = 0
    for layer in layers:
        if group and rows + layer.count > plan.TASK_ROWS:
            yield group
            group, rows = [], 0
        group.append(layer)
        rows += layer.count
    if group:
        yield group


def _model_hashes(models: list[PublishedModel], layers: list[PublishedLayer], scans: list[LayerScan]) -> dict[str, str]:
    """Compute a hash for each model, from the hashes of its layers. It takes the place of the file's hash."""
    hashes = {model.id: hashlib.sha256(b"published") for model in models}
    for layer, scan in zip(layers, scans, strict=True):
        hashes[layer.model].update(scan.hash.encode())
    return {model: sha256.hexdigest() for model, sha256 in hashes.items()}


def _tables(
    source: PublishedFile,
    models: list[PublishedModel],
    layers: list[PublishedLayer],
    scans: list[LayerScan],
    hashes: dict[str, str],
    old: Database | None,
) -> tuple[dict[str, np.ndarray], list[PublishedLayer]]:
    """Return the segment's tables and the layers that are stored."""
    index = {model.id: position for position, model in enumerate(models)}
    rows, ledger, kept = [], [], []
    for layer, scan in zip(layers, scans, strict=True):
        if layer.model not in index:
            continue
        if not scan.finite or not layer.count:
            code, why = ("nonfinite", "weights that are NaN or infinite") if layer.count else ("empty", "no filter")
            ledger.append(dict(zip(_SKIPPED, (layer.model, layer.name, code, f"the layer has {why}"), strict=True)))
            continue
        kept.append(layer)
        rows.append(_layer_row(layer, scan) | {"model_index": index[layer.model]})
    try:
        layer_table = stack(rows, schema.LAYER_VARIABLES)
        twins = Stored.of(old).originals([(model.id, hashes[model.id]) for model in models], layer_table)
        model_rows = [
            _model_row(model, hashes[model.id]) | {"duplicate_of": twin}
            for model, twin in zip(models, twins, strict=True)
        ]
        return {
            **layer_table,
            **stack(model_rows, schema.MODEL_VARIABLES),
            **stack(ledger, schema.SKIPPED_VARIABLES),
        }, kept
    except PARSE_ERRORS as error:
        raise InputError(f"{source.path}: the tables cannot hold its metadata ({error})") from error


_SKIPPED = tuple(variable.name for variable in schema.SKIPPED_VARIABLES)


def _layer_row(layer: PublishedLayer, scan: LayerScan) -> dict[str, Any]:
    """Return a layer's row. Values that were not published are 0, null or false."""
    return {
        "row_size": layer.count,
        "layer_name": layer.name,
        "conv_depth": layer.conv_depth,
        "conv_depth_norm": layer.conv_depth_norm,
        "graph_depth": 0,
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "groups": 0,
        "depthwise": False,
        "operator": "Conv",
        "strides": "null",
        "dilations": "null",
        "source_dtype": "float32",
        "weight_source": "published",
        "bn_folded": False,
        "batch_norm": "unknown",
        "scale_known": True,
        "hash": scan.hash,
        "fingerprint": scan.fingerprint,
        "peak": scan.peak,
        "orthogonality": scan.orthogonality,
    }


def _model_row(model: PublishedModel, digest: str) -> dict[str, Any]:
    return {
        "model": model.id,
        "file_hash": digest,
        **model.labels,
        "extra": json.dumps(model.extra, sort_keys=True, ensure_ascii=False),
        "producer": model.producer,
        "opset": model.opset,
        "model_depth": model.model_depth,
        "operators": json.dumps(dict(sorted(model.operators.items()))),
        "filter_shapes": json.dumps(dict(sorted(model.filter_shapes.items()))),
        "total_filters": model.total_filters,
        "share_3x3": model.share_3x3,
        "source_format": "published",
        "depth_source": "graph",
    }


@dataclass(frozen=True, slots=True)
class FromPublished:
    """Fills rows from the file. `layers` has the rows of each layer in the file, and its first row in the segment."""

    file: PublishedFile
    layers: tuple[tuple[Runs, int], ...]

    def __call__(self, buffer: np.ndarray, first: int) -> None:
        """Fill the buffer. Raises InputError if the file has changed since it was described."""
        wanted: list[tuple[int, int]] = []
        for runs, start in self.layers:
            row = start
            for begin, count in runs:
                low, high = max(row, first), min(row + count, first + len(buffer))
                if low < high:
                    wanted.append((begin + low - row, high - low))
                row += count
        self.file.fill(buffer, tuple(wanted))


def _filler(source: PublishedFile, tables: dict[str, np.ndarray], layers: list[PublishedLayer]) -> FillRows:
    bounds = plan.offsets(tables["row_size"])

    def filler(partition: Partition) -> FromPublished:
        own_layers = range(partition.first, partition.first + len(partition.peaks))
        return FromPublished(source, tuple((layers[layer].runs, int(bounds[layer])) for layer in own_layers))

    return filler
