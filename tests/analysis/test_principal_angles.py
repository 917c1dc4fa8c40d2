"""Principal angles between groups' bases against scipy.linalg.subspace_angles on the SVD of the filters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import subspace_angles

import filterdb as fdb
from filterdb.analysis import pca as module
from filterdb.commands.answer import to_json
from filterdb.commands.pca import to_answer as answer_of
from filterdb.errors import UsageError
from filterdb.numerics import eigen
from tests.analysis.families import Frozen, ingested
from tests.models import chain


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    return ingested(tmp_path_factory.mktemp("angles"))


def leading(filters: np.ndarray) -> np.ndarray:
    """Components of the centred filters, rows."""
    found: np.ndarray = np.linalg.svd(filters - filters.mean(axis=0), full_matrices=False)[2]
    return found


@pytest.mark.parametrize("scaled", [True, False])
def test_pairs_of_groups_equal_scipy(db: fdb.Database, scaled: bool) -> None:
    found = fdb.principal_angles(db, "task", scaled=scaled)
    frozen = Frozen(db)
    task = frozen.column(db, "task")
    filters = frozen.scaled if scaled else frozen.filters.astype(np.float64)
    bases = {label: leading(filters[task == label]) for label in found["group"].values}
    for a, mine in bases.items():
        for b, other in bases.items():
            for k in range(1, 9):
                expected = subspace_angles(mine[:k].T, other[:k].T).max()
                angle = float(found["angle"].sel(dimension=k, group=a, other=b))
                assert angle == pytest.approx(expected, abs=1e-7), (a, b, k)
    whole = leading(filters)
    to_whole = fdb.pca(db, "task", scaled=scaled)["angle_to_whole"]
    for label, mine in bases.items():
        expected = [subspace_angles(mine[:k].T, whole[:k].T).max() for k in range(1, 9)]
        np.testing.assert_allclose(to_whole.sel(group=label), expected, atol=1e-7)


def test_small_angles_keep_their_digits() -> None:
    """Where the cosine alone would give 0 or 1e-8."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((9, 9)))[0]
    for angle in (1e-12, 1e-9, 1e-5, 0.3, np.pi / 2):
        turn = np.eye(9)
        turn[[0, 0, 8, 8], [0, 8, 0, 8]] = [np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)]
        found = eigen.principal_angles(turn @ basis, basis)
        np.testing.assert_allclose(found, np.full(8, angle), rtol=1e-3 if angle < 1e-10 else 1e-6)
        np.testing.assert_allclose(eigen.principal_angles(basis, turn @ basis), found, rtol=1e-3)
    # Signs are no angle; what is left is rounding of products of nine numbers.
    np.testing.assert_allclose(eigen.principal_angles(-basis, basis), 0, atol=1e-14)


def test_beyond_the_rank_there_is_no_angle(tmp_path: Path) -> None:
    """A group of filters in a plane, and one of equal filters."""
    rng = np.random.default_rng(1)
    flat = np.zeros((40, 40, 9), np.float32)
    flat[..., :2] = rng.standard_normal((40, 40, 2))
    chain(tmp_path / "plane.onnx", flat.reshape(40, 40, 3, 3))
    chain(tmp_path / "equal.onnx", np.full((40, 40, 3, 3), 0.5, np.float32))
    chain(tmp_path / "full.onnx", rng.standard_normal((40, 40, 3, 3)).astype(np.float32))
    db = fdb.ingest(tmp_path / "db", [tmp_path / f"{name}.onnx" for name in ("plane", "equal", "full")]).database
    found = fdb.principal_angles(db, "model")["angle"]
    names = [Path(label).stem for label in found["group"].values]
    found = found.assign_coords(group=names, other=names)
    pair = found.sel(group="plane", other="full").values
    assert np.isfinite(pair[:2]).all() and np.isnan(pair[2:]).all()
    assert np.isnan(found.sel(group="equal")).all()
    assert np.isnan(found.sel(group="plane", other="plane").values).tolist() == [False] * 2 + [True] * 6
    np.testing.assert_array_equal(found, found.transpose("dimension", "other", "group"))
    answer = json.loads(to_json(answer_of(fdb.pca(db, "model"))))
    assert answer["groups"][names.index("equal")]["angle_to_whole"] == [None] * 8


def test_one_group_and_too_many(db: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    one = fdb.principal_angles(db.select(task="classify"), "task")
    np.testing.assert_allclose(one["angle"], 0, atol=1e-7)
    assert "angle_to_whole" not in fdb.pca(db)
    monkeypatch.setattr(module, "ANGLES_LIMIT", 3)
    with pytest.raises(UsageError, match="at most 3 groups, got 4"):
        fdb.principal_angles(db, "task")
