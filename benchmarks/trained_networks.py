"""Whether filterdb's verdicts about really trained networks are right, by what their catalog says of them.

    python benchmarks/trained_networks.py DIR [--catalog DIR/catalog.csv] [--database NEW_DIR]

DIR has ONNX files and their catalog: path, name, architecture, training_dataset, pretraining_dataset, epoch (0 is the
untouched initialisation), seed, group (the recipe) and acc_test. Each row of the table is a promise: how many cases the
catalog has, in how many it is kept, how many it takes, and which are not. The exit code is 1 if any promise is broken.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import xarray as xr

import filterdb as fdb
from filterdb.analysis.findings import summary

ACCURATE = 0.95
WITHIN_NOISE = ("indistinguishable", "related")
DIFFERENT = ("different", "different_by_filters")

Row = dict[str, str]
Cases = Iterator[tuple[str, bool]]


class Networks(NamedTuple):
    """Hold the catalog's rows by name, the folder of the files, the database, and the drift of all pairs of models."""

    rows: dict[str, Row]
    folder: Path
    database: fdb.Database
    drift: xr.Dataset

    def verdict(self, one: str, other: str) -> str:
        """The verdict of `drift --by model`."""
        return str(self.drift["verdict"].sel(group=one, other=other).item())

    def path(self, name: str) -> Path:
        return self.folder / self.rows[name]["path"]

    def last(self) -> list[str]:
        """The last checkpoint of each training that has more than an initialisation."""
        trainings: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for name, row in self.rows.items():
            trainings[(*recipe(row), row["seed"])].append(name)
        newest = (max(names, key=lambda name: float(self.rows[name]["epoch"])) for names in trainings.values())
        return [name for name in newest if float(self.rows[name]["epoch"]) > 0]

    def parents(self) -> dict[str, set[str]]:
        """The models that each copy can come from: the last ones of its architecture and seed on its first data set."""
        last = self.last()
        parents = {}
        for name, row in self.rows.items():
            own = ("architecture", "seed")
            matching = [
                other
                for other in last
                if row["pretraining_dataset"]
                and self.rows[other]["training_dataset"] == row["pretraining_dataset"]
                and all(self.rows[other][column] == row[column] for column in own)
            ]
            if matching:
                parents[name] = set(matching)
        return parents


def recipe(row: Row) -> tuple[str, ...]:
    """What two seeds of one recipe have in common."""
    return tuple(row[name] for name in ("architecture", "training_dataset", "pretraining_dataset", "group"))


def accurate_ones_pass(networks: Networks) -> Cases:
    for name, row in networks.rows.items():
        if row["epoch"] != "0" and float(row["acc_test"]) > ACCURATE:
            yield name, bool(summary(fdb.check(networks.path(name)))["ok"])


def initialisations_are_untrained(networks: Networks) -> Cases:
    for name, row in networks.rows.items():
        if row["epoch"] == "0":
            yield name, bool(fdb.check(networks.path(name))["untrained"].values.all())


def trained_ones_are_not_untrained(networks: Networks) -> Cases:
    for name, row in networks.rows.items():
        if row["epoch"] != "0" and float(row["acc_test"]) > ACCURATE:
            yield name, not fdb.check(networks.path(name))["untrained"].values.any()


def seeds_are_within_noise(networks: Networks) -> Cases:
    for one, other in itertools.combinations(networks.last(), 2):
        if recipe(networks.rows[one]) == recipe(networks.rows[other]):
            yield f"{one} and {other}", networks.verdict(one, other) in WITHIN_NOISE


def copies_are_related_in_drift(networks: Networks) -> Cases:
    for name, parents in networks.parents().items():
        for parent in sorted(parents):
            yield f"{name} from {parent}", networks.verdict(name, parent) == "related"


def copies_are_related_in_nearest(networks: Networks) -> Cases:
    for name, parents in networks.parents().items():
        result = fdb.nearest(networks.database, networks.path(name), n=len(networks.rows))
        for parent in sorted(parents):
            yield f"{name} from {parent}", result["verdict"].sel(model=parent).item() == "related"


