"""The direction that the filters of a collapsed layer share, against NumPy's SVD and SciPy's DCT."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.fft import dctn

import filterdb as fdb
from filterdb.analysis.findings import COLLAPSED_REMEDIES, REMEDIES, findings
from filterdb.commands.check_answer import to_answer
from filterdb.commands.degeneration import to_answer as degeneration_answer
from filterdb.commands.junit import junit
from filterdb.commands.sarif import sarif
from filterdb.numerics.directions import (
    AS_1X1,
    BOX_BLUR,
    DIRECTIONS,
    direction_names,
    direction_texts,
    directions,
)
from filterdb.numerics.layer import moments
from filterdb.numerics.moments import Moments
from filterdb.numerics.spectrum import dct_energies, dct_terms
from filterdb.schema import Kernel, kernel_name
from tests.filters import trained
from tests.models import chain

CENTRE, BOX, EDGE = np.eye(9)[4], np.ones(9) / 3, np.array([1, 0, -1] * 3) / np.sqrt(6)


def along(direction: np.ndarray, noise: float = 0.01, shift: float = 0.0, n: int = 1_024) -> np.ndarray:
    """Return filters (n, 9) that are multiples of a direction, plus noise and a constant multiple of it."""
    rng = np.random.default_rng(3)
    filters = (rng.normal(size=(n, 1)) + shift) * direction + rng.normal(0, noise, (n, 9))
    return np.asarray(filters, np.float32)


def expected(filters: np.ndarray) -> str:
    """Name the direction from the singular vectors of the filters and SciPy's DCT."""
    first = np.linalg.svd(filters.astype(np.float64), full_matrices=False)[2][0]
    terms = dctn(first.reshape(3, 3), norm="ortho").ravel() ** 2
    if first[4] ** 2 >= 0.9:
        return "1×1"
    return "box" if terms[0] >= 0.9 else f"({terms.argmax() // 3},{terms.argmax() % 3})"


MIXTURE = 0.8 * CENTRE + 0.6 * BOX
TOP = EDGE.reshape(3, 3).T.ravel()


@pytest.mark.parametrize(
    ("direction", "word"), [(CENTRE, "1×1"), (BOX, "box"), (EDGE, "(0,1)"), (TOP, "(1,0)"), (MIXTURE, "(0,0)")]
)
@pytest.mark.parametrize("shift", [0.0, 1.0, 50.0])
def test_names_of_directions(direction: np.ndarray, word: str, shift: float) -> None:
    filters = along(direction, shift=shift)
    code, share = directions(moments(filters))
    name = DIRECTIONS[int(code)]
    assert expected(filters) in name
    first = np.linalg.svd(filters.astype(np.float64), full_matrices=False)[2][0]
    pictures = filters.reshape(-1, 3, 3).astype(np.float64)
    terms = (dctn(pictures, axes=(1, 2), norm="ortho").reshape(-1, 9) ** 2).sum(axis=0)
    energy = (pictures[:, 1, 1] ** 2).sum() if first[4] ** 2 >= 0.9 else terms[int(code) - 3 if code > 2 else 0]
    assert float(share) == pytest.approx(energy / (pictures**2).sum(), rel=1e-12)
    assert word in name


def test_a_mean_elsewhere_is_no_1x1() -> None:
    """Filters that only vary in the centre weight, around a box that is larger, do not act as 1×1."""
    filters = along(CENTRE) + np.float32(10)
    assert DIRECTIONS[int(directions(moments(filters)).code)] == BOX_BLUR


KERNELS: list[Kernel] = [(3, 3), (5, 5), (1, 3), (3, 1), (2, 4), (7, 7)]


@pytest.mark.parametrize("kernel", KERNELS, ids=kernel_name)
def test_dct_terms_and_energies_are_scipys(kernel: Kernel) -> None:
    weights = kernel[0] * kernel[1]
    pictures = np.eye(weights).reshape(weights, *kernel)
    dct = dctn(pictures, axes=(1, 2), norm="ortho").reshape(weights, weights)
    np.testing.assert_allclose(dct_terms(kernel).T, dct, atol=1e-15)
    filters = np.random.default_rng(1).standard_normal((512, weights)).astype(np.float32) + np.float32(7)
    coefficients = dctn(filters.reshape(-1, *kernel).astype(np.float64), axes=(1, 2), norm="ortho")
    energies = (coefficients.reshape(-1, weights) ** 2).mean(axis=0)
    np.testing.assert_allclose(dct_energies(moments(filters), kernel), energies, rtol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS, ids=kernel_name)
def test_directions_of_any_kernel(kernel: Kernel) -> None:
    """Filters along the centre, the mean and each DCT term have that direction."""
    weights = kernel[0] * kernel[1]
    texts = direction_texts(kernel)
    rng = np.random.default_rng(2)
    centre = np.eye(weights)[kernel[0] // 2 * kernel[1] + kernel[1] // 2]
    for code, pattern in enumerate([centre, *dct_terms(kernel)], start=1):
        filters = rng.normal(size=(600, 1)) * pattern + rng.normal(0, 0.001, (600, weights))
        found = directions(moments(filters.astype(np.float32)), kernel)
        assert texts[int(found.code)] == texts[code if code <= 2 else code + 1], pattern
        assert float(found.share) > 0.99
    assert len(texts) == len(set(texts)) == 3 + weights


def test_layers_without_energy_and_codes_of_a_strange_child_have_no_direction() -> None:
    empty = Moments(np.zeros(2, np.int64), np.full((2, 9), np.nan), np.zeros((2, 9, 9)))
    assert directions(empty).code.tolist() == [0, 0] and np.isnan(directions(empty).share).all()
    assert not dct_energies(empty).any()
    codes = np.array([0, 1, 1, len(DIRECTIONS), -1, 2**62])
    named = direction_names(codes, np.array([True, True, False, True, True, True]))
    assert named.tolist() == ["", AS_1X1, "", "", "", ""]


def test_check_and_degeneration_say_the_direction(tmp_path: Path) -> None:
    layers = {"1×1": CENTRE, "box blur": BOX, "(0,1)": EDGE}
    weights = [along(direction).reshape(32, 32, 3, 3) for direction in layers.values()]
    path = chain(tmp_path / "m.onnx", *weights, trained(32, 32), np.zeros((32, 32, 3, 3), np.float32))
    result = fdb.check(path)
    listed = [finding for finding in findings(result) if finding.rule == "collapsed"]
    for word, finding in zip(layers, listed, strict=True):
        assert word in finding.message and word in finding.direction
    remedies = [COLLAPSED_REMEDIES[AS_1X1], COLLAPSED_REMEDIES[BOX_BLUR], REMEDIES["collapsed"]]
    assert [finding.remedy for finding in listed] == remedies
    texts = [entry["message"]["text"] for entry in json.loads(sarif(result))["runs"][0]["results"]]
    for finding in listed:
        assert any(finding.message in text and text.endswith(finding.remedy) for text in texts)
        assert finding.message in junit(result)
    rows = to_answer(result)["rows"]
    directions_of_rows = [row["direction"] for row in rows]
    assert directions_of_rows == [*(finding.direction for finding in listed), None, None]
    stored = fdb.degeneration(fdb.ingest(tmp_path / "db", path).database)
    assert stored["direction"].values.tolist() == [direction or "" for direction in directions_of_rows]
    np.testing.assert_allclose(stored["direction_share"], result["direction_share"], rtol=1e-9)
    assert [row["direction"] for row in degeneration_answer(stored)["rows"]] == directions_of_rows
