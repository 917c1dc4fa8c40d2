"""Measure a network at regular steps of its training, within a time budget."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from filterdb.arguments import unexpected
from filterdb.errors import UsageError
from filterdb.models.frameworks import is_torch
from filterdb.monitor.alarms import Alarm, MonitorWarning, Thresholds, Watch
from filterdb.monitor.networks import list_layers
from filterdb.monitor.rows import Row
from filterdb.monitor.writers import as_writers
from filterdb.numerics.measures import measure
from filterdb.schema import kernel_name

EVERY = 100
"""Steps between two measurements. See docs/how-to/monitor-a-training.md for what that costs."""


class Callback:
    """Measure the convolutions of a network in a plain training loop.

    Call `step(model)` after each step of the optimiser. The first call measures, then every `every`-th. Tensors are
    read where they are: on the CPU without a copy, from another device with one copy a layer.

    Parameters
    ----------
    to : str, path, SummaryWriter, or list of these, optional
        Where the rows go: a `.csv` or `.parquet` file, a folder for TensorBoard, an open SummaryWriter. Default:
        nowhere; `latest` and `alarms` are kept in any case. Rows are added to a CSV file that exists. A Parquet file
        that exists is refused.
    every : int
        Steps between two measurements. Default: 100.
    budget : float or None
        Largest share of the training's time that measurements may take. A measurement that would exceed it waits.
        None: no limit. Default: 0.01.
    thresholds : Thresholds, optional
        When a layer raises an alarm. Default: `Thresholds()`.
    on_alarm : callable, optional
        Called with each `Alarm`, after the warning. It may raise an error to stop the training.

    Attributes
    ----------
    latest : list of Row
        The rows of the last measurement.
    alarms : list of Alarm
        All alarms so far. Each is also a `MonitorWarning`, and the `alarm` of its row.

    Examples
    --------
    Networks of other libraries can be passed as arrays (out, in, height, width) by name:

    >>> import numpy as np
    >>> from filterdb.monitor import Callback
    >>> rng = np.random.default_rng(0)
    >>> with Callback(every=10) as monitor:
    ...     for step in range(11):
    ...         monitor.step({"conv1": rng.normal(size=(16, 8, 3, 3)).astype(np.float32)})
    >>> monitor.latest[0].step, round(monitor.latest[0].variance_entropy, 2)
    (11, 0.94)
    """

    def __init__(
        self,
        to: Any = None,
        *,
        every: int = EVERY,
        budget: float | None = 0.01,
        thresholds: Thresholds | None = None,
        on_alarm: Callable[[Alarm], object] | None = None,
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int):
            raise unexpected("every", "a number of steps", every)
        if every < 1:
            raise UsageError(f"every: expected at least 1 step, got {every}")
        if budget is not None and not 0 < budget <= 1:
            raise UsageError(f"budget: expected a share of the time above 0 and up to 1, or None, got {budget!r}")
        self.every = every
        self.budget = budget
        self.on_alarm = on_alarm
        self.to = to
        self.writers = as_writers(to)
        self.latest: list[Row] = []
        self.alarms: list[Alarm] = []
        self._watch = Watch(thresholds or Thresholds())
        self._step = 0
        self._measured: int | None = None
        self._started: float | None = None
        self._closed: float | None = None
        self._spent = self._cost = 0.0

    @property
    def overhead(self) -> float:
        """The share of the time since the first call that measurements have taken."""
        if self._started is None:
            return 0.0
        return self._spent / max(time.perf_counter() - self._started, 1e-9)

    def step(self, model: Any, *, step: int | None = None, epoch: int | None = None) -> None:
        """Count a step, and measure the model if it is due.

        Parameters
        ----------
        model : torch.nn.Module, keras.Model, or mapping of str to array
            The network that is trained.
        step : int, optional
            The number of steps so far, for a loop that counts them itself or resumes. Default: one more than before.
        epoch : int, optional
            The epoch, for the rows.
        """
        if self.advance(step):
            self.measure(model, epoch=epoch)

    def advance(self, step: int | None = None) -> bool:
        """Count a step, or set their number, and return whether a measurement is due and within the budget."""
        now = time.perf_counter()
        if self._started is None:
            self._started = now
        self._step = self._step + 1 if step is None else step
        if self._measured is None or self._step < self._measured:  # a loop may count the steps of each epoch
            return True
        if self._step - self._measured < self.every:
            return False
        return self.budget is None or self._spent + self._cost <= self.budget * (now - self._started)

    def measure(self, model: Any, *, epoch: int | None = None) -> list[Row]:
        """Measure the model now, and return a row for each layer."""
        _synchronise(model)
        before = time.perf_counter()
        if self._started is None:
            self._started = before
        layers = list_layers(model)
        measured, moved = [], []
        for layer in layers:
            filters = layer.read()
            measured.append(measure(filters, layer.kernel))
            moved.append(self._watch.moved(self._step, layer, filters, measured[-1]))
        alarms = self._watch.judge(self._step, layers, measured, moved)
        kinds = {alarm.layer: alarm.kind for alarm in alarms}
        self.latest = [
            Row(self._step, epoch, layer.name, kernel_name(layer.kernel), *numbers, distance, kinds.get(layer.name, ""))
            for layer, numbers, distance in zip(layers, measured, moved, strict=True)
        ]
        for writer in self.writers:
            writer.write(self.latest, alarms)
        self._measured = self._step
        self._cost = time.perf_counter() - before
        self._spent += self._cost
        self._raise(alarms)
        return self.latest

    def _raise(self, alarms: list[Alarm]) -> None:
        self.alarms += alarms
        for alarm in alarms:
            warnings.warn(str(alarm), MonitorWarning, stacklevel=4)
            if self.on_alarm is not None:
                self.on_alarm(alarm)

    def close(self) -> None:
        """Close the files. A Parquet file cannot be read before."""
        for writer in self.writers:
            writer.close()
        self.writers = []
        self._closed = time.perf_counter()

    def reopen(self) -> None:
        """Open the closed files again, to go on after their rows. The time in between is not that of a training."""
        if self._closed is None:
            return
        if self._started is not None:
            self._started += time.perf_counter() - self._closed
        self._closed = None
        self.writers = as_writers(self.to, goes_on=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _synchronise(model: Any) -> None:
    """Wait for pending GPU work, so that its time is not counted as part of the measurement."""
    torch = sys.modules.get("torch")
    if torch is not None and is_torch(model) and torch.cuda.is_initialized():
        torch.cuda.synchronize()
