"""Keep the import paths of the figures that the documentation of 0.1 named, `filterdb.report.figures` and two more.

The figures live in `filterdb.plotting.figures`. `filterdb.report` is the public function and nothing else, so this
module puts the function in its own place; importing it, or a name from it, never changes what `filterdb.report` is.
"""

import sys
import warnings

from filterdb.page.entry import report
from filterdb.plotting import figures

warnings.warn(
    "filterdb.report.figures, .figures_drift and .figures_density are now filterdb.plotting.figures",
    DeprecationWarning,
    stacklevel=2,
)
for _name in ("figures", "figures_density", "figures_drift"):
    sys.modules[f"{__name__}.{_name}"] = figures
    setattr(report, _name, figures)
sys.modules[__name__] = report  # type: ignore[assignment]  # import binds what stands here to `filterdb.report`
