"""A segment: plain Zarr for everybody, whole chunks, checksums, and no damage that goes unnoticed."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from safetensors import safe_open
from zarr.core.metadata import ArrayV3Metadata

import filterdb as fdb
from filterdb import schema
from filterdb.errors import DamageError, UsageError
from filterdb.store import files, zarr_group
from filterdb.store import segment as segments
from filterdb.store.canonical import canonical, digest
from filterdb.store.files import Files
from tests.models import chain, weights

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"

LAYERS = [weights(5, 7, seed=1), weights(8, 5, seed=2), weights(9, 8, seed=3)]
EXPECTED = np.concatenate([w.reshape(-1, 9) for w in LAYERS])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    chain(folder / "m.onnx", *LAYERS)
    (folder / "list.csv").write_text("path,name,task,epoch\nm.onnx,größe,detection,3\n")
    fdb.drift(fdb.ingest(folder / "db", catalog=folder / "list.csv", chunk_rows=20).database, by="layer")
    return folder / "db"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "db"))


def zarr_filters(found: segments.Segment) -> zarr.Array[Any]:
    """What Zarr itself reads."""
    return zarr.open_array(found.files.zarr(f"{found.name}/filters", read_only=True), mode="r")


def segment(db: Path) -> Path:
    (path,) = (db / "segments").glob("*.zarr")
    return path


def pack(db: Path) -> Path:
    (path,) = (db / "segments").glob("*.safetensors")
    return path


def test_xarray_opens_a_segment_without_filterdb(made: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = xr.open_zarr(segment(made))
    np.testing.assert_array_equal(found.filters.values, EXPECTED)
    assert found.filters.dtype == np.float32
    assert found.sizes == {"filter": 147, "weight": 9, "layer": 3, "model": 1}
    assert list(found.row_size.values) == [35, 40, 72]
    assert str(found.task.values[0]) == "detection" and str(found.model.values[0]) == "größe"
    assert {"row_size", "model", "task"} <= set(found.coords)
    assert found.row_size.attrs["sample_dimension"] == "filter"


def test_layout(made: Path) -> None:
    """Columns first inside a chunk, then a CRC32C; the last chunk alone is padded, with NaN."""
    metadata = json.loads((segment(made) / "filters/zarr.json").read_text())
    assert [codec["name"] for codec in metadata["codecs"]] == ["transpose", "bytes", "crc32c"]
    assert metadata["fill_value"] == "NaN"
    chunks = sorted((segment(made) / "filters/c").glob("*/0"), key=lambda p: int(p.parent.name))
    assert len(chunks) == 8
    parts = [np.frombuffer(p.read_bytes()[:-4], "<f4").reshape(9, 20).T for p in chunks]
    whole = np.concatenate(parts)
    np.testing.assert_array_equal(whole[:147], EXPECTED)
    assert np.isnan(whole[147:]).all() and len(whole) == 160
    for path in segment(made).glob("*/zarr.json"):
        if path.parent.name != "filters":
            names = [codec["name"] for codec in json.loads(path.read_text())["codecs"]]
            assert names[-1] == "crc32c", path


def test_a_zero_chunk_is_written(tmp_path: Path) -> None:
    """Zarr drops chunks that equal the fill value unless told otherwise."""
    chain(tmp_path / "m.onnx", np.zeros((6, 6, 3, 3), np.float32))
    db = fdb.ingest(tmp_path / "db", [tmp_path / "m.onnx"], chunk_rows=10).database
    assert len(list(segment(tmp_path / "db").glob("filters/c/*/0"))) == 4
    assert not db.dataset.filters.values.any()


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_the_passes_read_what_zarr_reads(
    where: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short way round Zarr: chunks of several sizes, full and padded, read in pieces of 100 bytes."""
    monkeypatch.setattr(files, "_PIECE", 100)
    chain(tmp_path / "m.onnx", *LAYERS)
    for size in (147, 20, 7, 1_000):
        url = f"{request.getfixturevalue('s3')()}/db" if where == "s3" else str(tmp_path / f"db{size}")
        (found,) = fdb.ingest(url, [tmp_path / "m.onnx"], chunk_rows=size).database.segments
        for chunk in (*range(found.chunks), 0):
            start, stop = found.bounds(chunk)
            columns = found.read_columns(chunk)
            assert columns.shape == (9, found.chunk_rows) and columns.flags.c_contiguous
            assert not columns.flags.writeable
            np.testing.assert_array_equal(columns[:, : stop - start].T, EXPECTED[start:stop])
            assert np.isnan(columns[:, stop - start :]).all()
            np.testing.assert_array_equal(zarr_filters(found)[start:stop], EXPECTED[start:stop])


