"""Drift with its noise, from ONNX files to variables and JSON, against loops over filters that numpy projected."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import false_discovery_control

import filterdb as fdb
from filterdb.analysis import noise as noises
from filterdb.analysis.drift_metrics import METRICS, MetricName
from filterdb.commands.answer import to_json
from filterdb.commands.drift import to_answer as answer_of
from filterdb.errors import InputError, UsageError
from filterdb.numerics import intervals as bounds
from filterdb.numerics import noise as numbers
from filterdb.numerics.modes import PAPER, SOUND, ModeName
from tests.analysis.families import MODELS, Frozen, ingested

pytestmark = pytest.mark.slow

A, B = "classify", "segment"
MATRICES = ("floor", "floor_q95", "model_floor", "model_floor_q95")
TESTS = ("p_value", "q_value", "detectable", "p_value_max")


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    return ingested(tmp_path_factory.mktemp("noise"))


@pytest.fixture(scope="module")
def frozen(db: fdb.Database) -> Frozen:
    return Frozen(db)


@pytest.fixture(scope="module")
def by_task(db: fdb.Database) -> Any:
    return fdb.drift(db, "task")


def every_permutation(frozen: Frozen, left: list[str], right: list[str]) -> list[float]:
    """Drift of the models' filters for each way to put as many models on the left."""
    cells = {name: frozen.histograms(frozen.model == name) for name in left + right}
    total = np.asarray(sum(cells.values()))
    found = []
    for chosen in itertools.combinations(left + right, len(left)):
        one = np.asarray(sum(cells[name] for name in chosen))
        found.append(frozen.drift(one, total - one))
    return found


def test_model_floor_is_that_of_all_permutations(frozen: Frozen, by_task: Any) -> None:
    names = {task: [name for name in MODELS if MODELS[name][0] == task] for task in (A, B)}
    expected = every_permutation(frozen, names[A], names[B])
    pair = by_task.sel(group=A, other=B)
    assert int(pair["permutations"]) == len(expected) == 252
    assert float(pair["model_floor"]) == pytest.approx(np.mean(expected), rel=1e-5)
    assert float(pair["model_floor_q95"]) == pytest.approx(np.sort(expected)[239], rel=1e-5)
    assert pair["judged_by"] == "model"


def test_sampling_floor_is_that_of_multinomial_draws(frozen: Frozen, db: fdb.Database, by_task: Any) -> None:
    task = frozen.column(db, "task")
    rng = np.random.default_rng(1)
    for one, other in ((A, B), (B, "depth"), (A, "detect")):
        counts = [frozen.histograms(task == label) for label in (one, other)]
        sizes = [int(part[0].sum()) for part in counts]
        pooled = sum(counts) / sum(sizes)
        drawn = [frozen.drift(*(rng.multinomial(size, pooled) for size in sizes)) for _ in range(600)]
        pair = by_task.sel(group=one, other=other)
        assert float(pair["floor"]) == pytest.approx(np.mean(drawn), rel=0.03)
        assert float(pair["floor_q95"]) == pytest.approx(np.quantile(drawn, 0.95), rel=0.05)


def test_interval_is_at_its_level_and_agrees_with_the_permutations(db: fdb.Database) -> None:
    """tests/numerics/test_intervals.py compares the bounds with a loop over draws."""
    by_depth = fdb.drift(db, "conv_depth")
    pair = by_depth.sel(group="0", other="1")
    low, high = pair["interval"].values
    assert 0 <= low < high
    assert (low > 0) == (float(pair["p_value"]) <= 0.10)
    assert pair["interval_reason"] == ""
    assert by_depth["interval"].attrs["level"] == 0.9
    assert answer_of(by_depth)["interval_level"] == 0.9


