"""Explanations of a drift against what the filters themselves give, read and projected by numpy."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import filterdb as fdb
from filterdb.analysis import explain as module
from filterdb.commands.answer import plain, to_json
from filterdb.commands.explain import show as table
from filterdb.commands.explain import to_answer as answer_of
from filterdb.errors import UsageError
from filterdb.numerics.modes import ModeName
from tests.analysis.families import MODELS, Frozen, ingested

A, B = "classify", "segment"


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    return ingested(tmp_path_factory.mktemp("explain"))


@pytest.fixture(scope="module")
def frozen(db: fdb.Database) -> Frozen:
    return Frozen(db)


@pytest.fixture(scope="module")
def sides(db: fdb.Database, frozen: Frozen) -> dict[str, np.ndarray]:
    """Which filters are in each group."""
    task = frozen.column(db, "task")
    return {label: task == label for label in (A, B)}


@pytest.fixture(scope="module")
def expected(frozen: Frozen, sides: dict[str, np.ndarray]) -> float:
    return frozen.drift(*(frozen.histograms(rows) for rows in sides.values()))


def test_shares_of_components_and_bins_make_the_drift(
    db: fdb.Database, frozen: Frozen, sides: dict[str, np.ndarray], expected: float
) -> None:
    found = fdb.explain(db, "task", A, B)
    assert float(found["drift"]) == pytest.approx(expected, rel=1e-9)
    p, q = (frozen.shrunk(frozen.histograms(rows)) for rows in sides.values())
    of_bins = frozen.weights[:, None] * (p - q) * np.log(p / q)
    np.testing.assert_allclose(found["bin_share"] * expected, of_bins, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found["component_share"] * expected, of_bins.sum(axis=1), rtol=1e-9)
    assert float(found["component_share"].sum()) == pytest.approx(1, rel=1e-12)
    assert float(found["bin_share"].min()) >= 0
    drift = fdb.drift(db, "task", noise=False)
    per_component = drift["per_component"].sel(group=A, other=B) * drift["weights"]
    np.testing.assert_allclose(found["component_share"] * expected, per_component, rtol=1e-9)
    assert found["count"].values.tolist() == [int(rows.sum()) for rows in sides.values()]


@pytest.mark.parametrize("mode", ["sound", "paper"])
@pytest.mark.parametrize("scaled", [True, False])
def test_layers_and_models_and_the_rest_make_the_drift(db: fdb.Database, mode: ModeName, scaled: bool) -> None:
    found = fdb.explain(db, "task", A, B, mode=mode, scaled=scaled)
    drift = fdb.drift(db, "task", mode=mode, scaled=scaled, noise=False)
    assert float(found["drift"]) == pytest.approx(float(drift["drift"].sel(group=A, other=B)), rel=1e-12)
    assert float(found["layer_share"].sum() + found["rest_share"]) == pytest.approx(1, rel=1e-9)
    for name, share in zip(found["model"].values, found["model_share"].values, strict=True):
        own = found["layer_share"].values[found["layer_model"].values == name]
        assert share == pytest.approx(own.sum(), rel=1e-9, abs=1e-12)
    # What shrinking takes is 35 pseudo-filters of some 5,000.
    assert abs(float(found["rest_share"])) < 0.1


def test_a_layer_pulls_by_where_its_filters_lie(
    db: fdb.Database, frozen: Frozen, sides: dict[str, np.ndarray], expected: float
) -> None:
    """Filter by filter, from the filters: what log P − log Q of its nine bins is above the middle's."""
    p, q = (frozen.shrunk(frozen.histograms(rows)) for rows in sides.values())
    slope = frozen.weights[:, None] * np.log(p / q)
    middle = ((p + q) / 2 * slope).sum()
    bins = np.clip(np.searchsorted(frozen.edges, frozen.coefficients, side="right") - 1, 0, 69)
    of_filter = slope[np.arange(9), bins].sum(axis=1) - middle
    found = fdb.explain(db, "task", A, B)
    layers = [np.flatnonzero(db.layers["model"].values.astype(str) == m) for m in found["model"].values]
    order = np.sort(np.concatenate(layers))
    for i, layer in enumerate(order):
        rows = frozen.layer == layer
        side = 0 if sides[A][rows].all() else 1
        size = list(sides.values())[side].sum() + 35
        share = of_filter[rows].sum() / size * (1 - 2 * side) / expected
        # Bins that a coefficient falls on the edge of may differ by a filter.
        assert float(found["layer_share"][i]) == pytest.approx(share, abs=2e-4)


