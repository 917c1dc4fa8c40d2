"""Measure false verdicts `different` where neither catalog nor layers tell which models are fine-tuned copies.

Each trial makes a database of two groups from one population of backbones, and of each backbone copies in which every
weight moved by a few percent of its layer's deviation, as after a short fine-tuning. `drift` judges the groups twice:
with the sketches that the ingest stored, by which copies are one unit, and without, as a database of an earlier version
is judged. `--trials 2` takes some seconds. One Markdown row a case.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import warnings
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import dask
import numpy as np
import synthetic

import filterdb as fdb
from filterdb import schema
from filterdb.errors import StaleBasisWarning
from filterdb.ingestion.segment_writer import commit_segment
from filterdb.store import snapshot as snapshots
from filterdb.store.database import Database
from filterdb.store.files import Files
from filterdb.store.segment import Segment

SHAPES = ((24, 24), (32, 24), (24, 32))
"""Output and input channels of the layers; all backbones have the same, so that all models align."""

DECAY = 0.7
"""Ratio of the deviations of successive components, as in trained networks."""


def backbone(rng: np.random.Generator) -> list[np.ndarray]:
    """Return layers (n, 9) with a mean and a spread of their own in each of nine components, as `noise.py` has them."""
    spreads = DECAY ** np.arange(9)
    mean, spread = rng.normal(0, 0.25, 9), np.exp(rng.normal(0, 0.15, 9))
    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((9, 9)))[0]
    sizes = [out * into for out, into in SHAPES]
    return [((rng.standard_normal((size, 9)) * spread + mean) * spreads) @ axes for size in sizes]


def copy_of(layers: list[np.ndarray], share: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the layers with every weight moved by `share` of its layer's deviation."""
    return [layer + share * layer.std() * rng.standard_normal(layer.shape) for layer in layers]


def make(url: Path, units: int, copies: int, share: float, rng: np.random.Generator) -> Database:
    """Write a database of two groups of `units` backbones with `copies` models each, the first one unchanged."""
    layers, groups = [], []
    for label in ("a", "b"):
        for _ in range(units):
            original = backbone(rng)
            models = [original, *(copy_of(original, share, rng) for _ in range(copies - 1))]
            layers += [layer.astype(np.float32) for model in models for layer in model]
            groups += [label] * copies
    rows = np.concatenate(layers)
    segment = Segment(Files.at(url), "copies", len(rows), schema.CHUNK_ROWS)

    def fill(buffer: np.ndarray, first: int) -> None:
        buffer[:] = rows[first : first + len(buffer)]

    state = commit_segment(
        segment,
        tables(layers, groups),
        lambda _: fill,
        None,
        lambda head, entry: snapshots.new("copies", segments=(entry,)) if head is None else None,
    )
    return Database(segment.files, state)


def tables(layers: list[np.ndarray], groups: list[str]) -> dict[str, np.ndarray]:
    """Return the tables of a segment of these layers; the catalog knows the models' tasks only."""
    number, models, each = len(layers), len(groups), len(SHAPES)
    values: dict[str, object] = {
        "row_size": [len(layer) for layer in layers],
        "model_index": np.repeat(np.arange(models), each),
        "layer_name": [f"layer{i % each}" for i in range(number)],
        "conv_depth": np.tile(np.arange(each), models),
        "out_channels": [SHAPES[i % each][0] for i in range(number)],
        "in_channels": [SHAPES[i % each][1] for i in range(number)],
        "peak": [float(np.abs(layer).max()) for layer in layers],
        "orthogonality": np.full(number, np.nan),
        "hash": [hashlib.sha256(layer.tobytes()).hexdigest() for layer in layers],
        "scale_known": np.ones(number, bool),
        "model": [f"model{i}" for i in range(models)],
        "file_hash": [f"{i:064x}" for i in range(models)],
        "task": groups,
    }
    text = dict.fromkeys(("operators", "filter_shapes", "extra"), "{}") | {"duplicate_of": ""}
    return synthetic.complete_tables(values, text, number, models)


def judged(db: Database, draws: int) -> tuple[bool, int]:
    """Return whether the two groups are called different by their units, and how many units they have."""
    result = fdb.drift(db, "task", noise=draws)
    return result["verdict"].values[0, 1] == "different", int(result["units"].sum())


def row(units: int, copies: int, share: float, trials: int, draws: int) -> str:
    """Return the cells of a case."""
    rng = np.random.default_rng([units, copies, round(1_000 * share)])
    with_sketches, without = [], []
    for _ in range(trials):
        with tempfile.TemporaryDirectory() as folder:
            db = make(Path(folder) / "db", units, copies, share, rng)
            with_sketches.append(judged(db, draws))
            db.files.remove([name for name in db.files.list("summaries") if "/sketch-" in name])
            without.append(judged(fdb.open(db.url), draws))
    found = np.array([number for _, number in with_sketches])
    shares = [f"{np.mean([different for different, _ in cases]):.1%}" for cases in (without, with_sketches)]
    return f"{units} | {copies} | {share:.0%} | {found.mean() / 2:.2f} | {shares[0]} | **{shares[1]}**"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100, help="pairs of groups a row")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--units", type=int, default=8, help="backbones in a group")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 2, 5, 10], help="models of each backbone")
    parser.add_argument("--share", type=float, nargs="+", default=[0.05], help="how far the weights of copies moved")
    options = parser.parse_args()
    names = ["backbones in a group", "models of each", "weights moved by", "units found in a group",
             "different, without sketches", "**different, with sketches**"]  # fmt: skip
    print("| " + " | ".join(names) + " |\n" + "|" + "---|" * len(names), flush=True)
    with dask.config.set(scheduler="synchronous"), warnings.catch_warnings():
        warnings.simplefilter("ignore", StaleBasisWarning)
        for copies in options.copies:
            for share in options.share:
                print(f"| {row(options.units, copies, share, options.trials, options.draws)} |", flush=True)


if __name__ == "__main__":
    main()
