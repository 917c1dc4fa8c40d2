"""Codebooks of many synthetic filters against scikit-learn's MiniBatchKMeans: time, inertia, and equal assignments.

Contenders take turns on the same threads. Ours reads raw filters from a database and keeps a chunk for each thread;
scikit-learn gets all filters in memory, float32 rows without those that are zero, and normalises them. Both fit the
codes and assign every filter. Inertias are computed in double precision for both. A sample of assignments is compared
with brute force by SciPy; the benchmark fails if one differs, or if our inertia is more than 1 % above scikit-learn's.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import dask
import numpy as np
import synthetic
from rounds import Contender, interleave, table
from scipy.spatial.distance import cdist
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

import filterdb as fdb
from filterdb.engine.run import view_parts
from filterdb.numerics import code_loops
from filterdb.numerics.codebook import Codes, sums_of
from filterdb.reduce.codebook import CodebookFit, CodeHistograms

OURS = "filterdb: fit, assignment"
SAMPLE = 20_000


def forget(url: str) -> None:
    """Remove what earlier rounds have stored."""
    files = fdb.open(url).files
    files.remove([name for folder in ("summaries", "tables") for name in files.list(folder) if "/code" in name])


def ours(url: str, codes: Codes) -> np.ndarray:
    """Fit codes and count all filters by code and layer; return the codes."""
    db = fdb.open(url)
    fixed = CodebookFit(db, codes).fixed()
    for _ in view_parts(db, CodeHistograms(fixed)):
        pass
    return fixed.array


def theirs(columns: np.ndarray, k: int, batch: int, epochs: int) -> np.ndarray:
    """Normalise filters, fit codes and assign all filters; return the codes."""
    rows = np.ascontiguousarray(columns.T)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    centres: np.ndarray = (
        MiniBatchKMeans(k, batch_size=batch, max_iter=epochs, random_state=0).fit(rows).cluster_centers_
    )
    return centres.astype(np.float64)


def all_filters(db: fdb.Database) -> np.ndarray:
    """Return the filters that are not zero as columns, (9, n) float32."""
    (segment,) = db.segments
    columns = np.concatenate([segment.read_chunk(chunk).T for chunk in range(segment.chunks)], axis=1)
    return np.ascontiguousarray(columns[:, columns.any(axis=0)])


def differences(columns: np.ndarray, codes: np.ndarray) -> int:
    """Return how many filters of a sample brute force assigns to another code."""
    chosen = np.sort(np.random.default_rng(0).choice(columns.shape[1], min(SAMPLE, columns.shape[1]), replace=False))
    sample = np.ascontiguousarray(columns[:, chosen])
    index, distance = np.empty(len(chosen), np.int64), np.empty(len(chosen))
    code_loops.nearest_codes(sample, False, codes, index, distance)
    rows = sample.T.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return int((cdist(rows, codes, "sqeuclidean").argmin(axis=1) != index).sum())


def main() -> None:
    """Print a table of times, the ratio of the inertias, and the number of different assignments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filters", type=int, default=20_000_000)
    parser.add_argument("-k", type=int, default=256)
    parser.add_argument("--passes", type=int, default=1, help="Lloyd's steps on all filters")
    parser.add_argument("--batch", type=int, nargs="+", default=[1_024, 16_384], help="batches of scikit-learn")
    parser.add_argument("--epochs", type=int, default=100, help="most steps of scikit-learn over all filters")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    codes = Codes(options.k, "scale", passes=options.passes)
    fitted: dict[str, np.ndarray] = {}

    def keep(name: str, work: partial[np.ndarray]) -> None:
        fitted[name] = work()

    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set(scheduler="threads", num_workers=options.threads),
        threadpool_limits(options.threads),
    ):
        url = str(Path(folder) / "db")
        db = synthetic.make(url, options.filters, max(10, options.filters // 70_000), 12)
        columns = all_filters(db)
        works = {OURS: partial(ours, url, codes)}
        works |= {
            f"scikit-learn MiniBatchKMeans, batches of {batch:,}": partial(
                theirs, columns, options.k, batch, options.epochs
            )
            for batch in options.batch
        }
        contenders = [Contender(name, options.filters, partial(keep, name, work)) for name, work in works.items()]
        contenders[0] = Contender(OURS, options.filters, contenders[0].work, after=partial(forget, url))
        arguments = {"k": options.k, "passes": options.passes}
        whole = partial(fdb.codebook, url, **arguments)
        contenders.append(Contender("filterdb: the same and noise", options.filters, whole, after=partial(forget, url)))
        times = interleave(contenders, options.rounds)
        print(f"{options.filters:,} filters, k = {options.k}, {options.threads} threads, {options.rounds} rounds\n")
        print(table(times, OURS, ratio="times ours", inverse=True))
        inertia = {name: sums_of(columns, found, affine=False).inertia for name, found in fitted.items()}
        worst = max(inertia[OURS] / other for other in inertia.values())
        for name, value in inertia.items():
            print(f"\ninertia of {name}: {value:,.1f}, {value / inertia[OURS]:.4f} of ours")
        different = differences(columns, fitted[OURS])
        print(f"\n{different} of {min(SAMPLE, columns.shape[1]):,} assignments differ from brute force")
    if worst > 1.01 or different:
        raise SystemExit("expected equal assignments and an inertia within 1 % of the smallest")


if __name__ == "__main__":
    main()
