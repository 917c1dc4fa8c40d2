"""Read models that Keras saved: `.keras` archives, and HDF5 files with or without the model's config."""