def test_few_effective_units_have_no_interval(frozen: Frozen, by_task: Any) -> None:
    """Five models of unequal size are fewer than five effective ones: (Σn)²/Σn²."""
    for task in (A, B):
        sizes = [int((frozen.model == name).sum()) for name in MODELS if MODELS[name][0] == task]
        row = by_task.sel(group=task)
        assert (int(row["models"]), int(row["units"])) == (5, 5)
        assert float(row["effective_units"]) == pytest.approx(sum(sizes) ** 2 / sum(n * n for n in sizes))
        assert 4 < float(row["effective_units"]) < 5
    assert np.isnan(by_task["interval"]).all()
    assert by_task.sel(group=A, other=B)["interval_reason"] == "fewer than 5 effective units"
    assert by_task.sel(group=A, other="detect")["interval_reason"] == "fewer than 1,000 filters"
    assert by_task.sel(group=A, other=A)["interval_reason"] == ""


def test_verdicts_follow_from_the_floors(by_task: Any) -> None:
    assert set(by_task["group"].values) == {A, B, "depth", "detect"}
    count = by_task["count"].to_series()
    by_filters = [(A, "depth"), (B, "depth")]  # one model against five: six permutations
    p_values = [float(by_task["p_value"].sel(group=a, other=b)) for a, b in by_filters]
    expected_q = false_discovery_control(p_values, method="by")
    for (a, b), q in zip(by_filters, expected_q, strict=True):
        pair = by_task.sel(group=a, other=b)
        assert int(pair["permutations"]) == 6 and pair["judged_by"] == "sampling"
        assert float(pair["q_value"]) == pytest.approx(q)
        assert pair["verdict"] == ("different_by_filters" if q <= 0.05 else "indistinguishable")
        assert (float(pair["p_value"]) <= 0.05) == (float(pair["drift"]) >= float(pair["floor_q95"]))
    pair = by_task.sel(group=A, other=B)
    assert pair["judged_by"] == "model" and float(pair["q_value"]) == float(pair["p_value"])  # the only such pair
    assert pair["verdict"] == ("different" if float(pair["p_value"]) <= 0.05 else "indistinguishable")
    assert np.isfinite(float(pair["detectable"])) == (pair["verdict"] == "indistinguishable")
    for a, b in itertools.product(by_task["group"].values, repeat=2):
        if a != b and min(count[a], count[b]) < 1_000:
            assert by_task.sel(group=a, other=b)["verdict"] == "few"
    assert by_task.sel(group=A, other="detect")["verdict"] == "few"
    for name in (*MATRICES, "permutations", "verdict", "judged_by", "p_value", "q_value", "detectable"):
        values = by_task[name].values
        np.testing.assert_array_equal(values, values.T, err_msg=name)
    for name in (*MATRICES, "p_value", "q_value", "detectable", "p_value_max"):
        assert np.isnan(np.diag(by_task[name])).all()


def test_p_value_is_the_share_of_permutations(frozen: Frozen, by_task: Any) -> None:
    names = {task: [name for name in MODELS if MODELS[name][0] == task] for task in (A, B)}
    expected = every_permutation(frozen, names[A], names[B])
    share = np.mean(np.array(expected) >= expected[0] * (1 - 1e-6))
    assert float(by_task.sel(group=A, other=B)["p_value"]) == pytest.approx(share)


def test_groups_that_all_models_are_in(frozen: Frozen, db: fdb.Database) -> None:
    """By depth: each of the 12 models swaps its two layers, or not; 4,096 ways, of which 1,000 are taken."""
    found = fdb.drift(db, "conv_depth").sel(group="0", other="1")
    assert int(found["permutations"]) == 4_096
    depth = frozen.column(db, "conv_depth")
    cells = np.array(
        [[frozen.histograms((frozen.model == name) & (depth == label)) for label in ("0", "1")] for name in MODELS]
    )
    every = []
    for swaps in itertools.product([0, 1], repeat=11):  # the twelfth not swapped: the other half mirrors it
        swapped = np.array([*swaps, 0])
        every.append(
            frozen.drift(
                cells[np.arange(12), swapped].sum(axis=0),
                cells[np.arange(12), 1 - swapped].sum(axis=0),
            )
        )
    assert float(found["model_floor"]) == pytest.approx(np.mean(every), abs=4 * np.std(every) / np.sqrt(1_000))
    low, high = np.quantile(every, [0.92, 0.98])
    assert low <= float(found["model_floor_q95"]) <= high
    assert found["judged_by"] == "model" and np.isfinite(found["interval"]).all()


