"""Compare what filterdb reads with what is true: `python -m exporters.reading FOLDER [--database DB]`.

Runs beside filterdb, on the folder that `generate` or `published` wrote: ingests and checks all of its files by the
command line and compares layer by layer. Prints a table of constructions and variants; exit code 1 for a wrong weight,
a lost convolution, or a check that passes over one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import filterdb as fdb
from filterdb.ledger import is_unread

OTHER_SHAPES = {"kernel", "rank", "transposed", "empty"}
"""Codes of the ledger for convolutions that are no 3×3 ones."""

NO_BATCH_NORM_BEHIND = {"folded", "none", "unknown", "True"}

TOLERANCE = 2e-6
"""Difference relative to the layer's peak where a runtime may round otherwise (sums, exponentials, matrix products)."""

HALF_TOLERANCE = 2.0**-9
"""The same where it computes in half precision: two units in the last place."""

HALVES = {"float16", "bfloat16"}

UNREAD_RULES = {"unread", "unreadable", "nonfinite", "ambiguous"}
NOTHING_RULES = {"nothing-checked"}


@dataclass
class Outcome:
    """One 3×3 convolution of a file: read, wrong, unread (in the ledger), lost, invented; and why."""

    file: str
    layer: str
    verdict: str
    detail: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether a reader must not do that."""
        return self.verdict in {"wrong", "lost", "invented", "facts", "unread", "unscaled"}


@dataclass
class File:
    """What filterdb says of one file."""

    truth: dict[str, Any]
    weights: dict[int, np.ndarray]
    layers: list[dict[str, Any]] = field(default_factory=list)
    ledger: list[dict[str, Any]] = field(default_factory=list)
    check: dict[str, Any] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The file's name without `.onnx`."""
        return str(self.truth["file"]).removesuffix(".onnx")


