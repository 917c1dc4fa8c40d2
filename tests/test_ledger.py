"""The one table of the ledger's codes: complete, documented, and careful with what it does not know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from filterdb.ledger import CODES, is_unread
from filterdb.schema import REJECTED

ROOT = Path(__file__).parent.parent


def test_every_code_that_is_raised_stands_in_the_table() -> None:
    raised = set()
    for path in (ROOT / "filterdb").rglob("*.py"):
        raised |= set(
            re.findall(r"""NotStoredError\(\s*"([a-z?]+)"|skipped\.append\(\[[^,]+, "([a-z]+)\"""", path.read_text())
        )
    codes = {code for pair in raised for code in pair if code}
    assert {"kernel", "nonfinite", "memory", "unreadable", "computed"} <= codes <= set(CODES)
    assert REJECTED in CODES
    assert all(
        code.removesuffix("?").isalpha() and len(code) <= 20 for code in CODES
    )  # what a child process may answer


def test_every_code_is_documented() -> None:
    page = (ROOT / "docs/explanation/method.md").read_text()
    table = page.split("| code |")[1].split("\n\n")[0]
    assert set(re.findall("`([a-z?]+)`", table)) == set(CODES)


@pytest.mark.parametrize(
    ("unread", "codes"),
    [
        (False, "kernel rank transposed generated computed unreachable empty nonfinite rejected"),
        (True, "unreadable memory many missing operator unsupported ambiguous sparse dtype"),
        (True, "poetry Kernel"),  # of another version: nothing that is unknown passes as looked at
    ],
)
def test_what_should_have_been_read(unread: bool, codes: str) -> None:
    assert {code: is_unread(code) for code in codes.split()} == dict.fromkeys(codes.split(), unread)
