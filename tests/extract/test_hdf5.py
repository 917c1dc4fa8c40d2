"""The published data set: each layout gives what was written, and nothing hostile gets anything done."""

from __future__ import annotations

import math
import pickle
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from filterdb.errors import InputError, MissingExtraError
from filterdb.extract import columns, hdf5, unpickle
from filterdb.extract.catalog import RESERVED
from filterdb.extract.hdf5 import read_published, read_rows
from filterdb.extract.published import Published, read_tables
from filterdb.schema import LABELS
from tests.extract import published
from tests.extract.published import add_filters, frame, labels, write_bytes, write_csv, write_frame


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dataset.h5"


def layers_of(found: Published) -> list[tuple[Any, ...]]:
    return [
        (layer.model, layer.name, layer.runs, layer.conv_depth, layer.conv_depth_norm, layer.in_channels)
        for layer in found.layers
    ]


BY_DEPTH = [
    ("resnet_imagenet_11", "conv0", ((0, 6),), 0, 0.0, 3),
    ("resnet_imagenet_11", "conv1", ((6, 2),), 1, 0.5, 2),
    ("resnet_imagenet_11", "conv1#2", ((8, 4),), 1, 0.5, 2),
    ("resnet_imagenet_11", "conv2", ((12, 2),), 2, 1.0, 1),
    ("twin", "conv0", ((14, 4),), 0, 0.0, 2),
    ("twin#2", "conv0", ((18, 3),), 0, 0.0, 1),
    ("twin#2", "conv1", ((21, 3),), 1, 1.0, 3),
]
BY_ID = [
    ("resnet_imagenet_11", "layer0", ((0, 6),), 0, 0.0, 3),
    ("resnet_imagenet_11", "layer1", ((6, 2),), 1, 0.5, 2),
    ("resnet_imagenet_11", "layer2", ((8, 4),), 1, 0.5, 2),
    ("resnet_imagenet_11", "layer3", ((12, 2),), 2, 1.0, 1),
    ("twin", "layer0", ((14, 4),), 0, 0.0, 2),
    ("twin#2", "layer0", ((18, 3),), 0, 0.0, 1),
    ("twin#2", "layer1", ((21, 3),), 1, 1.0, 3),
]


def check_models(found: Published) -> None:
    assert found.rows == 24
    resnet, twin, other = found.models
    assert [model.id for model in found.models] == ["resnet_imagenet_11", "twin", "twin#2"]
    assert resnet.labels == labels(
        task="Classification",
        visual_category="natural",
        training_dataset="ImageNet-1k",
        precision="float32",
        paper="https://example.org/paper",
        url="https://example.org/resnet",
    )
    assert list(resnet.labels) == list(LABELS)
    assert twin.labels == labels(
        task="Auto-Encoder",
        visual_category="fractals",
        training_dataset="FractalDB-1k, Größe",
        pretraining_dataset="ImageNet-1k",
        precision="float32",
    )
    assert (other.labels["task"], other.labels["pretraining_dataset"]) == ("Segmentation (2)", "unknown")
    assert (resnet.producer, resnet.opset, resnet.model_depth) == ("pytorch 1.9", 11, 31)
    assert (other.producer, other.opset, other.model_depth) == ("tf2onnx 1.8", 12, 9)
    assert resnet.operators == {"Conv": 4, "Relu": 3}
    assert twin.operators == {"Conv": 1, "Upsample": 2}
    assert resnet.filter_shapes == {"(1, 1)": 100, "(3, 3)": 14, "(7, 7)": 6}
    assert twin.filter_shapes == {"(3, 3)": 4}
    assert (resnet.total_filters, resnet.share_3x3, twin.share_3x3) == (20, 0.7, 1.0)
    assert list(resnet.extra) == ["Name", "Selection"]
    assert (resnet.extra["Name"], twin.extra["Selection"], float(other.extra["Selection"])) == ("resnet", "unknown", 1)


