"""Two models of one architecture are judged by swapping their layers, as a loop over all swaps does."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import filterdb as fdb
from filterdb.analysis import layer_swaps
from filterdb.analysis.noise import decide
from filterdb.commands.drift import to_answer
from filterdb.numerics import noise
from filterdb.numerics.resampling import SymmetricKL
from filterdb.numerics.sampling import Floor
from tests.analysis.families import Frozen
from tests.filters import trained
from tests.models import chain

CHANNELS = [14] * 7
WEIGHTS = np.full(9, 1 / 9)
EDGE = 0.06 * np.array([[1, 0, -1]] * 3, np.float32)
"""What the second recipe adds to all filters."""


def layers(model: int, family: int, channels: list[int]) -> list[np.ndarray]:
    """Weights whose layers were each trained with a seed of their own and have an average filter of their own."""
    weights = []
    for i, (into, out) in enumerate(itertools.pairwise(channels)):
        seed = 100 * model + i
        average = np.random.default_rng(seed).normal(0, 0.02, (3, 3)).astype(np.float32)
        weights.append(trained(out, into, seed, family) + average + family * EDGE)
    return weights


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """Three seeds of one recipe, two models of another, one with five layers, one of another width."""
    folder = tmp_path_factory.mktemp("swaps")
    models = {
        **{f"seed{i}": layers(i, 0, CHANNELS) for i in range(3)},
        **{f"recipe{i}": layers(10 + i, 1, CHANNELS) for i in range(2)},
        "short": layers(20, 0, [15] * 6),
        "wide": layers(21, 0, [14, 14, 14, 14, 15, 15, 14]),
    }
    for name, weights in models.items():
        chain(folder / f"{name}.onnx", *weights)
    (folder / "models.csv").write_text("path,name\n" + "".join(f"{name}.onnx,{name}\n" for name in models), "utf-8")
    return fdb.ingest(folder / "db", catalog=folder / "models.csv").database


@pytest.fixture(scope="module")
def by_model(db: fdb.Database) -> xr.Dataset:
    return fdb.drift(db, "model")


def every_swap(frozen: Frozen, db: fdb.Database, left: str, right: str) -> list[float]:
    """The drift after each of the 2^L swaps of layers, that of the models as they are first."""
    owner = db.layers["model"].values.astype(str)
    sides = [
        [frozen.histograms(frozen.layer == layer) for layer in np.flatnonzero(owner == name)] for name in (left, right)
    ]
    drifts = []
    for swapped in itertools.product([0, 1], repeat=len(sides[0])):
        pairs = list(zip(*sides, strict=True))
        one = sum(pair[swap] for pair, swap in zip(pairs, swapped, strict=True))
        other = sum(pair[1 - swap] for pair, swap in zip(pairs, swapped, strict=True))
        drifts.append(frozen.drift(np.asarray(one), np.asarray(other)))
    return drifts


def test_p_values_and_floors_are_those_of_all_swaps(db: fdb.Database, by_model: xr.Dataset) -> None:
    frozen = Frozen(db)
    for left, right in (("seed0", "seed1"), ("seed1", "seed2"), ("seed0", "recipe1"), ("recipe0", "recipe1")):
        drifts = np.array(every_swap(frozen, db, left, right))
        assert len(drifts) == 64
        pair = by_model.sel(group=left, other=right)
        assert float(pair["drift"]) == pytest.approx(drifts[0], rel=1e-9)
        assert float(pair["layer_floor"]) == pytest.approx(drifts.mean(), rel=1e-5)
        assert float(pair["layer_floor_q95"]) == pytest.approx(
            np.quantile(drifts, 0.95, method="inverted_cdf"), rel=1e-5
        )
        share = (drifts >= drifts[0] * (1 - 1e-6)).mean()
        assert share >= 1 / 32  # a swap of all layers has the same drift
        assert pair["judged_by"] == "layers"
        assert float(pair["p_value"]) == pytest.approx(max(share, float(sampling_p_value(pair))), rel=1e-9)
        assert float(pair["q_value"]) >= share
        assert (pair["verdict"] == "different_by_filters") == (float(pair["q_value"]) <= 0.05)


def sampling_p_value(pair: xr.Dataset) -> float:
    """The p-value by numbers of filters alone: that of the same pair as if no layers corresponded."""
    drift, mean, q95 = (
        np.array([[0, float(pair[name])], [float(pair[name]), 0]]) for name in ("drift", "floor", "floor_q95")
    )
    verdicts = decide(drift, Floor(mean, q95), noise.Permuted.none(2), np.zeros(2, bool))
    return float(verdicts.p_value[0, 1])


def test_seeds_are_within_noise_and_recipes_are_not(db: fdb.Database, by_model: xr.Dataset) -> None:
    for left, right in itertools.combinations(["seed0", "seed1", "seed2"], 2):
        pair = by_model.sel(group=left, other=right)
        assert pair["drift"] > pair["floor_q95"]  # filters of a layer resemble each other
        assert pair["verdict"] == "indistinguishable"
        assert 0 < float(pair["detectable"]) < 10 * float(pair["drift"])
    for left, right in itertools.product(["seed0", "seed1", "seed2"], ["recipe0", "recipe1"]):
        pair = by_model.sel(group=left, other=right)
        assert pair["verdict"] == "different_by_filters" and pair["judged_by"] == "layers"


def test_models_whose_layers_do_not_correspond_are_judged_by_filters(by_model: xr.Dataset) -> None:
    for other in ("short", "wide"):
        pair = by_model.sel(group="seed0", other=other)
        assert pair["judged_by"] == "sampling" and np.isnan(float(pair["layer_floor"]))


def test_groups_of_several_models_are_not_swapped(db: fdb.Database) -> None:
    view = db.select(model=["seed0", "seed1", "recipe0"])
    result = fdb.drift(view, "out_channels", noise=True)
    assert np.isnan(result["layer_floor"]).all()
    layers_of_one = fdb.drift(db.select(model="seed0"), "layer", noise=True)
    assert np.isnan(layers_of_one["layer_floor"]).all()


def test_models_of_one_unit_are_not_swapped(tmp_path: Path) -> None:
    rows = ["path,name,architecture,training_dataset,epoch\n"]
    for epoch in (1, 2):
        chain(tmp_path / f"{epoch}.onnx", *layers(epoch, 0, CHANNELS))
        rows.append(f"{epoch}.onnx,e{epoch},net,digits,{epoch}\n")
    (tmp_path / "models.csv").write_text("".join(rows), "utf-8")
    db = fdb.ingest(tmp_path / "db", catalog=tmp_path / "models.csv").database
    result = fdb.drift(db, "model")
    assert result["judged_by"].values[0, 1] == "sampling" and np.isnan(result["layer_floor"]).all()


def test_too_many_swaps_are_left_out(db: fdb.Database, by_model: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = 10  # of five models of one architecture
    assert np.isfinite(by_model["layer_floor"].values).sum() == 2 * pairs
    monkeypatch.setattr(layer_swaps, "SWAP_LIMIT", 32 * pairs)
    assert (fdb.drift(db, "model")["judged_by"] == "layers").sum() == 2 * pairs
    monkeypatch.setattr(layer_swaps, "SWAP_LIMIT", 32 * pairs - 1)
    assert not (fdb.drift(db, "model")["judged_by"] == "layers").any()


def test_explain_and_nearest_say_the_same(db: fdb.Database, by_model: xr.Dataset, tmp_path: Path) -> None:
    pair = fdb.explain(db, "model", "seed0", "seed1")
    assert pair["judged_by"] == "layers" and pair["verdict"] == "indistinguishable"
    assert float(pair["layer_floor"]) == pytest.approx(float(by_model["layer_floor"].sel(group="seed0", other="seed1")))
    assert "swapping layers of the two models reaches" in pair.attrs["summary"]
    chain(tmp_path / "seed3.onnx", *layers(3, 0, CHANNELS))
    result = fdb.nearest(db, tmp_path / "seed3.onnx", n=7)
    entries = {name: result.sel(model=name) for name in result["model"].values}
    for name in ("seed0", "seed1", "seed2"):
        assert entries[name]["drift"] > entries[name]["floor_q95"]
        assert entries[name]["judged_by"] == "layers" and entries[name]["verdict"] == "indistinguishable"
    for name in ("recipe0", "recipe1"):
        assert entries[name]["judged_by"] == "layers" and entries[name]["verdict"] == "different_by_filters"
        assert float(entries[name]["swap_p_value"]) <= 0.05
    for name in ("short", "wide"):
        assert entries[name]["judged_by"] == "sampling" and np.isnan(float(entries[name]["swap_p_value"]))
    floor = entries["seed0"]["layer_floor_q95"]
    assert float(entries["seed0"]["swap_p_value"]) > 0.05 and entries["seed0"]["drift"] <= floor


def test_the_answer_has_the_floors(by_model: xr.Dataset) -> None:
    answer = to_answer(by_model)
    i, j = (answer["groups"].index(name) for name in ("seed0", "recipe0"))
    assert answer["judged_by"][i][j] == "layers"
    assert answer["layer_floor_q95"][i][j] == float(by_model["layer_floor_q95"][i, j])


def test_false_alarms_and_power_of_layers_with_effects_of_their_own() -> None:
    """Each layer of each model has its own mean. Sampling alone calls nearly all pairs of one recipe different."""
    rng = np.random.default_rng(5)
    centres = np.arange(70) - 34.5

    def counts(shift: float) -> np.ndarray:
        means = rng.normal(shift, 2, (8, 9, 1))
        density = np.exp(-((centres - means) ** 2) / 200)
        return np.array([rng.multinomial(2_000, p / p.sum(axis=1, keepdims=True)) for p in density])

    whole = np.full((9, 70), 1_000)
    shares = []
    for shift in (0.0, 6.0):
        rejected = 0
        for _ in range(200):
            statistic = SymmetricKL(np.concatenate([counts(0.0), counts(shift)]), whole, WEIGHTS)
            group, place = np.repeat([0, 1], 8), np.tile(np.arange(8), 2)
            rejected += float(noise.swap_floor(statistic, group, place, [(0, 1)], 2, 1_000).p_value[0, 1]) <= 0.05
        shares.append(rejected / 200)
    assert shares[0] <= 0.08 and shares[1] >= 0.9
