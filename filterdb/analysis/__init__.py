"""Answers from summaries, as xarray with provenance: grouping, PCA, drift, degeneration. No Dask, no filters."""