def texts(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose texts are of the type that pandas 3 has for them."""
    return table.astype({name: "str" for name in table.columns if table[name].dtype == object})


@pytest.mark.parametrize("levels", [3, 4])
@pytest.mark.parametrize("layout", ["fixed", "fixed gzip", "fixed str", "csv", "early list", "early array"])
def test_each_layout_says_what_was_written(path: Path, layout: str, levels: int) -> None:
    if layout == "csv":
        write_csv(path, frame(levels=levels))
    elif layout == "fixed gzip":
        write_frame(path, frame(levels=levels), complevel=9, complib="zlib")
    elif layout == "fixed str":  # as pandas 3 holds texts
        write_frame(path, texts(frame(levels=levels)))
        assert len(published.pickled_blocks(path)) > 5
    elif layout == "fixed":
        write_frame(path, frame(levels=levels))
        assert len(published.pickled_blocks(path)) == 1
    else:
        write_frame(path, frame(levels=levels, ids=layout.split()[1], early=True, layers=published.CONSECUTIVE))
    add_filters(path)
    found = read_published(path)
    assert layers_of(found) == (BY_DEPTH if levels == 3 else BY_ID)
    assert [layer.out_channels for layer in found.layers] == [2, 1, 2, 2, 2, 3, 1]
    check_models(found)


@pytest.mark.parametrize(
    ("shape", "dtype", "name", "options"),
    [
        *(((3, 3), dtype, "filters", {}) for dtype in ("<f2", "<f4", "<f8", ">f2", ">f4", ">f8")),
        ((9,), "<f4", "filters", {}),
        ((9,), ">f8", "filter", {"chunks": True}),
        ((3, 3), "<f4", "filter", {}),
        ((3, 3), "<f2", "filters", {"chunks": True}),
        ((3, 3), ">f4", "filters", {"compression": "gzip", "shuffle": True, "fletcher32": True}),
        ((9,), "<f4", "filters", {"compression": "gzip"}),
        ((3, 3), "<f4", "filters", {"compression": "lzf"}),
    ],
)
def test_rows(path: Path, shape: tuple[int, ...], dtype: str, name: str, options: dict[str, Any]) -> None:
    write_csv(path, frame())
    add_filters(path, published.filters(shape, dtype), name, **options)
    rows = read_rows(path, 5, 3)
    assert (rows.dtype, rows.shape) == (np.float32, (3, 9))
    # Weight j of filter i is (9 i + j − 100.5) / 8.
    assert rows.tolist() == [[(9 * i + j - 100.5) / 8 for j in range(9)] for i in (5, 6, 7)]
    assert read_rows(path, 0, 24).shape == (24, 9)
    assert read_rows(path, 24, 0).shape == (0, 9)
    assert layers_of(read_published(path)) == BY_DEPTH


@pytest.mark.parametrize(("first", "count"), [(0, 25), (24, 1), (-1, 2), (3, -1), (2**62, 2**62)])
def test_rows_that_are_not_there(path: Path, first: int, count: int) -> None:
    add_filters(path)
    with pytest.raises(InputError, match="expected rows of 0:24"):
        read_rows(path, first, count)


def test_rows_reads_only_its_rows(path: Path) -> None:
    add_filters(path, chunks=(6, 3, 3), fletcher32=True)
    with h5py.File(path) as file:
        offset = file["filters"].id.get_chunk_info(2).byte_offset
    damage(path, offset, b"\xff" * 8)
    assert (read_rows(path, 0, 12)[:, 0] * 8 + 100.5).tolist() == [9 * i for i in range(12)]
    assert len(read_rows(path, 18, 6)) == 6
    with pytest.raises(InputError, match="expected the published data set, got"):
        read_rows(path, 11, 2)


def test_too_large_for_float32_is_infinite(path: Path) -> None:
    add_filters(path, np.full((1, 9), 1e300))
    assert np.isposinf(read_rows(path, 0, 1)).all()


@pytest.mark.parametrize("ids", ["list", "array"])
def test_ids_that_are_no_run(path: Path, ids: str) -> None:
    write_frame(path, frame(ids=ids))
    add_filters(path)
    found = read_published(path)
    by_name = {(layer.model, layer.name): layer for layer in found.layers}
    scattered = by_name["resnet_imagenet_11", "conv1#2"]
    assert (scattered.runs, scattered.count) == (((8, 2), (12, 2)), 4)
    assert by_name["resnet_imagenet_11", "conv2"].runs == ((10, 2),)
    assert sum(layer.count for layer in found.layers) == 24


def test_ids_keep_their_order(path: Path) -> None:
    layers = [(7, 0, 0.0, 0, [5, 6, 1, 0], 2, 2)]
    write_csv(path, frame(ids="list", layers=layers))
    add_filters(path)
    (layer,) = read_published(path).layers
    assert layer.runs == ((5, 2), (1, 1), (0, 1))


def test_old_numpy_and_pickle_protocols(path: Path) -> None:
    table = frame(ids="list")
    for protocol in (3, 4, 5):
        write_frame(path, table)
        add_filters(path)
        for name in published.pickled_blocks(path):
            with h5py.File(path) as file:
                array = pickle.loads(file[name][0].tobytes())
            if protocol == 3:
                array = array.copy("K")
                array[0, 0] = np.arange(6) if isinstance(array[0, 0], list) else array[0, 0]
            data = pickle.dumps(array, protocol)
            if protocol == 3:  # names stand in lines: as numpy 1 wrote them
                assert b"numpy._core.multiarray\n" in data
                data = data.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
            published.put_pickle(path, name, data)
        found = read_published(path)
        check_models(found)
        assert found.layers[0].runs == ((0, 6),)


def test_channels_may_be_absent(path: Path) -> None:
    write_frame(path, frame(channels=False))
    add_filters(path)
    assert {(layer.in_channels, layer.out_channels) for layer in read_published(path).layers} == {(0, 0)}


def test_facts_may_be_absent(path: Path) -> None:
    keep = ["filter_ids", "model", "(3, 3) filters", "(1, 1) filters", "(7, 7) filters"]
    write_frame(path, frame()[keep])
    add_filters(path)
    resnet, *_ = read_published(path).models
    assert resnet.labels == labels()
    assert (resnet.producer, resnet.opset, resnet.model_depth, resnet.operators, resnet.extra) == ("", 0, 0, {}, {})
    assert (resnet.total_filters, resnet.share_3x3) == (20, 0.7)
    write_frame(path, frame()[["filter_ids", "model"]])
    add_filters(path)
    resnet, *_ = read_published(path).models
    assert (resnet.total_filters, resnet.filter_shapes, math.isnan(resnet.share_3x3)) == (0, {}, True)


def test_depth_norm_that_is_missing(path: Path) -> None:
    table = frame()
    table.index = table.index.set_levels([np.nan if x == 0.5 else x for x in table.index.levels[2]], level=2)
    write_csv(path, table)
    add_filters(path)
    assert [layer.conv_depth_norm for layer in read_published(path).layers] == [0, 0.5, 0.5, 1, 0, 0, 1]


def test_index_levels_without_usable_names(path: Path) -> None:
    # The authors' page says [model_id, conv_depth, conv_depth].
    table = frame()
    table.index = table.index.set_names(["model_id", "conv_depth", "conv_depth"])
    write_frame(path, table)
    add_filters(path)
    assert layers_of(read_published(path)) == BY_DEPTH
    write_csv(path, table)
    add_filters(path)
    assert layers_of(read_published(path)) == BY_DEPTH


def test_index_levels_go_by_their_names(path: Path) -> None:
    write_frame(path, frame(levels=4).reorder_levels(["layer_id", "conv_depth_norm", "model_id", "conv_depth"]))
    add_filters(path)
    assert layers_of(read_published(path)) == BY_ID


def test_what_is_of_layers_is_no_fact_of_models(path: Path) -> None:
    table = frame()
    table["depth_filter"] = range(len(table))
    table["hash"] = "abc"
    table["Unnamed: 20"] = 1
    table["flag"] = True
    write_frame(path, table)
    add_filters(path)
    extra = read_published(path).models[0].extra
    assert list(extra) == ["Name", "Selection", "flag", "published_hash"]
    assert not set(extra) & (RESERVED | set(LABELS))


def test_a_label_that_differs_within_a_model_is_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = frame()
    table.iloc[1, table.columns.get_loc("Task")] = "Detection"
    write_csv(path, table)
    add_filters(path)
    assert read_published(path).models[0].labels["task"] == "Classification"
    assert "Task is not the same" in caplog.text


def test_filters_of_no_layer_are_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_csv(path, frame(layers=published.CONSECUTIVE[:-1]))
    add_filters(path)
    assert sum(layer.count for layer in read_published(path).layers) == 21
    assert "3 of 24 filters belong to no layer" in caplog.text


def test_later_label_column_fills_the_gaps(path: Path) -> None:
    table = frame()
    table["Datatype"] = "formula"
    table.loc[5, "Visual Category"] = None
    write_csv(path, table)
    add_filters(path)
    found = read_published(path)
    assert [model.labels["visual_category"] for model in found.models] == ["natural", "fractals", "fractals"]
    assert found.models[0].extra["Datatype"] == "formula"


@pytest.mark.parametrize("form", ["uint8", "int8", "void", "bytes", "vlen"])
def test_forms_of_csv(path: Path, form: str) -> None:
    write_csv(path, frame(), form)
    add_filters(path)
    check_models(read_published(path))


FILTERINFO = b"""filter_id_start,filter_id_end,model,layer_id,depth,conv_depth,conv_depth_norm,in_channels,out_channels
0,6,1,0,2,0,0.0,3,2
6,8,1,1,9,1,1.0,1,2
8,9,0,0,4,0,0.0,1,1
"""
META = b""",model,path,producer,op_set,Conv,Relu,"(3, 3) filters","(1, 1) filters",depth,Task
0,b,/zoo/b.onnx,pytorch 1.9,11,1,,1,,7,Detection
1,a,/zoo/a.onnx,pytorch 1.8,9,3,2.0,8,8.0,12,
2,unused,/zoo/c.onnx,,,,,,,,
"""


def test_tables_of_the_extraction() -> None:
    found = read_tables(FILTERINFO, META, "zoo")
    assert found.rows == 9
    assert layers_of(found) == [
        ("a", "layer0", ((0, 6),), 0, 0.0, 3),
        ("a", "layer1", ((6, 2),), 1, 1.0, 1),
        ("b", "layer0", ((8, 1),), 0, 0.0, 1),
    ]
    a, b = found.models
    assert (a.producer, a.opset, a.model_depth, a.operators) == ("pytorch 1.8", 9, 12, {"Conv": 3, "Relu": 2})
    assert (a.total_filters, a.share_3x3, a.filter_shapes) == (8, 1.0, {"(1, 1)": 8, "(3, 3)": 8})
    assert (a.extra, b.extra) == ({"published_path": "/zoo/a.onnx"}, {"published_path": "/zoo/b.onnx"})
    assert (a.labels, b.labels) == (labels(), labels(task="Detection"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"6,8,1", b"5,8,1", "filter 5 in those of rows 1 and 2"),
        (b"6,8,1", b"8,6,1", "row 2"),
        (b"8,9,0", b"8,9,5", "none of model 5"),
        (b"8,9,0", b"8,-9,0", "'-9' as filter_id_end"),
        (b"6,8,1,1", b"6,8,1,0", "each layer_id of model a once"),
        (b"filter_id_end", b"end", "a column filter_id_end"),
        (b"1,1\n", b"1,1,1\n", "row 3: expected 9 fields"),
        (b"0,6,1", b"0,\xff,1", "CSV in UTF-8"),
    ],
)
def test_tables_that_do_not_fit(old: bytes, new: bytes, message: str) -> None:
    assert old in FILTERINFO
    with pytest.raises(InputError, match=message):
        read_tables(FILTERINFO.replace(old, new), META, "zoo")


def test_without_h5py(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_filters(path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'filterdb\[hdf5\]'"):
        read_published(path)


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
    table.index = table.index.set_codes([0, 3, 0, 2, 0, 0, 1], level=3)
    write_frame(path, table)
    add_filters(path)
    with pytest.raises(InputError, match="each layer_id of model resnet_imagenet_11 once, got 0 twice"):
        read_published(path)


def test_a_model_with_two_names(path: Path) -> None:
    table = frame()
    table.iloc[1, table.columns.get_loc("model")] = "other"
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


def damage(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


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


# --- Pickles that do something ---------------------------------------------------------------------------------------


def pickled_file(path: Path, data: bytes) -> None:
    """A file of the published layout with this pickle in the place of one of its arrays."""
    write_frame(path, frame())
    add_filters(path)
    published.put_pickle(path, published.pickled_blocks(path)[0], data)


@pytest.mark.parametrize("by", ["system", "eval"])
@pytest.mark.parametrize("hidden", [False, True])
def test_a_hostile_block_does_nothing(tmp_path: Path, path: Path, by: str, hidden: bool) -> None:
    canary = tmp_path / "canary"
    pickled_file(path, published.evil(canary, by, hidden))
    with pytest.raises(InputError, match="a pickled array of plain values, got the name") as caught:
        read_published(path)
    assert not canary.exists()
    assert "\n" not in str(caught.value)
    # It is live: this is what pandas makes of it.
    try:
        pd.read_hdf(path, "meta")
    except Exception as error:  # noqa: BLE001
        assert error is not None
    assert canary.exists()


@pytest.mark.parametrize("where", ["meta", "meta/axis1_level0", "meta/axis0", "meta/block1_values", "filters", "/"])
def test_a_hostile_attribute_does_nothing(tmp_path: Path, path: Path, where: str) -> None:
    canary = tmp_path / "canary"
    write_frame(path, frame())
    add_filters(path)
    data = np.bytes_(pickle.dumps(published.Evil(canary), 0))
    with h5py.File(path, "a") as file:
        for name in ("name", "kind", "transposed", "encoding", "pandas_type", "freq", "value_type"):
            file[where].attrs[name] = data
    found = read_published(path)
    check_models(found)
    assert layers_of(found) == BY_DEPTH
    assert not canary.exists()


RECONSTRUCT = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85C\x01btR"
OBJECT = b"cnumpy\ndtype\nX\x02\0\0\0O8\x89\x88\x87R"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "STRING"),
        (b"(S'true'\nios\nsystem\n.", "STRING"),
        (b"(ios\nsystem\n.", "the operation INST"),
        (b"(cos\nsystem\no.", "the operation OBJ"),
        (b"\x80\x05\x8c\x02os\x8c\x06system\x93.", "the name os.system"),
        (b"cos\nsystem\n.", "the name os.system"),
        (b"cnumpy\nload\n.", "the name numpy.load"),
        (b"cnumpy._core.multiarray\n_reconstruct.__globals__\n.", "the name"),
        (b"\x80\x05cnumpy\nndarray\n)\x81.", "the operation NEWOBJ"),
        (b"\x80\x05\x82\x01.", "the operation EXT1"),
        (b"\x80\x05Ptest\n.", "the operation PERSID"),
        (b"\x80\x05}.", "the operation EMPTY_DICT"),
        (b"\x80\x05\x97.", "the operation NEXT_BUFFER"),
        (b"\x80\x05Nr\xff\xff\xff\x7f.", "entry 2147483647 of a memo of 0"),
        (b"\x80\x05N.", "another object"),
        (b"\x80\x05K\x01K\x02\x86.", "another object"),
        (b"\x80\x05]\x94h\0a.", "another object"),
        (b"\x80\x05B\xff\xff\xff\x7fabc.", "expected a pickled array"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "expected a pickled array"),
        (b"", "expected a pickled array"),
        (b"\x80\x05", "expected a pickled array"),
        (b"R.", "expected a pickled array"),
        (RECONSTRUCT + b"N.", "expected a pickled array"),
        (RECONSTRUCT + b".", "rows"),
        (RECONSTRUCT + b"(K\x01K\x07\x85" + OBJECT + b"\x89]tb.", "shape is not that of its values"),
        (RECONSTRUCT + b"(K\x01J\xff\xff\xff\xff\x85" + OBJECT + b"\x89]tb.", "odd shape"),
        (RECONSTRUCT + b"(K\x01K\x01\x85" + OBJECT + b"\x89C\x08abcdefghtb.", "not that of its values"),
        (RECONSTRUCT + b"(K\x01K\x01\x85" + OBJECT + b"\x89](cnumpy\nndarray\netb.", "a object in an array"),
        (b"cnumpy\ndtype\nX\x04\0\0\0V8,O\x89\x88\x87R.", "an array of"),
        (OBJECT + b"(K\x03X\1\0\0\0|NX\1\0\0\0aNtb.", "compound dtype"),
    ],
)
def test_odd_pickles(path: Path, data: bytes, message: str) -> None:
    pickled_file(path, data)
    with pytest.raises(InputError, match=message):
        read_published(path)


def test_a_bomb_of_shared_values(path: Path) -> None:
    # One list of 3,000 values, and 3,000 arrays made of it.
    values = b"](" + b"K\x01" * 3_000 + b"e\x94"
    inner = RECONSTRUCT + b"(K\x01M\xb8\x0b\x85" + OBJECT + b"\x89h\x00tb"
    pickled_file(path, b"\x80\x05" + values + b"](" + inner * 3_000 + b"e\x86.")
    with pytest.raises(InputError, match="arrays of more values than it has"):
        read_published(path)


def test_a_bomb_of_shared_ids(path: Path) -> None:
    table = frame(ids="list")
    shared = list(range(24))
    for row in range(len(table)):
        table.iat[row, 0] = shared
    write_frame(path, table)
    add_filters(path)
    with pytest.raises(InputError, match="more filter_ids than there are filters"):
        read_published(path)


def test_a_pickle_of_too_many_operations(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_frame(path, frame())
    add_filters(path)
    monkeypatch.setattr(unpickle, "MAX_OPCODES", 100)
    with pytest.raises(InputError, match="more than 100 operations"):
        read_published(path)


@pytest.mark.parametrize("gzip", [False, True])
def test_a_huge_pickle_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch, gzip: bool) -> None:
    array = np.array([["x" * 3_000_000]] * len(published.CONSECUTIVE), dtype=object)
    table = frame()
    table["Name"] = array[:, 0]
    write_frame(path, table, **({"complevel": 1, "complib": "zlib"} if gzip else {}))
    add_filters(path)
    monkeypatch.setattr(hdf5, "MAX_METADATA", 1_000_000)
    whole = unpickle.unpickle
    monkeypatch.setattr(hdf5, "unpickle", lambda data: whole(data) if len(data) < 1e6 else pytest.fail("it was read"))
    with pytest.raises(InputError, match="at most 1,000,000 bytes of metadata"):
        read_published(path)


def test_a_length_that_lies(path: Path) -> None:
    write_frame(path, frame())
    add_filters(path)
    name = published.pickled_blocks(path)[0]
    with h5py.File(path) as file:
        offset = file[name].id.get_chunk_info(0).byte_offset
        length = len(file[name][0])
    assert path.read_bytes()[offset : offset + 4] == length.to_bytes(4, "little")
    for lie in (2**32 - 1, 2**31, length - 1, length + 5):
        damage(path, offset, lie.to_bytes(4, "little"))
        with pytest.raises(InputError):
            read_published(path)
