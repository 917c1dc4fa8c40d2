"""Write every construction by both exporters of PyTorch, in variants, and record the weights that PyTorch used."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxscript import version_converter
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from exporters.construction import Construction


class _Convolutions(TorchDispatchMode):
    """Records the weight of each convolution that runs; transposed ones too."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[np.ndarray] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function is torch.ops.aten.convolution.default:
            self.weights.append(args[1].detach().to(torch.float32).numpy().copy())
        return function(*args, **(kwargs or {}))


def run_in_torch(network: nn.Module, x: Tensor) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the weight of each convolution in order of running, and the output."""
    with torch.no_grad(), _Convolutions() as seen:
        y = network(x)
    return seen.weights, y.float().numpy()


TORCHSCRIPT = {
    "ts-fold-13": {"opset_version": 13, "do_constant_folding": True},
    "ts-fold-17": {"opset_version": 17, "do_constant_folding": True},
    "ts-nofold-17": {"opset_version": 17, "do_constant_folding": False},
    "ts-nofold-11-inputs": {"opset_version": 11, "do_constant_folding": False, "keep_initializers_as_inputs": True},
}
"""Variants of the exporter by TorchScript, which is the older one."""


def _by_torchscript(case: Construction, target: Path, options: dict[str, object]) -> None:
    network = case.make()
    exported = torch.jit.script(network) if case.script else network
    torch.onnx.export(exported, (case.input(),), target, dynamo=False, **options)


def _save(program: torch.onnx.ONNXProgram, target: Path, *, external: bool = False) -> None:
    program.save(target, external_data=external)


def _by_dynamo(case: Construction, name: Callable[[str], Path]) -> None:
    program = torch.onnx.export(
        case.make(), (case.input(),), dynamo=True, optimize=False, opset_version=18, verbose=False
    )
    assert program is not None
    _save(program, name("dynamo-raw-18"))
    program.optimize()
    _save(program, name("dynamo-18"))
    if case.external:
        _save(program, name("dynamo-18-external"), external=True)
    for opset in (21, 23):
        version_converter.convert_version(program.model, target_version=opset)
        _save(program, name(f"dynamo-{opset}"))


def _in_training(case: Construction, name: Callable[[str], Path]) -> None:
    network = case.make().train()
    options = {"training": torch.onnx.TrainingMode.TRAINING, "do_constant_folding": False, "opset_version": 17}
    torch.onnx.export(network, (case.input(),), name("ts-train-17"), dynamo=False, **options)
    preserved = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": True, "opset_version": 17}
    torch.onnx.export(case.make().train(), (case.input(),), name("ts-preserve-17"), dynamo=False, **preserved)
    program = torch.onnx.export(
        case.make().train(), (case.input(),), dynamo=True, optimize=True, opset_version=18, verbose=False
    )
    assert program is not None
    _save(program, name("dynamo-train-18"))


def export(case: Construction, folder: Path) -> dict[str, str]:
    """Write the files of a construction, NAME.VARIANT.onnx; return why a variant could not be written, by variant."""
    failures: dict[str, str] = {}

    def name(variant: str) -> Path:
        return folder / f"{case.name}.{variant}.onnx"

    def attempt(variant: str, write: Callable[[], None]) -> None:
        try:
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                write()
        except Exception as error:  # noqa: BLE001 - an exporter that refuses a construction is no fault of ours
            lines = str(error).strip().splitlines() or [""]
            failures[variant] = f"{type(error).__name__}: {lines[-1][:160]}"

    for variant, options in TORCHSCRIPT.items():
        attempt(variant, lambda v=variant, o=options: _by_torchscript(case, name(v), o))  # type: ignore[misc]
    attempt("dynamo", lambda: _by_dynamo(case, name))
    if case.training:
        attempt("training", lambda: _in_training(case, name))
    if case.external and name("ts-fold-17").exists():
        model = onnx.load(name("ts-fold-17"))
        target = name("ts-fold-17-external")
        onnx.save(model, target, save_as_external_data=True, location=f"{target.name}.data", size_threshold=0)
    return failures
