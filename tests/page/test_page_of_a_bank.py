"""The page about filters of another shape than 3×3, in Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest

import filterdb as fdb
from filterdb import schema
from filterdb.page.model_pages import ModelPages
from filterdb.page.report import model_links, page_folder
from filterdb.page.results import gather
from filterdb.plotting import figures
from tests.models import chain, weights
from tests.page.conftest import Opened

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """Four models with layers of two shapes, of which one has more components than the page shows."""
    folder = tmp_path_factory.mktemp("bank")
    files = []
    for number in range(4):
        rng = np.random.default_rng(number)
        shapes = [(12, 8, 2, 6), (12, 12, 2, 6), (16, 12, 1, 3)]
        layers = [rng.standard_normal(shape).astype(np.float32) * rng.uniform(1, 2, shape[2:]) for shape in shapes]
        files.append(str(chain(folder / f"{number}.onnx", *(layer.astype(np.float32) for layer in layers))))
    with dask.config.set(scheduler="threads"):
        database: fdb.Database = fdb.ingest(folder / "db", files, kernels="all").database
    return database


@pytest.mark.parametrize("kernel", [(2, 6), pytest.param((1, 3), marks=pytest.mark.soak)], ids=schema.kernel_name)
def test_the_page_of_a_bank(
    whole: fdb.Database, kernel: schema.Kernel, show: Callable[..., Opened], tmp_path: Path
) -> None:
    weights = kernel[0] * kernel[1]
    with dask.config.set(scheduler="threads"):
        where = fdb.report(whole.bank(kernel), tmp_path / "page", densities=kernel == (1, 3))
    opened = show(where=where)
    opened.draw_all()
    page = opened.page
    assert opened.complaints == []
    assert page.locator("h1").inner_text().endswith(f" {schema.kernel_text(kernel)} filters")
    boards = page.locator("[data-figure=basis] canvas")
    assert boards.count() == min(weights, 9)
    box = boards.first.bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(kernel[1] / kernel[0], rel=0.05)
    assert page.locator("[data-figure=ridges] svg").count() == min(weights, 9)
    note = "The pictures show the leading 9; the tables have all."
    assert (note in (page.locator("#basis").text_content() or "")) is (weights > 9)
    hint = "filterdb report --densities" in (page.locator("body").text_content() or "")
    assert hint is not (tmp_path / "page/figures/corner.svg").exists()
    assert hint is (kernel == (2, 6))
    table = (tmp_path / "page/tables/basis.csv").read_text("utf-8").splitlines()
    assert len(table) == 1 + weights


def test_figures_of_a_bank(whole: fdb.Database) -> None:
    """Nine pictures of 2×6, and what is left out is said."""
    bank = whole.bank((2, 6))
    figure = figures.basis(fdb.pca(bank))
    pictures = [
        np.asarray(image.get_array()).shape for axes in figure.axes[0].child_axes for image in axes.get_images()
    ]
    assert pictures == [(2, 6)] * 9
    assert figure.axes[1].get_xlabel() == "the leading 9 of 12 components"
    grid = figures.bases(fdb.pca(bank, "model"))
    assert len(grid.axes) == 4 * 9
    entropy = figures.entropy_and_sparsity(fdb.degeneration(bank)).axes[0]
    assert any(np.asarray(line.get_ydata())[0] == pytest.approx(np.log10(12)) for line in entropy.get_lines())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """Four models, of which only some have filters of each shape, so that every bank numbers the models anew."""
    folder = tmp_path_factory.mktemp("mixed")
    shapes = {"A": [(3, 3)], "B": [(3, 3), (2, 2)], "C": [(3, 3), (5, 5)], "D": [(5, 5), (2, 2)]}
    files = {
        name: str(chain(folder / f"{name}.onnx", *(weights(4, 4, seed, kernel) for seed, kernel in enumerate(kernels))))
        for name, kernels in shapes.items()
    }
    with dask.config.set(scheduler="threads"):
        database: fdb.Database = fdb.ingest(folder / "db", files, kernels="all").database
    return database


@pytest.mark.parametrize("names", ["ABCD", "BCD", "BD"])
def test_the_pages_of_a_model_lead_to_the_same_model(mixed: fdb.Database, names: str) -> None:
    """Follow every link to the layers of the bank that it leads to."""
    view = mixed.select(model=list(names))
    banks = [view.bank(kernel) for kernel in mixed.kernels]
    models = [set(bank.layers["model"].values) for bank in banks]
    for number in range(len(banks)):
        up, listed = "../" if number else "", model_links(banks, number)
        assert {(name, text) for name, links in listed.items() for text, _ in links} == {
            (name, schema.kernel_text(bank.kernel)) for bank, here in zip(banks, models, strict=True) for name in here
        }
        for i, other in enumerate(banks):
            for name in models[i]:
                link = dict(listed[name])[schema.kernel_text(other.kernel)]
                if i == number:
                    assert link is None
                    continue
                folder, place = str(link).split("model.html#")
                assert folder == up + page_folder(i, other)
                assert set(other.layers["model"].values[other.layers["model_index"].values == int(place)]) == {name}


def test_the_page_of_a_model_has_its_own_links(mixed: fdb.Database) -> None:
    bank = mixed.bank((5, 5))
    with dask.config.set(scheduler="threads"):
        pages = ModelPages(gather(bank, "paper", False))
    for place, name in enumerate(bank.models["model"].values.tolist()):
        script = pages.file(f"data/models/{place}.js", {name: [(f"only {name}", None)] for name in "ABCD"})
        assert script is not None and f'"kernels":[["only {name}",null]]' in script.decode()


def test_pages_of_all_shapes_lead_to_each_other(show: Callable[..., Opened], tmp_path: Path) -> None:
    """Shapes with fewer than 1,000 filters have no page."""
    files = []
    for number in range(2):
        rng = np.random.default_rng(number)
        shapes = [(40, 15, 3, 3), (40, 15, 1, 3), (10, 10, 5, 5)]
        layers = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        files.append(str(chain(tmp_path / f"{number}.onnx", *layers)))
    with dask.config.set(scheduler="threads"):
        db = fdb.ingest(tmp_path / "db", files, kernels="all").database
        where = fdb.report(db, tmp_path / "page", densities=False)
    assert {path.relative_to(tmp_path / "page").as_posix() for path in (tmp_path / "page").rglob("index.html")} == {
        "index.html",
        "1x3/index.html",
    }
    opened = show(where=where)
    page = opened.page
    for name, other in (("3×3", "1×3"), ("1×3", "3×3")):
        assert page.locator("h1").inner_text().endswith(f" {name} filters")
        assert page.locator(".kernels a").all_text_contents() == ["3×3", "1×3"]
        assert page.locator(".kernels a[aria-current=page]").text_content() == name
        page.locator(".kernels a", has_text=other).click()
    assert page.locator("h1").inner_text().endswith(" 3×3 filters")
    assert opened.complaints == []