def test_groups_inside_one_model_are_judged_by_filters(db: fdb.Database) -> None:
    """One model in both groups can swap its layers in two ways only."""
    found = fdb.drift(db.select(model="a3"), "layer")
    pair = found.isel(group=0, other=1)
    assert int(pair["permutations"]) == 2 and np.isnan(float(pair["model_floor"]))
    assert pair["judged_by"] == "sampling" and np.isnan(pair["interval"]).all()
    assert pair["verdict"] == "few"  # 900 and 600 filters
    two = fdb.drift(db.where("model", ["a3", "b3"]), "model").isel(group=0, other=1)
    assert int(two["permutations"]) == 2 and two["judged_by"] == "sampling"
    assert two["verdict"] == "different_by_filters"


def test_one_group_and_none(db: fdb.Database) -> None:
    one = fdb.drift(db.select(task=A), "task")
    assert one["drift"].values.tolist() == [[0.0]]
    assert one["verdict"].values.tolist() == one["judged_by"].values.tolist() == [[""]]
    assert np.isnan(one["model_floor"]).all() and one["interval"].shape == (1, 1, 2)
    assert json.loads(to_json(answer_of(one)))["verdict"] == [[None]]
    with pytest.raises((InputError, UsageError), match="segmant"):
        fdb.drift(db.select(task="segmant"), "task")
    with pytest.raises((InputError, UsageError)):
        fdb.drift(db.keep(np.zeros(db.layers.sizes["layer"], bool), "none"), "task")


def test_layers_with_nan_or_infinity_are_in_no_floor(tmp_path: Path) -> None:
    names = ["a0", "a1", "a2", "b0", "b1", "b2"]
    db = ingested(tmp_path, names, spoil="a2")
    assert db.layers.sizes["layer"] == 11 and db.skipped.sizes["skipped"] == 1
    found = fdb.drift(db, "task").sel(group=A, other=B)
    expected = every_permutation(Frozen(db), names[:3], names[3:])
    assert float(found["model_floor"]) == pytest.approx(np.mean(expected), rel=1e-5)
    assert int(found["permutations"]) == 20 and found["judged_by"] == "few models"
    # Three against three: the largest of ten splits (each counted twice) is no 5 % event, so only filters judge.
    assert found["verdict"].item() in {"indistinguishable", "different_by_filters"}


@pytest.mark.parametrize("metric", ["js", "hellinger", "wasserstein", "frechet", "psi"])
def test_other_metrics_have_noise_too(db: fdb.Database, by_task: Any, metric: MetricName) -> None:
    found = fdb.drift(db, "task", metric=metric, noise=200)
    pair = found.sel(group=A, other=B)
    assert np.isfinite(float(pair["model_floor_q95"])) and pair["judged_by"] == "model"
    deep = fdb.drift(db, "conv_depth", metric=metric, noise=100).sel(group="0", other="1")
    low, high = deep["interval"].values
    assert 0 <= low <= high
    # Of one view, all metrics permute the same models: a metric's floor stands to its drift about as kl's does.
    assert (float(pair["model_floor"]) < float(pair["model_floor_q95"])) and int(pair["permutations"]) == 252
    if metric == "frechet":
        assert np.isnan(found["floor"]).all()
        assert found.sel(group=A, other="depth")["verdict"] == ""  # no floor at all
    else:
        assert np.isfinite(float(pair["floor_q95"]))
    if metric == "psi":
        np.testing.assert_array_equal(found["floor"], by_task["floor"])


