"""The page: one self-contained folder that opens from disk."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from filterdb.analysis.rules import Rules
from filterdb.arguments import as_path
from filterdb.errors import InputError, MissingExtraError, UsageError
from filterdb.page import boxes, data, drawing, figures, payload, tables
from filterdb.page.highlights import farthest, standing_out
from filterdb.page.results import GROUPINGS, Results, gather
from filterdb.schema import REJECTED, UNKNOWN
from filterdb.store.database import AnyDatabase, Database, as_database
from filterdb.store.files import Files
from filterdb.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCRIPTS = ("core", "charts", "heatmap", "pair", "table", "sections", "start")
"""The page's scripts in their order; together they are one."""

Pictures = Iterator[tuple[str, Callable[[], "Figure"]]]


def report(db: AnyDatabase, folder: str | Path, mode: str = "sound", *, densities: bool | None = None) -> Path | str:
    """Write the page about a view's layers into a folder (made if need be) or below a URL; gives where the page is.

    `index.html` and its `data` open from disk or from a server, without a network; `figures` has each figure as SVG and
    PNG, `tables` its numbers as CSV, and as Parquet where pyarrow is installed. `densities`: bivariate densities of all
    pairs of components, which take a pass over the filters; None: up to 50 million of them. Raises MissingExtraError
    without the extra `report`, UsageError where a file is in the way, InputError for a database without filters,
    StoreError, before anything is computed, where the place cannot be written.
    """
    db = as_database(db)
    if not db.layers.sizes["layer"]:
        raise InputError(f"{db.url}: expected at least one layer with 3×3 filters to report on, got none")
    if find_spec("jinja2") is None or find_spec("matplotlib") is None:
        raise MissingExtraError("report: the page needs the extra: pip install 'filterdb[report]'")
    place = Files.at(as_path(folder, "folder"))
    if not place.remote and Path(place.root).exists() and not Path(place.root).is_dir():
        raise UsageError(f"{place.root}: expected a folder, or a place for one, got a file; say another with -o")
    place.check_writable()
    found = gather(db, mode, densities)
    objects = {f"data/{name}.js": payload.script(name, part) for name, part in data.files(found).items()}
    for name, picture in _pictures(found):
        objects |= drawing.files(picture(), name)
    for name, table, has_csv in _tables(found):
        objects |= tables.files(name, table, csv=has_csv)
    place.put(objects)
    place.put({"index.html": _html(found)})  # last: whoever sees the page sees all that it shows
    return place.url("index.html") if place.remote else Path(place.url("index.html")).absolute()


def _pictures(found: Results) -> Pictures:
    """Every figure's name, and what draws it."""
    yield "contents", lambda: figures.contents(found.statistics)
    yield "basis", lambda: figures.basis(found.basis)
    yield "entropy_and_sparsity", lambda: figures.entropy_and_sparsity(found.degeneration, _tasks(found))
    for by, result in found.drifts.items():
        yield f"drift_{by}", lambda result=result: figures.heatmap(result)  # type: ignore[misc]
        yield f"ridges_{by}", lambda result=result: figures.ridges(result)  # type: ignore[misc]
        yield f"components_{by}", lambda result=result: figures.per_component(result)  # type: ignore[misc]
        two = farthest(result)
        if two is not None:
            a, b = (str(result["group"].values[i]) for i in two)
            yield f"pair_{by}", lambda result=result, a=a, b=b: figures.pair(result, a, b)  # type: ignore[misc]
    if found.drifts:
        yield "groupings", lambda: figures.groupings(found.drifts)
    family = _families(found)
    if family is not None:
        yield "families", lambda: figures.families(found.drifts["model"], family)
    yield "filter_scale", lambda: figures.filter_scale(found.scale)
    if found.series is not None:
        series = found.series
        yield "series", lambda: figures.series(series)
    if found.deciles is not None:
        deciles = found.deciles
        yield "deciles", lambda: figures.deciles(deciles)
    if found.tiles is not None:
        tiles = found.tiles
        yield "first_filters", lambda: figures.first_filters(tiles)
    if found.planes is not None:
        planes = found.planes
        yield "corner", lambda: figures.corner(planes.densities)
        yield "density", lambda: figures.density(planes.densities[0, 1], planes.phenotypes)


