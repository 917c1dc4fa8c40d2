"""Measure a network that Keras 3 trains, on any of its backends."""

from __future__ import annotations

from typing import Any

from filterdb.monitor.callback import Callback as Monitor
from filterdb.monitor.frameworks import attribute_of, check_installed

Base: Any = attribute_of("keras.callbacks", "Callback")


class Callback(Base):
    """Do what `filterdb.monitor.Callback` does, as a callback of `fit`, which takes the same arguments.

    Steps are batches, counted on in a second `fit`, whose rows follow those of the first. With `steps_per_execution=n`,
    Keras calls it once for every n batches.

    Examples
    --------
    >>> from filterdb.monitor.keras import Callback  # doctest: +SKIP
    >>> model.fit(x, y, callbacks=[Callback("filters.csv")])  # doctest: +SKIP
    """

    def __init__(self, to: Any = None, **options: Any) -> None:
        check_installed(Base, "keras")
        super().__init__()
        self.to, self.options = to, options
        self.monitor: Monitor | None = None
        self.epoch = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Open the files, and measure the network before the first step if it is built."""
        if self.monitor is None:
            self.monitor = Monitor(self.to, **self.options)
        self.monitor.reopen()
        if self.model.built:
            self.monitor.measure(self.model, epoch=0)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Keep the epoch for the rows."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Measure the network if it is due."""
        # `self.model` brings JAX's weights up to date, which takes time, so use it only when a measurement is due.
        if self.monitor is not None and self.monitor.advance():
            self.monitor.measure(self.model, epoch=self.epoch)

    def on_train_end(self, logs: Any = None) -> None:
        """Close the files."""
        if self.monitor is not None:
            self.monitor.close()
