"""Energies by DCT term against SciPy's DCT of the filters, aliasing against a fine FFT of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.fft import dctn

import filterdb as fdb
from filterdb.analysis.spectrum import _pair
from filterdb.commands.spectrum import to_answer
from tests.commands.running import run
from tests.filters import trained
from tests.models import conv, model, save, tensor
from tests.models.published import published

pytestmark = pytest.mark.slow


def coefficients(filters: np.ndarray) -> np.ndarray:
    """Return the squared DCT coefficients of filters, (n, 9)."""
    pictures = filters.reshape(-1, 3, 3).astype(np.float64)
    return np.asarray(dctn(pictures, axes=(1, 2), norm="ortho").reshape(-1, 9) ** 2)


@pytest.mark.parametrize("by", ["layer", "task", "depth_decile", "model,depth_decile", None])
@pytest.mark.parametrize("scaled", [False, True])
def test_energies_are_scipys(real_db: fdb.Database, by: str | None, scaled: bool) -> None:
    """Layers across up to 66 chunks."""
    result = fdb.spectrum(real_db, by, scaled=scaled)
    filters, layers = real_db.dataset.filters.values.astype(np.float64), real_db.layers
    if scaled:
        peaks = np.abs(filters).max(axis=1, keepdims=True)
        filters = filters / np.where(peaks > 0, peaks, 1)
    decile = pd.cut(
        layers["conv_depth_norm"].values, np.arange(0, 1.1, 0.1).tolist(), include_lowest=True, labels=False
    )
    keys = {"depth_decile": decile, "layer": layers["layer"].values, None: np.zeros(len(decile))}
    for name in ("task", "model"):
        keys[name] = layers[name].values.astype(str)
    parts = [keys[name] for name in (by.split(",") if by else [None])]
    labels = pd.DataFrame({str(i): np.repeat(part, layers["row_size"].values) for i, part in enumerate(parts)})
    groups = labels.groupby(list(labels.columns), sort=by != "layer").indices
    energies = sorted(coefficients(filters[rows]).mean(axis=0).tolist() for rows in groups.values())
    np.testing.assert_allclose(sorted(result["energy"].values.tolist()), energies, rtol=1e-9, atol=1e-12)
    energy = result["energy"].values.reshape(-1, 3, 3)
    total = energy.sum(axis=(1, 2))
    expected = {
        "low": energy[:, :2, :2].sum(axis=(1, 2)),
        "high": energy[:, 2].sum(axis=1) + energy[:, :2, 2].sum(axis=1),
        "constant": energy[:, 0, 0],
        "horizontal": energy[:, 0, 1:].sum(axis=1),
        "vertical": energy[:, 1:, 0].sum(axis=1),
        "diagonal": energy[:, 1:, 1:].sum(axis=(1, 2)),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(result[name], values / total, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(result["share"].sum("term"), 1)


def beyond(filters: np.ndarray, strides: tuple[int, int], dilations: tuple[int, int]) -> float:
    """Return the share of the energy at frequencies that the strides do not keep, from a fine FFT."""
    size = 480
    wide = np.zeros((len(filters), 5, 7))
    wide[:, : 2 * dilations[0] + 1 : dilations[0], : 2 * dilations[1] + 1 : dilations[1]] = filters.reshape(-1, 3, 3)
    power = (np.abs(np.fft.fft2(wide, (size, size))) ** 2).sum(axis=0)
    frequencies = np.abs(np.fft.fftfreq(size))

    def kept(stride: int) -> np.ndarray:
        weight = (frequencies < 0.5 / stride).astype(float)
        weight[np.isclose(frequencies, 0.5 / stride)] = 1.0 if stride == 1 else 0.5  # the edge: half of its cell
        return weight

    return float(1 - kept(strides[0]) @ power @ kept(strides[1]) / power.sum())


KINDS = [((2, 2), (1, 1)), ((1, 2), (1, 1)), ((3, 3), (1, 1)), ((4, 2), (1, 3)), ((2, 2), (2, 2)), ((1, 1), (1, 1))]


def strided_model(path: Path) -> Path:
    """Save a chain of layers with the strides and dilations of KINDS."""
    nodes, tensors = [], []
    for i, (strides, dilations) in enumerate(KINDS):
        more = {"strides": list(strides), "dilations": list(dilations)}
        nodes.append(
            conv(f"x{i}" if i else "x", f"w{i}", f"x{i + 1}" if i + 1 < len(KINDS) else "y", f"conv{i}", **more)
        )
        tensors.append(tensor(f"w{i}", trained(8, 8, i)))
    return Path(save(path, model(nodes, tensors)))


def test_aliasing_is_that_of_the_fourier_transform(tmp_path: Path) -> None:
    db = fdb.ingest(tmp_path / "db", strided_model(tmp_path / "m.onnx")).database
    result = fdb.spectrum(db, "layer")
    filters = np.split(db.dataset.filters.values.astype(np.float64), len(KINDS))
    shares = [beyond(part, *kind) for part, kind in zip(filters, KINDS, strict=True)]
    np.testing.assert_allclose(result["aliasing"][:5], shares[:5], rtol=1e-3)
    assert np.isnan(result["aliasing"][5])
    assert result["strided"].values.tolist() == [1, 1, 1, 1, 1, 0]
    whole = fdb.spectrum(db)
    energy = [(part**2).sum() for part in filters[:5]]
    assert float(whole["aliasing"][0]) == pytest.approx(np.average(shares[:5], weights=energy), rel=1e-3)
    assert whole["strided"].values.tolist() == [5]
    assert np.isnan(fdb.spectrum(db.select(layer_name="conv5"))["aliasing"]).all()


def test_known_shares(tmp_path: Path) -> None:
    """A filter that is 1 in the centre has equal energy everywhere: stride 2 keeps a quarter; a dead layer has none."""
    centre = np.zeros((8, 8, 3, 3), np.float32)
    dead = centre.copy()
    centre[:, :, 1, 1] = 1
    nodes = [conv("x", "a", "h", "one", strides=[2, 2]), conv("h", "b", "y", "two", strides=[2, 2])]
    path = save(tmp_path / "m.onnx", model(nodes, [tensor("a", centre), tensor("b", dead)]))
    result = fdb.spectrum(fdb.ingest(tmp_path / "db", path).database, "layer")
    assert float(result["aliasing"][0]) == pytest.approx(0.75, rel=1e-12)
    assert np.isnan(result["aliasing"][1]) and np.isnan(result["share"][1]).all() and not result["energy"][1].any()


@pytest.mark.parametrize(
    "text", ["null", "", "[2]", "[2, 2, 2]", '["2", 2]', "[0, 1]", "[-2, 2]", "[2.0, 2]", "[true, 2]", "[99999999, 1]",
             '"ab"', "[" * 10_000, "{}", "[1e999, 1]"],
)  # fmt: skip
def test_strides_that_are_no_pair_are_unknown(text: str) -> None:
    assert _pair(text) is None


def test_published_data_have_no_aliasing(tmp_path: Path) -> None:
    published.write_csv(tmp_path / "dataset.h5", published.frame())
    published.add_filters(tmp_path / "dataset.h5")
    result = fdb.spectrum(fdb.import_hdf5(tmp_path / "db", tmp_path / "dataset.h5").database, "model")
    assert np.isnan(result["aliasing"]).all() and not result["strided"].any()
    assert np.isfinite(result["share"]).any()


def test_command(tmp_path: Path) -> None:
    db = fdb.ingest(tmp_path / "db", strided_model(tmp_path / "m.onnx")).database
    done = run("spectrum", db.url, "--by", "layer", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [row["aliasing"] is None for row in answer["rows"]] == [False] * 5 + [True]
    assert answer["terms"][:4] == ["0,0", "0,1", "0,2", "1,0"] and len(answer["rows"][0]["energy"]) == 9
    assert answer["rows"][0]["share"] == to_answer(fdb.spectrum(db, "layer"))["rows"][0]["share"]
    table = run("spectrum", db.url).stdout
    assert "aliasing" in table and "384 filters, 6 layers, 1 model " in table
