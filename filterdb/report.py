"""Keep the import paths of the figures that the documentation of 0.1 named, `filterdb.report.figures` and two more.

The figures live in `filterdb.page`. `filterdb.report` is the public function and nothing else, so this module puts
the function in its own place; importing it, or a name from it, never changes what `filterdb.report` is.
"""

import sys
import warnings
from typing import Any

from filterdb.page import figures, figures_density, figures_drift
from filterdb.page.entry import report

_MOVED: dict[str, Any] = {
    "figures": figures,
    "figures_density": figures_density,
    "figures_drift": figures_drift,
}

warnings.warn(
    "filterdb.report.figures, .figures_drift and .figures_density are now in filterdb.page",
    DeprecationWarning,
    stacklevel=2,
)
for _name, _module in _MOVED.items():
    sys.modules[f"{__name__}.{_name}"] = _module
    setattr(report, _name, _module)
sys.modules[__name__] = report  # type: ignore[assignment]  # import binds what stands here to `filterdb.report`
