"""Scaled weights against IEEE division, bit for bit: the hardest quotients, boundaries, subnormals, no FMA."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from filterdb.numerics import binning, blocks, compiled

pytestmark = pytest.mark.slow

TOP = 2**24
"""Significands of float32 are whole numbers below."""

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@njit
def uses_fma() -> bool:
    """The intrinsic, callable from Python."""
    return blocks.has_fma()  # type: ignore[no-any-return]


def quotients(weights: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Weights (n,) divided by peaks (n,), as a block of filters computes them; all nine columns are the same."""
    n = len(weights)
    columns = np.tile(weights.astype(np.float32), (9, 1))
    columns.flags.writeable = False
    high, low, out = np.empty(n), np.empty(n), np.empty((9, n))
    blocks.load_scaled(columns, compiled.NINE, 0, n, peaks.astype(np.float32), high, low, out)
    assert (out.view(np.int64) == out[0].view(np.int64)).all()
    first: np.ndarray = out[0]
    return first


def assert_division(weights: np.ndarray, peaks: np.ndarray) -> None:
    """The bits of NumPy's division, which is the processor's; the sign of zero too."""
    expected = np.float32(weights).astype(np.float64) / np.float32(peaks).astype(np.float64)
    np.testing.assert_array_equal(quotients(weights, peaks).view(np.int64), expected.view(np.int64))


def test_the_hardest_quotients() -> None:
    """A·2^t one, three or five apart from a multiple of P: A/P is as near to a midpoint of doubles as it can be."""
    rng = np.random.default_rng(0)
    divisors = [TOP - 1, TOP - 3, TOP // 2 + 1, *(rng.integers(TOP // 4, TOP // 2, 3_000) * 2 + 1).tolist()]
    weights, peaks = [], []
    nearest = 1.0
    for p in divisors:
        for t in (52, 53, 54, 55):
            for apart in (-5, -3, -1, 1, 3, 5):
                a = apart * pow(2**t, -1, p) % p
                assert a < TOP and (a * 2**t - apart) % p == 0
                weights.append(a)
                peaks.append(p)
                if t == 54 and 2 * a > p and (a * 2**t - apart) // p % 2:  # an odd number: a midpoint
                    nearest = min(nearest, abs(apart) / (a * 2.0**t))
    assert nearest < 1.2 * 2.0**-78  # the bound of the proof is met, nearly
    assert_division(np.array(weights), np.array(peaks))
    assert_division(-np.array(weights) * 2.0**-149, np.array(peaks) * 2.0**-149)


def test_boundaries() -> None:
    """Significands of few and of many bits at every exponent, each divided by each."""
    significands = np.array([1, 2**22 + 1, 2**23 - 1, 2**23, 2**23 + 1, 3 * 2**22, TOP - 2, TOP - 1])
    exponents = [-149, -148, -130, -127, -126, -125, -64, -24, -23, -1, 0, 1, 64, 103, 104]
    values = np.unique((significands[:, None] * 2.0 ** np.array(exponents)).astype(np.float32))
    values = values[np.isfinite(values)]
    assert values[0] == np.float32(2.0**-149) and values[-1] == np.finfo(np.float32).max
    w, p = (grid.ravel() for grid in np.meshgrid(np.concatenate([values, [0.0, -0.0], -values]), values))
    assert_division(w, p)
    assert_division(w, np.nextafter(p, np.float32(1)))


def test_all_short_significands() -> None:
    """Every quotient of two numbers of 11 bits, at the top of the significand and at its end."""
    w, p = (grid.ravel() for grid in np.meshgrid(np.arange(1024, 2048), np.arange(1024, 2048)))
    assert_division(w, p)
    assert_division(w + (TOP - 2048), p + (TOP - 2048))
    assert_division(w + (TOP // 2 - 1024), p + (TOP - 2048))


@pytest.mark.soak
@pytest.mark.parametrize("p", [TOP - 1, TOP - 3, 2**23 + 1, 11_184_811, 3 * 2**22 + 1])
def test_all_weights_of_a_peak(p: int) -> None:
    """Every significand, divided by one."""
    for start in range(2**23, TOP, 2**20):
        w = np.arange(start, start + 2**20)
        assert_division(w, np.full(len(w), p))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(finite, finite.map(abs).filter(bool)), min_size=1, max_size=40))
def test_any_bits(pairs: list[tuple[float, float]]) -> None:
    assert_division(np.array([w for w, _ in pairs]), np.array([p for _, p in pairs]))


def test_zero_filters_stay_zero() -> None:
    zeros = np.array([0.0, -0.0])
    np.testing.assert_array_equal(quotients(zeros, np.abs(zeros)).view(np.int64), zeros.view(np.int64))


def test_fma_is_used_where_the_processor_has_it() -> None:
    """Else LLVM would call a function for every weight."""
    assert uses_fma() == (platform.machine() in {"aarch64", "arm64"} or " fma " in Path("/proc/cpuinfo").read_text())


def test_without_fma_the_bits_are_the_same(tmp_path: Path) -> None:
    """Numba compiles for a processor without the instruction."""
    code = "from tests.numerics import test_blocks as t; assert not t.uses_fma(); t.test_boundaries()"
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize("module", [blocks, binning])
def test_the_loops_name_the_parts_that_they_compile(module: ModuleType) -> None:
    """Numba would otherwise take loops with old parts from its cache."""
    name = module.__name__.rpartition(".")[2].upper()
    digest = hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
    assert getattr(compiled, name) == digest, f"set {name} of compiled.py to {digest}"
