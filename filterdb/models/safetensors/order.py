"""Find the order of execution of a safetensors file's weights in another file of the same model beside it."""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import partial
from pathlib import Path

from filterdb.errors import ModelError
from filterdb.models.checkpoint.reading import list_tensors
from filterdb.models.data_files import opened_inside
from filterdb.models.parse_errors import PARSE_ERRORS

CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin")
"""Suffixes of checkpoints, whose keys are in the order of execution."""

HUB_NAME = "pytorch_model.bin"
"""The checkpoint beside model.safetensors in repositories of the Hugging Face hub."""


def order_beside(path: Path, names: Collection[str]) -> tuple[str, ...]:
    """Return the order of a checkpoint or an ONNX file beside `path` that names all of `names`; () if there is none.

    It has the same stem, or is `pytorch_model.bin` beside `model.safetensors`. A file that is not readable gives no
    order.
    """
    checkpoints = [f"{path.stem}{suffix}" for suffix in CHECKPOINTS]
    for name in [*checkpoints, *([HUB_NAME] if path.stem == "model" else [])]:
        found = _keys(path.parent, name)
        if found and set(names) <= set(found):
            return found
    found = _initializers(path.with_suffix(".onnx"))
    return found if found and set(names) <= set(found) else ()


def _keys(folder: Path, name: str) -> tuple[str, ...]:
    """Return the keys of a checkpoint in its order; () if it is not there or not readable."""
    opening = partial(opened_inside, folder, name)
    try:
        with opening() as file:
            size = os.fstat(file.fileno()).st_size
        return tuple(dict.fromkeys(tensor.key for tensor in list_tensors(opening, size, name)))
    except (OSError, ModelError, *PARSE_ERRORS):
        return ()


def _initializers(path: Path) -> tuple[str, ...]:
    """Return the weights of an ONNX file's convolutions in the order of its graph; () if it is not readable."""
    if not path.is_file():
        return ()
    # Only here, because most safetensors files have no ONNX file beside them.
    from filterdb.models.onnx.convolution import is_convolution, weight_value
    from filterdb.models.onnx.graph import build_graph, parse

    try:
        nodes = build_graph(parse(path), path.name).nodes
    except (OSError, ModelError, *PARSE_ERRORS):
        return ()
    values = [weight_value(node) for node in nodes if is_convolution(node)]
    named = [str(getattr(value.tensor, "name", "")) for value in values if value is not None]
    return tuple(dict.fromkeys(name for name in named if name))
