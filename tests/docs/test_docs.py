"""Every code block of the README and the documentation runs, and prints what the page shows.

`python -m tests.docs.update` writes what the commands print today into the pages.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import LANGUAGES, ROOT, Block, blocks, commands, pages
from tests.docs.running import PageRun, check_command, matches
from tests.docs.workspace import make_workspace, prepare_database

NOT_RUN = {
    "a cluster": "needs a Kubernetes or Slurm cluster, or a running Dask scheduler",
    "a container engine": "needs Docker",
    "a download": "fetches packages or models",
    "a bucket": "needs an object store or a web server",
    "a long run": "takes long: a benchmark, the whole test suite, a page with all figures (one page of docs runs that)",
    "runs until Ctrl-C": "serves a page; tests/page starts and ends the server",
    "placeholders": "shows the form of a command; names stand for the reader's own",
}
"""Why a block may be left out: what `<!-- not run: … -->` may say."""


@pytest.fixture(scope="module")
def prepared(demo_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of `make demo`, with its summaries."""
    return prepare_database(demo_catalog, tmp_path_factory.mktemp("docs") / "db")


@pytest.fixture
def workspace(prepared: Path, demo_catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as the pages suppose it: the demo and some models of the reader's own."""
    make_workspace(tmp_path, demo_catalog.parent, prepared)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    yield tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in pages() if any(block.language in {"bash", "python"} for block in blocks(page))]
)
def test_blocks_run(page: str, workspace: Path) -> None:
    running = PageRun()
    for block in blocks(page):
        if block.file:
            (workspace / block.file).parent.mkdir(parents=True, exist_ok=True)
            (workspace / block.file).write_text(block.text, "utf-8")
            continue
        if block.language not in {"bash", "python"} or block.not_run:
            continue
        printed = running.run(block)
        if block.output is not None:
            assert matches(block.output.text, printed), f"{block.place} prints\n{printed}"


@pytest.mark.parametrize("page", pages())
def test_blocks_are_known(page: str) -> None:
    """Each has a language; data parses; what is not run says why, and its commands and options exist."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.place}: language {block.language!r}"
        assert block.not_run is None or block.not_run in NOT_RUN, f"{block.place}: {block.not_run!r}"
        _parse(block)
        for command in re.findall(r"- run: (filterdb .*)", block.text):
            check_command(command, block.place)
        if block.language != "bash":
            continue
        for command in commands(block.text):
            if re.match(r"(\w+=\S+ )*filterdb ", command):
                check_command(command, block.place)
            for target in re.findall(r"^make ([a-z-]+)", command):
                assert target in targets, f"{block.place}: no target {target}"
            for script in re.findall(r"(?:^|\s)((?:deploy|benchmarks)/[\w./-]+)", command):
                assert (ROOT / script).exists(), f"{block.place}: no file {script}"


def _parse(block: Block) -> None:
    match block.language:
        case "python":
            compile(block.text, block.place, "exec")
        case "json":
            json.loads(block.text)
        case "toml":
            tomllib.loads(block.text)
        case "yaml":
            list(yaml.safe_load_all(block.text))


def test_each_reason_is_used() -> None:
    """So that the list of what is not run does not grow old."""
    used = {block.not_run for page in pages() for block in blocks(page) if block.not_run}
    assert used == set(NOT_RUN)


@pytest.mark.parametrize("page", pages())
def test_commands_in_prose_exist(page: str) -> None:
    """`filterdb NAME --option` in a sentence or a table names a command and options that exist."""
    prose = re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for command in re.findall(r"`(filterdb [a-z][^`]*)`", prose):
        check_command(command.replace("…", "ANY"), page)


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    """Relative links name files of this repository; sections are checked by `make docs`."""
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (ROOT / page).read_text("utf-8")):
        if "://" not in target and "generated" not in target:
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", pages())
def test_files_that_are_named_exist(page: str) -> None:
    """`tests/x.py`, `benchmarks/y.py`, `deploy/z` in a page are files of this repository."""
    pattern = r"`((?:tests|benchmarks|filterdb|deploy)/[\w./-]+)"
    missing = [name for name in re.findall(pattern, (ROOT / page).read_text("utf-8")) if not (ROOT / name).exists()]
    assert missing == []
