"""Watch the filters of a network while it is trained.

At regular steps, `Callback` reads each convolution straight from its tensor, writes a row of measurements for it, and
warns of layers that die, collapse or never move. `filterdb.monitor.lightning` and `filterdb.monitor.keras` do the same
as callbacks of those libraries. Neither PyTorch nor Keras is imported here.

>>> from filterdb.monitor import Callback
>>> monitor = Callback("filters.csv")  # doctest: +SKIP
>>> for batch in batches:  # doctest: +SKIP
...     train_on(batch)
...     monitor.step(model)
>>> monitor.close()  # doctest: +SKIP
"""

from filterdb.monitor.alarms import Alarm, MonitorWarning, Thresholds
from filterdb.monitor.callback import Callback
from filterdb.monitor.rows import Row

__all__ = ["Alarm", "Callback", "MonitorWarning", "Row", "Thresholds"]
