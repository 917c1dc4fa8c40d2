"""The monitor on arrays, which need no framework: what is measured when, where rows go, and which alarms it raises."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import MissingExtraError, StoreError, UsageError
from filterdb.monitor import Alarm, Callback, MonitorWarning, Row, Thresholds
from filterdb.monitor import keras as keras_monitor
from filterdb.monitor import lightning as lightning_monitor
from filterdb.monitor.networks import list_layers
from filterdb.monitor.rows import COLUMNS
from tests.models import chain

Weights = dict[str, np.ndarray]


def network(seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    shapes = {"a": (16, 3, 3, 3), "b": (32, 16, 3, 3), "c": (16, 32, 5, 5), "d": (32, 16, 1, 9)}
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def train(monitor: Callback, steps: int, change: Callable[[Weights, int], None] | None = None) -> None:
    """Move all weights a little at each step, then do what a fault does."""
    weights, rng = network(), np.random.default_rng(1)
    for step in range(steps):
        for name in weights:
            weights[name] = weights[name] + rng.normal(0, 1e-3, weights[name].shape).astype(np.float32)
        if change is not None:
            change(weights, step)
        monitor.step(weights)


def test_the_first_step_is_measured_then_every_so_many() -> None:
    rows: list[int] = []

    class Steps:
        def write(self, measured: list[Row], alarms: list[Alarm]) -> None:
            rows.append(measured[0].step)

        def close(self) -> None:
            rows.append(-1)

    with Callback([Steps()], every=10, budget=None) as monitor:
        train(monitor, 35)
        monitor.step(network(), step=1000)
    assert rows == [1, 11, 21, 31, 1000, -1]


def test_numbers_equal_those_of_a_check_of_the_file(tmp_path: Path) -> None:
    """The same filters in an ONNX file: entropies to 1e-12."""
    rng = np.random.default_rng(3)
    weights = [rng.normal(0, 0.1, shape).astype(np.float32) for shape in ((32, 3, 3, 3), (16, 32, 3, 3))]
    chain(tmp_path / "model.onnx", *weights)
    result = fdb.check(tmp_path / "model.onnx")
    rows = Callback().measure({"a": weights[0], "b": weights[1]})
    for name in ("sparsity", "variance_entropy", "p_value", "norm", "centre_energy"):
        ours = [getattr(row, name) for row in rows]
        np.testing.assert_allclose(ours, result[name].values, rtol=1e-12, err_msg=name)


def test_rows_are_in_the_file_while_the_training_runs(tmp_path: Path) -> None:
    with Callback(tmp_path / "new" / "rows.csv", every=10, budget=None) as monitor:
        train(monitor, 11)
        rows = list(csv.DictReader((tmp_path / "new" / "rows.csv").open()))
        assert tuple(rows[0]) == COLUMNS
        assert [(row["step"], row["layer"], row["kernel"]) for row in rows[:2]] == [
            ("1", "a", "3x3"),
            ("1", "b", "3x3"),
        ]
        assert rows[0]["moved"] == "" and float(rows[5]["moved"]) > 1e-3
        assert float(rows[5]["norm"]) == monitor.latest[1].norm


def test_parquet_has_the_same_rows(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    with Callback([tmp_path / "rows.parquet", tmp_path / "rows.csv"], every=5, budget=None) as monitor:
        train(monitor, 12)
    table = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    rows = list(csv.DictReader((tmp_path / "rows.csv").open()))
    assert len(table) == len(rows) == 12
    for one, two in zip(table, rows, strict=True):
        assert {name: "" if value is None else str(value) for name, value in one.items()} == {
            name: "nan" if name == "moved" and not value else value for name, value in two.items()
        }


def steps_of(path: Path) -> list[int]:
    return [int(row["step"]) for row in csv.DictReader(path.open()) if row["layer"] == "a"]


def test_a_second_run_keeps_the_rows_of_the_first(tmp_path: Path) -> None:
    """The last line is that of a run that died; it loses nothing of the next one."""
    path = tmp_path / "rows.csv"
    for _ in range(2):
        with Callback(path, every=10, budget=None) as monitor:
            train(monitor, 11)
    assert steps_of(path) == [1, 11, 1, 11]
    with path.open("a") as file:
        file.write("12,,b")
    with Callback(path, every=10, budget=None) as monitor:
        train(monitor, 1)
    assert steps_of(path) == [1, 11, 1, 11, 1]


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_a_file_that_cannot_be_added_to_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("step,loss\n1,0.5\n")
    with pytest.raises(StoreError, match=rf"{name}: expected no file.*; choose another file"):
        Callback(tmp_path / name)
    assert (tmp_path / name).read_text() == "step,loss\n1,0.5\n"


@pytest.mark.parametrize("module", [keras_monitor, lightning_monitor])
def test_a_callback_goes_on_in_a_second_fit(tmp_path: Path, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The methods as a library calls them; `make monitor` trains with the real ones."""
    import pyarrow.parquet as pq

    if module.Base is not object:
        pytest.skip("it is installed, and calls them itself")
    monkeypatch.setattr(module, "check_installed", lambda *given: None)
    paths = [tmp_path / "rows.csv", tmp_path / "rows.parquet"]
    callback, weights = module.Callback(paths, every=2, budget=None), network()
    trainer = SimpleNamespace(is_global_zero=True, global_step=0, current_epoch=0)
    model = Network(weights)
    callback.model = model
    for _ in range(2):
        if module is keras_monitor:
            callback.on_train_begin()
        else:
            callback.on_train_start(trainer, model)
        for batch in range(4):
            trainer.global_step += 1
            given = (batch,) if module is keras_monitor else (trainer, model, None, None, batch)
            callback.on_train_batch_end(*given)
        callback.on_train_end(*() if module is keras_monitor else (trainer, model))
    assert steps_of(paths[0]) == [0, 2, 4, 4, 6, 8]
    assert pq.read_table(paths[1])["step"].to_pylist()[::4] == [0, 2, 4, 4, 6, 8]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "rows.parquet"]


