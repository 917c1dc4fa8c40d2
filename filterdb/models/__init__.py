"""The one place where a model file is read: one file → layer rows, filters, ledger.

Start at `scan.scan`, which asks a child process; `reading` is what the child does, for each of `formats.FORMATS`.
"""
