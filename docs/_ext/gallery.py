"""The gallery of plots: an example of each function of `fdb.plot`, run when the site is built."""

from __future__ import annotations

import contextlib
import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filterdb as fdb

EXAMPLES = {
    "drift": """\
drift = fdb.drift(db, by="model")
fdb.plot.drift(drift)
""",
    "pair": """\
drift = fdb.drift(db, by="task")
fdb.plot.pair(drift, "classification", "detection")
""",
    "ridges": """\
fdb.plot.ridges(fdb.distributions(db, by="task"))
""",
    "boxes": """\
import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
fdb.plot.boxes(fdb.drift(db, by="model"), ax=left)
fdb.plot.boxes({by: fdb.drift(db, by=by) for by in ("task", "family", "model")}, ax=right)
""",
    "basis": """\
fdb.plot.basis(fdb.pca(db))
""",
    "bases": """\
fdb.plot.bases(fdb.pca(db, by="task"))
""",
    "bivariate": """\
fdb.plot.bivariate(fdb.density(db, by="task", components=(0, 1), bins=40))
""",
    "corner": """\
from itertools import combinations

fdb.plot.corner({pair: fdb.density(db, components=pair, bins=40) for pair in combinations(range(4), 2)})
""",
    "depth": """\
fdb.plot.depth(fdb.degeneration(db), db.layers["task"])
""",
    "first_filters": """\
from filterdb.page.first_filters import first_filters

fdb.plot.first_filters(first_filters(db), "detector-1")
""",
    "spectrum": """\
fdb.plot.spectrum(fdb.spectrum(db, by="depth_decile"))
""",
    "series": """\
fdb.plot.series(fdb.series(db))
""",
    "codebook": """\
fdb.plot.codebook(fdb.codebook(db, k=32))
""",
    "contents": """\
fdb.plot.contents(fdb.statistics(db))
""",
}
"""The code of each example, by the name of the plot, in the order of the page."""

INTRODUCTION = """\
# Gallery of plots

For readers who look for a plot. Every function of `fdb.plot` takes the result of an analysis. One that draws a single
panel takes `ax`, an Axes of matplotlib, and returns it; one that draws several takes `fig`, a Figure or SubFigure, and
returns the array of its Axes. Without them a new figure of a fitting size is made, in your style.
[The Python interface](python.rst) has all parameters.

The pictures were drawn when this site was built, on eight small synthetic models; `db` is their database.
"""

CATALOG = """\
path,name,task,visual_category,training_dataset,family,architecture,seed,epoch
"""


def gallery_page(pictures: Path) -> str:
    """Draw each example into the folder `pictures`, and return the page that shows them."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    pictures.mkdir(parents=True, exist_ok=True)
    parts = [INTRODUCTION]
    with database() as db, mpl.rc_context({"backend": "agg", "svg.hashsalt": "gallery"}):
        for name, code in EXAMPLES.items():
            names: dict[str, Any] = {"fdb": fdb, "db": db}
            exec(compile(code, f"gallery: {name}", "exec"), names)
            plt.gcf().savefig(pictures / f"{name}.png", dpi=100, metadata={"Software": None})
            plt.close("all")
            summary = (inspect.getdoc(getattr(fdb.plot, name)) or "").split("\n")[0]
            picture = f"![What fdb.plot.{name} draws]({pictures.name}/{name}.png)"
            parts.append(f"## {name}\n\n{summary}\n\n```python\n{code}```\n\n{picture}\n")
    return "\n".join(parts)


@contextlib.contextmanager
def database() -> Iterator[fdb.Database]:
    """Make a database of classifiers, detectors and checkpoints, whose tasks have different filters."""
    import dask

    from tests.filters import network

    rows = [
        *(f"classifier-{i}.onnx,classifier-{i},classification,photos,ImageNet,A,net-a,{i},10" for i in (1, 2, 3)),
        *(f"detector-{i}.onnx,detector-{i},detection,photos,COCO,B,net-b,{i},10" for i in (1, 2)),
        *(f"epoch-{i}.onnx,epoch-{i},segmentation,scans,Cityscapes,C,net-c,1,{i}" for i in (1, 2, 3)),
    ]
    with tempfile.TemporaryDirectory(prefix="gallery") as folder, dask.config.set(scheduler="threads"):
        for i, row in enumerate(rows):
            network(Path(folder) / row.split(",")[0], i, ord(row.split(",")[5]) - ord("A"))
        catalog = Path(folder) / "models.csv"
        catalog.write_text(CATALOG + "\n".join(rows) + "\n", "utf-8")
        yield fdb.ingest(Path(folder) / "db", catalog=catalog).database
