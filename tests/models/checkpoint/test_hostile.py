"""The hostile checkpoints of tests.hostile, read in this process: each ends as it should, and nothing is executed.

What they cost, and the bombs among them, is measured in tests.faults, through the commands.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest

from filterdb.models.checkpoint import pickles
from filterdb.models.checkpoint.reading import CheckpointFile
from filterdb.models.model import Request
from filterdb.models.parse_errors import PARSE_ERRORS, NotStoredError
from tests.hostile import checkpoints
from tests.hostile.case import Case, Writer


def ending(case: Case) -> tuple[str, dict[str, str]]:
    """Return how reading a case ends, and the reasons by layer."""
    try:
        model = CheckpointFile.parse(case.path, Request(case.path.name, 2**30)).model()
    except PARSE_ERRORS as error:
        return "rejected", {"": str(error)}
    reasons = {skip.layer: skip.reason for skip in model.skipped}
    for layer in model.layers:
        try:
            layer.weight()
        except (NotStoredError, *PARSE_ERRORS) as error:
            reasons[layer.name] = str(error)
    return "skipped" if reasons else "stored", reasons


def test_each_ends_as_it_should(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    (tmp_path / "outside").mkdir()
    for write in checkpoints.FAMILIES:
        if write.__name__ != "_bombs":
            write(writer)
    assert len(writer.cases) > 130
    problems = []
    for name, case in writer.cases.items():
        end, reasons = ending(case)
        if end not in {case.end, *case.or_else} or (end == "skipped" and case.layer not in reasons):
            problems.append(f"{name}: expected {case.end}, got {end} {reasons}")
    assert not problems
    assert not list((tmp_path / "outside").iterdir()), "a pickle was executed"


def test_a_payload_would_run_in_python() -> None:
    """The payloads are real: Python's own unpickler calls what they name."""
    called = []

    class Watching(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            return lambda *args: called.append((module, name, args))

    Watching(io.BytesIO(b"cos\nmkdir\n(Vplace\ntR.")).load()
    assert called == [("os", "mkdir", ("place",))]
    stand_in = pickles.load(io.BytesIO(b"cos\nmkdir\n(Vplace\ntR."), {}, lambda _: None)
    assert (type(stand_in), stand_in.name, stand_in.args) == (pickles.Instance, "os.mkdir", ("place",))


@pytest.mark.parametrize(
    ("pickled", "expected"),
    [
        (b"N.", None),
        (b"\x88\x89\x86.", (True, False)),
        (b"(I1\nI2\nl.", [1, 2]),
        (b"(Va\nI1\nd.", {"a": 1}),
        (b"\x80\x04\x8f(K\1K\2\x90.", [1, 2]),
        (b"(K\1K\2\x91.", [1, 2]),
        (b"c__builtin__\nset\n](K\1e\x85R.", [1]),
        (b"ccollections\nOrderedDict\n](](Va\nK\1ee\x85R.", {"a": 1}),
        (b"K\1K\2K\3\x87.", (1, 2, 3)),
        (b"(K\1(K\2\x31t.", (1,)),
        (b"K\1q\5K\2j\5\0\0\0\x86\x86.", (1, (2, 1))),
        (b"K\1\x942h\0\x87.", (1, 1, 1)),
        (b"U\2abT\2\0\0\0cdB\2\0\0\0ef\x87.", ("ab", "cd", b"ef")),
        (b"F1.5\n\x8b\1\0\0\0\xff\x86.", (1.5, -1)),
    ],
)
def test_plain_values(pickled: bytes, expected: object) -> None:
    """Operations of every protocol. Sets are lists, since their elements need no hash."""
    assert pickles.load(io.BytesIO(pickled), {}, lambda _: None) == expected
