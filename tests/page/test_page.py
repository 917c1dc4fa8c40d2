"""The page's folder: what it links to is there, and says what the results say."""

from __future__ import annotations

import base64
import io
import re
from html import unescape
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.patches import Polygon
from PIL import Image

import filterdb as fdb
from filterdb.errors import UsageError
from filterdb.page import highlights, joint_densities, payload, results, tables
from filterdb.plotting import drawing, figures, panels
from tests.models import chain, weights
from tests.page.conftest import HOSTILE

pytestmark = pytest.mark.slow

GROUPINGS = ("task", "training_dataset", "family", "model", "depth_decile")


def linked(page: Path, groupings: tuple[str, ...]) -> set[str]:
    """Return the figures and tables to which a page links, those of all groupings."""
    text = page.read_text("utf-8")
    patterns = set(re.findall(r'data-of="([^"]+)"', text))
    return set(re.findall(r'(?:href|src)="((?:figures|tables)/[^"]+)"', text)) | {
        pattern.replace("*", by) for pattern in patterns for by in groupings
    }


def files_beside(page: Path) -> set[str]:
    return {path.relative_to(page.parent).as_posix() for path in page.parent.rglob("*") if path.is_file()}


def test_every_link_leads_somewhere(made: Path) -> None:
    links, there = linked(made, GROUPINGS), files_beside(made)
    assert len(links) > 60
    assert links <= there
    pictures = {name for name in there if name.startswith("figures/")}
    assert pictures == {f"figures/{Path(one).stem}.{kind}" for one in pictures for kind in ("svg", "png")}
    tables = {name for name in there if name.startswith("tables/")}
    assert tables == {f"tables/{Path(one).stem}.{kind}" for one in tables for kind in ("csv", "parquet")}
    assert {Path(one).stem for one in tables if one.startswith("tables/pairs")} == {f"pairs_{by}" for by in GROUPINGS}


def test_tables_hold_the_results(made: Path, page_db: fdb.Database) -> None:
    with dask.config.set(scheduler="threads"):
        drift, basis = fdb.drift(page_db, by="task"), fdb.pca(page_db)
    matrix = pd.read_csv(made.parent / "tables/drift_task.csv")
    assert matrix["task"].tolist() == drift["group"].values.tolist()
    np.testing.assert_array_equal(matrix[matrix["task"]].values, drift["drift"].values)
    pairs = pd.read_parquet(made.parent / "tables/pairs_task.parquet").set_index(["group", "other"])
    assert len(pairs) == 6
    for one, other in pairs.index.tolist():
        row = pairs.loc[(one, other)]
        here = drift.sel(group=one, other=other)
        assert row["drift"] == here["drift"].item()
        assert row["verdict"] == here["verdict"].item()
        np.testing.assert_array_equal([row["low"], row["high"]], here["interval"].values)
        np.testing.assert_array_equal([row[f"c{i}"] for i in range(9)], here["per_component"].values)
    shown = pd.read_csv(made.parent / "tables/basis.csv")
    np.testing.assert_array_equal(shown[[f"w{i}" for i in range(9)]].values, basis["components"].values[0])


def test_codes_stand_beside_noise(made: Path, page_db: fdb.Database) -> None:
    """On the page, in its figure and in both tables; not on one that makes no pass over the filters."""
    result = fdb.codebook(page_db, "model", k=32)
    text = made.read_text("utf-8")
    for name in ("explained_variance", "noise_explained_variance"):
        assert f"<b>{100 * result.attrs[name]:.0f} %</b>" in text
        assert f"{result.attrs[name]:.1%}" in (made.parent / "figures/codebook.svg").read_text("utf-8")
    codes = pd.read_csv(made.parent / "tables/codebook.csv")
    np.testing.assert_array_equal(codes[[f"w{i}" for i in range(9)]].values, result["codes"].values)
    np.testing.assert_array_equal(codes["share"], result["share"])
    models = pd.read_csv(made.parent / "tables/codebook_models.csv")
    np.testing.assert_array_equal(models["noise_coverage_0.9"], result["noise_coverage"].sel(threshold=0.9))
    np.testing.assert_array_equal(models["explained_variance"], result["explained_variance"])


def test_no_name_leaves_its_place(made: Path) -> None:
    text = made.read_text("utf-8")
    for name in HOSTILE:
        assert name not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert "<script&gt;" not in text  # half escaped
    assert "window.hit=1;alert(1)" in unescape(text)
    table = pd.read_csv(made.parent / "tables/models.csv")
    assert set(HOSTILE) <= set(table["model"])


def test_formulas_stay_text_in_spreadsheets() -> None:
    found = tables.to_csv(pd.DataFrame({"=name": ["=1+1", "@x", "-1", "plain"], "n": [-1, 2, 3, 4]})).decode()
    assert found.splitlines() == ["'=name,n", "'=1+1,-1", "'@x,2", "'-1,3", "plain,4"]


