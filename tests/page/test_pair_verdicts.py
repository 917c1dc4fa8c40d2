"""Which pairs the page names, and what it says of their verdicts, on the card, in sentences and in the panel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import dask
import numpy as np
import pytest
import xarray as xr
from playwright.sync_api import expect

import filterdb as fdb
from filterdb.page.answers.pairs import _exclusions, _pair_tile
from filterdb.page.highlights import _farthest
from filterdb.page.page_files import data_files
from filterdb.page.pair_verdicts import DOUBTFUL, farthest, floor_behind, meaning
from filterdb.page.report import compute_sections, page_html
from filterdb.page.results import Results, gather
from filterdb.verdicts import BY_FILTERS, CORRECTED, DIFFERENT, INDISTINGUISHABLE, OF_SEVERAL, RELATED, TOO_FEW
from tests.page.conftest import Opened
from tests.page.drifts import drifts_of

Show = Callable[..., Opened]

SWAPPED = "Swapping layers between these two models can explain this drift."
SAMPLED = "Sampling of filters alone can explain this drift; there are too few models to judge by."


@pytest.mark.parametrize(
    ("code", "judged_by", "drift", "chance", "said"),
    [
        (INDISTINGUISHABLE, "model", 1.0, 0.4, "Chance alone can explain this drift."),
        (INDISTINGUISHABLE, "model", 1.5 * (1 + 1e-6), 0.4, "Chance alone can explain this drift."),  # a tie
        (INDISTINGUISHABLE, "model", 2.0, 0.4, f"{OF_SEVERAL} Here, that happens in 40% of cases."),
        (INDISTINGUISHABLE, "model", 2.0, 0.005, CORRECTED),  # few permutations, many pairs
        (INDISTINGUISHABLE, "model", 2.0, np.nan, OF_SEVERAL),  # more than 200 groups
        (INDISTINGUISHABLE, "sampling", 2.0, 0.9, OF_SEVERAL),  # relabelled groups say nothing about sampling
        (INDISTINGUISHABLE, "few models", 2.0, 0.9, OF_SEVERAL),
        (INDISTINGUISHABLE, "layers", 1.0, 0.9, SWAPPED),
        (INDISTINGUISHABLE, "sampling and layers", 2.0, 0.9, SAMPLED),  # above the swapped layers, not the sampling
        (INDISTINGUISHABLE, "layers", 4.0, 0.9, OF_SEVERAL),
        (DIFFERENT, "model", 2.0, 0.01, "The groups differ by more than chance explains."),
        (
            DIFFERENT,
            "model",
            2.0,
            0.2,
            "The groups differ by more than chance explains. Still, one of several pairs may drift this far by chance.",
        ),
    ],
)
def test_what_a_verdict_means_depends_on_its_noise_and_its_judge(
    code: str, judged_by: str, drift: float, chance: float, said: str
) -> None:
    result = drifts_of({(0, 1): (drift, code, chance)}, 3)
    result["judged_by"] = xr.full_like(
        result["judged_by"], judged_by.rpartition(" ")[2] if " and " in judged_by else judged_by
    )
    sampling = {"sampling and layers": 2.0, "layers": 0.5}.get(judged_by, 1.0)
    result["floor_q95"] = result["model_floor_q95"] * sampling
    result["layer_floor_q95"] = result["model_floor_q95"]
    assert meaning(result, (0, 1), is_chosen=True) == said
    assert floor_behind(result, (0, 1)) == 1.5 * max(1.0, sampling)
    if "Still" in said:  # neither of a pair that was not chosen, nor where there is no other
        assert meaning(result, (0, 1)) == "The groups differ by more than chance explains."
        two = result.isel(group=[0, 1], other=[0, 1])
        assert meaning(two, (0, 1), is_chosen=True) == "The groups differ by more than chance explains."


def test_a_doubtful_difference_is_named_with_its_doubt() -> None:
    """Where no pair differs beyond it, the sentence about the farthest pair does not hide it."""
    result = drifts_of({(0, 1): (2.0, DIFFERENT, 0.2), (1, 2): (1.7, DIFFERENT, 0.4)}, 3)
    assert _farthest("task", result).text == f"“a” and “b” are farthest apart: D = 2, ≠ {DOUBTFUL}."


@pytest.mark.parametrize(
    ("larger", "said"),
    [
        ([], "The farthest pair among all tasks."),
        (
            [(INDISTINGUISHABLE, 1.0)],
            "The farthest pair that differs among all tasks. D is larger between “b” and “c”, 2 (like noise).",
        ),
        (
            [(BY_FILTERS, 1.0), (INDISTINGUISHABLE, 1.0), (RELATED, 1.0), (TOO_FEW, 1.0)],
            "The farthest pair that differs among all tasks. 4 pairs have a larger D: 2 (cannot tell), 1 (like noise), "
            "1 (related).",
        ),
        (
            [(DIFFERENT, 0.2), (INDISTINGUISHABLE, 1.0)],
            f"The farthest pair that clearly differs among all tasks. 2 pairs have a larger D: 1 ({DOUBTFUL}), "
            "1 (like noise).",
        ),
    ],
)
def test_larger_drifts_are_named_by_their_verdict(larger: list[tuple[str, float]], said: str) -> None:
    pairs = {(1, 2 + i): (2.0 + i, code, chance) for i, (code, chance) in enumerate(larger)}
    result = drifts_of({(0, 1): (1.0, DIFFERENT, 0.01), **pairs}, 6)
    assert farthest(result) == (0, 1)
    assert _exclusions(result, "farthest", (0, 1)) == said


def test_where_no_pair_differs_the_farthest_is_the_farthest() -> None:
    """It has its own verdict, also if another pair has a verdict by its filters."""
    result = drifts_of({(0, 1): (1.0, BY_FILTERS, 1.0), (1, 2): (2.0, INDISTINGUISHABLE, 1.0)}, 3)
    assert farthest(result) == (1, 2)
    assert _exclusions(result, "farthest", (1, 2)) == "The farthest pair among all tasks."
    far, near = (_pair_tile(result, key, key, pair) for key, pair in (("farthest", (1, 2)), ("closest", (0, 1))))
    assert (far.word, far.lines[0].text) == ("like noise", f"{OF_SEVERAL} Here, that happens in 100% of cases.")
    assert near.word == "cannot tell" and near.lines[0].text.endswith(
        " “a” has 2 models; “b” has 3 models, 2 of them independent."
    )
    said = "“b” and “c” are farthest apart: D = 2, ≈ like noise."
    assert _farthest("task", result).text == f"{said} {meaning(result, (1, 2))}"


@pytest.mark.parametrize(
    ("code", "drift", "by", "said"),
    [
        (DIFFERENT, 2.0, "task", "D = 2, ≠ differs: chance alone explains up to 1.5."),
        (INDISTINGUISHABLE, 1.0, "task", "D = 1, ≈ like noise: chance alone explains up to 1.5."),
        (INDISTINGUISHABLE, 2.0, "task", f"D = 2, ≈ like noise. {CORRECTED}"),
        (
            BY_FILTERS,
            2.0,
            "task",
            "D = 2, more than the 0.5 that sampling of filters alone explains; there are too few models to tell "
            "whether the two differ in general (?).",
        ),
        (
            BY_FILTERS,
            2.0,
            "model",
            "D = 2, more than the 0.5 that sampling of filters alone explains; a single model on each side is too few "
            "to tell whether other models like these differ (?).",
        ),
    ],
)
def test_the_sentence_about_the_farthest_pair(code: str, drift: float, by: str, said: str) -> None:
    result = drifts_of({(0, 1): (drift, code, 0.01)}, 3, by)
    result["floor_q95"] = result["model_floor_q95"] / 3
    if code == BY_FILTERS:
        result["judged_by"] = xr.full_like(result["judged_by"], "sampling")
    assert _farthest(by, result).text == f"“a” and “b” are farthest apart: {said}"


@pytest.mark.slow
def test_the_panel_says_where_a_drift_like_noise_stands(show: Show, page_db: fdb.Database, tmp_path: Path) -> None:
    """Above the noise of its pair, above that of all pairs, and within it: as the card says it."""
    with dask.config.set(scheduler="threads"):
        whole: Results = gather(page_db, "sound", False)
    result = whole.drifts["task"].copy(deep=True)
    names = [name for name, few in zip(result["group"].values, result["few"].values, strict=True) if not few]
    pairs = [(names[0], names[1]), (names[0], names[2]), (names[1], names[2])]
    for (a, b), share, chance in zip(pairs, (0.5, 0.5, 2.0), (0.4, 0.005, 0.4), strict=True):
        for key in ({"group": a, "other": b}, {"group": b, "other": a}):
            result["verdict"].loc[key] = INDISTINGUISHABLE
            result["judged_by"].loc[key] = "model"
            result["model_floor_q95"].loc[key] = share * result["drift"].loc[key]
            result["p_value_max"].loc[key] = chance
    results = replace(whole, drifts={"task": result})
    sections = compute_sections(results)
    (tmp_path / "data").mkdir()
    for section in sections:
        for path, data in data_files(section).items():
            (tmp_path / path).write_bytes(data)
    (tmp_path / "index.html").write_bytes(page_html(results, sections, []))
    sentences = (OF_SEVERAL, CORRECTED, "Chance alone can explain this drift.")
    position = result["group"].values.tolist().index
    for (a, b), said in zip(pairs, sentences, strict=True):
        assert meaning(result, (position(a), position(b))).startswith(said)
        opened = show(where=tmp_path / f"index.html#drift?{urlencode({'by': 'task', 'a': a, 'b': b})}")
        panel = opened.page.locator("[data-figure=heatmap] section.pair")
        expect(panel).to_contain_text(said)
        assert opened.complaints == []
