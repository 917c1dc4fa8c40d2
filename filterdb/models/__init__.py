"""Read model files: one file becomes layer rows, filters and a ledger of what is not stored.

Start at `scan.scan`, which asks a child process. `reading` is what the child runs, for each of `formats.FORMATS`.
"""
