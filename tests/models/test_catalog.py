"""The catalog: paths, labels, missing values, unknown columns, bad input."""

from __future__ import annotations

import datetime
import io
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filterdb.errors import InputError
from filterdb.models.catalog import parse_catalog

CSV = b"path,name,task,epoch\na.onnx,A,detection,3\n/abs/b.onnx,,,NA\ns3://x/c.onnx,C, segmentation ,\n"


def test_csv() -> None:
    a, b, c = parse_catalog(CSV, "folder/list.csv")
    assert (a.id, a.url, a.labels["task"], a.extra) == ("A", "folder/a.onnx", "detection", {"epoch": "3"})
    assert (b.id, b.url, b.labels["task"]) == ("/abs/b.onnx", "/abs/b.onnx", "unknown")
    assert b.extra == {"epoch": "NA"}  # text, not a missing value
    assert (c.url, c.labels["task"], c.labels["family"]) == ("s3://x/c.onnx", "segmentation", "unknown")
    assert c.extra == {"epoch": "unknown"}


def test_byte_order_mark_and_quotes() -> None:
    (source,) = parse_catalog(b'\xef\xbb\xbfpath,name\r\n"a,b.onnx","say ""hi"""\r\n\r\n', "l.csv")
    assert (source.url, source.id) == ("a,b.onnx", 'say "hi"')


def test_a_near_miss_is_told(caplog: pytest.LogCaptureFixture) -> None:
    (source,) = parse_catalog(b"path,taks\na.onnx,seg\n", "l.csv")
    assert "did you mean 'task'?" in caplog.text
    assert (source.labels["task"], source.extra) == ("unknown", {"taks": "seg"})


def test_credentials_in_a_url_are_neither_stored_nor_shown() -> None:
    (source,) = parse_catalog(b"path\nhttps://user:secret@host/m.onnx?X-Amz-Signature=abc\n", "l.csv")
    assert source.id == source.shown == "https://host/m.onnx"
    assert source.url == "https://user:secret@host/m.onnx?X-Amz-Signature=abc"


def test_parquet() -> None:
    buffer = io.BytesIO()
    pd.DataFrame({"path": ["a.onnx"], "task": [None], "seed": [7]}).to_parquet(buffer)
    (source,) = parse_catalog(buffer.getvalue(), "s3://b/list.parquet")
    assert (source.url, source.labels["task"], source.extra) == ("s3://b/a.onnx", "unknown", {"seed": "7"})


def parquet(table: pa.Table | pd.DataFrame, **metadata: bytes) -> bytes:
    """The bytes of a Parquet file; `metadata` in the place of what the writer says."""
    buffer = io.BytesIO()
    if isinstance(table, pd.DataFrame):
        table = pa.Table.from_pandas(table)
    kept = {**(table.schema.metadata or {}), **{name.encode(): value for name, value in metadata.items()}}
    pq.write_table(table.replace_schema_metadata(kept), buffer)
    return buffer.getvalue()


def cells(data: bytes, column: str = "own") -> list[str]:
    return [source.extra[column] for source in parse_catalog(data, "l.parquet")]


PATHS = ["a.onnx", "b.onnx"]
YEAR = datetime.date(2020, 1, 31)
MOMENT = datetime.datetime(2020, 1, 31, 12, 30, tzinfo=datetime.UTC)