def test_without_a_model_is_the_drift_of_the_others(
    db: fdb.Database, frozen: Frozen, sides: dict[str, np.ndarray]
) -> None:
    found = fdb.explain(db, "task", A, B)
    assert found["model"].values.tolist() == [name for name in MODELS if MODELS[name][0] in (A, B)]
    for name in found["model"].values:
        left = [frozen.histograms(rows & (frozen.model != name)) for rows in sides.values()]
        assert float(found["without_model"].sel(model=name)) == pytest.approx(frozen.drift(*left), rel=1e-9)
        # The same as asking for the drift of the others in this snapshot, whose basis and π stay.
        view = fdb.drift(db.where("model", [name], negate=True), "task", noise=False)
        asked = float(view["drift"].sel(group=A, other=B))
        assert float(found["without_model"].sel(model=name)) == pytest.approx(asked, rel=1e-9)


@pytest.mark.parametrize("at_a_time", [1_000, 3])
def test_without_a_layer_is_the_drift_of_the_others(
    db: fdb.Database,
    frozen: Frozen,
    sides: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    at_a_time: int,
) -> None:
    monkeypatch.setattr(module, "_BATCH", at_a_time)
    found = fdb.explain(db, "task", A, B)
    layers = np.flatnonzero(np.isin(db.column("task").astype(str), [A, B]))
    assert len(layers) == found.sizes["layer"] == 20
    for i, layer in enumerate(layers):
        left = [frozen.histograms(rows & (frozen.layer != layer)) for rows in sides.values()]
        assert float(found["without_layer"][i]) == pytest.approx(frozen.drift(*left), rel=1e-9)


def test_matched_strata(db: fdb.Database, frozen: Frozen, sides: dict[str, np.ndarray], expected: float) -> None:
    """alpha and beta are in both tasks; gamma and delta in one, and an unknown family matches nothing."""
    found = fdb.explain(db, "task", A, B)
    family = frozen.column(db, "family")
    assert found["matched_label"].values.tolist() == ["alpha", "beta"]
    strata = [[frozen.histograms(rows & (family == label)) for rows in sides.values()] for label in ("alpha", "beta")]
    for i, stratum in enumerate(strata):
        assert found["matched_count"][i].values.tolist() == [int(one[0].sum()) for one in stratum]
        assert float(found["matched_drift"][i]) == pytest.approx(frozen.drift(*stratum), rel=1e-9)
    # The same mix on both sides: the stratum's share of all matched filters.
    number = np.array([[one[0].sum() for one in stratum] for stratum in strata], np.float64)
    mix = number.sum(axis=1) / number.sum()
    mixed = [
        sum(mix[i] * strata[i][side] / number[i, side] for i in range(2)) * number[:, side].sum() for side in (0, 1)
    ]
    within = frozen.drift(*mixed)
    assert float(found["within_matched"]) == pytest.approx(within, rel=1e-9)
    assert float(found["left"]) == pytest.approx(expected - within, rel=1e-6)


def test_the_same_families_on_both_sides_leave_only_what_is_theirs(db: fdb.Database) -> None:
    """Of one family alone, all of the drift is within it."""
    found = fdb.explain(db.select(family="alpha"), "task", A, B)
    assert found["matched_label"].values.tolist() == ["alpha"]
    assert float(found["within_matched"]) == pytest.approx(float(found["drift"]), rel=1e-9)
    assert float(found["left"]) == pytest.approx(0, abs=1e-12)


def test_nothing_matches(db: fdb.Database) -> None:
    found = fdb.explain(db, "family", "gamma", "delta")
    assert found.sizes["matched"] == 0
    assert np.isnan([float(found["within_matched"]), float(found["left"])]).all()
    answer = plain(answer_of(found))
    assert (answer["matched"], answer["within_matched"], answer["left"]) == ([], None, None)


def test_the_only_model_of_a_group_cannot_be_left_out(db: fdb.Database) -> None:
    found = fdb.explain(db, "task", A, "depth")
    assert np.isnan(float(found["without_model"].sel(model="c0")))
    assert np.isfinite(found["without_model"].drop_sel(model="c0")).all()
    row = next(row for row in plain(answer_of(found))["by_model"] if row["model"] == "c0")
    assert row["without"] is None and row["filters"][0] == 0
    few = fdb.explain(db, "task", A, "detect")
    assert (
        few["verdict"].item() == "few" and "? cannot tell: a group has fewer than 1,000 filters" in few.attrs["summary"]
    )


