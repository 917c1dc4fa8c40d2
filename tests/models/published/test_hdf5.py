"""The published data set: each layout gives what was written."""

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
from filterdb.models.catalog import RESERVED
from filterdb.models.published.hdf5 import opened_filters, read_published
from filterdb.models.published.metadata import read_tables
from filterdb.schema import LABELS
from tests.models.published import published
from tests.models.published.conftest import BY_DEPTH, check_models, damage, layers_of, read_rows
from tests.models.published.published import add_filters, frame, labels, write_csv, write_frame

BY_ID = [
    ("resnet_imagenet_11", "layer0", ((0, 6),), 0, 0.0, 3),
    ("resnet_imagenet_11", "layer1", ((6, 2),), 1, 0.5, 2),
    ("resnet_imagenet_11", "layer2", ((8, 4),), 1, 0.5, 2),
    ("resnet_imagenet_11", "layer3", ((12, 2),), 2, 1.0, 1),
    ("twin", "layer0", ((14, 4),), 0, 0.0, 2),
    ("twin#2", "layer0", ((18, 3),), 0, 0.0, 1),
    ("twin#2", "layer1", ((21, 3),), 1, 1.0, 3),
]


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
    assert rows.dtype == np.float32 and rows.shape == (3, 9)
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
    assert isinstance(table.index, pd.MultiIndex)
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
    table.iloc[1, list(table.columns).index("Task")] = "Detection"
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


@pytest.mark.parametrize(
    ("options", "plain"),
    [({}, True), ({"chunks": (6, 3, 3)}, False), ({"dtype": ">f4"}, False), ({"dtype": "f8"}, False)],
)
def test_plain_filters_lie_at_their_offset(path: Path, options: dict[str, Any], plain: bool) -> None:
    add_filters(path, **options)
    with opened_filters(path) as filters:
        offset = filters.offset()
    assert (offset is not None) == plain
    if offset is not None:
        stored = np.fromfile(path, "<f4", published.ROWS * 9, offset=offset).reshape(-1, 9)
        np.testing.assert_array_equal(stored, published.filters((9,)))
