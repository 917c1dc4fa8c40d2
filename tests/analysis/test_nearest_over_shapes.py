"""`nearest` over several kernel shapes: each shape as alone, their mean by the file's weights, and who is related."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import InputError
from tests.commands.running import answer, run
from tests.models import chain

pytestmark = pytest.mark.slow

Shape = tuple[int, ...]

SHAPES: dict[str, list[Shape]] = {
    "both": [(60, 20, 3, 3), (50, 30, 5, 5)],
    "threes": [(60, 20, 3, 3)],
    "fives": [(50, 30, 5, 5)],
    "few": [(60, 20, 3, 3), (5, 20, 5, 5)],
    "stem": [(60, 20, 1, 3)],
}


def layers(name: str, seed: int) -> list[np.ndarray]:
    """Filters with a spectrum of their own for each model."""
    rng = np.random.default_rng([seed, len(name)])
    slope = rng.uniform(0.3, 1.5)
    made = []
    for shape in SHAPES[name]:
        size = shape[2] * shape[3]
        mixing = rng.standard_normal((size, size)) * np.arange(1, size + 1) ** -slope
        made.append((rng.standard_normal((*shape[:2], size)) @ mixing.T).reshape(shape).astype(np.float32))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nearest")
    for seed, name in enumerate(SHAPES):
        chain(folder / f"{name}.onnx", *layers(name, seed))
    moved = layers("both", 0)
    moved[0] = layers("both", 99)[0]  # other 3×3 filters, the same 5×5 ones
    chain(folder / "cousin.onnx", *moved)
    fdb.ingest(folder / "db", [str(folder / f"{name}.onnx") for name in (*SHAPES, "cousin")])
    return folder


def test_shapes_are_those_of_each_alone(folder: Path) -> None:
    result = fdb.nearest(folder / "db", folder / "both.onnx", n=20)
    names = [Path(model).stem for model in result["model"].values]
    assert set(names) == {"both", "cousin", "threes", "fives", "few"}
    weights = {"3x3": 60 * 20 * 9, "5x5": 50 * 30 * 25}
    assert result["shape"].values.tolist() == ["3x3", "5x5"]
    alone = {kernel: fdb.nearest(folder / "db", folder / "both.onnx", n=20, kernel=kernel) for kernel in weights}
    for place, model in enumerate(result["model"].values):
        row, parts = result.isel(model=place), []
        for kernel, single in alone.items():
            if model not in single["model"].values:
                assert np.isnan(row["shape_drift"].sel(shape=kernel)) and row["shape_count"].sel(shape=kernel) == 0
                continue
            own = single.sel(model=model)
            for name in ("drift", "excess", "floor", "floor_q95", "count", "verdict"):
                assert row[f"shape_{name}"].sel(shape=kernel).item() == own[name].item()
            if own["count"] >= 1000:
                parts.append((weights[kernel], own["drift"].item(), own["floor"].item()))
        total = sum(weight for weight, *_ in parts)
        assert row["drift"].item() == pytest.approx(sum(w * drift for w, drift, _ in parts) / total)
        assert row["excess"].item() == pytest.approx(sum(w * (drift - floor) for w, drift, floor in parts) / total)
        assert row["compared_share"].item() == pytest.approx(total / sum(weights.values()))


def test_order_and_verdicts(folder: Path) -> None:
    result = fdb.nearest(folder / "db", folder / "both.onnx", n=20)
    names = [Path(model).stem for model in result["model"].values]
    verdicts = dict(zip(names, result["verdict"].values.tolist(), strict=True))
    assert names[:2] == ["both", "cousin"]
    assert verdicts["both"] == verdicts["cousin"] == "related"  # by its 5×5 filters alone
    assert result["equal_layers"].values[:2].tolist() == [2, 1]
    assert result["same_filters"].values.tolist() == [name == "both" for name in names]
    excess, share = result["excess"].values, result["compared_share"].values
    enough = share >= 0.5
    assert enough.tolist() == sorted(enough.tolist(), reverse=True)
    assert excess[enough].tolist() == sorted(excess[enough].tolist())
    assert dict(zip(names, enough, strict=True)) == {
        "both": True, "cousin": True, "fives": True, "threes": False, "few": False,
    }  # fmt: skip


def test_one_shape_in_common(folder: Path) -> None:
    """A file of one shape is compared as with `kernel`."""
    whole = fdb.nearest(folder / "db", folder / "fives.onnx", n=20)
    alone = fdb.nearest(folder / "db", folder / "fives.onnx", n=20, kernel=(5, 5))
    assert whole.drop_attrs().identical(alone.drop_attrs())
    assert "shape" not in whole.dims


def test_a_view(folder: Path) -> None:
    db = fdb.open(folder / "db")
    chosen = [model for model in db.models["model"].values if Path(model).stem in {"threes", "fives"}]
    result = fdb.nearest(db.select(model=chosen[:1]), folder / "both.onnx")
    assert result["model"].values.tolist() == chosen[:1]
    assert result.attrs["query_shapes"] == '{"3x3": 1200}'
    with pytest.raises(InputError, match="expected at least one 7×7 convolution"):
        fdb.nearest(db, folder / "both.onnx", kernel="7x7")


def test_the_command(folder: Path) -> None:
    for more in ([], ["--by-decile"]):
        shown = run("nearest", folder / "db", folder / "both.onnx", *more).stdout
        assert "filters by shape: 3x3 1,200, 5x5 1,500; drift is the mean over shapes" in shown
    rows = answer("nearest", folder / "db", folder / "both.onnx")["rows"]
    assert [[shape["kernel"] for shape in row["shapes"]] for row in rows[:2]] == [["3x3", "5x5"]] * 2
    only = answer("nearest", folder / "db", folder / "both.onnx", "--kernel", "3x3")
    assert (only["query"]["shapes"], only["rows"][0]["shapes"], only["kernel"]) == ({"3x3": 1200}, [], "3x3")
