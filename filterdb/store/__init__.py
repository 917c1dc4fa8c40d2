"""The store: a database's objects in a folder or object storage. Only this package uses Zarr, fsspec and s3fs.

`files` reads and writes objects, `download` fetches model files, `segment` is an immutable Zarr group, `snapshot` lists
the segments of a database, `summary` stores results computed from segments, `database` opens a database as xarray, and
`verify` checks for damage.
"""