def command(*arguments: str) -> dict[str, Any]:
    """Run filterdb with `--json`; return its answer. Exit codes for findings and rejected files are fine."""
    done = subprocess.run(
        [sys.executable, "-m", "filterdb", *arguments, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode not in {0, 1, 65} or not done.stdout:
        sys.exit(f"filterdb {arguments[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def read(folder: Path, database: Path, pattern: str = "*") -> dict[str, File]:
    """Ingest and check the files of `folder`; return what filterdb says of each, by name."""
    files = {}
    for path in sorted(folder.glob(f"{pattern}.json")):
        if path.name == "failures.json":
            continue
        with np.load(path.with_suffix(".npz")) as arrays:
            weights = {int(name): arrays[name] for name in arrays.files}
        files[path.stem] = File(json.loads(path.read_text()), weights)
    sources = [str(folder / f"{name}.onnx") for name in files]
    command("ingest", str(database), *sources, "--threads", "2")
    _read_database(database, files)
    answer = command("check", *sources, "--threads", "2")
    for entry in answer["files"]:
        files[_stem(entry["file"])].check = entry
    for finding in answer["findings"]:
        files[_stem(finding["file"])].findings.append(finding)
    return files


def _stem(name: str) -> str:
    return Path(name).name.removesuffix(".onnx")


def _read_database(database: Path, files: dict[str, File]) -> None:
    answer = command("layers", str(database), "--threads", "2")
    db = fdb.open(str(database))
    filters = db.dataset["filters"].values
    ends = np.cumsum(db.layers["row_size"].values)
    for row, end in zip(answer["rows"], ends, strict=True):
        row["values"] = filters[end - row["filters"] : end]
        files[_stem(row["model"])].layers.append(row)
    for skip in answer["skipped"]:
        files[_stem(skip["model"])].ledger.append(skip)


def compare(file: File) -> list[Outcome]:
    """Return an outcome for each 3×3 convolution of a file, and for each layer that is none."""
    outcomes = []
    expected = [row for row in file.truth["convolutions"] if row["is_3x3"]]
    readable = [row for row in expected if row["expect"] != "unread" and row["index"] in file.weights]
    remaining = list(file.layers)
    skipped = {skip["layer"] for skip in file.ledger}
    matched: dict[int, dict[str, Any]] = {}
    for by_name in (True, False):  # a layer of a convolution's name is nobody else's
        for row in readable:
            if row["index"] in matched or (not by_name and row["name"] in skipped):
                continue
            layer = _match(row["name"] if by_name else None, file.weights[row["index"]], remaining)
            if layer is not None:
                matched[row["index"]] = layer
                remaining.remove(layer)
    for row in readable:
        if row["index"] in matched:
            outcomes.append(_judge(file, row, file.weights[row["index"]], matched[row["index"]]))
    missing = [row for row in expected if row["index"] not in matched]
    ledger = [skip for skip in file.ledger if skip["code"] not in OTHER_SHAPES]
    whole = any(not skip["layer"] for skip in ledger)
    unjudged = {layer["layer"] for layer in remaining}
    for row in missing:
        if row["expect"] == "either" and row["name"] in unjudged:
            continue  # read, and nothing to compare with
        skip = next((skip for skip in ledger if skip["layer"] == row["name"]), None) or next(iter(ledger), None)
        if skip is None:
            outcomes.append(Outcome(file.name, row["name"], "lost", "neither a layer nor in the ledger"))
            continue
        if not whole:
            ledger.remove(skip)
        allowed = row["expect"] in {"unread", "either"}
        said = f"{skip['code']}: {skip['reason']}"
        outcomes.append(Outcome(file.name, row["name"], "skipped" if allowed else "unread", said))
    either = {row["name"] for row in missing if row["expect"] == "either"}
    for layer in remaining:
        if layer["layer"] in either:
            continue
        outcomes.append(Outcome(file.name, layer["layer"], "invented", "a layer that no convolution of the file has"))
    return outcomes


def _match(name: str | None, weight: np.ndarray, layers: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the layer of the weight's shape that has this name; without a name the nearest one."""
    shape = weight.shape[0], weight.shape[1]
    like = [layer for layer in layers if (layer["out_channels"], layer["in_channels"]) == shape]
    if name is not None:
        return next((layer for layer in like if layer["layer"] == name), None)
    flat = weight.reshape(-1, 9)
    return min(like, key=lambda layer: float(np.abs(layer["values"] - flat).max()), default=None)


def _judge(file: File, row: dict[str, Any], weight: np.ndarray, layer: dict[str, Any]) -> Outcome:
    flat = weight.reshape(-1, 9)
    distance = float(np.abs(layer["values"].astype(np.float64) - flat).max())
    peak = float(np.abs(flat).max())
    # The model computes in half precision where its layer does; onnxruntime may keep single precision between nodes.
    is_half = layer["source_dtype"] in HALVES or np.array_equal(flat.astype(np.float16), flat)
    bound = 0.0 if row["exact"] else peak * (HALF_TOLERANCE if is_half else TOLERANCE)
    right = distance <= bound
    if not right and not layer["scale_known"]:
        return Outcome(file.name, row["name"], "unscaled", "read without its scale")
    if not right:
        said = f"differs by {distance:.3g} at a peak of {peak:.3g} ({'exact' if row['exact'] else 'rounded'})"
        return Outcome(file.name, row["name"], "wrong", said)
    depth = layer["conv_depth"] if row["conv_depth"] is None else row["conv_depth"]
    differences = [
        f"{name} is {got}, expected {want}"
        for name, got, want in (
            ("groups", layer["groups"], row["groups"]),
            ("strides", layer["strides"], row["strides"]),
            ("dilations", layer["dilations"], row["dilations"]),
            ("conv_depth", layer["conv_depth"], depth),
            ("batch_norm behind", _batch_norm_behind(layer), row["batch_norm"]),
        )
        if got != want
    ]
    return Outcome(file.name, row["name"], "facts" if differences else "read", "; ".join(differences))


def _batch_norm_behind(layer: dict[str, Any]) -> bool:
    return str(layer.get("batch_norm", layer.get("bn_folded"))) not in NO_BATCH_NORM_BEHIND


def check_faults(file: File, outcomes: list[Outcome]) -> list[str]:
    """Return what `check` says of a file that it must not: that all is well where something was not read."""
    rules = {finding["rule"] for finding in file.findings}
    unread = [
        outcome
        for outcome in outcomes
        if outcome.verdict in {"unread", "lost"}
        # Weights that depend on an input are not looked at, by their kind: that is no fault of the file.
        or (outcome.verdict == "skipped" and is_unread(outcome.detail.partition(":")[0]))
    ]
    faults = []
    if unread and not rules & UNREAD_RULES:
        faults.append(f"{len(unread)} 3×3 convolutions unread, no finding says so")
    if not unread and not file.check.get("layers") and not rules & (NOTHING_RULES | UNREAD_RULES):
        faults.append("nothing was checked, no finding says so")
    return faults


def table(files: dict[str, File]) -> tuple[str, list[str]]:
    """Return the table of constructions and variants, and a line for each fault."""
    cells: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    faults = []
    total: Counter[str] = Counter()
    for file in files.values():
        outcomes = compare(file)
        cell = cells[file.truth["construction"]][_family(file.truth["variant"])]
        cell.update(outcome.verdict for outcome in outcomes)
        total.update(outcome.verdict for outcome in outcomes)
        faults += [f"{o.verdict:9} {o.file} {o.layer}: {o.detail}" for o in outcomes if o.is_fault]
        for fault in check_faults(file, outcomes):
            cell["check"] += 1
            total["check"] += 1
            faults.append(f"check     {file.name}: {fault}")
    families = sorted({family for row in cells.values() for family in row})
    width = max(map(len, cells), default=0)
    lines = [" " * width + "  " + "  ".join(f"{family:>16}" for family in families)]
    for name, row in sorted(cells.items()):
        lines.append(f"{name:{width}}  " + "  ".join(f"{_cell(row[family]):>16}" for family in families))
    lines.append("read, s: rightly skipped, u: unread, n: no scale, W: wrong, L: lost, I: invented, F: facts, C: check")
    lines.append(f"{len(files)} files: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(total.items())))
    return "\n".join(lines), faults


def _family(variant: str) -> str:
    """A column of the table: the exporter, or the tool that rewrote its file."""
    for part, family in (
        ("ort-", "ORT optimised"),
        ("qdq-", "QDQ"),
        ("qoperator-", "QOperator"),
        ("dynamic-", "ORT dynamic"),
        ("dynamo-train", "dynamo"),
        ("dynamo-raw-18.", "rewritten"),
        ("ts-nofold-17.", "rewritten"),
        ("dynamo-raw", "dynamo raw"),
        ("dynamo", "dynamo"),
        ("ts-", "TorchScript"),
    ):
        if part in variant:
            return family
    return variant


SIGNS = {
    "skipped": "s",
    "unread": "u",
    "unscaled": "n",
    "wrong": "W",
    "lost": "L",
    "invented": "I",
    "facts": "F",
    "check": "C",
}


def _cell(counts: Counter[str]) -> str:
    parts = [str(counts["read"])] if counts["read"] else []
    parts += [f"{counts[verdict]}{sign}" for verdict, sign in SIGNS.items() if counts[verdict]]
    return " ".join(parts) or "-"


def main() -> None:
    """Print the table and the faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="*", help="files to compare, a glob of NAME.VARIANT")
    parser.add_argument("--database", type=Path, help="where to ingest to; by default a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        files = read(arguments.folder, arguments.database or Path(scratch) / "db", arguments.only)
        text, faults = table(files)
    print("\n".join(faults))
    print(text)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
