"""Files of quantising tools that few have: Brevitas, NVIDIA ModelOpt, NNCF: `python -m exporters.extra FOLDER`.

Optional: an environment of requirements/exporters-extra.txt, `make exporters-extra`. Same format as `generate`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from exporters import arrangements, expressions, layers  # noqa: F401 - registers the constructions
from exporters.construction import CHANNELS, CONSTRUCTIONS, OUT
from exporters.record import record
from exporters.runtime import attempt, optimise

INPUT = torch.randn((1, CHANNELS, 12, 12), generator=torch.Generator().manual_seed(7))


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    failures: dict[str, str] = {}
    for variants in (brevitas_variants, modelopt_torch_variants, modelopt_onnx_variants, nncf_variants):
        try:
            writers = variants(folder)
        except ImportError as error:
            failures[variants.__name__] = str(error)
            continue
        for name, write in writers.items():
            target = folder / f"{name}.onnx"
            if not attempt(name, lambda w=write, t=target: w(t), failures):  # type: ignore[misc]
                target.unlink(missing_ok=True)
                continue
            for path in (target, *optimise(target, failures, ("all",))):
                try:
                    record(path, name.partition(".")[0], {}, [], 0.0)
                except Exception as error:  # noqa: BLE001 - told in the summary; the other files go on
                    failures[f"NO TRUTH {path.name}"] = f"{type(error).__name__}: {str(error)[:300]}"
    (folder / "failures.json").write_text(json.dumps(failures, indent=1))
    print(f"{len(list(folder.glob('*.onnx')))} files, {len(failures)} that a tool refused to write")


Writers = dict[str, Callable[[Path], None]]


def brevitas_variants(folder: Path) -> Writers:
    """Quantised layers of Brevitas: 8 to 2 bits, per tensor and channel, stored as integers or as floats before a Q."""
    import brevitas.nn as qnn
    from brevitas.export import export_onnx_qcdq

    def writer(bits: int, *, channel: bool, q_node: bool, dynamo: bool, act: bool) -> Callable[[Path], None]:
        def write(target: Path) -> None:
            torch.manual_seed(bits)
            options = {"weight_bit_width": bits, "weight_scaling_per_output_channel": channel}
            network = nn.Sequential(
                qnn.QuantConv2d(CHANNELS, OUT, 3, padding=1, **options),
                qnn.QuantReLU(bit_width=8) if act else nn.ReLU(),
                qnn.QuantConv2d(OUT, OUT, 3, groups=OUT, **options),
            ).eval()
            network(INPUT)
            extra = {"dynamo": True} if dynamo else {"dynamo": False, "opset_version": 17}
            export_onnx_qcdq(network, args=INPUT, export_path=str(target), export_weight_q_node=q_node, **extra)

        return write

    writers = {}
    for bits in (8, 6, 4, 3, 2):
        for channel in (False, True):
            for q_node in (False, True):
                for dynamo in (False, True):
                    parts = ["channel" if channel else "tensor", "q" if q_node else "integers"]
                    name = f"brevitas.int{bits}-{'-'.join(parts)}-{'dynamo' if dynamo else 'ts'}"
                    writers[name] = writer(bits, channel=channel, q_node=q_node, dynamo=dynamo, act=bits == 8)
    return writers


def modelopt_torch_variants(folder: Path) -> Writers:
    """ModelOpt's quantisers in PyTorch: int8, float8, int4, exported by both exporters."""
    import modelopt.torch.quantization as mtq

    def writer(config: str, *, dynamo: bool) -> Callable[[Path], None]:
        def write(target: Path) -> None:
            network = CONSTRUCTIONS["plain"].make()
            mtq.quantize(network, getattr(mtq, config), lambda net: net(INPUT))
            version = 21 if dynamo else 17
            torch.onnx.export(network, (INPUT,), target, dynamo=dynamo, opset_version=version)

        return write

    configs = ("INT8_DEFAULT_CFG", "FP8_DEFAULT_CFG", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "FP8_PER_CHANNEL_PER_TOKEN_CFG")
    writers: Writers = {}
    for config in configs:
        name = f"modelopt-torch.{config.removesuffix('_CFG').lower()}"
        writers |= {f"{name}-ts": writer(config, dynamo=False), f"{name}-dynamo": writer(config, dynamo=True)}
    return writers


def _source(folder: Path, name: str) -> Path:
    """A file of opset 21 to be quantised; not one of the results."""
    target = folder / f"{name}.source"
    if not target.exists():
        case = CONSTRUCTIONS[name]
        program = torch.onnx.export(case.make(), (case.input(),), dynamo=True, opset_version=21, verbose=False)
        assert program is not None
        program.save(target)
    return target


def modelopt_onnx_variants(folder: Path) -> Writers:
    """ModelOpt's quantiser of ONNX files."""
    from modelopt.onnx.quantization import quantize

    def writer(name: str, mode: str, **options: object) -> Callable[[Path], None]:
        def write(target: Path) -> None:
            source = target.with_suffix(".input.onnx")
            onnx.save(onnx.load(_source(folder, name)), source)
            try:
                data = CONSTRUCTIONS[name].input().numpy()
                quantize(str(source), quantize_mode=mode, output_path=str(target), calibration_data=data, **options)
            finally:
                for path in folder.glob(f"{source.stem}*"):
                    path.unlink()

        return write

    return {
        f"modelopt-onnx-{name}.{mode}{'-half' if options else ''}": writer(name, mode, **options)
        for name in ("plain", "wide")
        for mode in ("int8", "fp8")
        for options in ({}, {"high_precision_dtype": "fp16"})
    }


def nncf_variants(folder: Path) -> Writers:
    """NNCF's quantiser of ONNX files and its compression of weights."""
    import nncf

    def writer(name: str, kind: str) -> Callable[[Path], None]:
        def write(target: Path) -> None:
            model = onnx.load(_source(folder, name))
            key = model.graph.input[0].name
            random = np.random.default_rng(5)
            shape = CONSTRUCTIONS[name].shape
            batches = [{key: random.standard_normal(shape).astype(np.float32)} for _ in range(4)]
            if kind == "quantise":
                model = nncf.quantize(model, nncf.Dataset(batches), subset_size=4)
            elif kind == "quantise-mixed":
                model = nncf.quantize(model, nncf.Dataset(batches), subset_size=4, preset=nncf.QuantizationPreset.MIXED)
            else:
                model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode(kind))
            onnx.save(model, target)

        return write

    kinds = ("quantise", "quantise-mixed", "int8_sym", "int8_asym", "int4_sym")
    return {f"nncf-{name}.{kind}": writer(name, kind) for name in ("plain", "wide") for kind in kinds}


if __name__ == "__main__":
    main()
