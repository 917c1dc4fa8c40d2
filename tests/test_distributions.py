"""What the wheel and the sdist contain, what an index shows of them, and what mypy says of a user's script."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from filterdb.version import __version__

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return message_from_bytes(wheel.read(f"filterdb-{__version__}.dist-info/METADATA"))


def test_the_wheel_has_the_license_the_types_and_all_data(wheel: zipfile.ZipFile) -> None:
    files = set(wheel.namelist())
    assert wheel.read(f"filterdb-{__version__}.dist-info/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "filterdb/py.typed" in files
    package = (path for path in (ROOT / "filterdb").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert {str(path.relative_to(ROOT)) for path in package} - files == set()
    assert {name.partition("/")[0] for name in files} == {"filterdb", f"filterdb-{__version__}.dist-info"}


def test_the_index_shows_no_link_that_leads_nowhere(metadata: Message) -> None:
    payload = metadata.get_payload(decode=True)
    assert isinstance(payload, bytes)
    text = str(payload, "utf-8")
    assert text.startswith("# filterdb")
    assert "](https://" in text
    assert re.findall(r"\]\((?!https://).*?\)", text) == []
    assert "![" not in text


def test_metadata(metadata: Message) -> None:
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "The filterdb developers"
    assert all(re.fullmatch(r"[^,]+, https://\S+", url) for url in metadata.get_all("Project-URL", []))


def test_the_sdist_has_every_tracked_file_but_of_ci(tmp_path: Path) -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout")
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    tracked = {name for name in listing.split("\0") if name and (ROOT / name).exists() and not name.startswith(".ci/")}
    (path,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(path) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked - files == set()
    assert not any(name.startswith(".ci") for name in files)


@pytest.mark.parametrize("page", sorted(path.name for path in ROOT.glob("*.md")))
def test_links_lead_to_files(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


SCRIPT = """\
import filterdb as fdb

db = fdb.open("db")
fdb.drift(db, by="task")
fdb.drift(db, bi="task")
"""


@pytest.mark.slow
def test_mypy_finds_a_wrong_keyword_in_a_script_of_a_user(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1, done.stdout + done.stderr
    assert 'script.py:5: error: Unexpected keyword argument "bi" for "drift"' in errors[0]
