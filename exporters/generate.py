"""Write all files and what is true of them: `python -m exporters.generate FOLDER [--only GLOB] [--without-models]`.

For every NAME.onnx a NAME.json (a row per convolution) and a NAME.npz (its weights), a summary in failures.json.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from exporters import arrangements, expressions, layers, runtime  # noqa: F401 - registers the constructions
from exporters.construction import CONSTRUCTIONS, Construction
from exporters.export import export, run_in_torch
from exporters.record import record

REWRITTEN = {"plain", "grouped_depthwise", "batch_norm", "residual", "shared", "weight_norm_old", "standardised"}
"""Constructions that other tools rewrite."""

QUANTISED = {"plain", "grouped_depthwise", "strides_dilations", "batch_norm", "residual", "wide"}
"""Constructions that onnxruntime quantises."""

OPTIMISED = ("ts-nofold-17", "dynamo-raw-18")
"""Exports that onnxruntime optimises: those whose expressions are still there."""

LOSSY = {"int", "uint", "float8", "float16", "float-weight", "reduced", "contrib", "dynamic", "qdq", "qoperator"}
"""Parts of a variant's name after which weights differ from PyTorch's by more than rounding."""


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="*", help="constructions to write, a glob")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if arguments.only == "*":
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in CONSTRUCTIONS if fnmatch.fnmatch(name, arguments.only)]
    failures: dict[str, str] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        for name, failed in zip(names, pool.map(write, names, [str(folder)] * len(names)), strict=True):
            failures |= failed
            print(f"{name}: {len(list(folder.glob(f'{name}.*.onnx')))} files", file=sys.stderr)
    (folder / "failures.json").write_text(json.dumps(failures, indent=1))
    print(f"{len(list(folder.glob('*.onnx')))} files, {len(failures)} that a tool refused to write")


def write(name: str, place: str) -> dict[str, str]:
    """Write the files and truths of one construction; return what could not be written, and why."""
    torch.set_num_threads(1)
    folder, case = Path(place), CONSTRUCTIONS[name]
    for old in folder.glob(f"{name}.*"):
        old.unlink()
    failures = {f"{name}.{variant}": why for variant, why in export(case, folder).items()}
    exported = sorted(folder.glob(f"{name}.*.onnx"))
    derived: list[Path] = []
    for source in exported:
        variant = source.name.removeprefix(f"{name}.").removesuffix(".onnx")
        if variant in OPTIMISED:
            derived += runtime.optimise(source, failures)
    base = folder / f"{name}.ts-fold-17.onnx"
    if name in QUANTISED and base.exists():
        derived += runtime.quantise(base, failures)
    if name in REWRITTEN:
        for variant in OPTIMISED:
            source = folder / f"{name}.{variant}.onnx"
            derived += runtime.rewrite(source, failures) if source.exists() else []
    captured, output = run_in_torch(case.make(), case.input())
    for path in [*exported, *derived]:
        variant = path.name.removeprefix(f"{name}.").removesuffix(".onnx")
        try:
            ran, distance = _run(path, case, output)
            facts = {"runs": ran, "distance_of_output": distance}
            tolerance = 0.1 if any(part in variant for part in LOSSY) else 1e-5
            conflict = record(path, name, facts, captured, tolerance)
            if conflict:
                failures[f"CONFLICT {path.name}"] = conflict
        except Exception as error:  # noqa: BLE001 - told in the summary; the other files go on
            failures[f"NO TRUTH {path.name}"] = f"{type(error).__name__}: {str(error)[:300]}"
    return failures


def _run(path: Path, case: Construction, output: np.ndarray) -> tuple[bool, float | None]:
    """Run the whole file by onnxruntime; return whether it ran and how far its output lies from PyTorch's."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        info = session.get_inputs()[0]
        dtype = {"tensor(float16)": np.float16, "tensor(double)": np.float64}.get(info.type, np.float32)
        result = session.run(None, {info.name: case.input().numpy().astype(dtype)})[0]
    except Exception:  # noqa: BLE001 - whatever the runtime raises
        return False, None
    return True, float(np.abs(np.asarray(result, np.float32) - output).max() / max(np.abs(output).max(), 1e-30))


if __name__ == "__main__":
    main()
