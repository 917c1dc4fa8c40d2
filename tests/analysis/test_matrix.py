"""Drift of more groups than fit into memory: written in blocks, opened lazily, the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import filterdb as fdb
from filterdb.analysis import drift as drifts
from filterdb.analysis.drift_metrics import MetricName
from filterdb.errors import UsageError
from filterdb.numerics import divergence


@pytest.mark.slow
@pytest.mark.parametrize("where", ["folder", "s3"])
@pytest.mark.parametrize("metric", ["kl", "wasserstein"])
def test_written_in_blocks_and_opened_lazily(
    real_db: fdb.Database,
    tmp_path: Path,
    where: str,
    metric: MetricName,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    out = f"{request.getfixturevalue('s3')()}/out.zarr" if where == "s3" else tmp_path / "out.zarr"
    expected = fdb.drift(real_db, by="layer", metric=metric)
    monkeypatch.setattr(divergence, "BLOCK", 11)
    found = fdb.drift(real_db, by="layer", metric=metric, out=out)
    assert found["drift"].chunks is not None
    assert max(map(max, found["drift"].chunks)) == 11
    assert not any(array.isnull().any() for array in found.data_vars.values())
    same = found.load().sel(group=expected["group"].values, other=expected["group"].values)
    np.testing.assert_allclose(same["drift"], expected["drift"], rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found["drift"], found["drift"].T)
    np.testing.assert_array_equal(same["heatmap_order"], np.arange(48))
    np.testing.assert_array_equal(same["counts"], expected["counts"])
    assert found.attrs["snapshot"] == expected.attrs["snapshot"]
    if where == "folder":
        xr.testing.assert_identical(xr.open_zarr(out).load(), xr.merge([found]))


def test_what_stands_there_is_kept(real_db: fdb.Database, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="expected nothing there, found objects"):
        fdb.drift(real_db, by="layer", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_too_many_groups_for_memory_are_told_the_way(
    real_db: fdb.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drifts, "IN_MEMORY_LIMIT", 47)
    with pytest.raises(UsageError, match="at most 47 groups for a matrix in memory, got 48; say where to write it"):
        fdb.drift(real_db, by="layer")
    assert fdb.drift(real_db, by="layer", out=tmp_path / "out").sizes["group"] == 48
    assert fdb.drift(real_db, by="model").sizes["group"] == 8