def test_groups_inside_models_are_left_out_of_both(db: fdb.Database, frozen: Frozen) -> None:
    """Layers by depth: each model is in both groups."""
    found = fdb.explain(db, "conv_depth", "0", "1")
    depth = frozen.column(db, "conv_depth")
    assert found.sizes["model"] == len(MODELS) and (found["model_count"] > 0).all()
    for name in ("a0", "tiny"):
        left = [frozen.histograms((depth == label) & (frozen.model != name)) for label in ("0", "1")]
        assert float(found["without_model"].sel(model=name)) == pytest.approx(frozen.drift(*left), rel=1e-9)


def test_noise_of_the_pair_is_that_of_the_drift(db: fdb.Database) -> None:
    """A drift of the two groups alone, and of all tasks: the same floors, since draws depend on sizes alone."""
    found, whole = fdb.explain(db, "task", A, B), fdb.drift(db, "task")
    for name in ("drift", "floor", "floor_q95", "model_floor", "model_floor_q95", "interval"):
        np.testing.assert_allclose(found[name], whole[name].sel(group=A, other=B), rtol=1e-4, err_msg=name)
    for name in ("verdict", "judged_by"):
        assert found[name].item() == whole[name].sel(group=A, other=B).item()
    assert "verdict" not in fdb.explain(db, "task", A, B, mode="paper")


def test_swapped_groups_tell_the_same(db: fdb.Database) -> None:
    one, other = fdb.explain(db, "task", A, B), fdb.explain(db, "task", B, A)
    for name in ("drift", "component_share", "bin_share", "layer_share", "without_model", "without_layer", "left"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-12, err_msg=name)


def test_equal_groups(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No drift, no shares: NaN, never a division by 0 on the way."""
    folder = tmp_path_factory.mktemp("equal")
    ingested(folder, ["a0"])
    source = (folder / "a0.onnx").read_bytes()
    (folder / "copy.onnx").write_bytes(source)
    (folder / "models.csv").write_text("path,name,task\na0.onnx,a0,one\ncopy.onnx,copy,other\n", "utf-8")
    db = fdb.ingest(folder / "both", catalog=folder / "models.csv").database
    if len(db.models["model"]) < 2:
        pytest.fail("the copy was taken for the same model")
    found = fdb.explain(db, "task", "one", "other")
    assert float(found["drift"]) == 0
    assert np.isnan(found["component_share"]).all()
    assert "do not drift" in found.attrs["summary"]
    json.dumps(plain(answer_of(found)), allow_nan=False)


def test_refusals(db: fdb.Database) -> None:
    with pytest.raises(UsageError, match=r"task: expected a group, got 'segmant'; did you mean 'segment'"):
        fdb.explain(db, "task", A, "segmant")
    with pytest.raises(UsageError, match="expected two groups, got 'classify' twice"):
        fdb.explain(db, "task", A, A)
    with pytest.raises(UsageError, match="colour"):
        fdb.explain(db, "task", A, B, match="colour")
    with pytest.raises(UsageError, match="colour"):
        fdb.explain(db, "colour", A, B)


def test_the_answer_and_the_table(db: fdb.Database, capsys: pytest.CaptureFixture[str]) -> None:
    found = fdb.explain(db, "task", A, B)
    answer = plain(answer_of(found))
    json.dumps(answer, allow_nan=False)
    assert {"snapshot", "selection", "filters", "layers", "models"} <= answer.keys()
    assert answer["groups"] == [A, B] and answer["drift"] == float(found["drift"])
    assert sum(row["drift"] for row in answer["by_component"]) == pytest.approx(answer["drift"])
    for rows in ("by_model", "by_layer"):
        shares = [abs(row["share"]) for row in answer[rows]]
        assert shares == sorted(shares, reverse=True)
    row = answer["by_layer"][0]
    index = found["layer"].values.tolist().index(row["layer"])
    assert row["without"] == float(found["without_layer"][index])
    table(answer_of(found))
    shown = capsys.readouterr().out
    assert "D without it" in shown and "alpha" in shown and "the 10 of 20 layers" in shown


@pytest.mark.slow
def test_the_command(db: fdb.Database) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "filterdb", "explain", db.url, A, B, "--by", "task", "--threads", "2", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == json.loads(to_json(answer_of(fdb.explain(db, "task", A, B))))
