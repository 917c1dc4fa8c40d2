"""Passes over the filters as Dask graphs. This is the only package that builds graphs for passes.

`reduction` declares what a pass computes. `partition` cuts a segment into tasks, keyed by layer or by group. `parts`
adds chunks to arrays and joins the arrays of partitions. `checkpoint` stores partial and complete results. `graph`
builds the tasks. `run` returns stored summaries and computes missing ones. `moments` is the reduction that both ingests
and passes use.
"""
