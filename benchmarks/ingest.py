"""The ingest against the sum of its parts, in threads, and on one and two processes.

parse: protobuf and weights as arrays, every layer. hash: SHA-256 of the files. write: the same rows written as chunks,
synced to the disk. The ingest also hashes and measures layers, and takes moments and sketches.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import dask
import numpy as np
from rounds import Contender, interleave, table

import filterdb as fdb
from filterdb.models.inputs import file_digest
from filterdb.models.onnx.graph import parse
from filterdb.models.onnx.layers import read_model
from filterdb.store.files import Files
from filterdb.store.segment import Segment

sys.path.append(str(Path(__file__).parents[1]))
from tests.models import chain

LIMIT = 1.6
"""What an ingest may take of the time of its parts."""


def _parsed(path: Path) -> None:
    for layer in read_model(path, parse(path)).layers:
        layer.weight().filters.sum()


def compare_parts(place: Path, options: argparse.Namespace) -> None:
    """Print a row for each part of an ingest, one for the whole in threads, and one for each number of processes."""
    rng = np.random.default_rng(0)
    shape = (options.channels, options.channels, 3, 3)
    paths = [place / "models" / f"{i}.onnx" for i in range(options.models)]
    paths[0].parent.mkdir()
    for path in paths:
        chain(path, *[rng.standard_normal(shape, dtype=np.float32) for _ in range(options.layers)])
    filters = options.models * options.layers * options.channels**2
    segment = Segment(Files(str(place / "plain")), "x", filters, 1 << 20)
    block = rng.standard_normal((1 << 20, 9), dtype=np.float32)

    def written(chunk: int) -> None:
        start, stop = segment.bounds(chunk)
        segment.write_chunk(chunk, block[: stop - start])

    def clean() -> None:
        shutil.rmtree(place / "db", ignore_errors=True)
        shutil.rmtree(place / "plain", ignore_errors=True)

    with ThreadPoolExecutor(options.threads) as pool, dask.config.set(scheduler="threads", num_workers=options.threads):
        works = {
            "parse": lambda: list(pool.map(_parsed, paths)),
            "hash": lambda: list(pool.map(file_digest, paths)),
            "write": lambda: list(pool.map(written, range(segment.chunks))),
            "ingest": lambda: fdb.ingest(place / "db", paths),
        }
        times = interleave([Contender(name, filters, work, clean) for name, work in works.items()], options.rounds)
    print(f"{filters:,} filters in {len(paths)} models, {options.threads} threads, {options.rounds} rounds\n")
    print(table(times, "ingest", ratio="share of the ingest", inverse=True))
    parts = [sum(taken) for taken in zip(times["parse"], times["hash"], times["write"], strict=True)]
    ratios = [whole / part for whole, part in zip(times["ingest"], parts, strict=True)]
    print(f"\ningest ÷ (parse + hash + write): {statistics.median(ratios):.2f}, at most {LIMIT}\n")
    compare_processes(place, paths, filters, options.rounds)


def compare_processes(place: Path, paths: list[Path], filters: int, rounds: int) -> None:
    """Print how long an ingest takes on one and on two worker processes of one thread each."""
    times: dict[str, list[float]] = {}
    for workers in (1, 2):
        with fdb.connect("local", workers=workers):
            work = partial(fdb.ingest, place / "db", paths)
            clean = partial(shutil.rmtree, place / "db")
            times |= interleave([Contender(f"{workers} process(es)", filters, work, clean)], rounds)
    print(table(times, "2 process(es)", ratio="times two processes", inverse=True), flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--channels", type=int, default=384)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare_parts(Path(folder), options)


if __name__ == "__main__":
    main()