ARROW: dict[str, tuple[pa.Array, list[str]]] = {
    **{
        f"{kind}": (pa.array([2020 % 2**7, None], kind), ["100", "unknown"])
        for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
    },
    "beyond float64": (pa.array([2**63 - 1, None], pa.int64()), [str(2**63 - 1), "unknown"]),
    "beyond int64": (pa.array([2**64 - 1, None], pa.uint64()), [str(2**64 - 1), "unknown"]),
    "floats": (pa.array([0.5, 2.0]), ["0.5", "2.0"]),
    "floats with a null": (pa.array([0.5, None]), ["0.5", "unknown"]),
    "nan": (pa.array([0.5, math.nan]), ["0.5", "unknown"]),
    "short floats": (pa.array([0.1, None], pa.float32()), ["0.1", "unknown"]),
    "half floats": (pa.array([np.float16(0.1), None], pa.float16()), ["0.1", "unknown"]),
    "bools": (pa.array([True, None]), ["True", "unknown"]),
    "dates": (pa.array([YEAR, None]), ["2020-01-31", "unknown"]),
    "days as milliseconds": (pa.array([YEAR, None], pa.date64()), ["2020-01-31", "unknown"]),
    "moments": (pa.array([MOMENT, None], pa.timestamp("ns", "UTC")), ["2020-01-31 12:30:00+00:00", "unknown"]),
    "seconds": (pa.array([MOMENT.replace(tzinfo=None), None], pa.timestamp("s")), ["2020-01-31 12:30:00", "unknown"]),
    "decimals": (pa.array([Decimal("1.10"), None]), ["1.10", "unknown"]),
    "texts": (pa.array([" x ", None]), ["x", "unknown"]),
    "empty": (pa.array(["", None]), ["unknown", "unknown"]),
    "large texts": (pa.array(["x", None], pa.large_string()), ["x", "unknown"]),
    "views": (pa.array(["x", None], pa.string_view()), ["x", "unknown"]),
    "bytes": (pa.array(["é".encode(), None]), ["é", "unknown"]),
    "nothing": (pa.array([None, None]), ["unknown", "unknown"]),
    "dictionary of texts": (pa.array(["x", None]).dictionary_encode(), ["x", "unknown"]),
    "dictionary of integers": (pa.array([2020, None]).dictionary_encode(), ["2020", "unknown"]),
    "lists": (pa.array([[1, 2], None]), ["[1, 2]", "unknown"]),
}


@pytest.mark.parametrize("kind", ARROW)
def test_values_of_arrow_types(kind: str) -> None:
    array, expected = ARROW[kind]
    assert cells(parquet(pa.table({"path": PATHS, "own": array}))) == expected


PANDAS: dict[str, tuple[pd.Series, list[str]]] = {
    "integers with a missing one": (pd.Series([2020, None]), ["2020", "unknown"]),
    "nullable integers": (pd.Series([2020, None], dtype="Int64"), ["2020", "unknown"]),
    "arrow integers": (pd.Series([2020, None], dtype="int64[pyarrow]"), ["2020", "unknown"]),
    "integers": (pd.Series([2020, 2021]), ["2020", "2021"]),
    "objects": (pd.Series([2020, None], dtype=object), ["2020", "unknown"]),
    "floats": (pd.Series([2020.5, None]), ["2020.5", "unknown"]),
    "whole floats": (pd.Series([1.0, 2.0]), ["1.0", "2.0"]),
    "categories": (pd.Series(["x", None], dtype="category"), ["x", "unknown"]),
    "categories of integers": (pd.Series([2020, None], dtype="category"), ["2020", "unknown"]),
    "nullable bools": (pd.Series([True, None], dtype="boolean"), ["True", "unknown"]),
    "days": (pd.to_datetime(pd.Series(["2020-01-31", None])), ["2020-01-31 00:00:00", "unknown"]),
}


@pytest.mark.parametrize("kind", PANDAS)
def test_values_of_pandas_types(kind: str) -> None:
    series, expected = PANDAS[kind]
    assert cells(parquet(pd.DataFrame({"path": PATHS, "own": series}))) == expected


def test_integers_with_a_missing_one_across_row_groups() -> None:
    """The column decides, not the part of it that is read at a time."""
    buffer = io.BytesIO()
    table = pa.table({"path": [f"{i}.onnx" for i in range(100)], "own": pd.Series([None, *range(99)], dtype=float)})
    pq.write_table(table, buffer, row_group_size=7)
    assert cells(buffer.getvalue()) == ["unknown", *map(str, range(99))]


