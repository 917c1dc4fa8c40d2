"""Read the published data set (CNN Filter DB, CVPR 2022) from its HDF5 file. Start at `hdf5.read_published`."""
