"""The catalog: paths, labels, missing values, unknown columns, bad input."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest

from filterdb.errors import InputError
from filterdb.extract.catalog import parse_catalog

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