def parents_are_found(networks: Networks) -> Cases:
    result = fdb.lineage(networks.database)
    for name, parents in networks.parents().items():
        entry = result.sel(model=name)
        yield f"{name} from {entry['parent'].item() or 'none'}", entry["parent"].item() in parents


def parents_are_no_strangers(networks: Networks) -> Cases:
    """Parents in `lineage` are of the same architecture, and of the same seed, or the child says that it is a copy."""
    result = fdb.lineage(networks.database)
    for name, parent, direction in zip(
        result["model"].values, result["parent"].values, result["direction"].values, strict=True
    ):
        if parent and direction:
            child, other = networks.rows[str(name)], networks.rows[str(parent)]
            yield (
                f"{name} from {parent}",
                all(child[column] == other[column] for column in ("architecture", "seed")),
            )


def formed_and_plain_differ(networks: Networks) -> Cases:
    rows = networks.rows
    for one, other in itertools.product(networks.last(), repeat=2):
        is_asked = (rows[one]["group"], rows[other]["group"]) == ("formed", "plain")
        if is_asked and rows[one]["architecture"] == rows[other]["architecture"]:
            yield f"{one} and {other}", networks.verdict(one, other) in DIFFERENT


def series_separates_recipes(networks: Networks) -> Cases:
    """Every training of `series` has checkpoints of one recipe and seed only, and has all of them."""
    result = fdb.series(networks.database)
    members: dict[str, set[str]] = defaultdict(set)
    for training, name in zip(result["training"].values, result["model"].values, strict=True):
        members[str(training)].add(str(name))
    expected: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for name, row in networks.rows.items():
        expected[(*recipe(row), row["seed"])].add(name)
    for training, names in members.items():
        yield training, names in expected.values()


PROMISES = {
    "accurate networks pass check": (accurate_ones_pass, 1.0),
    "untouched initialisations are untrained": (initialisations_are_untrained, 1.0),
    "accurate networks are not untrained": (trained_ones_are_not_untrained, 1.0),
    "seeds of one recipe are like noise": (seeds_are_within_noise, 0.8),
    "fine-tuned and frozen copies are related in drift": (copies_are_related_in_drift, 1.0),
    "fine-tuned and frozen copies are related in nearest": (copies_are_related_in_nearest, 1.0),
    "parents of copies are found by lineage": (parents_are_found, 0.95),
    "parents in lineage are no strangers": (parents_are_no_strangers, 0.99),
    "formed and plain networks differ": (formed_and_plain_differ, 1.0),
    "trainings of series are of one recipe": (series_separates_recipes, 1.0),
}
"""The promises, and the share of the cases in which each is to be kept."""


def seed_drifts(database: fdb.Database) -> list[float]:
    """The drift of each pair of seeds of one recipe, sorted."""
    drifts: list[float] = fdb.series(database)["pair_drift"].values.tolist()
    return sorted(drifts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--catalog", type=Path, help="default: catalog.csv in the folder")
    parser.add_argument("--database", type=Path, help="a new folder for the database; default: a temporary one")
    arguments = parser.parse_args()
    catalog = arguments.catalog or arguments.folder / "catalog.csv"
    with catalog.open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    with tempfile.TemporaryDirectory() as place:
        database = fdb.ingest(arguments.database or Path(place) / "db", catalog=catalog).database
        networks = Networks(rows, arguments.folder, database, fdb.drift(database, "model", noise=True))
        kept_all = True
        print("| promise | cases | kept | needed |\n|---|---|---|---|")
        broken: list[str] = []
        for title, (promise, needed) in PROMISES.items():
            cases = list(promise(networks))
            kept = sum(is_kept for _, is_kept in cases)
            kept_all &= kept >= needed * len(cases)
            print(f"| {title} | {len(cases)} | {kept} | {needed:.0%} |", flush=True)
            broken += [f"not kept: {title}: {case}" for case, is_kept in cases if not is_kept]
        print("\ndrift between seeds of one recipe:", *(f"{drift:.3g}" for drift in seed_drifts(database)))
    print("\n".join(["", *broken]))
    sys.exit(0 if kept_all else 1)


if __name__ == "__main__":
    main()