class Network(dict[str, np.ndarray]):
    """Arrays by name, as a network that is built."""

    built = True


def test_steps_that_begin_again_in_each_epoch_are_measured() -> None:
    monitor, measured = Callback(every=10, budget=None), []
    for epoch in range(3):
        for step in range(25):
            monitor.step(network(), step=step, epoch=epoch)
            measured.append((monitor.latest[0].epoch, monitor.latest[0].step))
    assert list(dict.fromkeys(measured)) == [(epoch, step) for epoch in range(3) for step in (0, 10, 20)]


def test_a_summary_writer_gets_a_scalar_for_each_number() -> None:
    added: list[tuple[str, float, int]] = []
    texts: list[tuple[str, str, int]] = []

    class Board:
        """What the monitor uses of a SummaryWriter; the real ones are in `make monitor`."""

        add_scalar = staticmethod(lambda tag, value, step: added.append((tag, value, step)))
        add_text = staticmethod(lambda tag, text, step: texts.append((tag, text, step)))
        flush = close = staticmethod(lambda: None)

    with Callback(Board(), every=10, budget=None) as monitor, pytest.warns(MonitorWarning):
        train(monitor, 21, lambda weights, step: weights["b"].fill(0) if step > 15 else None)
    tags = {tag for tag, _, _ in added}
    assert {"filters/sparsity/a", "filters/moved/d", "filters/variance_entropy/c"} <= tags and len(tags) == 4 * 6
    assert all(math.isfinite(value) for _, value, _ in added)
    assert texts == [("filters/alarms", "step 21: b: dead: all weights are zero", 21)]


def _scale(name: str, factor: float) -> Callable[[Weights, int], None]:
    def change(weights: Weights, step: int) -> None:
        if step >= 20:
            weights[name] *= np.float32(factor)

    return change


def _channels(weights: Weights, step: int) -> None:
    if step >= 20:
        weights["b"][: min(step - 20, 24)] = 0


def _collapse(weights: Weights, step: int) -> None:
    if step >= 20:
        flat = weights["c"].reshape(-1, 25)
        flat[:] = 0.7 * flat + 0.3 * (flat @ flat[0])[:, None] * flat[0] / (flat[0] @ flat[0])


def _broken(weights: Weights, step: int) -> None:
    if step >= 20:
        weights["a"][0, 0, 0, 0] = np.nan


class Frozen:
    """Keep a layer's weights from a step on, but for a decay that only scales them."""

    def __init__(self, first: int, decay: float = 1.0) -> None:
        self.first, self.decay, self.kept = first, np.float32(decay), np.empty(0, np.float32)

    def __call__(self, weights: Weights, step: int) -> None:
        if step >= self.first:
            self.kept = weights["d"].copy() if step == self.first else self.kept * self.decay
            weights["d"] = self.kept


