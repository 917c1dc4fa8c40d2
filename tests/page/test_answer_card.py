"""The answer card: what it says of databases of all kinds, and what it shows and opens in the browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import onnx
import pytest
import xarray as xr
from playwright.sync_api import expect

import filterdb as fdb
from filterdb.page.answers import answer_tiles
from filterdb.page.answers.flagged import _examples
from filterdb.page.answers.outlier import _flagged_line, outlier_tile
from filterdb.page.answers.pairs import grouping
from filterdb.page.answers.tile import SIGNS, Tile
from filterdb.page.answers.trust import trust_tile
from filterdb.page.header import database_name
from filterdb.page.highlights import highlights
from filterdb.page.pair_verdicts import meaning
from filterdb.page.reference_marks import MEASURED, reference_marks
from filterdb.page.report import _numbers
from filterdb.page.results import Results, gather
from filterdb.page.sections.contents import Contents
from filterdb.verdicts import (
    BY_FILTERS,
    DIFFERENT,
    INDISTINGUISHABLE,
    RELATED,
    VERDICTS,
)
from tests.models import chain, weights
from tests.page.conftest import HOSTILE, Opened
from tests.page.drifts import drifts_of

Show = Callable[..., Opened]


KEYS = ["flagged", "trust", "farthest", "closest", "outlier"]


def results_of(db: fdb.Database, mode: str = "sound") -> Results:
    with dask.config.set(scheduler="threads"):
        return gather(db, mode, False)  # type: ignore[arg-type]


def tiles_of(results: Results) -> dict[str, Tile]:
    return {tile.key: tile for tile in answer_tiles(results, grouping(results))}


@pytest.fixture(scope="module")
def whole(page_db: fdb.Database) -> Results:
    return results_of(page_db)


@pytest.fixture(scope="module")
def tiles(whole: Results) -> dict[str, Tile]:
    return tiles_of(whole)


def test_what_is_flagged(tiles: dict[str, Tile]) -> None:
    """Dead before collapsed, each with its filters."""
    tile = tiles["flagged"]
    assert (tile.state, tile.word, tile.answer) == (
        "warn",
        "33 layers",
        "1 layer is dead, 2 collapsed, 31 random, 1 sparse; 33 in all.",
    )
    assert tile.note.startswith("33 of 48 layers, in 13 of 18 models; some have several verdicts.")
    assert [line.name for line in tile.lines[:2]] == ["model 4", "model 7"]
    texts = [line.text.partition(": ")[2] for line in tile.lines]
    assert texts[0].startswith("dead, sparse, collapsed (drawn above: every weight is zero); 2 more layers flagged")
    assert texts[1].startswith("collapsed (uses 1 of 9 directions)")  # multiples of one filter
    assert re.match(r"random \(p = 0\.\d+ in a test against noise\)", texts[2])
    dead, collapsed, random = tile.picture["filters"]
    assert not np.any(dead) and np.abs(collapsed).max() == np.abs(random).max() == 99
    assert tile.lines[0].href == "model.html#4" and "Dead: every weight of the layer is zero." in tile.note


def test_each_verdict_has_an_example() -> None:
    """Of many dead models one is shown, so that there is room for a collapsed and a random one; in the same order."""
    dead, collapsed, random, sparse = range(4)
    ranked = [(f"model {i}", [i]) for i in range(9)]
    for worst, shown in [
        ([dead] * 9, [0, 1, 2]),
        ([dead] * 5 + [collapsed] * 2 + [random] * 2, [0, 5, 7]),
        ([dead] * 8 + [sparse], [0, 1, 8]),
        ([dead, collapsed, random, *[sparse] * 6], [0, 1, 2]),
    ]:
        assert [name for name, _ in _examples(ranked, np.array(worst))] == [f"model {i}" for i in shown]


def test_the_pairs_are_the_largest_and_smallest(tiles: dict[str, Tile], whole: Results) -> None:
    result = whole.drifts["task"]
    enough = result.isel(group=~result["few"].values, other=~result["few"].values)
    values = enough["drift"].where(~np.eye(enough.sizes["group"], dtype=bool))
    for key, value in (("farthest", values.max()), ("closest", values.min())):
        tile = tiles[key]
        assert tile.picture["drift"] == pytest.approx(float(value))
        assert result["drift"].sel(group=tile.names[0], other=tile.names[1]).item() == pytest.approx(float(value))
        code = result["verdict"].sel(group=tile.names[0], other=tile.names[1]).item()
        assert (tile.symbol, tile.word) == next((v.symbol, v.word) for v in VERDICTS if v.code == code)
        assert "among the 3 tasks of at least 1,000 filters; 1 smaller one is left out" in tile.note
        p, q = (result["probabilities"].sel(group=name).values for name in tile.names)
        parts = result["weights"].values * ((p - q) * np.log(p / q)).sum(axis=1)
        assert tile.picture["component"] == int(np.argmax(parts))
        assert tile.picture["share"] == pytest.approx(parts.max() / parts.sum())
    assert (tiles["farthest"].state, tiles["closest"].state) == ("warn", "unknown")  # differs, like noise
    assert tiles["farthest"].picture["floor"] == pytest.approx(
        result["model_floor_q95"].sel(group=tiles["farthest"].names[0], other=tiles["farthest"].names[1]).item()
    )


def test_the_odd_one_out_is_the_farthest_model(tiles: dict[str, Tile], whole: Results) -> None:
    result = whole.drifts["model"]
    keep = ~result["few"].values
    values = result["drift"].values[np.ix_(keep, keep)] + np.where(np.eye(keep.sum(), dtype=bool), np.nan, 0.0)
    medians = np.nanmedian(values, axis=1)
    assert tiles["outlier"].names == (result["group"].values[keep][np.argmax(medians)],)
    first, second = np.sort(medians)[:-3:-1]
    assert f"is {first:#.2g}, the second's {second:#.2g}, a typical model's {np.median(medians):#.2g}." in (
        tiles["outlier"].answer
    )
    assert f"the second farthest is “{result['group'].values[keep][np.argsort(-medians)[1]]}”" in tiles["outlier"].note
    layers = whole.degeneration
    models, flagged = layers["layer_model"].values.astype(str), layers["verdict"].values.any(axis=1)
    numbers = {name: int(flagged[models == name].sum()) for name in np.unique(models).tolist()}
    assert {0, 1, 3} <= set(numbers.values())
    for name, number in numbers.items():
        said = [line.text for line in _flagged_line(whole, name)]
        assert said == ([f"It has {number} flagged layer{'s' if number > 1 else ''}"] if number else [])
    assert tiles["outlier"].lines == _flagged_line(whole, tiles["outlier"].names[0])
    assert tiles["outlier"].picture["typical"] == np.median(medians)
    assert tiles["outlier"].picture["medians"] == pytest.approx(np.sort(medians), rel=1e-3)


def test_trust_counts_all_pairs(tiles: dict[str, Tile], whole: Results) -> None:
    words = dict(map(tuple, tiles["trust"].picture["words"]))
    assert sum(words.values()) == 6 and words["cannot tell"] == 3 and words["differs"] == 2
    assert (
        tiles["trust"].state == "warn"
        and tiles["trust"].answer
        == "Yes, for these models. For other models of these tasks, 3 of 6 pairs can be judged: 2 differ."
    )
    assert tiles["trust"].lines[0].text == "3 pairs cannot be judged: 1 of 4 tasks has fewer than 1,000 filters"
    del whole


def test_trust_speaks_of_others_only_where_models_judge(whole: Results) -> None:
    """And says yes only if noise was computed, the basis is fresh and everything was read."""
    result = drifts_of({(0, 1): (1.0, DIFFERENT, 0.01)}, 3)
    by_filters = result.assign(judged_by=xr.full_like(result["judged_by"], "sampling"))
    for drift, word, answer, line in [
        (result, "yes", "All 3 pairs of tasks can be judged: 1 differs.", "filters in 48 layers"),
        (
            by_filters,
            "these models only",
            "Yes, for these models, but not for other models of these tasks.",
            "3 pairs cannot be judged for other models: too few models",
        ),
        (
            result.drop_vars(["verdict", "p_value_max", "judged_by"]),
            "these models only",
            "With care, for these models, but not for other models of these tasks.",
            "No noise was computed, so it is unknown which drifts chance explains",
        ),
        (
            by_filters.assign_attrs(basis_warning="stale"),
            "these models only",
            "With care, for these models, but not for other models of these tasks.",
            "3 pairs cannot be judged for other models: too few models",
        ),
        (
            drifts_of({(0, 1): (0.01, RELATED, 1.0)}, 3),
            "yes",
            "All 3 pairs of tasks can be judged: none is shown to differ, 1 is related.",
            "filters in 48 layers",
        ),
        (
            by_filters.assign(verdict=xr.where(result["verdict"] == "", "", RELATED)),
            "these models only",
            "Yes, for these models, but not for other models of these tasks.",
            "filters in 48 layers",  # a common origin needs no other models
        ),
        (drifts_of({(0, 1): (1.0, DIFFERENT, 0.01)}, 2), "yes", "The one pair of tasks can be judged: it differs.", ""),
        (
            drifts_of({}, 2),
            "yes",
            "The one pair of tasks can be judged: it is not shown to differ or to be alike.",
            "",
        ),
    ]:
        tile = trust_tile(replace(whole, drifts={"task": drift}), "task")
        assert (tile.word, tile.answer) == (word, answer)
        assert line in tile.lines[0].text


@pytest.mark.parametrize(
    ("code", "word"), [(BY_FILTERS, "stands out"), (DIFFERENT, "stands out"), (INDISTINGUISHABLE, "none stands out")]
)
def test_a_model_within_its_noise_does_not_stand_out(whole: Results, code: str, word: str) -> None:
    """Model a is far from all others; one of its drifts has the other verdict."""
    other = DIFFERENT if code == INDISTINGUISHABLE else INDISTINGUISHABLE
    far = {(0, i): (1.0 + i / 100, other if i == 1 else code, 1.0) for i in range(1, 6)}
    tile = outlier_tile(replace(whole, drifts={"model": drifts_of(far, 6, "model")}))
    assert (tile.names, tile.word) == (("a",), word)
    assert tile.answer.startswith("Far from the others")  # also where chance explains it
    assert ("Chance explains most of its drifts." in tile.note) is (word == "none stands out")


def test_too_many_models_to_compare_are_not_too_few(page_db: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filterdb.page.results.GROUP_LIMIT", 4)
    results = results_of(page_db, "paper")
    tile = outlier_tile(results)
    assert tile.state == "unknown" and tile.answer.startswith(
        "Models are not compared: the grouping by model has 18 groups, too many for a picture"
    )


@pytest.mark.slow
def test_a_view_speaks_of_its_own_models(tmp_path: Path) -> None:
    """Two convolutions of B could not be read, and one file is no model: the page of A speaks of neither."""
    for name in "AB":
        chain(tmp_path / f"{name}.onnx", weights(8, 8), weights(8, 8, 1), weights(8, 8, 2))
    proto = onnx.load(tmp_path / "B.onnx")
    for tensor in proto.graph.initializer[1:]:
        tensor.raw_data = b"short"
    onnx.save(proto, tmp_path / "B.onnx")
    (tmp_path / "C.onnx").write_bytes(b"no model")
    with dask.config.set(scheduler="threads"):
        db = fdb.ingest(tmp_path / "db", {name: str(tmp_path / f"{name}.onnx") for name in "ABC"}).database
    for view, unread in ((db, 2), (db.select(model="A"), 0)):
        results = results_of(view, "paper")
        line = next(line.text for line in tiles_of(results)["trust"].lines if "read" in line.text)
        leads = {highlight.lead for highlight in highlights(results)}
        context = Contents(results).context()
        if unread:
            assert line == "2 convolutions could not be read" and {"Not read.", "Not stored."} <= leads
        else:
            assert line == "No convolution was unreadable" and not {"Not read.", "Not stored."} & leads
        assert (context["unread"], context["rejected"]) == (unread, int(view is db))
        assert context["skipped"] == ([("unreadable", 2)] if unread else [])


@pytest.mark.parametrize(
    ("models", "mode"),
    [
        (["model 1"], "sound"),
        (["model 1", "model 2"], "paper"),
        (["model 1", "model 2"], "sound"),
        ([*HOSTILE], "sound"),
    ],
)
def test_every_database_has_an_answer(page_db: fdb.Database, models: list[str], mode: str) -> None:
    """One model, one against one, and too few filters: each tile has a state, a symbol and a word."""
    tiles = tiles_of(results_of(page_db.select(model=models), mode))
    assert list(tiles) == [key for key in KEYS if key in tiles] and {"flagged", "trust", "outlier"} <= set(tiles)
    for tile in tiles.values():
        assert tile.symbol in {*SIGNS.values(), *(verdict.symbol for verdict in VERDICTS)} and tile.word and tile.answer
        assert not ("too few" in " ".join(line.text for line in tile.lines) and tile.symbol == "≠")
    assert tiles["trust"].state != "good" and tiles["outlier"].state == "unknown"


def test_reference_marks_are_measured_here_or_said_to_be_others(whole: Results) -> None:
    trainings, architectures = reference_marks(whole)
    assert trainings.value == MEASURED[trainings.label][0] and "this database has no such pairs" in trainings.source
    result, family = whole.drifts["model"], whole.db.models
    of = dict(zip(family["model"].values.tolist(), family["family"].values.tolist(), strict=True))
    names = [name for name, few in zip(result["group"].values, result["few"].values, strict=True) if not few]
    drifts = [result["drift"].sel(group=a, other=b).item() for a in names for b in names if of[a] < of[b]]
    assert (
        architectures.value == pytest.approx(np.median(drifts)) and f"{len(drifts)} such pairs" in architectures.source
    )


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/data/zoo", "zoo"),
        ("s3://bucket/zoo/", "zoo"),
        ("https://x.org/d/zoo?key=1", "zoo"),
        ("/data/zoo?", "zoo?"),
        ("/", "/"),
        ("filterdb-demo/db", "filterdb-demo/db"),
        ("/data/zoo/database/", "zoo/database"),
        ("s3://bucket/db", "bucket/db"),
        ("s3://db", "db"),
    ],
)
def test_a_database_is_called_by_the_last_part_of_its_path_that_tells_it(url: str, name: str) -> None:
    assert database_name(url) == name


def test_headline_numbers_have_their_nouns(page_db: fdb.Database) -> None:
    numbers = [(number, name) for name, number in _numbers(page_db.select(model="model 1"))]
    assert numbers == [("1,728", "3×3 filters"), ("3", "layers"), ("1", "model"), ("1", "task"), ("1", "training set")]


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_card_is_first_and_has_pictures(show: Show, page_db: fdb.Database, width: int, scheme: str) -> None:
    opened = show(width, color_scheme=scheme)
    page = opened.page
    name = f"{Path(page_db.url).parent.name}/db"
    assert page.title() == f"{name} · 3×3 filters · filterdb"
    assert page.locator("h1").inner_text() == f"{name} 3×3 filters"
    assert "D, the drift, is how differently" in page.locator("#summary").inner_text()
    assert re.search(
        r"Created \d{4}-\d\d-\d\d · snapshot \d+, \d{4}-\d\d-\d\d", page.locator("header.top").inner_text()
    )
    assert page.locator("main > section").first.get_attribute("id") == "summary"
    tiles = page.locator(".answer")
    assert [tile.get_attribute("data-tile") for tile in tiles.all()] == KEYS
    for tile in tiles.all():
        assert tile.locator(".mini svg, .lines canvas, .share-bar").count() >= 1
        assert len(tile.locator(".state").inner_text().split(maxsplit=1)) == 2  # a symbol and a word, not colour alone
    spans = page.evaluate("[...document.querySelectorAll('.answer')].map((e) => [e.scrollWidth, e.clientWidth])")
    assert all(inner <= outer for inner, outer in spans)
    assert opened.complaints == []
    assert {url.split(":")[0] for url in opened.requests} <= {"file", "data"}
    del page_db


@pytest.mark.slow
def test_the_ruler_has_the_noise_and_known_drifts(show: Show, whole: Results, tiles: dict[str, Tile]) -> None:
    opened = show()
    plot = opened.page.locator("[data-tile=farthest] .ruler svg")
    text = plot.get_attribute("aria-label") or ""
    shown = dict(re.findall(r"([a-z][a-z ()]+): ([\d.]+)", text))
    assert shown.keys() == {"this pair", "chance (models permuted)", "two trainings of one net", "two architectures"}
    assert [float(value) for value in shown.values()] == sorted(float(value) for value in shown.values())
    # From 0, and as long as the values are large.
    reach, noise = (float(plot.locator(f"rect.{kind}").get_attribute("width") or 0) for kind in ("reach", "noise"))
    picture = tiles["farthest"].picture
    assert noise / reach == pytest.approx(picture["floor"] / picture["drift"], rel=0.01)
    opened.page.locator("[data-tile=farthest] .ruler .gauge", has_text="two architectures").hover()
    assert "median of" in opened.page.locator("#tip").inner_text()
    opened.draw_all()
    assert opened.page.locator("[data-figure=heatmap] .ruler-of svg .gauge").count() == 4
    assert opened.page.locator("[data-figure=heatmap] .legend .mark").count() >= 1
    del whole


@pytest.mark.slow
@pytest.mark.parametrize("key", ["farthest", "closest"])
def test_a_tile_leads_to_its_pair(show: Show, tiles: dict[str, Tile], key: str) -> None:
    page = show().page
    page.locator(f"[data-tile={key}] .go a").click()
    a, b = tiles[key].names
    panel = page.locator("[data-figure=heatmap] section.pair h4")
    panel.get_by_text(a, exact=True).wait_for()
    assert panel.inner_text() == f"{a} against {b}"


@pytest.mark.slow
def test_a_flagged_model_leads_to_its_page(show: Show) -> None:
    page = show().page
    page.locator("[data-tile=flagged] .lines a").first.click()
    expect(page.locator("h1")).to_have_text("model 4")


@pytest.mark.slow
def test_a_verdict_has_one_word_on_the_page(show: Show, page_db: fdb.Database) -> None:
    """Of every pair of every grouping, tip and panel have the symbol and word of its code."""
    with dask.config.set(scheduler="threads"):
        result: xr.Dataset = fdb.drift(page_db, by="task")
    words = {verdict.code: verdict for verdict in VERDICTS}
    opened = show()
    opened.draw_all()
    page = opened.page
    board = page.locator("[data-figure=heatmap] .heat")
    board.focus()
    page.keyboard.press("Home")
    for _ in result["group"].values:
        page.keyboard.press("ArrowUp")
    names = result["group"].values.tolist()
    for other in names[1:]:
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        said = page.locator("[data-figure=heatmap] section.pair .verdict").inner_text()
        verdict = words[result["verdict"].sel(group=names[0], other=other).item()]
        assert said == f"{verdict.symbol} {verdict.word}"
        pair = 0, names.index(other)
        assert meaning(result, pair) in page.locator("[data-figure=heatmap] section.pair").inner_text()
        board.focus()
