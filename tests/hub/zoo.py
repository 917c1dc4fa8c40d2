"""Repositories as a hub has them: the layouts in which libraries save weights, and one in twenty broken."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tests.hub.nets import kernels, resnet50, safetensors
from tests.hub.server import Content, Repository
from tests.models.checkpoint.writer import legacy_checkpoint, tensor, zip_checkpoint

Tensors = dict[str, np.ndarray]
Files = dict[str, bytes]


def _one_file(tensors: Tensors) -> Files:
    return {"model.safetensors": safetensors(tensors)}


def _half(tensors: Tensors) -> Files:
    return _one_file({name: values.astype(np.float16) for name, values in tensors.items()})


def _zip(tensors: Tensors) -> Files:
    return {"pytorch_model.bin": zip_checkpoint({name: tensor(values) for name, values in tensors.items()})}


def _legacy(tensors: Tensors) -> Files:
    return {"pytorch_model.bin": legacy_checkpoint({name: tensor(values) for name, values in tensors.items()})}


def _shards(tensors: Tensors) -> Files:
    names = sorted(tensors)
    files: Files = {}
    weight_map: dict[str, str] = {}
    for i, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        file = f"model-{i:05}-of-00002.safetensors"
        files[file] = safetensors({name: tensors[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    return {**files, "model.safetensors.index.json": json.dumps({"metadata": {}, "weight_map": weight_map}).encode()}


SOUND: tuple[Callable[[Tensors], Files], ...] = (*[_one_file] * 14, _zip, _zip, _legacy, _shards, _half)
"""The layouts of 19 of 20 repositories."""

BROKEN: tuple[Callable[[Tensors], Files], ...] = (
    lambda tensors: {"model.safetensors": safetensors(tensors)[:-1_000]},
    lambda tensors: {"model.safetensors": b"<!DOCTYPE html><html><body>Not found</body></html>"},
    lambda tensors: {"model.safetensors": (2**40).to_bytes(8, "little") + safetensors(tensors)[8:]},
    lambda tensors: {"README.md": b"weights will follow"},
    lambda tensors: {"pytorch_model.bin": _zip(tensors)["pytorch_model.bin"][:-5_000]},
)
"""What is wrong with the twentieth."""


def is_sound(number: int) -> bool:
    """Return whether the repository of this number can be read."""
    return number % 20 < len(SOUND)


def repository(number: int, divisor: int = 8, folder: Path | None = None) -> Repository:
    """Return a repository; its files are in `folder`, or else in memory."""
    tensors = resnet50(divisor, seed=number)
    layout = SOUND[number % 20] if is_sound(number) else BROKEN[number // 20 % len(BROKEN)]
    config = {"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}
    files = layout(tensors) | {"config.json": json.dumps(config).encode(), "README.md": b"---\nlicence: mit\n---\n"}
    return Repository(f"zoo/net-{number:04}", _placed(files, number, folder), pipeline_tag="image-classification")


def _placed(files: Files, number: int, folder: Path | None) -> Mapping[str, Content]:
    if folder is None:
        return files
    placed: dict[str, Content] = {}
    for name, data in files.items():
        path = folder / f"{number:04}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        placed[name] = path
    return placed


def filters(number: int, divisor: int = 8) -> Tensors:
    """Return the 3×3 filters of a sound repository, by layer."""
    tensors = resnet50(divisor, seed=number)
    if SOUND[number % 20] is _half:
        tensors = {name: values.astype(np.float16).astype(np.float32) for name, values in tensors.items()}
    return kernels(tensors)