FAULTS: dict[str, tuple[Callable[[Weights, int], None], str, str]] = {
    "norm": (_scale("a", 0.8), "a", "dying"),
    "channels": (_channels, "b", "dying"),
    "zero": (_scale("b", 0.0), "b", "dead"),
    "collapse": (_collapse, "c", "collapsing"),
    "nan": (_broken, "a", "nonfinite"),
    "stopped": (Frozen(20), "d", "stopped"),
    "stopped but for decay": (Frozen(20, 0.9999), "d", "stopped"),
    "never moved": (Frozen(0), "d", "never-moved"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_raises_its_alarm_once(name: str) -> None:
    change, layer, kind = FAULTS[name]
    heard: list[Alarm] = []
    monitor = Callback(every=5, budget=None, on_alarm=heard.append)
    with pytest.warns(MonitorWarning, match=f"{layer}: {kind}: ") as caught:
        train(monitor, 120, change)
    alarms = [(alarm.layer, alarm.kind) for alarm in monitor.alarms]
    assert (layer, kind) in alarms and len(set(alarms)) == len(alarms)
    assert {alarm.layer for alarm in monitor.alarms} == {layer}
    assert heard == monitor.alarms and len(caught) == len(heard)
    assert monitor.alarms[0].step <= (20 if kind == "never-moved" else 100)


def _shrink(weights: Weights, step: int) -> None:
    for name in weights:
        weights[name] *= np.float32(0.9)


@pytest.mark.parametrize("seed", range(3))
def test_no_alarm_for_a_network_that_moves(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(Callback(every=5, budget=None), 60 + seed)
        # All weights shrink, as with weight decay; all stand still, as at a learning rate of 0.
        train(Callback(every=5, budget=None), 60, _shrink)
        still, monitor = network(seed), Callback(every=1, budget=None)
        for _ in range(10):
            monitor.step(still)


def test_a_threshold_can_be_changed() -> None:
    monitor = Callback(every=5, budget=None, thresholds=Thresholds(norm=0.0, sparsity=1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(monitor, 60, _scale("a", 0.9))


def test_measurements_wait_for_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock of our own: steps of 10 ms, measurements of 60 ms, every 5 steps at most 1 % of the time."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monitor, weights, measured = Callback(every=5, budget=0.01), network(), []
    original = monitor._watch.judge

    def slow(*given: Any) -> list[Alarm]:
        now[0] += 0.06
        measured.append(monitor._step)
        return original(*given)

    monkeypatch.setattr(monitor._watch, "judge", slow)
    for _ in range(4000):
        now[0] += 0.01
        monitor.step(weights)
    assert measured[0] == 1 and 5 <= len(measured) <= 7
    assert all(later - earlier >= 590 for earlier, later in pairwise(measured[1:]))
    assert monitor.overhead <= 0.0101


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"to": 7}, "to: expected a path"),
    ({"to": "rows.txt"}, "to: expected a path"),
    ({"every": 0}, "every: expected at least 1"),
    ({"every": 2.5}, "every: expected a number of steps"),
    ({"budget": 0}, "budget: expected a share"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Callback(**options)


def test_wrong_models_are_named(tmp_path: Path) -> None:
    for wrong in (7, "model.onnx", np.zeros((4, 4, 3, 3))):
        with pytest.raises(UsageError, match=r"model: expected a torch\.nn\.Module"):
            Callback().step(wrong)
    for empty in ({}, {"dense": np.zeros((4, 4))}, {"pointwise": np.zeros((4, 4, 1, 1))}):
        with pytest.raises(UsageError, match="model: expected a convolution"):
            Callback().step(empty)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Callback(tmp_path / "file" / "rows.csv")


@pytest.mark.parametrize("module", [keras_monitor, lightning_monitor])
def test_a_library_that_is_missing_is_named(module: Any) -> None:
    if module.Base is not object:
        pytest.skip("it is installed")
    with pytest.raises(MissingExtraError, match="pip install"):
        module.Callback("rows.csv")


def test_views_of_arrays_are_read_without_a_copy() -> None:
    weights = network()
    by_name = {layer.name: layer for layer in list_layers(weights)}
    assert by_name["d"].kernel == (1, 9)
    assert np.shares_memory(by_name["b"].read(), weights["b"])
    assert by_name["b"].read().shape == (512, 9)


def test_importing_the_monitor_imports_no_framework() -> None:
    code = (
        "import sys, filterdb.monitor; print(sorted({'torch', 'keras', 'xarray', 'dask', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
