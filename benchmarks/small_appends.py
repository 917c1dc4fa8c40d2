"""A database that grows by one tiny model at a time: objects, bytes and time of each ingest, and of what comes after.

Each ingest is a call in this process, on Dask's threads, so that the start of Python does not hide what grows. The same
models in one segment are the yardstick for opening and for the drift by task. With --s3, on a SeaweedFS server that it
starts, which shares this machine's cores with the client. Processor time is that of this process alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import dask
import fsspec
import numpy as np
import onnx

import filterdb as fdb
from filterdb.store.files import Files

sys.path.append(str(Path(__file__).parents[1]))
from tests import seaweed

TASKS = ("classification", "detection", "segmentation")


def model(path: Path, number: int) -> Path:
    """Write a model of three convolutions, 144 filters."""
    rng = np.random.default_rng(number)
    nodes, weights = [], []
    shapes = [(8, 3), (8, 8), (7, 8)]
    for position, (out, into) in enumerate(shapes):
        weight = rng.normal(size=(out, into, 3, 3)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(weight, f"w{position}"))
        nodes.append(
            onnx.helper.make_node("Conv", [f"x{position}", f"w{position}"], [f"x{position + 1}"], f"c{position}")
        )
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "net", [value("x0", 1, [1, 3, 8, 8])], [value(f"x{len(shapes)}", 1, None)], weights
    )
    onnx.save(onnx.helper.make_model(graph), path)
    return path


def stored(url: str) -> dict[str, int | None]:
    """Return the sizes of the objects of a database by name."""
    return Files.at(url).list("")


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return how many seconds a call takes, by the clock and of processor time."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - cpu


def median(times: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the medians of seconds by the clock and of processor time."""
    wall, cpu = zip(*times, strict=True)
    return statistics.median(wall), statistics.median(cpu)


def grow(url: str, folder: Path, catalog: Path, models: int, compact: bool) -> None:
    """Ingest models one at a time, and print what each costs, in ten windows."""
    window = max(models // 10, 1)
    times: list[tuple[float, float]] = []
    count, size = 0, 0
    print("| models | s per ingest, median | CPU s | objects per ingest | objects in all | KB of history per ingest |")
    print("|---|---|---|---|---|---|")
    for number in range(models):
        path = folder / f"{number:05}.onnx"
        times.append(timed(partial(fdb.ingest, url, [path], catalog=catalog, compact=compact)))
        if (number + 1) % window == 0:
            listing = stored(url)
            history = sum(s or 0 for name, s in listing.items() if name.startswith(("snapshots/", "pages/")))
            wall, cpu = median(times[-window:])
            new = (len(listing) - count) / window
            kilobytes = (history - size) / window / 1e3
            print(
                f"| {number + 1:,} | {wall:.3f} | {cpu:.3f} | {new:.1f} | {len(listing):,} | {kilobytes:.1f} |",
                flush=True,
            )
            count, size = len(listing), history
    first, last = median(times[1 : window + 1]), median(times[-window:])
    print(f"\nlast tenth of the ingests ÷ first: {last[0] / first[0]:.2f}, of processor time {last[1] / first[1]:.2f}")


def ask(url: str) -> list[tuple[float, float]]:
    """Return what it takes to open a database and read its labels, and the drift by task, its passes done."""
    fdb.drift(url, by="task")
    fdb.drift(url, by="task")  # joins summaries that the first has made
    opening = median([timed(lambda: fdb.open(url).layers) for _ in range(5)])
    return [opening, median([timed(lambda: fdb.drift(url, by="task")) for _ in range(3)])]


@contextmanager
def place(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Return where the databases go."""
    if not options.s3:
        yield options.url or str(folder)
        return
    with seaweed.serving(folder / "s3") as endpoint:
        os.environ.update({**seaweed.KEYS, "AWS_ENDPOINT_URL": endpoint})
        fsspec.filesystem("s3", use_listings_cache=False).mkdir("bench")
        yield "s3://bench"


def main() -> None:
    """Print the table, and the ratios to one segment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=2_000)
    parser.add_argument("--url", help="an empty prefix of an object store; else a temporary folder")
    parser.add_argument("--s3", action="store_true", help="on an S3 server that this starts")
    parser.add_argument("--no-compact", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="filterdb-bench-") as temporary,
        dask.config.set(scheduler="threads", num_workers=options.threads),
        place(options, Path(temporary)) as root,
    ):
        folder = Path(temporary)
        paths = [model(folder / f"{number:05}.onnx", number) for number in range(options.models)]
        catalog = folder / "catalog.csv"
        rows = [f"{path},{path.stem},{TASKS[i % 3]}" for i, path in enumerate(paths)]
        catalog.write_text("\n".join(["path,name,task", *rows]))
        grow(f"{root}/db", folder, catalog, options.models, not options.no_compact)
        fdb.ingest(f"{root}/one", catalog=catalog)
        many, one = ask(f"{root}/db"), ask(f"{root}/one")
        for times in (many, one):
            times.append((times[0][0] + times[1][0], times[0][1] + times[1][1]))
        for what, ours, theirs in zip(("open and read labels", "drift by task", "both"), many, one, strict=True):
            print(
                f"{what}: {ours[0]:.3f} s, in one segment {theirs[0]:.3f} s, ratio {ours[0] / theirs[0]:.2f}, "
                f"of processor time {ours[1] / theirs[1]:.2f}"
            )
        print(f"segments: {len(fdb.open(f'{root}/db').segments)}")


if __name__ == "__main__":
    main()
