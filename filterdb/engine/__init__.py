"""Passes over filters as Dask graphs: the only place that builds them, for ingests and for stored segments."""
