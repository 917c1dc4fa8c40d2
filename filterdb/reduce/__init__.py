"""The passes over the filters, as Dask graphs: one reading task per chunk, kilobytes out, a fixed merge order.

`reductions` says what a pass computes of a chunk and how two parts of one layer merge; `passes` runs them over the
segments and keeps the summaries; `basis` decides what coefficients and histograms are taken in.
"""
