"""Answers from summaries, as xarray with provenance, a file each: PCA, drift, degeneration, nearest, lineage, …

Shared: `question` and `grouping`; for verdicts `noise`, `units`, `trainings`, `kinship` and `layer_swaps`. This package
knows neither Dask nor filters.
"""
