"""The store: a folder or a prefix in object storage. The only place that knows Zarr, fsspec and s3fs.

`files` moves bytes, `download` fetches model files; `segment` is an immutable Zarr group; `snapshot` lists the segments
that make a database; `summary` keeps what was computed from them; `database` opens it all as xarray; `verify` looks for
damage.
"""
