"""The ingest against the sum of its parts: reading and parsing the models, writing the chunks. Dask's threads.

parse: protobuf and weights as arrays, every layer. hash: SHA-256 of the files. write: the same rows written as chunks,
synced to the disk. The ingest parses twice (scan, write), hashes files and layers, and takes moments.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
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


def main() -> None:
    """Print a row per part and one for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--channels", type=int, default=384)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set(scheduler="threads", num_workers=options.threads),
        ThreadPoolExecutor(options.threads) as pool,
    ):
        place, rng = Path(folder), np.random.default_rng(0)
        shape = (options.channels, options.channels, 3, 3)
        paths = [place / "models" / f"{i}.onnx" for i in range(options.models)]
        paths[0].parent.mkdir()
        for path in paths:
            chain(path, *[rng.standard_normal(shape, dtype=np.float32) for _ in range(options.layers)])
        filters = options.models * options.layers * options.channels**2
        segment = Segment(Files(str(place / "plain")), "x", filters, 1 << 20)
        block = rng.standard_normal((1 << 20, 9), dtype=np.float32)

        def parsed(path: Path) -> None:
            for layer in read_model(path, parse(path)).layers:
                layer.weight().filters.sum()

        def written(chunk: int) -> None:
            start, stop = segment.bounds(chunk)
            segment.write_chunk(chunk, block[: stop - start])

        def clean() -> None:
            shutil.rmtree(place / "db", ignore_errors=True)
            shutil.rmtree(place / "plain", ignore_errors=True)

        works = {
            "parse": lambda: list(pool.map(parsed, paths)),
            "hash": lambda: list(pool.map(file_digest, paths)),
            "write": lambda: list(pool.map(written, range(segment.chunks))),
            "ingest": lambda: fdb.ingest(place / "db", paths),
        }
        times = interleave([Contender(name, filters, work, clean) for name, work in works.items()], options.rounds)
        print(f"{filters:,} filters in {len(paths)} models, {options.threads} threads, {options.rounds} rounds\n")
        print(table(times, "ingest", ratio="share of the ingest", inverse=True))


if __name__ == "__main__":
    main()
