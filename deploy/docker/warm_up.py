"""Fills Numba's cache (NUMBA_CACHE_DIR, or beside the module) by an ingest and its passes over two small models.

The installed command runs, from a folder without sources: the cache is found again by the path of the module. Workers
compile for the same types (a test looks whether they add to it).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model(path: Path, seed: int) -> None:
    """A model of two 3×3 convolutions and a 5×5 one: other shapes have loops of their own, the same for all."""
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((32, 32, side, side)).astype(np.float32) for side in (3, 3, 5)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    values = ["x", "a", "b", "y"]
    nodes = [helper.make_node("Conv", [values[i], f"w{i}"], [values[i + 1]]) for i in range(len(weights))]
    initializers = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    graph = helper.make_graph(nodes, "warm-up", ends[:1], ends[1:], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)


def main() -> None:
    filterdb = str(Path(sys.executable).with_name("filterdb"))
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(2):
            model(Path(folder) / f"{seed}.onnx", seed)
        for command in (["ingest", "db", folder], ["reduce", "db", "--raw"]):  # of raw filters: every pass
            subprocess.run([filterdb, *command, "--threads", "1"], cwd=folder, check=True)
    if "NUMBA_CACHE_DIR" in os.environ:
        files = sum(len(names) for *_, names in os.walk(os.environ["NUMBA_CACHE_DIR"]))
        print(files, "files of compiled loops")  # noqa: T201


main()