def test_what_is_asked(db: fdb.Database, by_task: Any) -> None:
    assert "verdict" not in fdb.drift(db, "task", noise=False)
    assert "verdict" not in fdb.drift(db, "task", mode="paper")
    fewer = fdb.drift(db, "conv_depth", noise=50)
    assert int(fewer["permutations"].max()) == 4_096
    again = fdb.drift(db, "task", noise=True)
    for name in (*MATRICES, "interval"):
        assert again[name].values.tobytes() == by_task[name].values.tobytes()
    refused: list[tuple[int, ModeName, str]] = [
        (19, "sound", "at least 20"),
        (True, "paper", "expected mode sound"),
        (50, "paper", "expected mode sound"),
    ]
    for asked, mode, says in refused:
        with pytest.raises(UsageError, match=says):
            fdb.drift(db, "task", mode=mode, noise=asked)
    with pytest.raises(UsageError, match="`noise` or `out`"):
        fdb.drift(db, "task", out="/tmp/never", noise=True)


def test_unasked_noise_is_what_takes_seconds() -> None:
    one, two, seven = np.ones(647, np.int64), np.full(647, 2), np.full(200, 7)
    assert noises.wanted(None, SOUND, METRICS["kl"], one) == numbers.DRAWS  # 647 models: nothing to permute
    assert noises.wanted(None, SOUND, METRICS["kl"], two) == numbers.DRAWS  # six ways a pair: too few to take any
    assert noises.wanted(None, SOUND, METRICS["kl"], seven) == 0  # 19,900 pairs to permute
    assert noises.wanted(True, SOUND, METRICS["kl"], seven) == numbers.DRAWS
    assert noises.wanted(None, SOUND, METRICS["kl"], seven[:110]) == numbers.DRAWS
    assert noises.wanted(None, SOUND, METRICS["kl"], np.concatenate([one, seven[:120]])) == 0
    assert noises._cost(np.array([3, 3, 5, 9, 1])) == 10 * 10 + 24 + 141 + 616 + 1_466
    assert noises.wanted(None, SOUND, METRICS["kl"], np.ones(21_436, np.int64)) == 0
    assert noises.wanted(None, SOUND, METRICS["js"], two[:31]) == 0
    assert noises.wanted(None, PAPER, METRICS["kl"], two[:3]) == 0
    assert noises.wanted(False, SOUND, METRICS["kl"], two[:3]) == 0
    assert noises.wanted(70, SOUND, METRICS["kl"], two) == 70


def test_strata_have_noise_of_their_own(db: fdb.Database) -> None:
    found = fdb.drift(db, "task", within="family", noise=100)
    beta = fdb.drift(db.select(family="beta"), "task", noise=100)
    pair = {"group": B, "other": "detect"}
    for name in ("floor", "floor_q95", "permutations"):
        assert float(found[name].sel({"stratum": "beta", **pair})) == float(beta[name].sel(pair))
    assert found["verdict"].sel(stratum="delta", group=A, other=B).item() == ""
    assert np.isnan(float(found["floor"].sel(stratum="delta", group=A, other=B)))


