"""The published data set (CNN Filter DB, CVPR 2022) as an HDF5 file. Start at `hdf5.read_published`."""
