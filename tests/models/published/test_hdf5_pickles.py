"""Pickles in the published data set: nothing hostile gets anything done."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from filterdb.errors import InputError
from filterdb.models.published import hdf5, unpickle
from filterdb.models.published.hdf5 import read_published
from tests.models.published import published
from tests.models.published.conftest import BY_DEPTH, check_models, damage, layers_of
from tests.models.published.published import add_filters, frame, write_frame


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
        table.iat[row, 0] = shared  # type: ignore[assignment]
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
