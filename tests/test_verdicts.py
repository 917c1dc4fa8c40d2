"""One word and one symbol for each verdict, wherever it is shown."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import filterdb as fdb
from filterdb import verdicts
from filterdb.commands import drift, nearest, series
from filterdb.verdicts import JUDGED_BY, VERDICTS, Verdict, verdict_of

ROOT = Path(fdb.__file__).parents[1]

WORDS = {
    "different": "≠ differs",
    "indistinguishable": "≈ like noise",
    "related": "= related",
    "different_by_filters": "? cannot tell",
    "few": "? cannot tell",
    "": "? cannot tell",
}
"""What readers see for each code of the contract."""

OLD = re.compile(
    r"within noise|within chance|told apart from (yours|chance)|to distinguish any",
    re.IGNORECASE,
)
"""Other wordings, which were used before there was one vocabulary."""

every = pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: verdict.code or "none")


def test_the_vocabulary() -> None:
    assert {verdict.code: verdict.text for verdict in VERDICTS} == WORDS
    assert len({verdict.symbol for verdict in VERDICTS}) == len({verdict.word for verdict in VERDICTS}) == 4
    with pytest.raises(KeyError):
        verdicts.verdict_of("unheard of")


@every
@pytest.mark.parametrize("judged_by", [*JUDGED_BY, "", None])
def test_cannot_tell_says_why_and_is_never_red(verdict: Verdict, judged_by: str | None) -> None:
    said = verdicts.sentence(verdict.code or None, judged_by)
    assert said.endswith(".") and said[0].isupper()
    if "too few models" in said or "fewer than 1,000" in said:
        assert verdict.symbol != "≠" and verdict.tone != "bad"
    assert (verdict.tone == "bad") == (verdict.word == "differs")
    assert verdicts.mark(verdict.code, judged_by).startswith(verdict.symbol)


@every
@pytest.mark.parametrize("judged_by", JUDGED_BY)
def test_tables_show_the_symbol(verdict: Verdict, judged_by: str) -> None:
    matrix = {
        "drift": [[0, 0.5], [0.5, 0]],
        "verdict": [["", verdict.code or None]] * 2,
        "judged_by": [["", judged_by]] * 2,
    }
    assert re.fullmatch(rf"0\.5{re.escape(verdict.symbol)}°?", str(drift._marked(matrix, 0, 1)))
    row = {"model": "m", "same_content": False, "same_filters": False, "verdict": verdict.code, "judged_by": judged_by}
    row |= dict.fromkeys(("drift", "excess", "floor_q95", "layer_floor_q95"), 0.5) | {"count": 5}
    assert re.fullmatch(rf"{re.escape(verdict.symbol)}°? {verdict.word}", str(nearest._cells(row)[4]))
    if verdict.code:
        assert re.fullmatch(rf"{re.escape(verdict.symbol)}°? {verdict.word}", series._cell(row, "verdict"))


def test_json_explains_its_codes() -> None:
    legend = verdicts.legend()
    assert {row["code"] or "": f"{row['symbol']} {row['word']}" for row in legend} == WORDS


@pytest.mark.parametrize("folder", ["filterdb", "docs", "benchmarks"])
def test_no_other_wording_is_left(folder: str) -> None:
    kinds = {".py", ".js", ".html", ".md", ".ipynb"}
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in kinds and "_build" not in path.parts]
    assert len(files) > 10
    assert [
        f"{path.relative_to(ROOT)}: {hit[0]}" for path in files for hit in [OLD.search(path.read_text("utf-8"))] if hit
    ] == []


def test_the_words_are_written_once() -> None:
    """A module that writes one of the words itself would keep it when the vocabulary changes."""
    own = re.compile(r"""["'](?:[≠≈=?] )?(?:differs|like noise|cannot tell)["']""")
    files = [
        path for path in (ROOT / "filterdb").rglob("*") if path.suffix in {".py", ".js"} and path.name != "verdicts.py"
    ]
    assert len(files) > 100
    assert [str(path) for path in files if own.search(path.read_text("utf-8"))] == []


@pytest.mark.parametrize("groups", [3, 20])
def test_figures_show_the_symbol(groups: int) -> None:
    """Of each code, in cells with a value and in those of many groups, where "differs" needs none."""
    values = np.ones((groups, groups))
    codes = np.full((groups, groups), "", object)
    for k, verdict in enumerate(VERDICTS):
        codes[divmod(k + 1, groups) if k < 2 else (2, k % 2) if groups == 3 else (k, 0)] = verdict.code
    result = xr.Dataset(
        {"drift": (("group", "other"), values), "verdict": (("group", "other"), codes.astype(str))},
        {"group": [f"g{i}" for i in range(groups)]},
        {"by": "task"},
    ).assign({name: ("group", np.full(groups, 5_000)) for name in ("models", "count")})
    result = result.assign(few=("group", np.zeros(groups, bool)))
    axes = fdb.plot.drift(result)
    written = [text.get_text() for text in axes.texts]
    wanted = {verdict_of(code) for code in set(codes[~np.eye(groups, dtype=bool)]) if code}
    assert {verdict.symbol for verdict in wanted} - ({"≠"} if groups > 13 else set()) <= {
        text[-1] for text in written if text
    }
    label = axes.figure.axes[1].get_ylabel()
    assert all(verdict.text in label for verdict in wanted if groups <= 13 or verdict.tone != "bad")
