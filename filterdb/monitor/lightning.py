"""Measure a network that Lightning trains."""

from __future__ import annotations

import sys
from typing import Any

from filterdb.monitor.callback import Callback as Monitor
from filterdb.monitor.frameworks import attribute_of, check_installed

# Lightning goes by two names, each with a Callback of its own.
OLD = "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules
Base: Any = attribute_of("pytorch_lightning" if OLD else "lightning.pytorch", "Callback")


class Callback(Base):
    """Do what `filterdb.monitor.Callback` does, as a callback of a Trainer, which takes the same arguments.

    Steps are those of the optimiser (`trainer.global_step`). Of several processes only the first measures.
    The rows of a second `fit` follow those of the first.

    Examples
    --------
    >>> from filterdb.monitor.lightning import Callback  # doctest: +SKIP
    >>> Trainer(callbacks=[Callback("filters.csv")])  # doctest: +SKIP
    """

    def __init__(self, to: Any = None, **options: Any) -> None:
        check_installed(Base, "lightning")
        super().__init__()
        self.to, self.options = to, options
        self.monitor: Monitor | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the files, and measure the network before the first step."""
        if trainer.is_global_zero:
            if self.monitor is None:
                self.monitor = Monitor(self.to, **self.options)
            self.monitor.reopen()
            self.monitor.advance(trainer.global_step)
            self.monitor.measure(pl_module, epoch=trainer.current_epoch)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Measure the network if it is due."""
        if self.monitor is not None:
            self.monitor.step(pl_module, step=trainer.global_step, epoch=trainer.current_epoch)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the files."""
        if self.monitor is not None:
            self.monitor.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the files, so that what was measured is kept."""
        if self.monitor is not None:
            self.monitor.close()
