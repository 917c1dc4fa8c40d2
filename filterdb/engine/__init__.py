"""Passes over the filters as Dask graphs. Nothing else builds graphs for passes.

`reduction` declares what a pass computes; `partition` cuts a segment into tasks, keyed by layer or by group; `parts`
adds chunks to arrays and joins the arrays of partitions; `checkpoint` stores them, on the way and complete; `graph`
builds the tasks; `run` returns stored summaries and computes the missing ones; `moments` is the reduction that ingests
and passes share.
"""
