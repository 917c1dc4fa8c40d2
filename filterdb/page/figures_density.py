"""Keep the import path of the figures, which are in `filterdb.plotting.figures_density`."""

from filterdb.plotting.figures_density import corner, density, extent

__all__ = ["corner", "density", "extent"]
