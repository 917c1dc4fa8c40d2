"""One trained network in every format: the same filters, recognised as one, and refused where raw filters differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from exporters.conftest import DATA
from filterdb.errors import InputError

FOLDER = DATA / "network"

UNFOLDED = ("zip.pt", "legacy.pth", "training.ckpt", "module.pt", "one.safetensors", "unfolded.onnx", "whole.keras",
            "whole.h5", "only.weights.h5", "shards/model.safetensors.index.json")  # fmt: skip
"""Files in which the batch normalisation is apart, in float32."""

FOLDED = ("script.onnx", "dynamo.onnx", "single.xml", "single.tflite")
"""Files into whose weights it was folded, in float32."""

HALF = ("half.xml", "half.tflite")
"""The same in float16."""

ROUNDING = {**dict.fromkeys(FOLDED, 2e-7), **dict.fromkeys(HALF, 1e-3)}
"""The largest differences that folding and float16 may make to filters that are divided by their largest weight."""


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fdb.Database]:
    """A database of all files."""
    done = fdb.ingest(tmp_path_factory.mktemp("network") / "db", FOLDER)
    assert not done.rejected and not done.unread
    yield done.database


def filters_of(db: fdb.Database, name: str) -> list[np.ndarray]:
    """Return the filters of each layer of a file, the largest layer first."""
    layers = db.select(model=str(FOLDER / name)).layers
    values = db.dataset["filters"].values
    rows = zip(layers["first_row"].values, layers["row_size"].values, strict=True)
    return sorted((values[first : first + count] for first, count in rows), key=len, reverse=True)


def truth() -> list[np.ndarray]:
    """Return the filters as PyTorch has them."""
    with np.load(FOLDER / "weights.npz") as weights:
        listed = [values.reshape(-1, 9) for values in weights.values() if values.ndim == 4]
    return sorted(listed, key=len, reverse=True)


def scaled(filters: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return filters divided by the weight that is largest in `like`, which undoes what folding does to them."""
    peak = np.abs(like).argmax(axis=1, keepdims=True)
    divided: np.ndarray = filters / np.take_along_axis(filters, peak, axis=1)
    return divided


def test_every_file_was_written(db: fdb.Database) -> None:
    names = {Path(str(name)).relative_to(FOLDER).as_posix() for name in db.models["model"].values}
    assert names == {*UNFOLDED, *FOLDED, *HALF}


@pytest.mark.parametrize("file", UNFOLDED)
def test_filters_are_the_same_to_the_last_bit(db: fdb.Database, file: str) -> None:
    for got, expected in zip(filters_of(db, file), truth(), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("file", ROUNDING)
def test_folding_changes_only_scale_and_sign(db: fdb.Database, file: str) -> None:
    for got, expected in zip(filters_of(db, file), truth(), strict=True):
        np.testing.assert_allclose(scaled(got, expected), scaled(expected, expected), atol=ROUNDING[file], rtol=0)


def test_they_are_one_family_without_drift(db: fdb.Database) -> None:
    duplicates = db.models["duplicate_of"].values.astype(str)
    assert (duplicates[0], {*duplicates[1:]}) == ("", {str(db.models["model"].values[0])})
    result = fdb.drift(db, by="model")
    others = ~np.eye(result.sizes["group"], dtype=bool)
    assert (result["drift"].values <= result["floor_q95"].values)[others].all()
    assert set(result["verdict"].values[others].tolist()) == {"related"}


def test_raw_answers_refuse_the_mixture(db: fdb.Database) -> None:
    with pytest.raises(
        InputError, match=r"40 layers whose scale is apart .* 24 in whose weights .* --where batch_norm="
    ):
        fdb.drift(db, by="model", scaled=False)
    fdb.drift(db.select(batch_norm="unfolded"), by="model", scaled=False)
