"""Keep the import path of box plots as numbers, which are in `filterdb.plotting.box_numbers`."""

from filterdb.plotting.box_numbers import as_json, by_component, by_decile, by_grouping, by_stratum, pairs

__all__ = ["as_json", "by_component", "by_decile", "by_grouping", "by_stratum", "pairs"]
