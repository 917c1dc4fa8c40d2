"""Keep the import path of the figures, which are in `filterdb.plotting.figures_drift`."""

from filterdb.plotting.figures_drift import RIDGES, deciles, families, groupings, heatmap, pair, per_component, ridges

__all__ = ["RIDGES", "deciles", "families", "groupings", "heatmap", "pair", "per_component", "ridges"]
