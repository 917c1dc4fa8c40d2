"""P1's experiment again: its constants within their scatter, other initialisations, what it refuses, what uses it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import filterdb as fdb
from filterdb.analysis.threshold import default_sizes, sigmoid
from filterdb.errors import UsageError
from filterdb.numerics.quality import P1, randomness_threshold
from filterdb.schema import as_kernel
from tests.models import chain, weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def normal() -> xr.Dataset:
    return fdb.randomness_threshold(repeats=20, seed=1)


@pytest.mark.slow
def test_p1s_constants_lie_within_the_scatter(normal: xr.Dataset) -> None:
    """Twenty repetitions of 1,000 layers a size. Measured: L 1.266 ± 0.069, k 0.880 ± 0.066, x₀ 2.309 ± 0.176, b −0.315
    ± 0.068; P1's single experiment lies within twice that of their mean, and the curves lie within 0.02 of each other.
    """
    mean, scatter = normal["fitted"].mean("repeat").values, normal["scatter"].values
    assert (np.abs(mean - np.array(P1)) < 2 * scatter).all()
    assert (np.abs(mean - np.array(P1)) < [0.07, 0.07, 0.2, 0.07]).all()
    assert ((scatter > [0.03, 0.03, 0.08, 0.03]) & (scatter < [0.15, 0.15, 0.4, 0.15])).all()
    sizes = np.array([2**i for i in range(3, 17)])
    ours, theirs = randomness_threshold(sizes, sigmoid(normal)), randomness_threshold(sizes)
    assert np.abs(ours - theirs).max() < 0.02
    # Large layers: everything tends to log₁₀ 9.
    assert float(normal["smallest"][:, -1].min()) == pytest.approx(np.log10(9), abs=1e-3)


def test_result(normal: xr.Dataset) -> None:
    assert normal["size"].values.tolist() == [2**i for i in range(1, 17)]
    np.testing.assert_array_equal(normal["scatter"], normal["fitted"].values.std(axis=0, ddof=1))
    np.testing.assert_array_equal(normal["paper"], [1.2618047, 0.88767525, 2.30436435, -0.31050834])
    np.testing.assert_allclose(normal["threshold"], randomness_threshold(normal["size"].values, sigmoid(normal)))
    assert (normal.attrs["init"], normal.attrs["draws"]) == ("normal", 1_000)


def test_the_same_seed_gives_the_same_numbers_whatever_else_is_drawn() -> None:
    one = fdb.randomness_threshold(sizes=[4, 16, 64, 256], draws=20, repeats=2, seed=7)
    two = fdb.randomness_threshold(sizes=[256, 4, 8, 16, 64, 64], draws=20, repeats=3, seed=7)
    np.testing.assert_array_equal(one["smallest"], two["smallest"].sel(size=one["size"].values, repeat=[0, 1]))
    other = fdb.randomness_threshold(sizes=[4, 16, 64, 256], draws=20, repeats=2, seed=8)
    assert not (one["smallest"].values[:, 1:] == other["smallest"].values[:, 1:]).any()
    assert np.isnan(fdb.randomness_threshold(sizes=[4, 16, 64, 256], draws=5, repeats=1)["scatter"]).all()


def test_other_initialisations() -> None:
    """Uniform and orthogonal layers vary less than normal ones; Kaiming's scale is not seen."""
    sizes = [16, 32, 64, 128, 256]
    found = {
        init: fdb.randomness_threshold(init, sizes=sizes, draws=300, repeats=4)
        for init in ("normal", "kaiming", "uniform", "orthogonal")
    }
    np.testing.assert_array_equal(found["kaiming"]["smallest"], found["normal"]["smallest"])
    of = {init: one["smallest"].mean("repeat").values for init, one in found.items()}
    assert (of["uniform"][1:] > of["normal"][1:]).all()
    assert (of["orthogonal"] > of["normal"]).all()