@pytest.mark.parametrize("rows", [20, 13])
def test_chunks_are_written_as_zarr_writes_them(rows: int, tmp_path: Path) -> None:
    """Byte for byte, padding and checksum included."""
    filters = weights(4, 5).reshape(-1, 9)[:rows]
    ours = segments.Segment(Files(str(tmp_path)), "x", rows, 10)
    group = zarr.open_group(tmp_path / "zarr", mode="w")
    array = group.create_array(
        "filters",
        shape=(rows, 9),
        chunks=(10, 9),
        dtype="f4",
        filters=zarr_group.CODECS[:1],
        serializer=zarr_group.CODECS[1],
        compressors=zarr_group.CODECS[2:],
        fill_value=np.nan,
    )
    array[:] = filters
    for chunk in range(2):
        ours.write_chunk(chunk, filters[chunk * 10 : chunk * 10 + 10])
        expected = (tmp_path / f"zarr/filters/c/{chunk}/0").read_bytes()
        assert (tmp_path / ours.chunk_name(chunk)).read_bytes() == expected


def test_the_group_has_what_labels_filters(made: Path) -> None:
    group = zarr.open_group(segment(made), mode="r")
    variables = [variable for variable in schema.TABLES if variable.name in schema.IN_GROUP]
    assert set(group) == {v.name for v in (schema.FILTERS, *variables)}
    for variable in (schema.FILTERS, *variables):
        array = group[variable.name]
        assert isinstance(array.metadata, ArrayV3Metadata)
        assert array.metadata.dimension_names == variable.dims
        assert array.attrs["long_name"] == variable.doc


def test_a_segment_of_one_model_is_few_objects(made: Path) -> None:
    """Labels of one model are fill values. With the pack, two summaries, the snapshot and its mark they are ten."""
    names = {str(path.relative_to(segment(made))) for path in segment(made).rglob("*") if path.is_file()}
    assert {name for name in names if "filters/c/" not in name} == {
        "zarr.json",
        "filters/zarr.json",
        "row_size/zarr.json",
        "row_size/c/0",
    }


def test_safetensors_opens_the_pack(made: Path) -> None:
    """The library that defines the format is the oracle."""
    with safe_open(pack(made), "numpy") as opened:
        assert opened.metadata()["segment"] == segment(made).stem
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    np.testing.assert_array_equal(tensors["row_size"], [35, 40, 72])
    assert tensors["task/utf8"].tobytes().decode() == "detection"
    assert tensors["model/utf8"].tobytes().decode() == "größe"
    assert tensors["batch_norm/codes"].tolist() == [0, 0, 0]
    tables = fdb.open(made).tables[0]
    for variable in schema.TABLES:
        if variable.dtype != "str":
            np.testing.assert_array_equal(tensors[variable.name], tables[variable.name])


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def use(db: Path) -> object:
    """Everything that reads filters or tables, past every stored summary."""
    for summary in (db / "summaries").rglob("*.npz"):
        summary.unlink()
    opened = fdb.open(db)
    fdb.drift(opened, by="layer")
    return opened.dataset.filters.values


@pytest.mark.parametrize("position", [0, 17, 359, -1])
def test_a_flipped_bit_of_a_chunk(copy: Path, position: int) -> None:
    flip(segment(copy) / "filters/c/3/0", position)
    with pytest.raises(DamageError, match=r"filters chunk 3: expected the bytes that were committed"):
        use(copy)
    with pytest.raises(DamageError, match=r"filters chunk 3: .*checksum"):
        _ = fdb.open(copy).dataset.filters.values


def test_a_missing_chunk(copy: Path) -> None:
    (segment(copy) / "filters/c/5/0").unlink()
    with pytest.raises(DamageError, match="filters chunk 5"):
        use(copy)
    with pytest.raises(DamageError, match=r"filters chunk 5: the object is missing"):
        _ = fdb.open(copy).dataset.filters.values


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_a_truncated_chunk(copy: Path, keep: int) -> None:
    path = segment(copy) / "filters/c/2/0"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamageError, match="filters chunk 2"):
        use(copy)


@pytest.mark.parametrize("position", [0, 9, 500, -1])
def test_damage_to_the_pack(copy: Path, position: int) -> None:
    flip(pack(copy), position)
    with pytest.raises(DamageError, match=f"{pack(copy).name}: expected SHA-256"):
        _ = fdb.open(copy).layers


