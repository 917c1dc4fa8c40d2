"""What a command costs before it works: CPU seconds of the whole process, with all that it starts; size of an install.

Each command runs in a process of its own, in turn, and the table has medians. `python -c pass` and `import numpy` are
for comparison. With --install, `pip install` puts the core, and the core with extras, into fresh environments; in each,
a `check` and a `nearest` must answer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[1]
FILTERDB = [sys.executable, "-m", "filterdb"]
EXTRAS = ("", "ingest", "s3", "compiled", "analysis", "cluster", "all")


def main() -> None:
    """Print CPU seconds of commands and, with --install, sizes of installs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--install", metavar="DIR", type=Path, help="Install into environments below this folder too.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        make_database(Path(name))
        print_times(Path(name), options.repeats)
        if options.install is not None:
            print_installs(options.install, Path(name))


def make_database(folder: Path) -> None:
    """Write two models, and ingest and reduce the first."""
    for seed in range(2):
        onnx.save(network(seed), folder / f"{seed}.onnx")
    for words in (["ingest", "db", "0.onnx"], ["reduce", "db"]):
        subprocess.run(
            [*FILTERDB, *words, "--threads", "1"], cwd=folder, env=environment(), check=True, stdout=subprocess.DEVNULL
        )


def print_times(folder: Path, repeats: int) -> None:
    """Print the CPU seconds of each command."""
    commands = {
        "`python -c pass`": [sys.executable, "-c", "pass"],
        "`python -c 'import numpy'`": [sys.executable, "-c", "import numpy"],
    }
    for line in (
        "--version", "--help", "no-such-command", "check --help", "drift --help", "check 1.onnx",
        "check 1.onnx --db db", "info db", "models db", "layers db", "snapshots db", "nearest db 1.onnx --threads 1",
        "drift db --by model --threads 1", "ingest db 0.onnx --threads 1",
    ):  # fmt: skip
        commands[f"`filterdb {line}`"] = [*FILTERDB, *line.split()]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            seconds[name].append(cpu_seconds(command, folder))
    print("| command | CPU s |\n|---|---|")
    for name, times in seconds.items():
        print(f"| {name} | {statistics.median(times):.3f} |")


def network(seed: int) -> onnx.ModelProto:
    """Return a model of two 3×3 convolutions, 2,048 filters."""
    weights = np.random.default_rng(seed).standard_normal((2, 32, 32, 3, 3)).astype(np.float32)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    nodes = [helper.make_node("Conv", ["x", "w0"], ["h"]), helper.make_node("Conv", ["h", "w1"], ["y"])]
    initializers = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def cpu_seconds(command: list[str], folder: Path) -> float:
    """Return the CPU seconds, user and system, that a command and its children take."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return usage.ru_utime + usage.ru_stime


def environment() -> dict[str, str]:
    """Return the environment of commands: this checkout first."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def print_installs(folder: Path, work: Path) -> None:
    """Print the size and the number of packages of each install, without pip. Commands run in `work`."""
    print("\n| install | MB | packages |\n|---|---|---|")
    for extra in EXTRAS:
        place = folder / (extra or "core")
        venv.create(place, clear=True, with_pip=True)
        target = f"{ROOT}[{extra}]" if extra else str(ROOT)
        pip = [str(place / "bin/python"), "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", target], check=True)
        listed = json.loads(subprocess.run([*pip, "list", "--format=json"], check=True, capture_output=True).stdout)
        files = [path for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
        pips = sum(path.stat().st_size for path in files if any(part.startswith("pip") for part in path.parts))
        size = sum(path.stat().st_size for path in files) - pips
        for line in ("check 1.onnx --db db", "nearest db 1.onnx"):
            command = [str(place / "bin/filterdb"), *line.split()]
            installed = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            subprocess.run(command, cwd=work, env=installed, check=True, stdout=subprocess.DEVNULL)
        print(f"| `{'filterdb' + (f'[{extra}]' if extra else '')}` | {size / 1e6:.0f} | {len(listed) - 1} |")


if __name__ == "__main__":
    main()
