"""Phenotypes of groups: what planted models come out as, against the rule on NumPy's own histograms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import UsageError
from filterdb.numerics.modes import ModeName
from filterdb.numerics.shape import Bounds, shape
from filterdb.reduce.basis import projection
from filterdb.store.segment import Segment
from tests.models import chain


def layer(filters: np.ndarray) -> np.ndarray:
    """(n, 9) as a convolution weight of 50 output channels."""
    return filters.astype(np.float32).reshape(50, -1, 3, 3)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """Models of 5,000 filters, each in chunks of 300: normal, few distinct filters, one-sided, mostly zero."""
    folder = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((5_000, 9)) @ np.linalg.qr(rng.standard_normal((9, 9)))[0]
    prototypes = rng.standard_normal((12, 9))
    zeros = normal.copy()
    zeros[rng.random(5_000) < 0.6] = 0
    models = {
        "normal": normal,
        "copies": prototypes[rng.integers(0, 12, 5_000)] + 0.01 * rng.standard_normal((5_000, 9)),
        "one-sided": np.abs(normal),
        "zeros": zeros,
    }
    for name, filters in models.items():
        chain(folder / f"{name}.onnx", layer(filters[:2_500]), layer(filters[2_500:]))
    chain(folder / "small.onnx", layer(normal[:900]))
    (folder / "models.csv").write_text(
        "path,name\n" + "".join(f"{name}.onnx,{name}\n" for name in [*models, "small"]), "utf-8"
    )
    return fdb.ingest(folder / "db", catalog=folder / "models.csv", chunk_rows=300).database


def test_planted_models_are_what_they_are(planted: fdb.Database) -> None:
    found = fdb.phenotypes(planted, "model")
    of = {str(name): found.sel(group=name) for name in found["group"].values}
    assert set(of["normal"]["pair_phenotype"].values) == {"sun"}
    assert set(of["normal"]["phenotype"].values) == {"sun"}
    assert set(of["copies"]["pair_phenotype"].values) == {"spikes"}
    assert set(of["zeros"]["pair_phenotype"].values) == {"point"}
    assert "symbols" in of["one-sided"]["phenotype"].values  # the mean filter is far from the database's
    assert set(of["small"]["phenotype"].values) == set(of["small"]["pair_phenotype"].values) == {"few"}


@pytest.mark.parametrize(("mode", "scaled"), [("sound", True), ("paper", True), ("sound", False)])
def test_the_rule_sees_the_density_and_the_histograms(planted: fdb.Database, mode: ModeName, scaled: bool) -> None:
    found = fdb.phenotypes(planted, "model", pairs=[(0, 1), (5, 3)], mode=mode, scaled=scaled)
    assert found["pair"].values.tolist() == ["0,1", "5,3"]
    assert (found["first"].values.tolist(), found["second"].values.tolist()) == ([0, 5], [1, 3])
    drift = fdb.drift(planted, "model", mode=mode, scaled=scaled)
    mean, components = projection(planted, mode, scaled=scaled)[1].axes.arrays
    zero = [float(((0 - mean) * component).sum()) for component in components]
    for label in found["group"].values:
        one = found.sel(group=label)
        for pair, (first, second) in zip(found["pair"].values, [(0, 1), (5, 3)], strict=True):
            density = fdb.density(planted, "model", components=(first, second), mode=mode, scaled=scaled)
            expected = shape(
                density["counts"].sel(group=label).values, density["bin_edges"].values, (zero[first], zero[second])
            )
            assert one["pair_phenotype"].sel(pair=pair) == expected.phenotype()
            for name, value in expected.measures().items():
                if name != "filters":
                    assert float(one[f"pair_{name}"].sel(pair=pair)) == pytest.approx(value, abs=1e-12)
        for k in range(9):
            expected = shape(drift["counts"].sel(group=label)[k].values, drift["bin_edges"].values, (zero[k],))
            assert one["phenotype"][k] == expected.phenotype()
            assert float(one["departure"][k]) == pytest.approx(expected.departure, abs=1e-12)


def test_no_pairs_no_pass(planted: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    fdb.drift(planted, "model")

    def refuse(*_: object) -> None:
        raise AssertionError("a chunk was read")

    monkeypatch.setattr(Segment, "read_columns", refuse)
    found = fdb.phenotypes(fdb.open(planted.url), "model", pairs=[])
    assert found.sizes["pair"] == 0 and found["pair_phenotype"].shape == (5, 0)
    np.testing.assert_array_equal(found["phenotype"], fdb.phenotypes(planted, "model", pairs=[])["phenotype"])


def test_groups_views_and_bounds(planted: fdb.Database) -> None:
    whole = fdb.phenotypes(planted)
    assert whole["group"].values.tolist() == ["all"] and int(whole["count"][0]) == 20_900
    view = fdb.phenotypes(planted.select(model="zeros"), "model,conv_depth", pairs=[(0, 1)])
    assert view["group"].values.tolist() == ["zeros × 0", "zeros × 1"]
    assert view["conv_depth"].values.tolist() == ["0", "1"]
    assert set(view["pair_phenotype"].values.ravel()) == {"point"}
    strict = fdb.phenotypes(planted.select(model="zeros"), "model", pairs=[(0, 1)], bounds=Bounds(point=0.9))
    assert strict["pair_phenotype"].values.ravel().tolist() != ["point"]
    assert json.loads(strict.attrs["bounds"])["point"] == 0.9


def test_refusals(planted: fdb.Database) -> None:
    with pytest.raises(UsageError, match="expected two different ones"):
        fdb.phenotypes(planted, "model", pairs=[(0, 1), (3, 3)])
    with pytest.raises(UsageError, match="colour: expected a label"):
        fdb.phenotypes(planted, "colour")


def test_real_models(real_db: fdb.Database) -> None:
    """The last layers' first component piles up at both ends, and the pair with it is no sun; most else is."""
    found = fdb.phenotypes(real_db, "depth_decile")
    last = found.sel(group="(0.9, 1.0]")
    assert last["phenotype"].values[0] == "symbols"
    assert last["pair_phenotype"].values[0] == "symbols"
    assert (found["pair_phenotype"].values == "sun").mean() > 0.8


def test_extremes(tmp_path: Path) -> None:
    """All filters alike, all zero: still an answer."""
    for name, value in (("flat", 0.5), ("zero", 0.0)):
        chain(tmp_path / f"{name}.onnx", np.full((40, 40, 3, 3), value, np.float32))
    db = fdb.ingest(tmp_path / "db", [tmp_path / "flat.onnx", tmp_path / "zero.onnx"]).database
    found = fdb.phenotypes(db, "model")
    assert set(found["pair_phenotype"].values.ravel()) <= {"point", "spikes"}