def command(*args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "filterdb", "drift", *args, "--threads", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, (args, done.stderr[-2_000:])
    return done


@pytest.mark.slow
def test_the_command(db: fdb.Database, by_task: Any) -> None:
    answer = json.loads(command(db.url, "--by", "task", "--json").stdout)
    groups = answer["groups"]
    assert groups == by_task["group"].values.tolist()
    for name in (*MATRICES, *TESTS, "permutations", "verdict", "judged_by", "interval"):
        assert np.shape(np.array(answer[name], object))[:2] == (4, 4), name
        assert answer[name][0][0] is None or name == "permutations"
    i, j = groups.index(A), groups.index(B)
    assert answer["interval"][i][j] is None
    assert answer["interval_reason"][i][j] == "fewer than 5 effective units"
    assert answer["units"][i] == answer["group_models"][i] == 5
    assert answer["p_value"][i][j] == float(by_task["p_value"].sel(group=A, other=B))
    assert answer["model_floor_q95"][i][j] == float(by_task["model_floor_q95"].sel(group=A, other=B))
    assert answer["verdict"][i][groups.index("detect")] == "few"
    assert answer["interval"][i][groups.index("depth")] is None
    bare = json.loads(command(db.url, "--by", "task", "--no-noise", "--json").stdout)
    assert {bare[name] for name in ("verdict", "floor", "interval")} == {None} and bare["drift"] == answer["drift"]
    few = json.loads(command(db.url, "--by", "conv_depth", "--draws", "25", "--json").stdout)
    expected = fdb.drift(db, "conv_depth", noise=25)
    assert few["model_floor"][0][1] == float(expected["model_floor"][0, 1])
    strata = json.loads(command(db.url, "--by", "task", "--within", "family", "--noise", "--json").stdout)["strata"]
    assert {"floor", "floor_q95", "model_floor", "model_floor_q95", "verdict", "interval"} <= strata[0].keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--draws", "5"), "5"),
        (("--draws", "50", "--no-noise"), "--draws cannot be combined with --no-noise"),
        (("--mode", "paper", "--noise"), "expected mode sound, got paper"),
        (("-o", "/tmp/never-written", "--noise"), "expected `noise` or `out`, got both"),
    ],
)
def test_the_command_refuses(db: fdb.Database, args: tuple[str, ...], says: str) -> None:
    done = command(db.url, "--by", "task", *args, code=2)
    assert says in done.stderr and done.stderr.count("\n") == 1


def test_three_models_against_three_cannot_be_told(tmp_path: Path) -> None:
    """20 permutations, but each drift stands twice: no drift is a 5 % event, and the result says so."""
    db = ingested(tmp_path, ["a0", "a1", "a2", "b0", "b1", "b2", "b3"])
    three = fdb.drift(db.select(model=["a0", "a1", "a2", "b0", "b1", "b2"]), "task")
    assert three["permutations"].values[0, 1] == 20
    assert three["judged_by"].values[0, 1] == "few models" and three["verdict"].values[0, 1] != "different"
    above = three["drift"].values[0, 1] > three["floor_q95"].values[0, 1]
    assert three["verdict"].values[0, 1] == ("different_by_filters" if above else "indistinguishable")
    four = fdb.drift(db, "task")
    assert four["permutations"].values[0, 1] == 35 and four["judged_by"].values[0, 1] == "model"


def test_without_noise_its_keys_are_null(db: fdb.Database) -> None:
    answer = json.loads(to_json(answer_of(fdb.drift(db, "task", noise=False))))
    assert all(answer[name] is None for name in (*MATRICES, "permutations", "verdict", "judged_by", "interval"))
    paper = answer_of(fdb.drift(db, "task", mode="paper"))
    assert not {*MATRICES, "verdict", "interval"} & set(paper)


def test_what_would_take_the_machine_is_refused(db: fdb.Database) -> None:
    with pytest.raises(UsageError, match="expected at most 100,000 permutations, got 1,000,000,000"):
        fdb.drift(db, "task", noise=10**9)
    with pytest.raises(UsageError, match="expected at most 3,000 groups, got 3,001"):
        noises.wanted(True, SOUND, METRICS["kl"], np.ones(3_001, np.int64))


def test_intervals_do_not_depend_on_how_many_are_made_at_a_time(
    db: fdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = db.select(model=[name for name in MODELS if name != "tiny"])
    whole = fdb.drift(groups, "depth_decile", noise=40)["interval"].values
    assert np.isfinite(whole).any()
    monkeypatch.setattr(bounds, "_BATCH", 50)  # a draw and a pair at a time
    np.testing.assert_allclose(fdb.drift(groups, "depth_decile", noise=40)["interval"].values, whole, rtol=1e-5)
