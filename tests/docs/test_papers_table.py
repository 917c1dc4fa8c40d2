"""Every command of the table in docs/how-to/reproduce-the-papers.md runs, and its figure shows something."""

from __future__ import annotations

import re
from pathlib import Path

import dask
import pandas as pd
import pytest

import filterdb as fdb
from tests.commands.running import run
from tests.docs.pages import ROOT
from tests.filters import network

PAGE = ROOT / "docs/how-to/reproduce-the-papers.md"


def table_rows() -> list[tuple[str, str]]:
    """Return the paper's row and the command of each row of the table."""
    section = PAGE.read_text("utf-8").split("## Every row of the papers, with its command")[1].split("\n## ")[0]
    cells = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| P")]
    return [(row[0].strip(), row[2].strip()) for row in cells]


ROWS = table_rows()


@pytest.fixture(scope="module")
def papers_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models with all labels that the commands name: tasks, kinds, checkpoints and seeds of one architecture."""
    folder = tmp_path_factory.mktemp("table")
    rows = []
    for number, (name, epoch, seed) in enumerate(
        [("thin-resnet50", 1, 1), ("net-9", 9, 1), ("net-10", 10, 1), ("net-b", 10, 2), ("u", "", ""), ("v", "", "")]
    ):
        family = int(number > 3)
        network(folder / f"{number}.onnx", seed=number, family=family)
        rows.append(
            {
                "path": f"{number}.onnx",
                "name": name,
                "task": ("classification", "segmentation")[family],
                "visual_category": ("natural", "medical")[number == 4],
                "training_dataset": ("ImageNet", "scans")[family],
                "architecture": ("net", f"unet {number}")[family],
                "family": ("ResNet", "UNet")[family],
                "kind": ("regular", "robust", "overparameterised")[max(number - 3, 0)],
                "epoch": epoch,
                "seed": seed,
            }
        )
    pd.DataFrame(rows).to_csv(folder / "catalog.csv", index=False)
    with dask.config.set(scheduler="threads"):
        fdb.ingest(folder / "db", catalog=folder / "catalog.csv")
        fdb.drift(folder / "db", "model", noise=False)
    return folder / "db"


def test_the_table_has_every_figure() -> None:
    named = {row for row, _ in ROWS}
    wanted = {f"P1 fig. {number}" for number in (1, 2, 3, 4, 5, 7, 8, 9, 10)} | {"P1 fig. 6, §4.3", "P1 §4", "P1 §5"}
    assert wanted | {"P2 fig. 4", "P2 fig. 6", "P2 A.1", "P2 A.2", "P2 A.4", "P1 eq. 1, 3", "P1 eq. 8"} <= named
    assert all(re.fullmatch(r"`[^`]+`", command) for _, command in ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("command", [command.strip("`") for _, command in ROWS])
def test_each_command_runs(command: str, papers_db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if command.startswith("fdb."):
        result = eval(command.replace('"DB"', repr(str(papers_db))), {"fdb": fdb})
        assert result.sizes["component"] == 9
        return
    words = [str(papers_db) if word == "DB" else word for word in command.split()[1:]]
    if "randomness-threshold" in words:
        words += ["--sizes", "4,16,64,256", "--draws", "20"]
    done = run(*words, cwd=tmp_path)
    assert done.stdout.strip()
    if "--figure" in words:
        text = (tmp_path / words[words.index("--figure") + 1]).read_text("utf-8")
        assert text.count("<path") > 10 or text.count("<image") > 0
        assert "figure: " in done.stderr