FRAME = pd.DataFrame({"path": PATHS, "own": [1, 2]})
INDEXES: dict[str, tuple[pd.DataFrame, set[str]]] = {
    "range": (FRAME, {"own"}),
    "numbers without a name": (FRAME.set_axis([7, 8]), {"own"}),
    "texts without a name": (FRAME.set_axis(["x", "y"]), {"own"}),
    "named": (FRAME.set_axis(pd.Index([7, 8], name="seed")), {"own", "seed"}),
    "named range": (FRAME.set_axis(pd.RangeIndex(7, 9, name="seed")), {"own", "seed"}),
    "path as the index": (FRAME.set_index("path"), {"own"}),
    "several levels": (FRAME.set_index(["path", "own"]), {"own"}),
    "one level named": (
        FRAME.set_axis(pd.MultiIndex.from_tuples([(7, "x"), (8, "y")], names=["seed", None])),
        {"own", "seed"},
    ),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_a_named_index_is_a_column(kind: str) -> None:
    frame, extra = INDEXES[kind]
    sources = parse_catalog(parquet(frame), "l.parquet")
    assert [source.id for source in sources] == PATHS
    assert [set(source.extra) for source in sources] == [extra, extra]
    assert [source.extra["own"] for source in sources] == ["1", "2"]
    if "seed" in extra:
        assert [source.extra["seed"] for source in sources] == ["7", "8"]


def test_a_parquet_column_twice() -> None:
    table = pa.table({"path": PATHS, "own": [1, 2], "own ": [3, 4]})
    for data in (parquet(table), parquet(pa.Table.from_arrays(list(table), names=["path", "own", "own"]))):
        with pytest.raises(InputError, match="expected each column once, got 'own' more than once"):
            parse_catalog(data, "l.parquet")
    index = FRAME.rename(columns={"own": "seed"}).set_axis(pd.RangeIndex(7, 9, name="seed"))
    with pytest.raises(InputError, match="expected each column once, got 'seed' more than once"):
        parse_catalog(parquet(index), "l.parquet")


@pytest.mark.parametrize("head", ["path,task,task", "path,task, task", "path, path ", '"task",path,task', "a,path,a "])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_column_twice_is_named(head: str, suffix: str) -> None:
    columns = [name.strip(' "') for name in head.split(",")]
    twice = next(name for name in columns if columns.count(name) > 1)
    text = f"{head}\n{','.join('x' * len(columns))}\n"
    with pytest.raises(InputError, match=f"l.{suffix}: expected each column once, got '{twice}' more than once"):
        parse_catalog((text if suffix == "csv" else text.replace(",", "\t")).encode(), f"l.{suffix}")


PANDAS_METADATA = [
    b"", b"{", b"null", b"[]", b"{}", b"\xff", b'{"index_columns": []}', b'{"columns": [], "index_columns": [3]}',
    b'{"columns": [], "index_columns": [{}]}', b'{"columns": [{}], "index_columns": []}',
    b'{"columns": [], "index_columns": [{"kind": "range", "name": "s", "start": 0, "stop": 5, "step": 1}]}',
    b'{"columns": [], "index_columns": [{"kind": "range", "name": "s", "start": 0, "stop": 5, "step": 0}]}',
    b'{"columns": [], "index_columns": [{"kind": "range", "name": "s", "start": 0, "stop": 1e300, "step": 1}]}',
    b'{"columns": [], "index_columns": [{"kind": "range", "name": "s", "start": "x", "stop": 5, "step": 1}]}',
    b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("metadata", PANDAS_METADATA, ids=lambda data: repr(data[:60]))
def test_damaged_pandas_metadata(metadata: bytes) -> None:
    with pytest.raises(InputError, match=r"l\.parquet: expected a parquet table, got something else") as caught:
        parse_catalog(parquet(FRAME, pandas=metadata), "l.parquet")
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


def test_damaged_parquet() -> None:
    """Cut off, or with a byte changed, anywhere: the table, or one line."""
    whole = parquet(pd.DataFrame({"path": PATHS, "own": ["x", None], "seed": [1, 2]}))
    spoiled = [whole[:length] for length in range(0, len(whole), 37)]
    for position in range(0, len(whole), 11):
        spoiled.append(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
    refused = 0
    for data in spoiled:
        try:
            parse_catalog(data, "l.parquet")
        except InputError as error:
            refused += 1
            assert str(error).startswith("l.parquet") and "\n" not in str(error) and len(str(error)) < 250
    assert refused > len(whole) // 37


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("path,task\na.onnx,é\n".encode("latin-1"), "line 2 is not UTF-8; save it as UTF-8"),
        ("path\na.onnx\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
        ("path\na.onnx\n".encode("utf-16-be"), "got a NUL byte in the head"),
        (b"path,task\na.onnx,x\0y\n", "got a NUL byte in row 1"),
        (b"pa\0th\na.onnx\n", "got a NUL byte in the head"),
        (b'path\n"a.onnx\n', "expected a csv table"),
        (b'path\n"a"b.onnx\n', "expected a csv table"),
        (b"path\n" + b"a" * 200_000 + b"\n", "expected a csv table"),
    ],
)
def test_text_in_other_encodings(data: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_catalog(data, "l.csv")
    assert message in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_a_nul_byte_in_parquet() -> None:
    with pytest.raises(InputError, match="got a NUL byte in row 2"):
        parse_catalog(parquet(pa.table({"path": ["a.onnx", "b\0.onnx"]})), "l.parquet")


def test_urls_of_labels_lose_credentials_and_nothing_else() -> None:
    text = (
        "path,paper,url,own\n"
        "a.onnx,https://openreview.net/forum?id=abc#s,https://u:planted1@h/m?X-Amz-Signature=planted2&x=1,"
        "see http://u:planted3@h/x and https://h/y?token=planted4\n"
    )
    (source,) = parse_catalog(text.encode(), "l.csv")
    assert source.labels["paper"] == "https://openreview.net/forum?id=abc#s"
    assert source.labels["url"] == "https://h/m"
    assert source.extra["own"] == "see http://h/x and https://h/y"
    assert "planted" not in repr(source)


def test_a_signed_catalog() -> None:
    """Its query belongs to the catalog alone; its user also to what lies beside it. Neither is shown."""
    (source,) = parse_catalog(b"path\nm/a.onnx\n", "https://u:planted@h/x/list.csv?sig=a/b.onnx")
    assert (source.url, source.shown, source.id) == (
        "https://u:planted@h/x/m/a.onnx",
        "https://h/x/m/a.onnx",
        "m/a.onnx",
    )
    with pytest.raises(InputError, match=r"^https://h/x/list\.csv: expected a column") as caught:
        parse_catalog(b"name\nx\n", "https://u:planted@h/x/list.csv?sig=planted")
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "url", "message"),
    [
        (b"name\nx\n", "l.csv", "expected a column `path`"),
        (b"path\n", "l.csv", "at least one row"),
        (b"", "l.csv", "expected a column `path`, got none"),
        (b"path,name,task\na.onnx,A,seg,\n", "l.csv", "row 1: expected 3 fields as in the head, got 4"),
        (b"path,name\na.onnx\n", "l.csv", "row 1: expected 2 fields as in the head, got 1"),
        (b"path;name\na;b\n", "l.csv", "got path;name; separate columns with commas"),
        (b"path,depth_decile\na,b\n", "l.csv", "got 'depth_decile', which has a meaning"),
        (b"path\n\xff\n", "l.csv", "expected a csv table"),
        (b"path,name\na.onnx,x\nb.onnx,x\n", "l.csv", "expected each model name once, got 'x'"),
        (b"path,name\n,x\n", "l.csv", "row 1: expected a path"),
        (b"\xff\xfe\x00garbage", "l.parquet", "expected a parquet table"),
        (b"path\na\n", "l.xlsx", "ends in .csv, .tsv or .parquet, got .xlsx"),
    ],
)
def test_bad_input_is_one_line(data: bytes, url: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_catalog(data, url)
    assert message in str(caught.value)
    assert str(caught.value).startswith(Path(url).name)
    assert "\n" not in str(caught.value)
