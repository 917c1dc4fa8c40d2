"""How often `lineage` finds the true parent: networks that are trained, fine-tuned, frozen and continued.

    python benchmarks/lineage.py train DIR [--parents 12] [--epochs 5]       # needs PyTorch, nothing of filterdb
    python benchmarks/lineage.py measure DIR                                 # needs filterdb, not PyTorch

`train` makes parents, two architectures in turn, each from a seed of its own, that tell oriented gratings apart, with
their initialisation and a checkpoint; and of each a frozen copy (new classifier), one fine-tuned on blobs with a small
and one with a large learning rate, and one fine-tuned from the latter. Batch normalisation is folded into the weights.
`measure` ingests them with labels and without, and compares every answer with the truth. Without labels, a true parent
that is named as a relative without direction counts as found.
"""

from __future__ import annotations

import argparse
import copy
import csv
from pathlib import Path
from typing import Any

import numpy as np

SIDE, CLASSES, IMAGES = 8, 6, 600
WIDTHS = {"plain": (16, 32, 32, 48), "deep": (16, 16, 32, 32, 32)}
COLUMNS = ("path", "name", "architecture", "training_dataset", "pretraining_dataset", "seed", "epoch", "parent")


def images(dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images (n, 1, 8, 8) of oriented gratings or of blobs at six places, and their classes."""
    rng = np.random.default_rng(len(dataset))
    label = rng.integers(0, CLASSES, IMAGES)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    if dataset == "gratings":
        angle, phase = np.pi * label / CLASSES, rng.uniform(0, 2 * np.pi, IMAGES)
        clean = np.cos(np.multiply.outer(np.cos(angle), x) + np.multiply.outer(np.sin(angle), y) + phase[:, None, None])
    else:
        place = 2 * np.pi * label / CLASSES
        offset = np.stack([2 * np.cos(place), 2 * np.sin(place)]) + rng.normal(0, 0.5, (2, IMAGES))
        square = (x - offset[0][:, None, None]) ** 2 + (y - offset[1][:, None, None]) ** 2
        clean = 2 * np.exp(-square / 3)
    noisy = clean + rng.normal(0, 0.7, clean.shape)
    return noisy[:, None].astype(np.float32), label


def network(widths: tuple[int, ...]) -> Any:
    """A network of convolutions with batch normalisation, freshly initialised."""
    from torch import nn

    layers: list[Any] = []
    for before, after in zip((1, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], CLASSES))


def fit(model: Any, dataset: str, epochs: int, rate: float, *, frozen: bool = False) -> float:
    """Train a network in place, only its classifier if frozen, and return the accuracy on the training set."""
    import torch

    x, y = map(torch.from_numpy, images(dataset))
    if frozen:
        for layer in list(model)[:-1]:
            layer.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=rate, momentum=0.9, weight_decay=5e-4)
    for _ in range(epochs):
        model.train(not frozen)  # batch normalisation of a frozen network must not move either
        for batch in torch.randperm(len(x)).split(50):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    model.eval()
    with torch.no_grad():
        return float((model(x).argmax(dim=1) == y).float().mean())


def folded(model: Any) -> list[np.ndarray]:
    """The weights of the convolutions with batch normalisation folded in, as exporters write them."""
    layers = list(model)
    weights = []
    for convolution, norm in zip(layers[:-3:3], layers[1:-3:3], strict=True):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        weights.append((convolution.weight * scale[:, None, None, None]).detach().numpy())
    return weights


def train(folder: Path, parents: int, epochs: int) -> None:
    """Train all networks and write their weights and the catalog with the truth."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[object, ...]] = []

    def keep(model: Any, name: str, *labels: object) -> None:
        np.savez(folder / f"{name}.npz", *folded(model))
        rows.append((f"{name}.onnx", name, *labels))

    accuracies = []
    for seed in range(parents):
        torch.manual_seed(seed)
        kind = list(WIDTHS)[seed % len(WIDTHS)]
        model, base = network(WIDTHS[kind]), f"p{seed}"
        labels = (kind, "gratings", "", seed)
        keep(model.eval(), f"{base}-init", *labels, 0, "")
        twin = copy.deepcopy(model)
        fit(model, "gratings", 1, 0.05)
        keep(model, f"{base}-early", *labels, 1, f"{base}-init")
        accuracies.append(fit(model, "gratings", epochs, 0.05))
        keep(model, base, *labels, epochs + 1, f"{base}-early")
        tuned = (kind, "blobs", "gratings", seed)
        for name, rate, frozen in (("frozen", 0.05, True), ("tuned", 0.005, False), ("tuned-hard", 0.05, False)):
            child = copy.deepcopy(model)
            accuracies.append(fit(child, "blobs", epochs, rate, frozen=frozen))
            keep(child, f"{base}-{name}", *tuned, "", base)
        fit(child, "gratings", 2, 0.01)
        keep(child, f"{base}-grandchild", kind, "gratings again", "blobs", seed, "", f"{base}-tuned-hard")
        fit(twin, "blobs", epochs, 0.05)
        keep(twin, f"{base}-twin", kind, "blobs", "", seed, epochs, f"{base}-init")
        with (folder / "truth.csv").open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        print(f"{base} {kind}: accuracies {', '.join(f'{value:.2f}' for value in accuracies[-4:])}", flush=True)


def measure(folder: Path) -> None:
    """Ingest the networks with labels, without, and without initialisations, and print how many parents are right."""
    import filterdb as fdb
    from tests.models import chain

    truth = list(csv.DictReader((folder / "truth.csv").open(newline="")))
    for row in truth:
        with np.load(folder / f"{row['name']}.npz") as weights:
            chain(folder / row["path"], *(weights[name] for name in weights.files))
    # Equal models are told apart by their order at best, so the order must not be that of the trainings.
    shuffled = [truth[i] for i in np.random.default_rng(0).permutation(len(truth))]
    trained = [row for row in shuffled if row["parent"]]
    for title, columns, rows in (
        ("with labels", COLUMNS[:-1], shuffled),
        ("without labels", ("path", "name"), shuffled),
        ("without labels and initialisations", ("path", "name"), trained),
    ):
        with (folder / "list.csv").open("w", newline="") as file:
            csv.writer(file).writerows([columns, *([row[name] for name in columns] for row in rows)])
        show(
            title, fdb.lineage(fdb.ingest(folder / title.replace(" ", "-"), catalog=folder / "list.csv").database), rows
        )


def show(title: str, result: Any, rows: list[dict[str, str]]) -> None:
    """Print, by kind of network, how many parents are right."""
    present = {row["name"] for row in rows}
    parent = {row["name"]: row["parent"] if row["parent"] in present else "" for row in rows}
    family = {row["name"]: row["seed"] for row in rows}
    counts: dict[str, np.ndarray] = {}
    strangers = 0
    for name, named, direction in zip(*(result[key].values for key in ("model", "parent", "direction")), strict=True):
        is_right = named == parent[name]
        tally = counts.setdefault(name.partition("-")[2] or "trained", np.zeros(6, int))
        tally += [
            1,
            is_right and bool(direction or not named),
            is_right and bool(named) and not direction,
            not is_right and bool(direction),
            not is_right and bool(named) and not direction,
            not is_right and not named,
        ]
        strangers += bool(named) and family[named] != family[name]
    print(f"\n{title}: {len(parent)} networks, {strangers} with a parent of another family")
    columns = ("networks", "right", "right, as a relative", "false", "another relative", "none")
    print(f"| kind | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for kind, numbers in [*counts.items(), ("all", sum(counts.values()))]:
        print(f"| {kind} | {' | '.join(map(str, np.asarray(numbers)))} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["train", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parents", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.step == "train":
        train(arguments.folder, arguments.parents, arguments.epochs)
    else:
        measure(arguments.folder)


if __name__ == "__main__":
    main()
