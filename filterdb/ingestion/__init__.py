"""Models into a database: scan → plan → write → commit, on Dask. Start at `run.ingest`."""
