"""Read models into a database on Dask, in four steps: scan, plan, write, commit. Start at `run.ingest`."""
