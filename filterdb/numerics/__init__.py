"""The arithmetic: one block of filters in, small arrays out; states and their merges. NumPy and Numba only."""
