"""Keep the import path of the figures, which are in `filterdb.plotting.figures`."""

from filterdb.plotting.figures import deciles, families, groupings, heatmap, pair, per_component, ridges

__all__ = ["deciles", "families", "groupings", "heatmap", "pair", "per_component", "ridges"]
