"""The page at the published size: 647 models, 21,436 layers, 71 training sets, made from summaries, opened in Chromium.

The layers are small (the page reads summaries, which have the same size whatever the layers have), and their passes
are made before the clock starts. Prints how long the page takes, its parts' sizes,
and how long it takes to open.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import synthetic

import filterdb as fdb

MODELS, LAYERS, FILTERS = 647, 21_436, 3_000_000
TASKS, CATEGORIES, SETS, FAMILIES = 11, 16, 71, 40
CHROMIUM = "/usr/bin/chromium"
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def processor_time() -> float:
    """Return the seconds that this process and the ended ones that it started have used."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def make(
    url: Path, models: int = MODELS, layers: int = LAYERS, filters: int = FILTERS, sets: int = SETS
) -> fdb.Database:
    """A synthetic database with labels as many as the published data have, its summaries computed."""
    synthetic.make(url, filters, layers, models)
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"name": [f"model{i}" for i in range(models)], "path": [f"model{i}" for i in range(models)]})
    for column, number in (
        ("task", TASKS),
        ("visual_category", CATEGORIES),
        ("training_dataset", sets),
        ("family", FAMILIES),
    ):
        codes = np.minimum(rng.geometric(3 / number, models) - 1, number - 1)
        codes[:number] = np.arange(number)[:models]
        rows[column] = [f"{column.replace('_', ' ')} {code}" for code in codes]
    catalog = url.parent / "catalog.csv"
    rows.to_csv(catalog, index=False)
    db = fdb.relabel(fdb.open(url), catalog)
    fdb.drift(db, "task")
    fdb.degeneration(db)
    return fdb.open(url)


def opened(page: Path) -> tuple[float, float, float]:
    """Seconds until the page is there, until what is first seen is drawn, and until all of it is."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        view = browser.new_page(viewport={"width": 1280, "height": 900})
        start = time.perf_counter()
        view.goto(f"file://{page}")
        there = time.perf_counter() - start
        view.wait_for_selector(
            "html[data-ready]:not([data-drawing]), html[data-ready][data-drawing='0']", state="attached"
        )
        drawn = time.perf_counter() - start
        view.evaluate("filterdb.everything()")
        view.evaluate("document.querySelector('[data-figure=heatmap] button[data-value=model]').click()")
        view.wait_for_selector("[data-figure=heatmap] .heat[aria-label*=' model,']")
        everything = time.perf_counter() - start
        browser.close()
    return there, drawn, everything


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where the database and its page come to stand; kept")
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(folder or temporary)
        db = fdb.open(place / "db") if (place / "db").exists() else make(place / "db")
        db = fdb.open(place / "db")
        start, used = time.perf_counter(), processor_time()
        page = Path(fdb.report(db, place / "page", densities=False))
        seconds, work = time.perf_counter() - start, processor_time() - used
        sizes: dict[str, int] = {}
        for file in page.parent.rglob("*"):
            if file.is_file():
                part = file.parent.name if file.parent != page.parent else "index.html"
                sizes[part] = sizes.get(part, 0) + file.stat().st_size
        there, drawn, everything = opened(page)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        counts = ", ".join(f"{number:,} {name}" for name, number in db.counts.items())
        parts = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in sorted(sizes.items()))
        print("| what | measured |\n|---|---|")
        print(f"| database | {counts} |")
        print(f"| page made | {seconds:.0f} s ({work:.0f} s of processor time), peak {peak:,.0f} MiB |")
        print(f"| size | {sum(sizes.values()) / 1e6:.1f} MB: {parts} |")
        print(f"| opens | {there:.2f} s loaded, {drawn:.2f} s drawn, {everything:.2f} s with every figure |")
