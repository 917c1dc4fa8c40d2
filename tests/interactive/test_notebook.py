"""The notebook: kept without outputs, and executed on a cluster of two worker processes.

`python -m tests.interactive.test_notebook` brings the file into the form in which it is kept.
"""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

import filterdb as fdb

NOTEBOOK = Path(__file__).parents[2] / "docs" / "how-to" / "interactive.ipynb"

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

TELL = """
import json
entropy = layers["variance_entropy"].sum().item()
print(json.dumps({"ratios": ratios.tolist(), "matrix": matrix.to_dict(), "entropy": entropy}))
"""
"""Run after the last cell: what the reader's variables hold, every digit."""


def kept(notebook: NotebookNode) -> str:
    """The text of the file: no outputs, no counts, no traces of an editor; a cell's id is its heading and its place."""
    notebook = nbformat.from_dict(json.loads(json.dumps(notebook)))
    notebook.metadata = nbformat.from_dict(METADATA)
    slug, place = "cell", 0
    for cell in notebook.cells:
        heading = re.match(r"#+ (.+)", cell.source) if cell.cell_type == "markdown" else None
        if heading is not None:
            slug, place = re.sub(r"[^a-z0-9]+", "-", heading[1].lower()).strip("-"), 0
        place += 1
        cell.id, cell.metadata = f"{slug}-{place}", NotebookNode()
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return f"{nbformat.writes(notebook)}\n"


def test_the_file_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    text = NOTEBOOK.read_text("utf-8")
    assert text == kept(notebook), f"{NOTEBOOK}: run `python -m tests.interactive.test_notebook`, commit"
    assert '"image/png"' not in text


def test_what_running_leaves_is_taken_out() -> None:
    """`kept` undoes what Jupyter does to a notebook that is executed and saved."""
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    notebook.metadata.language_info.version = "3.99"
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"{number:08x}", NotebookNode(scrolled=True)
        if cell.cell_type == "code":
            cell.execution_count = number
            cell.outputs = [nbformat.v4.new_output("stream", text="/home/me")]
    assert kept(notebook) == NOTEBOOK.read_text("utf-8")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two worker processes with a dashboard; the kernel is told the scheduler's address and nothing else."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as found:
        yield found


@pytest.fixture(scope="module")
def executed(
    cluster: LocalCluster, demo_catalog: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[NotebookNode, Path]]:
    """The notebook with its outputs, and the folder in which it ran. Any error of a cell ends it."""
    folder = tmp_path_factory.mktemp("notebook")
    shutil.copytree(demo_catalog.parent, folder / "filterdb-demo" / "models")
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    notebook.cells.append(nbformat.v4.new_code_cell(TELL))
    # A short path: the kernel is spoken to by sockets in the file system, which no other user can open.
    with tempfile.TemporaryDirectory(prefix="kernel") as short, pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            patch.setenv(name, short)
        patch.setenv("FILTERDB_SCHEDULER", cluster.scheduler_address)
        patch.delenv("FILTERDB_DATABASE", raising=False)
        patch.delenv("MPLBACKEND", raising=False)
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{short}/kernel")
        NotebookClient(notebook, km=kernel, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    yield notebook, folder


def outputs(notebook: NotebookNode, kind: str) -> dict[str, list[str]]:
    """Outputs of a kind by cell id, of the cells that have any."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = {cell.id: [one.data[kind] for one in cell.outputs if kind in one.get("data", {})] for cell in code}
    return {id_: data for id_, data in found.items() if data}


def tables(notebook: NotebookNode, cell: str) -> pd.DataFrame:
    """The table that a cell shows, as text, whatever columns and rows its HTML has."""
    (shown,) = outputs(notebook, "text/html")[cell]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", shown, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return pd.DataFrame([row[1:] for row in cells], index=[row[0] for row in cells])


@pytest.mark.slow
def test_every_cell_ran(executed: tuple[NotebookNode, Path]) -> None:
    notebook, _ = executed
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    said = [one.text for cell in code for one in cell.outputs if one.output_type == "stream" and one.name == "stderr"]
    assert not [text for text in said if "Warning" in text or "Traceback" in text]


@pytest.mark.slow
def test_figures_are_there(executed: tuple[NotebookNode, Path]) -> None:
    notebook, _ = executed
    drawing = {cell.id for cell in notebook.cells if "plt.show()" in cell.source}
    pictures = outputs(notebook, "image/png")
    assert pictures.keys() == drawing
    assert len(drawing) == 4
    for id_, (data,) in pictures.items():
        colours = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").getcolors(1 << 20)
        assert colours is None or len(colours) > 20, f"{id_}: an empty picture"


@pytest.mark.slow
def test_the_cluster_did_the_work(executed: tuple[NotebookNode, Path], cluster: LocalCluster) -> None:
    """It is seen in the notebook, and the scheduler of this process says the same."""
    notebook, _ = executed
    ingest, drift = tables(notebook, "the-database-2"), tables(notebook, "drift-between-tasks-2")
    assert list(ingest.loc["scan"])[:2] == ["23", "2"]
    assert "histograms" in drift.index
    assert {"scan", "histograms"} <= cluster.scheduler.task_prefixes.keys()
    (link,) = outputs(notebook, "text/plain")["the-cluster-3"]
    assert link == repr(cluster.dashboard_link)
    assert not cluster.scheduler.clients.keys() - {"fire-and-forget"}, "the last cell closes the client"


@pytest.mark.slow
def test_numbers_are_those_of_the_library(
    executed: tuple[NotebookNode, Path], real_db: fdb.Database, cluster: LocalCluster
) -> None:
    """The same models in another database, in other chunks, asked directly."""
    notebook, folder = executed
    with Client(cluster, set_as_default=False) as client, client.as_current():
        ratios = fdb.pca(real_db)["explained_variance_ratio"].values[0]
        drift = fdb.drift(real_db, by="task")["drift"].to_pandas()
        entropy = fdb.degeneration(real_db)["variance_entropy"].sum().item()
    told = json.loads(notebook.cells[-1].outputs[0].text)
    np.testing.assert_allclose(told["ratios"], ratios, rtol=1e-9)
    found = pd.DataFrame(told["matrix"]).loc[drift.index, drift.columns]
    np.testing.assert_allclose(found, drift, rtol=1e-9, atol=1e-15)
    assert told["entropy"] == pytest.approx(entropy, rel=1e-9)
    # And what the reader sees.
    (result,) = outputs(notebook, "text/html")["drift-between-tasks-3"]
    assert result.startswith('<div class="filterdb">') and "fdb.drift by task" in result
    pairs = tables(notebook, "drift-between-tasks-4")
    row = pairs.loc["text detection"].to_numpy().tolist()
    assert row == [f"{value:.4f}" for value in drift.loc["text detection"]]
    (shown,) = outputs(notebook, "text/html")["the-database-3"]
    assert f"{real_db.counts['filters']:,}" in shown
    assert str(folder / "filterdb-demo" / "db") in shown


if __name__ == "__main__":
    NOTEBOOK.write_text(kept(nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)), "utf-8")
