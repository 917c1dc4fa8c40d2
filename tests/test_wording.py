"""A number and its noun agree, everywhere; a name is suggested only if it is near."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from filterdb.commands.group import listed_helps
from filterdb.schema import LABELS
from filterdb.wording import counted, meant, near

ROOT = Path(__file__).parents[1] / "filterdb"

NOUNS = (
    "models|layers|filters|files|groups|segments|snapshots|families|convolutions|objects|columns|pairs|chunks|workers"
    "|threads|tensors|channels|errors|warnings"
)

COUNT = re.compile(rf"\{{(?P<value>[^{{}}]+)\}} (?:[\w×]+ )?(?P<noun>{NOUNS})\b")
"""A number in a message, and its noun in the plural."""

SEVERAL = {
    "{number:,} convolutions",  # 1 has a sentence of its own
    "{channels:,} output channels",  # some of several
    "{len(filters)} filters",
    "{kernel_text(kernel)} filters",  # a shape
    "{answer['kernel'].replace('x', '×')} filters",
    "{shape} filters",
    "{others} filters",  # shapes
    "{models} models",  # the name of a summary
    "{enough} files",  # of many processes
    "{size} of filters",
    "{len(groups) * (len(groups) - 1) // 2:,} pairs",  # of more groups than a matrix shows
    '{"pairs": list(map(parse_pair, pairs))} if pairs',  # no text
    "{few:,} filters",  # a bound
    "{stored[-1]} output channels",  # numbers that are not divisors, so more than 1
    "{settings.get('groups')!r} groups",
    "{channels} channels",
    "{len(items)} columns",
    "{groups:,} groups",  # too many
    "{len(pairs)} pairs",
    "{number:,} filters",
    "{self.rows} filters",
}
"""Texts in which a number is more than 1, or no number stands before the noun."""


def test_numbers_and_nouns_agree() -> None:
    unused = set(SEVERAL)
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("page/"):
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            for match in COUNT.finditer(line):
                is_constant = re.search(r"\b_?[A-Z][A-Z_]{2,}\b", match["value"]) is not None
                is_bound = re.search(r"at (most|least) $", line[: match.start()]) is not None
                if is_constant or is_bound or "counted" in match["value"]:
                    continue
                assert match[0] in SEVERAL, f"{name}:{number}: use wording.counted: {match[0]}"
                unused.discard(match[0])
    assert not unused, "texts that are gone"


def test_counted() -> None:
    assert [counted(n, "layer") for n in (0, 1, 2, 1_463_842_917)] == [
        "0 layers",
        "1 layer",
        "2 layers",
        "1,463,842,917 layers",
    ]
    assert counted(1, "family", "families") == "1 family" and counted(2, "family", "families") == "2 families"


@pytest.mark.parametrize(
    ("typed", "known", "expected"),
    [
        ("drfit", listed_helps(), "drift"),
        ("drif", listed_helps(), "drift"),
        ("model", listed_helps(), "models"),
        ("explane", listed_helps(), "explain"),
        ("foo", listed_helps(), None),
        ("delete", listed_helps(), None),
        ("taks", LABELS, "task"),
        ("TASK", LABELS, "task"),
        ("category", LABELS, "visual_category"),
        ("dataset", LABELS, None),  # two of them
        ("colour", LABELS, None),
        ("x", LABELS, None),
        ("", LABELS, None),
        ("resnet5", ["resnet50", "vgg16"], "resnet50"),
        ("mobilenet", ["resnet50", "vgg16"], None),
    ],
)
def test_a_name_is_suggested_only_if_it_is_near(typed: str, known: list[str], expected: str | None) -> None:
    assert near(typed, known) == expected
    assert meant(typed, known) == (f"; did you mean {expected}?" if expected else "")
