"""A stale basis is reported in every output; one that has hardly moved is not."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import filterdb as fdb
from filterdb.commands import density, drift, explain, nearest, phenotypes
from filterdb.commands.answer import to_json
from filterdb.errors import StaleBasisWarning
from filterdb.numerics.eigen import Basis, covariance_angle
from filterdb.reduce.basis import STALE_ANGLE
from tests.models import chain

pytestmark = pytest.mark.slow


def smooth(seed: int, axis: int, size: int = 1_200) -> np.ndarray:
    """Filters that vary along one axis of the kernel more than along the other."""
    rng = np.random.default_rng(seed)
    filters = rng.standard_normal((size, 3, 3)) + 2 * rng.standard_normal((size, *((1, 3) if axis else (3, 1))))
    return filters.reshape(40, size // 40, 3, 3).astype(np.float32)


def database(folder: Path, axis: int) -> fdb.Database:
    """A basis fitted on two models along axis 0; then two more, along `axis`."""
    files = [chain(folder / f"m{i}.onnx", smooth(i, 0 if i < 2 else axis)) for i in range(4)]
    first = fdb.ingest(folder / "db", files[:2]).database
    fdb.drift(first, "model")
    return fdb.ingest(folder / "db", files[2:]).database


Result = Callable[[fdb.Database], Any]

Answer = Callable[..., dict[str, Any]]
Table = Callable[[dict[str, Any]], None]

OUTPUTS: dict[str, tuple[Result, Answer, Table]] = {
    "drift": (lambda db: fdb.drift(db, "model", noise=False), drift.to_answer, drift.show),
    "nearest": (lambda db: fdb.nearest(db, Path(db.url).parent / "m0.onnx"), nearest.to_answer, nearest.show),
    "density": (lambda db: fdb.density(db, "model", bins=7), density.to_answer, density.show),
    "phenotypes": (lambda db: fdb.phenotypes(db, "model", pairs=[]), phenotypes.to_answer, phenotypes.show),
    "explain": (
        lambda db: fdb.explain(db, "model", *map(str, db.models["model"].values[:2]), match="task"),
        explain.to_answer,
        explain.show,
    ),
}
"""Everything that counts in the committed basis: the result, its answer, its table."""


def test_a_stale_basis_is_in_every_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = database(tmp_path, axis=1)
    for name, (result_of, answer_of, table_of) in OUTPUTS.items():
        with pytest.warns(StaleBasisWarning, match="filterdb refit"):
            result = result_of(db)
        table_of(answer_of(result))
        answer = json.loads(to_json(answer_of(result)))
        assert answer["basis_warning"] == result.attrs["basis_warning"], name
        assert answer["basis_moved"]["covariance_angle"] >= STALE_ANGLE
        assert "\n" not in answer["basis_warning"] and len(answer["basis_warning"]) < 200
        printed = " ".join(capsys.readouterr().out.split())
        assert f"warning: {answer['basis_warning']}" in printed, name
    db = fdb.refit(db)
    for result_of, answer_of, table_of in OUTPUTS.values():
        with warnings.catch_warnings():
            warnings.simplefilter("error", StaleBasisWarning)
            result = result_of(db)
        assert answer_of(result)["basis_warning"] is None
        table_of(answer_of(result))
        assert "refit" not in capsys.readouterr().out


def test_a_page_warns_of_a_stale_basis(tmp_path: Path) -> None:
    db = database(tmp_path, axis=1)
    with pytest.warns(StaleBasisWarning):
        page = fdb.report(db, tmp_path / "page", densities=False)
    assert "filterdb refit" in Path(page).read_text(encoding="utf-8")


def test_more_of_the_same_is_no_reason_to_warn(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", StaleBasisWarning)
        result = fdb.drift(database(tmp_path, axis=0), "model", noise=False)
    assert json.loads(result.attrs["basis_moved"])["covariance_angle"] < STALE_ANGLE
    assert "basis_warning" not in result.attrs


def basis(vectors: np.ndarray, ratios: np.ndarray) -> Basis:
    return Basis(np.zeros(9), vectors, ratios, ratios, np.sqrt(ratios))


def test_a_rotation_counts_by_what_it_moves() -> None:
    """Nothing within equal eigenvalues, whatever the principal angle; the definition elsewhere; ratios count too."""
    ratios = np.array([0.3, 0.3, 0.1, 0.08, 0.07, 0.05, 0.04, 0.03, 0.03])
    turned = np.eye(9)
    turned[:2, :2] = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    assert covariance_angle(basis(np.eye(9), ratios), basis(turned, ratios)) < 1e-15
    rng = np.random.default_rng(0)
    vectors, other = np.linalg.qr(rng.standard_normal((9, 9)))[0], rng.dirichlet(np.ones(9))
    a, b = np.diag(ratios), vectors.T @ np.diag(other) @ vectors
    expected = np.arccos(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))
    assert covariance_angle(basis(np.eye(9), ratios), basis(vectors, other)) == pytest.approx(expected, rel=1e-12)
    assert covariance_angle(basis(vectors, ratios), basis(vectors, other)) > 0.1
