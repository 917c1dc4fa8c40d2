"""What is refused of the published data set: metadata that contradicts itself, files that lie."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from filterdb.errors import InputError
from filterdb.models.published import columns, hdf5
from filterdb.models.published.hdf5 import read_published
from tests.faults.test_hostile_models import watched
from tests.models.published import published
from tests.models.published.conftest import read_rows
from tests.models.published.published import add_filters, frame, write_bytes, write_csv, write_frame

# --- Metadata that contradicts itself -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("20:24", "row 7: expected the values of a layer, got filters 20:24 of 24"),
        ("21:20", "row 7"),
        ("-1:3", "'-1:3' as filter_ids"),
        ("21:22:23", "as filter_ids"),
        ("21", "as filter_ids"),
        ("", "as filter_ids"),
        ("99999999999999999999:1", "as filter_ids"),
        ("20:22", "filter 20 in those of rows 6 and 7"),
        ("0:23", "filter 0 in those of rows"),
        ([21, 22, 24], "filters 21:22, 24:24 of 24"),
        ([21, 22, -1], "filters 21:22, -1:-1 of 24"),
        ([21, 22, 22], "filter 22 in those of rows 7 and 7"),
        ([21, 22.0], "not all integers"),
        ([2**70], "row 7"),
        ([], r"filters \(none\) of 24"),
        (np.zeros(25, int), "more filter_ids"),
        (np.array([2.5]), "a ndarray in an array"),
        (7, "as filter_ids"),
        (None, "as filter_ids"),
    ],
)
def test_ids_that_cannot_be(path: Path, ids: Any, message: str) -> None:
    table = frame()
    table.iat[6, 0] = ids
    write_frame(path, table)
    add_filters(path)
    with pytest.raises(InputError, match=message) as caught:
        read_published(path)
    assert "\n" not in str(caught.value)


def test_a_layer_twice(path: Path) -> None:
    table = frame(levels=4)
    assert isinstance(table.index, pd.MultiIndex)
    table.index = table.index.set_codes([0, 3, 0, 2, 0, 0, 1], level=3)
    write_frame(path, table)
    add_filters(path)
    with pytest.raises(InputError, match="each layer_id of model resnet_imagenet_11 once, got 0 twice"):
        read_published(path)


def test_a_model_with_two_names(path: Path) -> None:
    table = frame()
    table.iloc[1, list(table.columns).index("model")] = "other"
    write_csv(path, table)
    add_filters(path)
    with pytest.raises(InputError, match="one name for model_id 7, got 'resnet_imagenet_11' and 'other'"):
        read_published(path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("op_set", -1, "'-1' as op_set|-1 as op_set"),
        ("in_channels", 1.5, "as in_channels"),
        ("(3, 3) filters", "many", "as .3, 3. filters"),
        ("conv_depth", "x", "as conv_depth"),
        ("conv_depth_norm", 1.5, "1.5 as conv_depth_norm"),
        ("conv_depth_norm", "inf", "inf as conv_depth_norm"),
        ("model_id", None, "nothing as model_id"),
    ],
)
def test_values_that_cannot_be(path: Path, column: str, value: Any, message: str) -> None:
    table = frame().reset_index().astype({column: object})
    table[column] = value
    write_csv(path, table, index=False)
    add_filters(path)
    with pytest.raises(InputError, match=message):
        read_published(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"model_id,conv_depth,filter_ids\n1,0,\xff\n", "CSV in UTF-8, got .* in position 35"),
        (b"", "expected"),
        (b"model_id,conv_depth,filter_ids\n", "a table with rows"),
        (b"model_id,conv_depth,filter_ids\n1,0\n", "row 1: expected 3 fields as in the head, got 2"),
        (b'model_id,conv_depth,filter_ids\n1,0,"0:3\n', "CSV in UTF-8, got"),
        (b"model_id,conv_depth\n1,0\n", "a column filter_ids, got model_id, conv_depth"),
        (b"model_id,filter_ids\n1,0:3\n", "a column conv_depth"),
        (b"filter_ids,conv_depth\n0:3,0\n", "a column model_id"),
        (b"a\n" + b"x" * 200_000, "CSV in UTF-8, got"),
        (b"\x89PNG\r\n\x1a\n", "CSV in UTF-8"),
    ],
)
def test_csv_that_cannot_be_used(path: Path, data: bytes, message: str) -> None:
    write_bytes(path, data)
    add_filters(path)
    with pytest.raises(InputError, match=message) as caught:
        read_published(path)
    assert "\n" not in str(caught.value)


def test_csv_that_is_too_much(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(path, frame())
    add_filters(path)
    monkeypatch.setattr(columns, "MAX_CSV", 1000)
    with pytest.raises(InputError, match="at most 1,000 bytes of CSV"):
        read_published(path)


@pytest.mark.parametrize("form", ["int32", "float64"])
def test_meta_of_another_kind(path: Path, form: str) -> None:
    write_bytes(path, b"12345678", form)
    add_filters(path)
    with pytest.raises(InputError, match="meta: expected"):
        read_published(path)


def test_meta_in_table_format(path: Path) -> None:
    frame()[["depth"]].to_hdf(path, key="meta", format="table")
    add_filters(path)
    with pytest.raises(InputError, match="format='fixed'"):
        read_published(path)


def test_no_meta_no_filters(path: Path) -> None:
    add_filters(path)
    with pytest.raises(InputError, match="meta: expected a pandas frame or CSV bytes, got nothing"):
        read_published(path)
    write_csv(path, frame())
    with pytest.raises(InputError, match="filters: expected a dataset of filters, got nothing"):
        read_published(path)


@pytest.mark.parametrize("part", ["block0_values", "block0_items", "axis0", "axis1_label1", "block1_values"])
def test_parts_of_a_frame_that_do_not_fit(path: Path, part: str) -> None:
    write_frame(path, frame())
    add_filters(path)
    with h5py.File(path, "a") as file:
        del file["meta"][part]
    with pytest.raises(InputError):
        read_published(path)
    with h5py.File(path, "a") as file:
        file["meta"][part] = np.arange(3)
    with pytest.raises(InputError):
        read_published(path)


def test_codes_beyond_their_level(path: Path) -> None:
    write_frame(path, frame())
    add_filters(path)
    with h5py.File(path, "a") as file:
        file["meta/axis1_label0"][2] = 3
    with pytest.raises(InputError, match="axis1_level0"):
        read_published(path)


# --- Files that lie --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "No such file"),
        (b"", "an HDF5 file, got nothing in it"),
        (b"no HDF5 at all" * 100, "an HDF5 file, got another kind of file"),
    ],
)
def test_no_hdf5(path: Path, data: bytes | None, message: str) -> None:
    if data is not None:
        path.write_bytes(data)
    for read in (lambda: read_published(path), lambda: read_rows(path, 0, 1)):
        with pytest.raises(InputError, match=message):
            read()


def test_a_folder_and_a_packed_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder or a device"):
        read_published(tmp_path)
    packed = tmp_path / "dataset.h5.xz"
    packed.write_bytes(b"\xfd7zXZ\0")
    with pytest.raises(InputError, match="unpack it: xz -d"):
        read_published(packed)


@pytest.mark.parametrize("layout", ["fixed", "csv"])
def test_truncated(path: Path, layout: str) -> None:
    (write_frame if layout == "fixed" else write_csv)(path, frame())
    add_filters(path)
    whole = path.read_bytes()
    read_published(path)
    for share in (0.02, 0.3, 0.6, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError):
            read_published(path)


def test_flipped_bytes_never_give_another_error(path: Path) -> None:
    write_frame(path, frame(levels=4))
    add_filters(path)
    whole = path.read_bytes()
    filled = np.flatnonzero(np.frombuffer(whole, np.uint8))
    rng = np.random.default_rng(3)
    refused = 0
    for position in rng.choice(filled, 60, replace=False):
        damaged = bytearray(whole)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read_published(path)
        except InputError:
            refused += 1
    assert refused > 5


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        *(((2**41, 9), options) for options in ({}, {"chunks": True}, {"chunks": True, "compression": "gzip"})),
        *(((2**30, 3, 3), options) for options in ({}, {"chunks": True})),
        *((shape, {}) for shape in ((2**40, 9), (0, 9), (24, 3), (24,), (24, 9, 1), (3, 24))),
        *(((0, 9), {"chunks": True}), ((24, 3), {"chunks": True, "compression": "gzip"})),
    ],
)
def test_filters_that_are_not_there(path: Path, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    write_csv(path, frame())
    with h5py.File(path, "a") as file:
        file.create_dataset("filters", shape, "f4", maxshape=(None, *shape[1:]) if options else None, **options)
    for read in (lambda: read_published(path), lambda: read_rows(path, 0, 1)):
        with pytest.raises(InputError, match="filters: expected"):
            read()


def test_a_shape_that_is_more_than_what_is_stored(path: Path) -> None:
    write_csv(path, frame())
    add_filters(path, chunks=(6, 3, 3), maxshape=(None, 3, 3))
    with h5py.File(path, "a") as file:
        file["filters"].resize(25, axis=0)
        file["filters"].resize(31, axis=0)
    with pytest.raises(InputError, match="bytes as declared"):
        read_rows(path, 0, 1)


@pytest.mark.parametrize("dtype", ["i4", "u1", "c8", "S4", "bool", [("a", "f4")], h5py.vlen_dtype("f4")])
def test_filters_that_are_no_floats(path: Path, dtype: Any) -> None:
    write_csv(path, frame())
    with h5py.File(path, "a") as file:
        dataset = file.create_dataset("filters", (24, 9), dtype)
        if dataset.dtype != object:
            dataset[...] = np.zeros((24, 9), dataset.dtype)
    with pytest.raises(InputError, match="filters: expected float16, float32 or float64"):
        read_published(path)


@pytest.mark.parametrize("options", [{"scaleoffset": 3}, {"compression": 32015}, {"compression": 307}])
def test_filters_with_odd_codecs(path: Path, options: dict[str, Any]) -> None:
    write_csv(path, frame())
    with h5py.File(path, "a") as file:
        if "scaleoffset" in options:
            file.create_dataset("filters", data=published.filters(), **options)
        else:  # a codec that would have to be loaded as a plugin
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_chunk((6, 9))
            plan.set_filter(options["compression"], h5py.h5z.FLAG_OPTIONAL)
            space = h5py.h5s.create_simple((24, 9))
            h5py.h5d.create(file.id, b"filters", h5py.h5t.IEEE_F32LE, space, plan)
    with pytest.raises(InputError, match="got HDF5 filters"):
        read_published(path)


def test_chunks_that_are_too_large(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_filters(path, compression="gzip", chunks=(24, 3, 3))
    monkeypatch.setattr(hdf5, "MAX_CHUNK", 800)
    with pytest.raises(InputError, match="chunks of at most 800 bytes"):
        read_rows(path, 0, 1)


def test_metadata_that_is_too_much(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for write in (write_frame, write_csv):
        write(path, frame())
        add_filters(path)
        read_published(path)
        monkeypatch.setattr(hdf5, "MAX_METADATA", 1000)
        with pytest.raises(InputError, match="at most 1,000 bytes of metadata"):
            read_published(path)
        monkeypatch.undo()


def test_metadata_that_is_not_there(path: Path) -> None:
    add_filters(path)
    with h5py.File(path, "a") as file:
        file.create_dataset("meta", (2**28,), "u1", chunks=(2**16,), compression="gzip")[:10] = 65
    with pytest.raises(InputError, match="bytes as declared"):
        read_published(path)


@pytest.mark.parametrize("target", ["filters", "meta", "meta/block0_values", "meta/axis0", "meta/axis1_level0"])
@pytest.mark.parametrize("kind", ["soft", "external"])
def test_links_are_not_followed(tmp_path: Path, path: Path, target: str, kind: str) -> None:
    write_frame(path, frame())
    add_filters(path)
    read_published(path)
    other = tmp_path / "other.h5"
    other.write_bytes(path.read_bytes())
    with h5py.File(path, "a") as file:
        file.move(target, "elsewhere")
        file[target] = h5py.SoftLink("/elsewhere") if kind == "soft" else h5py.ExternalLink(str(other), f"/{target}")
        assert file[target] is not None  # h5py follows it
    with pytest.raises(InputError, match=f"expected data in the file itself, got an? {kind} link"):
        read_published(path)


@pytest.mark.parametrize("target", ["filters", "meta"])
def test_a_virtual_dataset_is_refused(tmp_path: Path, path: Path, target: str) -> None:
    write_csv(path, frame())
    add_filters(path)
    other = tmp_path / "other.h5"
    other.write_bytes(path.read_bytes())
    with h5py.File(path, "a") as file:
        source = h5py.VirtualSource(str(other), target, file[target].shape)
        layout = h5py.VirtualLayout(file[target].shape, file[target].dtype)
        layout[...] = source
        del file[target]
        file.create_virtual_dataset(target, layout)
    with pytest.raises(InputError, match=f"{target}: expected data in the file itself, got a virtual dataset"):
        read_published(path)


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_the_file_behind_a_virtual_dataset_is_not_opened(tmp_path: Path, path: Path) -> None:
    """HDF5 opens it as soon as anybody asks for the shape of a dataset that grows with it."""
    write_csv(path, frame())
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file.create_dataset("filters", (24, 9), "f4", maxshape=(None, 9), chunks=(8, 9))
    with h5py.File(path, "a") as file:
        source = h5py.VirtualSource(str(other), "filters", (24, 9), maxshape=(None, 9))
        layout = h5py.VirtualLayout((24, 9), "f4", maxshape=(None, 9))
        layout[0 : h5py.h5s.UNLIMITED, :] = source[0 : h5py.h5s.UNLIMITED, :]
        file.create_virtual_dataset("filters", layout)
    with watched([other]) as touched, pytest.raises(InputError, match="a virtual dataset"):
        read_published(path)
    assert not touched
    with watched([other]) as touched, h5py.File(path) as file:
        assert file["filters"].shape == (24, 9)
    assert touched  # so the watch works


@pytest.mark.parametrize("target", ["filters", "meta"])
def test_external_storage_is_refused(tmp_path: Path, path: Path, target: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(10_000))
    write_csv(path, frame())
    add_filters(path)
    with h5py.File(path, "a") as file:
        shape, dtype = file[target].shape, file[target].dtype
        del file[target]
        file.create_dataset(target, shape, dtype, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(InputError, match=f"{target}: expected data in the file itself, got external storage"):
        read_published(path)