def _tables(found: Results) -> Iterator[tuple[str, pd.DataFrame, bool]]:
    """Every table's name and rows, and whether it is short enough for CSV."""
    yield "models", tables.models(found.db), True
    yield "contents", tables.contents(found.statistics), True
    yield "filter_scale", tables.filter_scale(found.scale), True
    yield "basis", tables.basis(found.basis), True
    yield "degeneration", tables.degeneration(found.degeneration), True
    for by, result in found.drifts.items():
        long = tables.pair_facts(result)
        yield f"drift_{by}", tables.matrix(result), True
        yield f"pairs_{by}", long, len(long) <= tables.LONG
        yield f"histograms_{by}", tables.histograms(result), True
        if "per_component" in result:
            yield f"components_{by}", tables.box_rows(boxes.by_component(result)), True
    if found.series is not None:
        yield "series", tables.checkpoints(found.series), True
        yield "retrainings", tables.retrainings(found.series), True
    if found.drifts:
        yield "groupings", tables.box_rows(boxes.by_grouping(found.drifts)), True
    if found.deciles is not None:
        yield "deciles", tables.box_rows(boxes.by_stratum(found.deciles)), True
    if found.tiles is not None:
        yield "first_filters", tables.first_filters(found.tiles), True
    if found.planes is not None:
        yield "phenotypes", found.planes.table(), True
        yield "corner", found.planes.cells(), True
        yield "density", found.planes.groups((0, 1)), True


def _tasks(found: Results) -> np.ndarray | None:
    tasks: np.ndarray = found.db.layers["task"].values.astype(str)
    return tasks if len(np.unique(tasks)) > 1 else None


def _families(found: Results) -> np.ndarray | None:
    """The family of each group of the drift by model; None where there is one only."""
    if "model" not in found.drifts:
        return None
    models = found.db.models
    of = dict(zip(models["model"].values.astype(str), models["family"].values.astype(str), strict=True))
    family = np.array([of[str(label)] for label in found.drifts["model"]["group"].values])
    return family if len(np.unique(family)) > 1 else None


def _html(found: Results) -> bytes:
    from jinja2 import Environment, StrictUndefined

    db = found.db
    web = resources.files("filterdb.page").joinpath("web")
    script = "(() => {\n" + "".join(web.joinpath(f"{name}.js").read_text("utf-8") for name in SCRIPTS) + "})();\n"
    style = web.joinpath("page.css").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = environment.from_string(web.joinpath("page.html").read_text("utf-8"))
    some = next(iter(found.drifts.values()), None)
    codes = db.skipped["skipped_code"].values.astype(str)
    names, counts = np.unique(codes[codes != REJECTED], return_counts=True)
    sections = [("summary", "What stands out"), ("contents", "What is in here"), ("basis", "Basis"), ("drift", "Drift")]
    sections += [("distributions", "Distributions")] if found.drifts else []
    sections += [("depth", "Over the depth"), ("series", "Along a training"), ("layers", "Layers")]
    html = template.render(
        url=drawing.visible(db.url),
        selection=drawing.visible(" and ".join(db.conditions)),
        snapshot=db.snapshot if some is None else some.attrs["snapshot"],
        mode=found.mode,
        version=__version__,
        numbers=_numbers(db),
        basis_warning=next((r.attrs["basis_warning"] for r in found.drifts.values() if "basis_warning" in r.attrs), ""),
        findings=standing_out(found),
        sections=sections,
        kinds=["csv", *(["parquet"] if find_spec("pyarrow") is not None else [])],
        first=next(iter(found.drifts), ""),
        drifts=list(found.drifts),
        farthest=[by for by, result in found.drifts.items() if farthest(result) is not None],
        judged=any("verdict" in result for result in found.drifts.values()),
        families=_families(found) is not None,
        notes=[(by, why) for by, why in found.notes.items() if by in GROUPINGS],
        deciles=found.deciles is not None,
        series=found.series is not None,
        no_series=found.notes.get("series", ""),
        planes=found.planes is not None,
        tiles=found.tiles is not None,
        without=int((db.models["filters"].values == 0).sum()),
        skipped=list(zip(names.tolist(), counts.tolist(), strict=True)),
        unread=int(db.unread.sizes["skipped"]),
        rejected=int((codes == REJECTED).sum()),
        smallest=Rules().smallest if found.mode == "sound" else Rules().smallest_paper,
        script=script,
        style=style,
        script_hash=_hash(script),
        style_hash=_hash(style),
        core=payload.text(data.core(found)),
    )
    return html.encode("utf-8", "replace")


def _numbers(db: Database) -> list[tuple[str, str]]:
    """The largest facts, each with its name."""
    counts = db.counts
    with_filters = int((db.models["filters"].values > 0).sum())
    of = "models" if with_filters == counts["models"] else f"of {counts['models']:,} models have such filters"
    rows = [("3×3 filters", f"{counts['filters']:,}"), ("layers", f"{counts['layers']:,}"), (of, f"{with_filters:,}")]
    for column, many in (("task", "tasks"), ("training_dataset", "training sets")):
        known = set(np.unique(db.layers[column].values.astype(str)).tolist()) - {UNKNOWN}
        rows += [(many, f"{len(known):,}")] if known else []
    return rows


def _hash(text: str) -> str:
    """What a content security policy calls an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
