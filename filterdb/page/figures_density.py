"""Keep the import path of the figures, which are in `filterdb.plotting.figures`."""

from filterdb.plotting.figures import corner, density
from filterdb.plotting.figures_density import extent

__all__ = ["corner", "density", "extent"]
