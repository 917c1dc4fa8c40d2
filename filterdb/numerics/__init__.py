"""The arithmetic: a block of filters in, small arrays out; states and how they merge. Only NumPy and Numba."""