def test_a_missing_pack(copy: Path) -> None:
    name = pack(copy).name
    pack(copy).unlink()
    with pytest.raises(DamageError, match=f"{name}: the object is missing"):
        _ = fdb.open(copy).layers


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database of format 4, whose tables are arrays of the Zarr group."""
    with zipfile.ZipFile(DATA / "format-4.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "format-4"


@pytest.mark.parametrize("variable", [v.name for v in schema.TABLES if not v.name.startswith("skipped")])
def test_damage_to_any_table_of_format_4(old: Path, variable: str) -> None:
    (path,) = (segment(old) / variable / "c").rglob("0")
    flip(path, path.stat().st_size // 2)
    with pytest.raises(DamageError, match=variable):
        _ = fdb.open(old).layers
    path.unlink()
    with pytest.raises(DamageError, match=variable):
        _ = fdb.open(old).layers


def test_a_table_of_format_4_replaced_by_another_valid_one(old: Path) -> None:
    group = zarr.open_group(segment(old), mode="r+")
    peak = group["peak"]
    assert isinstance(peak, zarr.Array)
    peak[:] = np.asarray(peak[:]) * 2
    with pytest.raises(DamageError, match="expected tables with SHA-256"):
        _ = fdb.open(old).layers


def test_edited_metadata_of_format_4(old: Path) -> None:
    path = segment(old) / "zarr.json"
    path.write_text(path.read_text().replace("float32", "float64"))
    with pytest.raises(DamageError, match="expected SHA-256"):
        _ = fdb.open(old).layers


def test_filters_replaced_by_others(copy: Path) -> None:
    """A chunk with a valid checksum but other filters: their peaks are not those of the ingest."""
    array = zarr.open_array(segment(copy) / "filters", mode="r+")
    array[0:20] = np.asarray(array[0:20]) * 3
    with pytest.raises(DamageError, match=r"expected largest \|weight\|"):
        use(copy)


def test_edited_metadata(copy: Path) -> None:
    """Metadata by which others would read other numbers from the same bytes; our own reading needs none."""
    path = segment(copy) / "zarr.json"
    path.write_text(path.read_text().replace("float32", "float64"))
    use(copy)
    (problem,) = fdb.verify(fdb.open(copy)).problems
    assert problem.variable == "zarr.json"


@pytest.mark.parametrize("change", [('"order":[1,0]', '"order":[0,1]'), ('"little"', '"big"')], ids=["order", "endian"])
def test_edited_metadata_of_the_filters(copy: Path, change: tuple[str, str]) -> None:
    """Valid metadata by which others would read other numbers from the same bytes; our own reading has its own."""
    path = segment(copy) / "filters/zarr.json"
    text = json.dumps(json.loads(path.read_text()), separators=(",", ":"))
    assert change[0] in text
    path.write_text(text.replace(*change))
    use(copy)
    (problem,) = fdb.verify(fdb.open(copy)).problems
    assert problem.variable == "filters/zarr.json"


def test_a_copied_snapshot(copy: Path) -> None:
    shutil.copy(copy / "snapshots/00000001.json", copy / "snapshots/00000005.json")
    with pytest.raises(DamageError, match="expected snapshot 5, got 1"):
        fdb.open(copy)


def test_an_edited_snapshot(copy: Path) -> None:
    path = max((copy / "snapshots").iterdir())
    path.write_text(path.read_text().replace('"filters":147', '"filters":146'))
    with pytest.raises(DamageError, match="expected content with SHA-256"):
        fdb.open(copy)
    path.write_text("{")
    with pytest.raises(DamageError, match="snapshot"):
        fdb.open(copy)


def test_a_snapshot_of_another_format(copy: Path) -> None:
    path = max((copy / "snapshots").glob("*.json"))
    content = json.loads(path.read_text()) | {"format": 99}
    del content["sha256"]
    path.write_bytes(canonical({**content, "sha256": digest(canonical(content))}))
    with pytest.raises(
        UsageError,
        match="expected store format 1 or 2 or 3 or 4 or 5 or 6, got 99; install a newer filterdb: pip install",
    ):
        fdb.open(copy)


def test_damage_to_a_summary_is_an_error_and_deleting_it_heals(copy: Path) -> None:
    before = fdb.pca(fdb.open(copy))
    (moments,) = (copy / "summaries").rglob("moments-*.npz")
    for position in (0, 40, moments.stat().st_size // 2, -1):
        flip(moments, position)
        with pytest.raises(DamageError, match=r"moments-v\d-\w+\.npz"):
            fdb.pca(fdb.open(copy))
        flip(moments, position)
    with np.load(moments) as plain:  # a plain NumPy archive
        assert plain["count"].shape == (3, 2)
    moments.unlink()
    xr.testing.assert_identical(fdb.pca(fdb.open(copy)), before)


def test_another_segments_summary_is_computed_anew(
    copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = fdb.pca(fdb.open(copy))
    chain(tmp_path / "other.onnx", weights(5, 7, seed=9), weights(8, 5, seed=8), weights(9, 8, seed=7))
    other = fdb.ingest(tmp_path / "other", [tmp_path / "other.onnx"], chunk_rows=20).database
    fdb.pca(other)
    (mine,) = (copy / "summaries").rglob("moments-*.npz")
    (theirs,) = (tmp_path / "other/summaries").rglob("moments-*.npz")
    before = mine.read_bytes()
    mine.write_bytes(theirs.read_bytes())
    xr.testing.assert_equal(fdb.pca(fdb.open(copy)), expected)
    assert "expected a summary of" in caplog.text
    assert mine.read_bytes() == before


def test_damage_to_the_basis(copy: Path) -> None:
    (path,) = (copy / "bases").iterdir()
    flip(path, 30)
    with pytest.raises(DamageError, match="bases"):
        fdb.drift(fdb.open(copy), by="layer")
    path.unlink()
    with pytest.raises(DamageError, match=r"bases.*refit"):
        fdb.drift(fdb.open(copy), by="layer")
