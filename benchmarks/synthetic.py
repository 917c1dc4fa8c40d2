"""A synthetic database whose every statistic is known: layers are 9-D Gaussians, made chunk by chunk from a seed.

Filter counts follow the published data (mean 68,000, a long tail to millions). Each layer has its own covariance and
scale; a share of the layers is dead, collapsed or random. Any chunk can be made alone, in any process: rows come in
blocks of ROWS, each from a generator seeded by the layer and the block.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from filterdb import cluster, plan, schema
from filterdb.ingestion.segment_writer import commit_segment
from filterdb.store import snapshot as snapshots
from filterdb.store.database import Database
from filterdb.store.files import Files
from filterdb.store.segment import Segment

ROWS = 65_536
"""Rows of a layer that one generator makes."""

TASKS = ("classification", "segmentation", "object detection", "face recognition", "depth estimation", "ocr")
CATEGORIES = ("natural", "faces", "medical", "satellite", "text", "fractals")


@dataclass(frozen=True)
class Layer:
    """What a layer's filters are drawn from."""

    seed: int
    size: int
    kind: str

    @property
    def factor(self) -> np.ndarray:
        """A with covariance A·Aᵀ, (9, 9) float32; the identity for random layers, rank 1 for collapsed ones."""
        if self.kind == "dead":
            return np.zeros((9, 9), np.float32)
        rng = np.random.default_rng([self.seed, 1])
        scale = 10.0 ** rng.uniform(-4, 0)
        if self.kind == "random":
            return np.asarray(np.eye(9) * scale, np.float32)
        mix = rng.standard_normal((9, 9)) * 0.6 ** np.arange(9)
        if self.kind == "collapsed":
            mix[:, 1:] = 0
        return np.asarray(mix * scale / np.sqrt((mix**2).sum(axis=1).mean()), np.float32)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of the layer as columns, (9, n) float32."""
        factor = self.factor
        parts = []
        for block in range(start // ROWS, -(-stop // ROWS)):
            low, high = block * ROWS, min((block + 1) * ROWS, self.size)
            draw = np.random.default_rng([self.seed, 2, block]).standard_normal((9, high - low), dtype=np.float32)
            parts.append((factor @ draw)[:, max(start, low) - low : min(stop, high) - low])
        return np.concatenate(parts, axis=1)


def layers(filters: int, number: int, seed: int = 0) -> list[Layer]:
    """`number` layers with exactly `filters` filters together, sizes log-normal with a long tail."""
    rng = np.random.default_rng(seed)
    raw = rng.lognormal(0, 1.4, number)
    sizes = np.maximum(1, np.floor(raw / raw.sum() * filters)).astype(np.int64)
    sizes[np.argmax(sizes)] += filters - sizes.sum()
    kinds = rng.choice(["sound", "dead", "collapsed", "random"], number, p=[0.93, 0.01, 0.02, 0.04])
    return [Layer(int(s), int(n), str(k)) for s, n, k in zip(rng.integers(0, 2**31, number), sizes, kinds, strict=True)]


def peak(layer: Layer) -> float:
    """Largest |weight| of a layer, from its rows."""
    step = 16 * ROWS
    return max(float(np.abs(layer.rows(a, min(a + step, layer.size))).max()) for a in range(0, layer.size, step))


def peaks_of(found: list[Layer]) -> list[float]:
    """Peaks of several layers."""
    return [peak(layer) for layer in found]


def tables(found: list[Layer], models: int, peaks: list[float]) -> dict[str, np.ndarray]:
    """Complete segment tables for these layers, spread over `models` models."""
    number = len(found)
    model_index = np.arange(number) * models // number
    place = np.arange(number) - np.searchsorted(model_index, model_index)
    depth = np.bincount(model_index, minlength=models)[model_index]
    text = {"operator": "Conv", "strides": "[1, 1]", "dilations": "[1, 1]", "source_dtype": "float32",
            "weight_source": "synthetic", "producer": "synthetic", "operators": "{}", "filter_shapes": "{}",
            "extra": "{}", "duplicate_of": ""}  # fmt: skip
    values: dict[str, object] = {
        "row_size": [layer.size for layer in found],
        "model_index": model_index,
        "layer_name": [f"{layer.kind}{i}" for i, layer in enumerate(found)],
        "conv_depth": place,
        "conv_depth_norm": place / np.maximum(depth - 1, 1),
        "graph_depth": place,
        "peak": peaks,
        "orthogonality": np.full(number, np.nan),
        "hash": [f"{layer.seed:08x}" for layer in found],
        "bn_folded": np.ones(number, bool),
        "scale_known": np.ones(number, bool),
        "model": [f"model{i}" for i in range(models)],
        "file_hash": [f"{i:064x}" for i in range(models)],
        "task": [TASKS[i % len(TASKS)] for i in range(models)],
        "visual_category": [CATEGORIES[i // 2 % len(CATEGORIES)] for i in range(models)],
        "family": [f"family{i % 25}" for i in range(models)],
        "share_3x3": np.ones(models),
    }
    return complete_tables(values, text, number, models)


def complete_tables(
    values: Mapping[str, object], text: Mapping[str, str], layers: int, models: int
) -> dict[str, np.ndarray]:
    """Return the tables of a segment: `values`, and for other variables `text`, 0, or `unknown`."""
    sizes = {"layer": layers, "model": models, "skipped": 0}
    complete = {}
    for variable in schema.TABLES:
        default = text.get(variable.name, schema.UNKNOWN) if variable.dtype == "str" else 0
        complete[variable.name] = variable.array(values.get(variable.name, [default] * sizes[variable.dims[0]]))
    return complete


@dataclass(frozen=True)
class Drawn:
    """Fills a buffer with rows of these layers, which begin at `bounds`: what an ingest's FromModels is to models."""

    layers: list[Layer]
    bounds: np.ndarray

    def __call__(self, buffer: np.ndarray, first: int) -> None:
        runs = plan.runs(self.bounds, first, first + len(buffer))
        for i, a, b in zip(range(runs.first, runs.last), runs.starts, runs.stops, strict=True):
            offset = first - int(self.bounds[i])
            buffer.T[:, a:b] = self.layers[i].rows(a + offset, b + offset)


def make(url: str | Path, filters: int, number: int, models: int, chunk_rows: int = schema.CHUNK_ROWS) -> Database:
    """Write a synthetic database on the current Dask scheduler."""
    files = Files.at(url)
    found = layers(filters, number)
    batches = [found[i : i + 64] for i in range(0, number, 64)]
    parts = cluster.run(
        [cluster.task(f"peaks-{filters}-{i}", partial(peaks_of, batch)) for i, batch in enumerate(batches)], "peaks"
    )
    complete = tables(found, models, [one for part in parts for one in part])
    segment = Segment(files, f"synthetic{filters}", filters, plan.chunk_rows(filters, chunk_rows))
    state = commit_segment(
        segment,
        complete,
        lambda one: Drawn(found[one.first : one.first + len(one.peaks)], one.bounds),
        None,
        lambda head, entry: snapshots.new("synthetic", segments=(entry,)) if head is None else None,
    )
    return Database(files, state)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--filters", type=int, default=20_000_000)
    parser.add_argument("--layers", type=int, default=300)
    parser.add_argument("--models", type=int, default=12)
    options = parser.parse_args()
    print(json.dumps(make(options.url, options.filters, options.layers, options.models).counts))
