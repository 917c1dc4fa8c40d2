"""A database of many models: what each command takes, as a process of its own.

The database has 5,000 models, 200,000 layers and as many labels as a published data set, but tiny layers, since answers
are made from summaries. Prints seconds, CPU seconds, peak memory of the process and its children, and bytes of output.
`--package` runs another checkout's filterdb on the same database, to compare two versions; `--runs` gives medians.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import synthetic

from filterdb import plan, schema
from filterdb.engine.partition import Partition
from filterdb.ingestion.segment_writer import commit_segment
from filterdb.store import snapshot as snapshots
from filterdb.store.files import Files
from filterdb.store.segment import Segment

ROOT = Path(__file__).parents[1]

sys.path.append(str(ROOT))
from tests.models import chain  # noqa: E402

LABELS = {"task": 11, "visual_category": 16, "training_dataset": 71, "family": 40}
"""Columns of the catalog, and how many values each has."""

SHAPES = np.array([(4, 4), (8, 4), (8, 8), (16, 2), (16, 1)])
"""Output and input channels of a layer."""

MIXES = 37
"""Number of distributions that filters are drawn from, by model."""

COMMANDS = {
    "reduce": ["reduce", "{db}", "--json"],
    "info": ["info", "{db}"],
    "models --json": ["models", "{db}", "--json"],
    "layers --json": ["layers", "{db}", "--json"],
    "drift --by task": ["drift", "{db}", "--by", "task"],
    "drift --by task --json": ["drift", "{db}", "--by", "task", "--json"],
    "drift --by model": ["drift", "{db}", "--by", "model"],
    "drift --by model --json": ["drift", "{db}", "--by", "model", "--json"],
    "degeneration --json": ["degeneration", "{db}", "--json"],
    "nearest": ["nearest", "{db}", "{model}"],
    "verify": ["verify", "{db}"],
    "gc": ["gc", "{db}"],
    "report": ["report", "{db}", "-o", "{page}", "--no-densities"],
}
"""The commands by name, in the order in which they run; `reduce` makes the summaries that the others read."""


@dataclass(frozen=True)
class Slice:
    """Fills a buffer with rows of an array."""

    filters: np.ndarray

    def __call__(self, buffer: np.ndarray, first: int) -> None:
        buffer[:] = self.filters[first : first + len(buffer)]


def make(url: str, models: int, layers: int) -> None:
    """Write a database of `models` models and `layers` layers as one segment."""
    rng = np.random.default_rng(0)
    shape = SHAPES[rng.integers(0, len(SHAPES), layers)]
    sizes = shape.prod(axis=1)
    model_index = np.arange(layers) * models // layers
    filters = rng.standard_normal((int(sizes.sum()), 9), dtype=np.float32)
    mixes = rng.standard_normal((MIXES, 9, 9)).astype(np.float32) * np.float32(0.6) ** np.arange(9, dtype=np.float32)
    mix_of_row = np.repeat(model_index % MIXES, sizes)
    for mix in range(MIXES):
        rows = mix_of_row == mix
        filters[rows] = filters[rows] @ mixes[mix].T
    values = {**layer_columns(rng, shape, model_index, models), **model_columns(rng, models)}
    values["peak"] = np.maximum.reduceat(np.abs(filters).max(axis=1), plan.offsets(sizes)[:-1])
    text = {"operator": "Conv", "strides": "[1, 1]", "dilations": "[1, 1]", "source_dtype": "float32",
            "weight_source": "initializer", "producer": "pytorch 2.4", "operators": '{"Conv": 40, "Relu": 39}',
            "filter_shapes": '{"(3, 3)": 1500}', "extra": '{"licence": "mit"}', "duplicate_of": ""}  # fmt: skip
    tables = synthetic.complete_tables(values, text, layers, models)
    rows_of_chunk = plan.chunk_rows(len(filters), schema.CHUNK_ROWS)

    def fill(_: Partition) -> Slice:
        return Slice(filters)

    commit_segment(
        Segment(Files.at(url), f"many{models}", len(filters), rows_of_chunk),
        tables,
        fill,
        None,
        lambda head, entry: snapshots.new("synthetic", segments=(entry,)) if head is None else None,
    )


def layer_columns(
    rng: np.random.Generator, shape: np.ndarray, model_index: np.ndarray, models: int
) -> dict[str, object]:
    """Return columns of layers with these numbers of channels, (layers, 2)."""
    layers = len(shape)
    place = np.arange(layers) - np.searchsorted(model_index, model_index)
    return {
        "row_size": shape.prod(axis=1),
        "model_index": model_index,
        "layer_name": [f"/features/block{i // 3}/conv{i % 3}/Conv" for i in place.tolist()],
        "conv_depth": place,
        "conv_depth_norm": place / np.maximum(np.bincount(model_index, minlength=models)[model_index] - 1, 1),
        "graph_depth": 3 * place,
        "in_channels": shape[:, 1],
        "out_channels": shape[:, 0],
        "groups": np.ones(layers),
        "orthogonality": rng.uniform(0.5, 1, layers),
        "hash": [rng.bytes(32).hex() for _ in range(layers)],
        "fingerprint": [f"18{rng.bytes(64).hex()}" for _ in range(layers)],
        "bn_folded": np.ones(layers, bool),
        "scale_known": np.ones(layers, bool),
    }


def model_columns(rng: np.random.Generator, models: int) -> dict[str, object]:
    """Return columns of models, with labels of which some are frequent and most are rare."""
    columns: dict[str, object] = {}
    for column, number in LABELS.items():
        codes = np.minimum(rng.geometric(3 / number, models) - 1, number - 1)
        codes[:number] = np.arange(number)[:models]
        columns[column] = [f"{column.replace('_', ' ')} {code}" for code in codes]
    return {
        **columns,
        "model": [f"zoo/architecture-{i % 40}/model-{i}" for i in range(models)],
        "file_hash": [rng.bytes(32).hex() for _ in range(models)],
        "source_format": ["ONNX"] * models,
        "share_3x3": np.ones(models),
    }


@dataclass(frozen=True)
class Cost:
    """What a process took."""

    seconds: float
    cpu: float
    peak: int
    output: int


def run(command: list[str], package: Path, output: Path, page: Path | None) -> Cost:
    """Run a command of filterdb with its output in a file; its page, if it writes one, counts as output."""
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONHASHSEED": "0"}
    start = time.perf_counter()
    with output.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-m", "filterdb", *command], stdout=stream, env=environment)
        peak = 0
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            peak = max(peak, _resident(process.pid))
            time.sleep(0.2)
    _, status, usage = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: expected exit code 0, got {process.returncode}")
    files = [output, *(file for file in page.rglob("*") if file.is_file())] if page is not None else [output]
    return Cost(
        time.perf_counter() - start,
        usage.ru_utime + usage.ru_stime,
        max(peak, usage.ru_maxrss * 1024),
        sum(file.stat().st_size for file in files),
    )


def _resident(pid: int) -> int:
    """Return the resident bytes of a process and its descendants now."""
    try:
        process = psutil.Process(pid)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def main() -> None:
    """Print a row for each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where the database is, or is made; kept")
    parser.add_argument("--models", type=int, default=5_000)
    parser.add_argument("--layers", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--package", type=Path, default=ROOT, help="checkout whose filterdb runs")
    parser.add_argument("--only", nargs="*", help="names of commands")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(options.folder or temporary)
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "db").exists():
            # In a process of its own: the peak of a child counts what its parent held when it was started.
            sizes = options.models, options.layers
            maker = multiprocessing.get_context("spawn").Process(target=make, args=(str(place / "db"), *sizes))
            maker.start()
            maker.join()
            if maker.exitcode:
                raise SystemExit("expected to make the database, got an error")
        rng = np.random.default_rng(1)
        chain(place / "query.onnx", *[rng.standard_normal((16, 16, 3, 3), dtype=np.float32) for _ in range(12)])
        print("| command | seconds | CPU seconds | peak MB | output bytes |\n|---|---|---|---|---|")
        for name, command in COMMANDS.items():
            if options.only and name not in options.only:
                continue
            page = Path(temporary) / "page"
            places = {"db": place / "db", "model": place / "query.onnx", "page": page}
            arguments = [word.format(**places) for word in command]
            output = Path(temporary) / "output"
            costs = [
                run(arguments, options.package, output, page if name == "report" else None) for _ in range(options.runs)
            ]
            middle = [statistics.median(getattr(cost, part) for cost in costs) for part in ("seconds", "cpu", "peak")]
            seconds, cpu, peak = middle
            print(f"| {name} | {seconds:,.1f} | {cpu:,.1f} | {peak / 1e6:,.0f} | {costs[-1].output:,} |", flush=True)


if __name__ == "__main__":
    main()
