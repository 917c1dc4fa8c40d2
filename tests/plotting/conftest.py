"""Results of every kind, of a small database with names that would like to be more than names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest

import filterdb as fdb
from filterdb.page.first_filters import first_filters
from tests.models import chain, weights

HOSTILE = ("$\\frac{1$ <script>window.hit=1</script>", "a & \"b\" 'c' </td></table>", "plain $5 and $6")


@pytest.fixture(scope="session")
def small_db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """Seven models of three tasks with hostile names, among them checkpoints and retrainings."""
    folder = tmp_path_factory.mktemp("plots")
    rows: list[dict[str, Any]] = []
    for number in range(7):
        layers = (weights(24, 3, seed=number), weights(10, 24, seed=number + 50), weights(6, 10, seed=number + 90))
        chain(folder / f"{number}.onnx", *layers)
        row = {"path": f"{number}.onnx", "name": f"{HOSTILE[number % 3]} {number}", "task": HOSTILE[number % 3]}
        rows.append({**row, "family": "AB"[number % 3 % 2], "architecture": "net", "training_dataset": "A & B"})
        rows[-1] |= {"epoch": number // 3, "seed": number // 6}
    pd.DataFrame(rows).to_csv(folder / "list.csv", index=False)
    with dask.config.set(scheduler="threads"):
        db = fdb.ingest(folder / "db", catalog=folder / "list.csv").database
        fdb.drift(db, "task", noise=False)
    return fdb.open(folder / "db")


@pytest.fixture(scope="session")
def results(small_db: fdb.Database) -> dict[str, Any]:
    """The results that plots and notebooks show, by name."""
    db = small_db
    file = str(Path(db.url).parent / "0.onnx")
    with dask.config.set(scheduler="threads"):
        drift = fdb.drift(db, "task", noise=True)
        a, b = drift["group"].values[:2].tolist()
        return {
            "check": fdb.check(file),
            "codebook": fdb.codebook(db, "task", k=4),
            "degeneration": fdb.degeneration(db, by="task"),
            "degeneration_drift": fdb.degeneration_drift(db),
            "density": fdb.density(db, "task", components=(0, 1)),
            "distributions": fdb.distributions(db, "task"),
            "drift": drift,
            "drift within": fdb.drift(db, "model", within="task", noise=False),
            "explain": fdb.explain(db, "task", a, b),
            "filter_scale": fdb.filter_scale(db, "task"),
            "first_filters": first_filters(db),
            "lineage": fdb.lineage(db),
            "nearest": fdb.nearest(db, file),
            "pca": fdb.pca(db, "task"),
            "phenotypes": fdb.phenotypes(db, "task"),
            "principal_angles": fdb.principal_angles(db, "task"),
            "randomness_threshold": fdb.randomness_threshold(sizes=[8, 16, 32, 64], draws=20),
            "series": fdb.series(db),
            "spectrum": fdb.spectrum(db, "task"),
            "statistics": fdb.statistics(db),
            "summarise": fdb.summarise(file),
            "family": np.array(["A", "B", "A"]),
        }