def test_degeneration_takes_a_fit(tmp_path: Path) -> None:
    """In `paper` mode a lower threshold makes an uneven layer random; a test decides in `sound` mode."""
    rng = np.random.default_rng(0)
    uneven = (rng.standard_normal((10, 10, 9)) * np.linspace(0.5, 1.5, 9)).reshape(10, 10, 3, 3).astype(np.float32)
    chain(tmp_path / "m.onnx", weights(10, 10), uneven)
    db = fdb.ingest(tmp_path / "db", [tmp_path / "m.onnx"]).database
    plain = fdb.degeneration(db, mode="paper")
    assert plain["random"].values.tolist() == [True, False]
    fitted = fdb.randomness_threshold(sizes=[4, 16, 64, 256], draws=5, repeats=1)
    fitted["value"] = fitted["value"] - [0, 0, 0, 0.1]
    lower = fdb.degeneration(db, mode="paper", threshold=fitted)
    assert lower["random"].values.tolist() == [True, True]
    assert fdb.degeneration(db, threshold=fitted)["random"].values.tolist() == [True, False]
    np.testing.assert_allclose(lower["threshold"], randomness_threshold(np.array([100, 100]), sigmoid(fitted)))
    assert lower.attrs["threshold_init"] == "normal"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"init": "zeros"}, "init: expected one of normal, uniform, kaiming, orthogonal, got 'zeros'"),
        ({"sizes": [2, 4, 8]}, "sizes: expected at least four different ones"),
        ({"sizes": [2, 4, 8, 8]}, "sizes: expected at least four different ones"),
        ({"sizes": [1, 4, 8, 16]}, "sizes: expected at least four different ones of 2 to"),
        ({"sizes": [4, 8, 16, 2**23]}, "sizes: expected at least four different ones of 2 to 4,194,304"),
        ({"draws": 0}, "expected at least 1 of each, got 0, 5 and 1"),
    ],
)
def test_refusals(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        fdb.randomness_threshold(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kernel", "first", "last"), [((5, 5), 4, 2**17), ("1x3", 2, 2**16), ("7x7", 8, 2**18)])
def test_default_sizes_by_kernel(kernel: str | tuple[int, int], first: int, last: int) -> None:
    """Relative to the number of weights, the sizes are about the paper's."""
    shape = as_kernel(kernel)
    sizes = default_sizes("normal", shape[0] * shape[1])
    assert (sizes[0], sizes[-1]) == (first, last)
    assert default_sizes("normal", 9) == [2**i for i in range(1, 17)]
    assert default_sizes("uniform", 256)[-1] == 2**13


def test_another_kernel() -> None:
    """The entropy tends to log₁₀ K; the paper has no constants for it."""
    result = fdb.randomness_threshold(sizes=[8, 64, 512, 4_096, 32_768], draws=20, repeats=2, kernel="5x5")
    assert float(result["smallest"][:, -1].min()) == pytest.approx(np.log10(25), abs=1e-3)
    assert np.isnan(result["paper"]).all()
    assert np.isnan(result["paper_threshold"]).all()
    np.testing.assert_allclose(result["threshold"], result["smallest"].mean("repeat"), atol=0.05)
    assert result.attrs["kernel"] == "5x5"
    same = fdb.randomness_threshold(sizes=[8, 64, 512, 4_096], draws=5, repeats=1, kernel=(1, 9))
    nine = fdb.randomness_threshold(sizes=[8, 64, 512, 4_096], draws=5, repeats=1)
    np.testing.assert_array_equal(same["smallest"], nine["smallest"])
    np.testing.assert_array_equal(same["paper"], nine["paper"])


@pytest.mark.parametrize("kernel", ["1x1", "20x20", "5", "axb", (3,), (3, 3, 3), (0, 5), (True, 5), 5, "5x-1", None])
def test_what_is_no_kernel(kernel: object) -> None:
    with pytest.raises(UsageError, match="kernel: expected"):
        fdb.randomness_threshold(kernel=kernel)  # type: ignore[arg-type]
