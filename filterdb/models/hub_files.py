"""Choose the file to read of a model repository of the Hugging Face hub, and pin its revision to a commit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from filterdb.errors import InputError
from filterdb.models.catalog import ModelSource
from filterdb.store import hub

EXACT = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
)
"""Names of files that hold the weights of a repository, the best first."""

LATER = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.onnx", "onnx/model.onnx", "openvino_model.xml")
"""Further such names, which come after any other safetensors file."""

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".onnx", ".keras", ".h5", ".tflite", ".bin")
"""Suffixes of files with weights, the best first. A file is chosen by its suffix if no other file has the same."""

NO_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt")
"""Names of files that training leaves behind, which hold no weights of a model."""


def pinned(source: ModelSource) -> ModelSource:
    """Return a source of the hub with a URL that names a commit and a file; any other source unchanged.

    All requests for the file, and for others beside it, are then of one commit. Raises InputError if the repository
    has no weights or several candidates, StoreMissingError or StoreError if the hub cannot be asked.
    """
    if not hub.is_hub(source.url):
        return source
    place = hub.parse(source.url)
    if place.is_pinned and place.path.endswith((*SUFFIXES, ".json", ".xml")):
        return replace(source, url=place.url)
    place, files = hub.pin(place)
    path = place.path if place.path in files else choose(files, place.path, source.shown)
    return replace(source, url=replace(place, path=path).url)


def choose(names: Iterable[str], folder: str, where: str) -> str:
    """Return the file with the weights in a folder of a repository. Messages call the repository `where`.

    Raises InputError if there is none, or if several have the same rank.
    """
    prefix = f"{folder}/" if folder else ""
    inside = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    if folder and not inside:
        raise InputError(f"{where}: expected a file or folder of the repository, found none; check its name")
    beside = sorted(name for name in inside if "/" not in name and name not in NO_WEIGHTS)
    ranked = [
        *([name] for name in EXACT if name in inside),
        [name for name in beside if name.endswith(SUFFIXES[0])],
        *([name] for name in LATER if name in inside),
        *([name for name in beside if name.endswith(suffix)] for suffix in SUFFIXES[1:]),
    ]
    candidates = next((names for names in ranked if names), [])
    if len(candidates) > 1:
        raise InputError(
            f"{where}: expected one file with weights, found {len(candidates)}, such as {candidates[0]} and "
            f"{candidates[1]}; name one: hf://org/repository/{candidates[0]}"
        )
    if not candidates:
        raise InputError(f"{where}: expected a file with weights ({', '.join(SUFFIXES)}), found none")
    return prefix + candidates[0]
