"""`kernel=` of the public functions: the same as the bank of the database, whatever shape it names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import InputError, UsageError
from tests.models import chain, weights

TAKES_KERNEL = sorted(
    name
    for name in fdb.__all__
    if inspect.isfunction(getattr(fdb, name)) and "kernel" in inspect.signature(getattr(fdb, name)).parameters
)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    folder = tmp_path_factory.mktemp("kernels")
    for seed in range(4):
        layers = [weights(24, into, 10 * seed + into, (5, 5)) for into in (3, 24, 24)]
        chain(folder / f"m{seed}.onnx", *layers, weights(24, 24, seed, (3, 3)))
    models = [str(folder / f"m{seed}.onnx") for seed in range(4)]
    return fdb.ingest(folder / "db", models, kernels="all").database


def test_functions_that_take_a_kernel() -> None:
    assert {"pca", "drift", "degeneration", "density", "spectrum", "coefficients", "refit"} <= set(TAKES_KERNEL)


CALLS: dict[str, Callable[..., Any]] = {
    "pca": lambda db, **k: fdb.pca(db, "model", **k),
    "coefficients": fdb.coefficients,
    "degeneration": fdb.degeneration,
    "density": lambda db, **k: fdb.density(db, components=(0, 1), **k),
    "distributions": lambda db, **k: fdb.distributions(db, "model", **k),
    "drift": lambda db, **k: fdb.drift(db, "model", noise=False, **k),
    "explain": lambda db, **k: fdb.explain(db, "model", *db.models["model"].values[:2], **k),
    "phenotypes": lambda db, **k: fdb.phenotypes(db, "model", **k),
    "spectrum": lambda db, **k: fdb.spectrum(db, "model", **k),
    "filter_scale": fdb.filter_scale,
    "statistics": fdb.statistics,
}


@pytest.mark.parametrize("name", CALLS)
def test_kernel_is_the_bank(db: fdb.Database, name: str) -> None:
    result, bank = CALLS[name](db, kernel=(5, 5)), CALLS[name](db.bank("5x5"))
    assert result.identical(bank)
    assert result.attrs["kernel"] == "5x5"
    assert CALLS[name](db).attrs["kernel"] == "3x3"


def test_conditions_hold_in_another_shape(db: fdb.Database) -> None:
    model = str(db.models["model"].values[1])
    expected = fdb.pca(db.bank("5x5").select(model=model))
    for view in (db.select(model=model), db.bank((1, 3)).bank("5x5").select(model=model)):
        assert fdb.pca(view, kernel="5x5").identical(expected)
    with pytest.raises(InputError, match="conv_depth = 3, found none"):
        fdb.pca(db.select(conv_depth=3), kernel="5x5")


def test_a_view_by_verdicts_has_its_shape(db: fdb.Database) -> None:
    view = fdb.exclude_verdict(db, ["dead"])
    with pytest.raises(UsageError, match=r'kernel: expected 3x3, .* got 5x5; .* with db.bank\("5x5"\)'):
        fdb.pca(view, kernel="5x5")
    own = fdb.exclude_verdict(db.bank("5x5"), ["dead"])
    np.testing.assert_array_equal(fdb.pca(own, kernel="5x5")["mean"], fdb.pca(own)["mean"])


@pytest.mark.parametrize("kernel", [5, (5,), (5, 5, 5), (0, 3), "5", b"5x5", ("a", 3)])
def test_no_shape(db: fdb.Database, kernel: Any) -> None:
    with pytest.raises(UsageError, match="kernel: expected"):
        fdb.pca(db, kernel=kernel)
