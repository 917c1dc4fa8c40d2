"""Draw results with matplotlib: `fdb.plot`."""
