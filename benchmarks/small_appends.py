"""A database that grows by one tiny model at a time: objects, bytes and time of each ingest, and of what comes after.

Each ingest is a call in this process, on Dask's threads, so that the start of Python does not hide what grows. The same
models in one segment are the yardstick for opening and for the drift by task.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx

import filterdb as fdb
from filterdb.store.files import Files

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


def timed(work: object) -> float:
    """Return how many seconds a call takes."""
    began = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - began


def grow(url: str, folder: Path, catalog: Path, models: int, compact: bool) -> None:
    """Ingest models one at a time, and print what each costs, in ten windows."""
    window = max(models // 10, 1)
    seconds: list[float] = []
    count, size = 0, 0
    print(
        "| models | s per ingest, median | objects per ingest | objects in all | KB of snapshots and pages per ingest |"
    )
    print("|---|---|---|---|---|")
    for number in range(models):
        path = folder / f"{number:05}.onnx"
        seconds.append(timed(lambda path=path: fdb.ingest(url, [path], catalog=catalog, compact=compact)))
        if (number + 1) % window == 0:
            listing = stored(url)
            history = sum(s or 0 for name, s in listing.items() if name.startswith(("snapshots/", "pages/")))
            median = statistics.median(seconds[-window:])
            new = (len(listing) - count) / window
            kilobytes = (history - size) / window / 1e3
            print(f"| {number + 1:,} | {median:.3f} | {new:.1f} | {len(listing):,} | {kilobytes:.1f} |", flush=True)
            count, size = len(listing), history


def ask(url: str) -> tuple[float, float]:
    """Return the seconds of opening a database and reading its labels, and of the drift by task, its passes done."""
    fdb.drift(url, by="task")
    opening = statistics.median(timed(lambda: fdb.open(url).layers) for _ in range(5))
    drift = statistics.median(timed(lambda: fdb.drift(url, by="task")) for _ in range(3))
    return opening, drift


def main() -> None:
    """Print the table, and the ratios to one segment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=2_000)
    parser.add_argument("--url", help="an empty prefix of an object store; else a temporary folder")
    parser.add_argument("--no-compact", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="filterdb-bench-") as place:
        folder = Path(place)
        paths = [model(folder / f"{number:05}.onnx", number) for number in range(options.models)]
        catalog = folder / "catalog.csv"
        rows = [f"{path},{path.stem},{TASKS[i % 3]}" for i, path in enumerate(paths)]
        catalog.write_text("\n".join(["path,name,task", *rows]))
        root = options.url or str(folder)
        grow(f"{root}/db", folder, catalog, options.models, not options.no_compact)
        fdb.ingest(f"{root}/one", catalog=catalog)
        many, one = ask(f"{root}/db"), ask(f"{root}/one")
        for what, ours, theirs in zip(("open and read labels", "drift by task"), many, one, strict=True):
            print(f"{what}: {ours:.3f} s, in one segment {theirs:.3f} s, ratio {ours / theirs:.2f}")
        print(f"segments: {len(fdb.open(f'{root}/db').segments)}")


if __name__ == "__main__":
    main()