def test_a_long_table_keeps_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONG", 2)
    table = pd.DataFrame(
        {"group": pd.Series(["a", "\ud800", "a"], dtype=object), "number": [1, 2, 3], "drift": [0.1, np.nan, 1e-9]}
    )
    found = pd.read_parquet(io.BytesIO(tables.to_parquet(table)))
    assert found["group"].tolist() == ["a", "?", "a"]
    assert found["number"].dtype == np.int64
    assert found["drift"].dtype == np.float32
    np.testing.assert_allclose(found["drift"].to_numpy(np.float64), np.array([0.1, np.nan, 1e-9]), rtol=3e-4)


def test_long_tables_are_only_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those with a row for each layer; the page does not link to a CSV that is not there."""
    monkeypatch.setattr(tables, "LONG", 1)
    for name in "ab":
        chain(tmp_path / f"{name}.onnx", weights(8, 8), weights(8, 16))
    with dask.config.set(scheduler="threads"):
        page = Path(fdb.report(fdb.ingest(tmp_path / "db", str(tmp_path)).database, tmp_path / "page"))
    there, links = files_beside(page), linked(page, ("model", "depth_decile"))
    tall = ["degeneration", "spectrum"]
    assert links <= there
    assert {f"tables/{name}.parquet" for name in tall} <= links
    assert not {f"tables/{name}.csv" for name in tall} & there
    assert "tables/models.csv" in there


def test_a_table_of_many_rows_is_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """To 0.03 %, as the numbers inside the page; zeros, missing values, signs and whole numbers stay."""
    monkeypatch.setattr(tables, "LONG", 2)
    values = np.concatenate([np.geomspace(1e-30, 1e30, 1_001), [0.0, np.nan, np.inf, -1 / 3]])
    table = pd.DataFrame({"value": values, "count": np.arange(len(values)) + 2**40})
    for back in (pd.read_parquet(io.BytesIO(tables.to_parquet(table))), pd.read_csv(io.BytesIO(tables.to_csv(table)))):
        np.testing.assert_allclose(back["value"].to_numpy(np.float64), values, rtol=5e-4)
        np.testing.assert_array_equal(back["count"], table["count"])


def test_a_small_drawing_is_the_same_picture() -> None:
    """Paths lose digits that nobody sees; text, and images that are small or transparent, do not change."""
    rng = np.random.default_rng(0)
    figure = drawing.canvas(3, 3)
    axes = figure.subplots()
    axes.plot([0, 1 / 3], [0, 1 / 7], label="v0.123456")
    axes.imshow(rng.random((300, 300)), extent=(0, 1, 0, 1))
    axes.legend()
    svg = drawing.encode(figure, "x", ".svg").decode()
    assert "v0.123456" in svg
    paths = re.findall(r' d="([^"]*)"', svg)
    assert paths and not re.search(r"\.\d{3}", " ".join(paths))
    (code,) = re.findall(r"base64,([A-Za-z0-9+/=\s]+)", svg)
    with Image.open(io.BytesIO(base64.b64decode(code))) as image:
        assert image.mode == "P"
        assert image.size[0] >= 200


def test_a_drawing_does_not_depend_on_last_digits() -> None:
    """A layout may differ in digits that nobody sees; matplotlib would name clip paths by them."""

    def drawn(shift: float) -> bytes:
        figure = drawing.canvas(2, 2)
        for i in range(2):
            figure.add_axes((0.1 + shift, 0.1 + 0.5 * i, 0.8, 0.3)).plot([0, 1], [0, i])
        figure.set_layout_engine("none")
        return drawing.encode(figure, "clipped", ".svg")

    first = drawn(0.0)
    assert first == drawn(1e-13)
    assert set(re.findall(rb"url\(#(\w+)\)", first)) == {b"clip0", b"clip1"}


def test_numbers_survive_their_packing() -> None:
    values = np.concatenate([np.geomspace(1e-10, 1e3, payload.EXACT + 1), [0.0, np.nan]])
    assert payload.pack(values)["t"] == "l2"
    codes = payload.logarithms(values)
    step = (np.log(payload.HIGHEST) - np.log(payload.LOWEST)) / 65_533
    back = np.exp(np.log(payload.LOWEST) + (codes[:-2].astype(float) - 1) * step)
    np.testing.assert_allclose(back, values[:-2], rtol=3e-4)
    assert codes[-2:].tolist() == [0, 65_535]
    assert payload.text({"a": "</script>\u2028&", "b": [np.nan, np.float32(1.5)]}) == (
        '{"a":"\\u003c/script\\u003e\\u2028\\u0026","b":[null,1.5]}'
    )


@pytest.mark.parametrize("name", ["heatmap", "ridges", "per_component"])
def test_a_figure_takes_the_result(page_db: fdb.Database, name: str) -> None:
    """The same bytes each time, and whatever the caller's style is."""
    import matplotlib

    with dask.config.set(scheduler="threads"):
        result = fdb.drift(page_db, by="task")
    first = drawing.files(getattr(figures, name)(result), name)
    with matplotlib.rc_context({"font.size": 20, "figure.dpi": 30}):
        again = drawing.files(getattr(figures, name)(result), name)
    assert first == again
    assert first[f"figures/{name}.png"].startswith(b"\x89PNG")


