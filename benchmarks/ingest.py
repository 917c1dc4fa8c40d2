"""The ingest against the sum of its parts, in threads, and on one and two processes; in a folder or, with --s3, on S3.

parse: protobuf and weights as arrays, every layer. hash: SHA-256 of the files. write: the same rows written as chunks,
synced to the disk. measure: hash, fingerprint, peak and orthogonality of every layer. The ingest also takes moments and
sketches.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import dask
import fsspec
import numpy as np
from rounds import Contender, interleave, table
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

import filterdb as fdb
from filterdb.models.inputs import file_digest
from filterdb.models.model import Weight, weight_row
from filterdb.models.onnx.graph import parse
from filterdb.models.onnx.layers import read_model
from filterdb.numerics.quality import orthogonality
from filterdb.store.files import Files
from filterdb.store.segment import Segment

sys.path.append(str(Path(__file__).parents[1]))
from tests import seaweed
from tests.models import chain

LIMIT = 1.6
"""What an ingest may take of the time of its parts."""


def _parsed(path: Path) -> None:
    for layer in read_model(path, parse(path)).layers:
        layer.weight().filters.sum()


def measured(weights: np.ndarray, channels: int) -> None:
    """Take the measures of a layer."""
    weight = Weight(weights.reshape(-1, 9), "float32", (), scale_known=True)
    weight_row(weight, channels)
    orthogonality(weight.filters, channels)


def compare_parts(place: Path, root: str, options: argparse.Namespace) -> None:
    """Print a row for each part of an ingest, one for the whole in threads, and one for each number of processes."""
    rng = np.random.default_rng(0)
    layers = rng.standard_normal((options.layers, options.channels, options.channels, 3, 3), dtype=np.float32)
    paths = [place / "models" / f"{i}.onnx" for i in range(options.models)]
    paths[0].parent.mkdir()
    for i, path in enumerate(paths):
        chain(path, *(layers + np.float32(i)))
    filters = options.models * options.layers * options.channels**2
    segment = Segment(Files.at(f"{root}/plain"), "x", filters, 1 << 20)
    block = np.resize(layers, (min(filters, 1 << 20), 9))

    def written(chunk: int) -> None:
        start, stop = segment.bounds(chunk)
        segment.write_chunk(chunk, block[: stop - start])

    clean = cleaner(root)
    each = [layer for layer in layers for _ in paths]
    with (
        ThreadPoolExecutor(options.threads) as pool,
        dask.config.set(scheduler="threads", num_workers=options.threads),
        threadpool_limits(1),
    ):
        works: dict[str, Callable[[], object]] = {
            "parse": lambda: list(pool.map(_parsed, paths)),
            "hash": lambda: list(pool.map(file_digest, paths)),
            "write": lambda: list(pool.map(written, range(segment.chunks))),
            "measure": lambda: list(pool.map(partial(measured, channels=options.channels), each)),
            "ingest": lambda: fdb.ingest(f"{root}/db", paths),
        }
        times = interleave([Contender(name, filters, work, clean) for name, work in works.items()], options.rounds)
    print(f"{filters:,} filters in {len(paths)} models, {options.threads} threads, {options.rounds} rounds\n")
    print(table(times, "ingest", ratio="share of the ingest", inverse=True))
    parts = [sum(taken) for taken in zip(times["parse"], times["hash"], times["write"], strict=True)]
    ratios = [whole / part for whole, part in zip(times["ingest"], parts, strict=True)]
    print(f"\ningest ÷ (parse + hash + write): {statistics.median(ratios):.2f}, at most {LIMIT}\n", flush=True)
    compare_processes(root, paths, filters, options.rounds)


def cleaner(root: str) -> Callable[[], None]:
    """Return a function that removes what the contenders have written."""
    files, path = fsspec.core.url_to_fs(root)

    def clean() -> None:
        for name in ("db", "plain"):
            if files.exists(f"{path}/{name}"):
                files.rm(f"{path}/{name}", recursive=True)

    return clean


def compare_processes(root: str, paths: list[Path], filters: int, rounds: int) -> None:
    """Print how long an ingest takes on one and on two worker processes of one thread each."""
    times: dict[str, list[float]] = {}
    for workers in (1, 2):
        with fdb.connect("local", workers=workers):
            work = partial(fdb.ingest, f"{root}/db", paths)
            times |= interleave([Contender(f"{workers} process(es)", filters, work, cleaner(root))], rounds)
    print(table(times, "2 process(es)", ratio="times two processes", inverse=True), flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--channels", type=int, default=384)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--s3", action="store_true", help="write to a SeaweedFS server on this machine")
    options = parser.parse_args()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root = str(place)
        if options.s3:
            endpoint = stack.enter_context(seaweed.serving(place / "s3"))
            os.environ.update({**seaweed.KEYS, "AWS_ENDPOINT_URL": endpoint})
            fsspec.filesystem("s3").mkdir("bench")
            root = "s3://bench"
        compare_parts(place, root, options)


if __name__ == "__main__":
    main()
