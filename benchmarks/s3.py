"""Passes on object storage over loopback, against plain concurrent GETs of the same objects by the same client.

Starts a SeaweedFS server. It shares this machine's cores with the client, so the absolute figures are its own; the
ratio says what filterdb adds to a GET. obstore is another client, for comparison, where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import dask
import fsspec
import numpy as np
import synthetic
import zarr
from rounds import Contender, interleave, table

from filterdb.engine.graph import build
from filterdb.engine.moments import MomentsReduction
from filterdb.engine.reduction import LayerReduction
from filterdb.reduce.basis import fit_basis
from filterdb.reduce.reductions import Axes, HistogramsReduction
from filterdb.store import clients, summary

sys.path.append(str(Path(__file__).parents[1]))
from tests import seaweed


def obstore_get(endpoint: str) -> Callable[[str], object]:
    """A GET of one object by obstore."""
    import obstore
    from obstore.store import S3Store

    keys = {
        "access_key_id": seaweed.KEYS["AWS_ACCESS_KEY_ID"],
        "secret_access_key": seaweed.KEYS["AWS_SECRET_ACCESS_KEY"],
    }
    options = {"allow_http": True} if urlsplit(endpoint).scheme == "http" else {}
    store = S3Store("bench", endpoint=endpoint, region="us-east-1", client_options=options, **keys)
    return lambda name: len(obstore.get(store, name).bytes())


def by_obstore(work: Callable[[], None]) -> Callable[[], None]:
    """Do the same work with filterdb's requests made by obstore."""

    def done() -> None:
        os.environ[clients.CLIENT] = "obstore"
        try:
            work()
        finally:
            del os.environ[clients.CLIENT]

    return done


def main() -> None:
    """Print a row per contender."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filters", type=int, default=16_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        seaweed.serving(Path(folder) / "s3") as endpoint,
        dask.config.set(scheduler="threads", num_workers=options.threads),
        ThreadPoolExecutor(options.threads) as pool,
    ):
        os.environ.update({**seaweed.KEYS, "AWS_ENDPOINT_URL": endpoint})
        client = fsspec.filesystem("s3", use_listings_cache=False)
        client.mkdir("bench")
        db = synthetic.make("s3://bench/db", options.filters, 100, 5)
        (segment,), tables = db.segments, db.tables[0]
        names = [f"bench/db/{segment.chunk_name(chunk)}" for chunk in range(segment.chunks)]
        basis = fit_basis(db)
        mean, components, _ = basis.arrays()
        histograms = HistogramsReduction(Axes.of(mean, components, scaled=True), *basis.range)
        array = zarr.open_array(segment.files.zarr(f"{segment.name}/filters", read_only=True), mode="r")

        def get(read: Callable[[str], object]) -> Callable[[], object]:
            return lambda: list(pool.map(read, names))

        def run(reduction: LayerReduction) -> Callable[[], None]:
            def work() -> None:
                dask.compute(build(segment, tables, [reduction]))
                summary.remove_parts(segment.files, segment.id, reduction.key)

            return work

        plain = "plain GETs, s3fs"
        works = {
            plain: get(lambda name: len(client.cat_file(name))),
            "moments pass": run(MomentsReduction()),
            "histograms pass": run(histograms),
            "zarr's read (s3fs)": lambda: list(
                pool.map(lambda c: np.asarray(array[slice(*segment.bounds(c))])[0, 0], range(segment.chunks))
            ),
        }
        if importlib.util.find_spec("obstore"):
            one = obstore_get(endpoint)
            works["plain GETs, obstore"] = get(lambda name: one(name.removeprefix("bench/")))
            works["moments pass, obstore"] = by_obstore(run(MomentsReduction()))
            works["histograms pass, obstore"] = by_obstore(run(histograms))
        times = interleave([Contender(name, segment.rows, work) for name, work in works.items()], options.rounds)
        print(f"{segment.rows:,} filters, {segment.chunks} objects, {options.threads} at a time")
        print(f"{options.rounds} rounds\n")
        print(table(times, plain, ratio="plain GETs ÷ it"))


if __name__ == "__main__":
    main()