def test_two_groups_as_a_figure(page_db: fdb.Database) -> None:
    """Heights of the overlaid histograms are those of the result, each in its place of three times three."""
    with dask.config.set(scheduler="threads"):
        result: xr.Dataset = fdb.drift(page_db, by="task")
    figure = figures.pair(result, "detection", "classification")
    (axes,) = figure.axes
    assert len(axes.patches) == 18
    p, q = (result["probabilities"].sel(group=one).values for one in ("detection", "classification"))
    for i, (patch, both) in enumerate(zip(axes.patches[::2], zip(p, q, strict=True), strict=True)):
        row, column = divmod(i, panels.SIDE)
        assert isinstance(patch, Polygon)
        corners = patch.get_xy()
        assert (corners[:, 0] >= column - 1e-9).all()
        assert (corners[:, 0] <= column + panels.WIDTH + 1e-9).all()
        assert row == 2 - int(corners[0, 1] // 1.5)
        heights = corners[1:-2:2, 1] - corners[0, 1]
        assert heights.max() == pytest.approx(both[0].max() / max(one.max() for one in both))
        assert heights.sum() == pytest.approx(heights.max() * both[0].sum() / both[0].max(), rel=2e-3)


def test_box_plots_have_plain_numbers_on_their_axes(page_db: fdb.Database) -> None:
    """Formulas are not read (names may hold dollar signs), so a logarithmic axis may not have any."""
    with dask.config.set(scheduler="threads"):
        figure = figures.per_component(fdb.drift(page_db, by="task"))
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len([float(label) for label in labels if label]) > 1


def test_densities_by_group_are_a_table(made: Path, page_db: fdb.Database) -> None:
    table = pd.read_csv(made.parent / "tables/density.csv")
    with dask.config.set(scheduler="threads"):
        found = fdb.density(page_db, "task", components=(0, 1))
    low = found["bin_edges"].values[:-1]
    assert set(table["group"]) == set(found["group"].values.astype(str))
    assert len(table) == np.count_nonzero(found["counts"].values)
    for row in table.sample(50, random_state=0).itertuples(index=False):
        place = np.abs(low - row[1]).argmin(), np.abs(low - row[2]).argmin()
        assert found["counts"].sel(group=row.group).values[place] == row.filters


def test_a_group_called_like_a_column(page_db: fdb.Database) -> None:
    with dask.config.set(scheduler="threads"):
        result = fdb.drift(page_db, by="task", noise=False)
    result = result.assign_coords(group=["filters", "task", *result["group"].values[2:]])
    result = result.assign_coords(other=result["group"].values)
    table = tables.matrix(result)
    assert table.columns.is_unique
    back = pd.read_parquet(io.BytesIO(tables.to_parquet(table)))
    np.testing.assert_array_equal(back.iloc[:, 2:].values, result["drift"].values)


def test_the_phenotypes_of_all_filters_are_those_of_no_grouping(page_db: fdb.Database) -> None:
    with dask.config.set(scheduler="threads"):
        whole = joint_densities.joint_densities(page_db, "task", "sound").kinds()[0]
        found = fdb.phenotypes(page_db, None, pairs=joint_densities.COMPONENT_PAIRS)
    assert whole.tolist() == found["pair_phenotype"].values[0].tolist()


def test_tasks_that_are_one_in_paper_mode(tmp_path: Path) -> None:
    """They stay out of the groupings there: a heatmap of one group would break."""
    for name in "ab":
        chain(tmp_path / f"{name}.onnx", weights(8, 8))
    (tmp_path / "c.csv").write_text("path,task\na.onnx,Segmentation (a)\nb.onnx,Semantic Segmentation\n")
    with dask.config.set(scheduler="threads"):
        db = fdb.ingest(tmp_path / "db", catalog=tmp_path / "c.csv").database
        assert {mode: "task" in results.gather(db, mode, False).drifts for mode in ("sound", "paper")} == {
            "sound": True,
            "paper": False,
        }


def test_a_file_in_the_way(page_db: fdb.Database, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("mine")
    with pytest.raises(UsageError, match="expected a folder to write to, got a file"):
        fdb.report(page_db, tmp_path / "page")
    assert (tmp_path / "page").read_text() == "mine"


def test_what_stands_out_says_by_what_it_was_judged(page_db: fdb.Database) -> None:
    """One model against one is judged by its filters alone, and groups of few filters are not."""
    with dask.config.set(scheduler="threads"):
        pair = page_db.select(model=["model 1", "model 2"])
        (said,) = [
            one.text for one in highlights.highlights(results.gather(pair, "sound", False)) if one.lead == "By model."
        ]
        assert "sampling of filters alone explains; a single model on each side is too few to tell" in said
        few = page_db.select(model=list(HOSTILE))
        texts = {one.lead: one.text for one in highlights.highlights(results.gather(few, "sound", False))}
    assert texts["By model."] == "No two groups have enough filters to compare."
    assert "Beyond chance." not in texts
