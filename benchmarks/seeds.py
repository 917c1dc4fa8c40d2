"""How often two seeds of one recipe are called different, by numbers of filters and by swapping layers.

    python benchmarks/seeds.py train DIR [--seeds 8]       # needs PyTorch and scikit-learn, nothing of filterdb
    python benchmarks/seeds.py measure DIR                 # needs filterdb, not PyTorch

`train` trains residual networks of eight 3×3 layers on the 8×8 digits of scikit-learn, with two recipes: "plain", and
"formed", whose strong weight decay makes the initialisation forgotten. Batch normalisation is folded into the weights.
`measure` compares all pairs of models as `filterdb drift --by model` does. 8 seeds take 4 minutes on two cores.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np

FIRST_SEED, TRAINED_ON, BATCH, RATE, CLASSES = 10, 1_200, 100, 0.1, 10
RECIPES = {"plain": (5e-4, 12), "formed": (3e-2, 24)}
"""Weight decay and epochs."""
PAIRS = (("init", "init"), ("plain", "plain"), ("formed", "formed"), ("plain", "formed"), ("init", "plain"))


def network(width: int = 16) -> Any:
    """A residual network of eight 3×3 convolutions, freshly initialised."""
    from torch import nn

    def block(before: int, after: int) -> Any:
        return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(block(1, width), block(width, 2 * width), nn.MaxPool2d(2))
            self.residual1 = nn.Sequential(block(2 * width, 2 * width), block(2 * width, 2 * width))
            self.second = nn.Sequential(block(2 * width, 4 * width), nn.MaxPool2d(2), block(4 * width, 4 * width))
            self.residual2 = nn.Sequential(block(4 * width, 4 * width), block(4 * width, 4 * width))
            self.classifier = nn.Linear(4 * width, CLASSES)

        def forward(self, x: Any) -> Any:
            x = self.first(x)
            x = self.second(x + self.residual1(x))
            return self.classifier((x + self.residual2(x)).amax((2, 3)))

    return Residual()


def folded(model: Any) -> list[np.ndarray]:
    """The weights of the convolutions with batch normalisation folded in, as exporters write them."""
    from torch import nn

    modules = list(model.modules())
    weights = []
    for convolution, norm in itertools.pairwise(modules):
        if isinstance(convolution, nn.Conv2d):
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            weights.append((convolution.weight * scale[:, None, None, None]).detach().numpy())
    return weights


def fit(model: Any, weight_decay: float, epochs: int) -> float:
    """Train a network in place and return its accuracy on the other images."""
    import torch
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.from_numpy((digits.data.reshape(-1, 1, 8, 8) / 16).astype(np.float32))
    y = torch.from_numpy(digits.target.astype(np.int64))
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * TRAINED_ON // BATCH)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(TRAINED_ON).split(BATCH):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        return float((model(x[TRAINED_ON:]).argmax(dim=1) == y[TRAINED_ON:]).float().mean())


def train(folder: Path, seeds: int) -> None:
    """Train all networks and write their weights."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for recipe, (weight_decay, epochs) in RECIPES.items():
            torch.manual_seed(seed)
            model = network()
            np.savez(folder / f"{seed}-init.npz", *folded(model.eval()))
            accuracy = fit(model, weight_decay, epochs)
            np.savez(folder / f"{seed}-{recipe}.npz", *folded(model))
            print(f"seed {seed}, {recipe}: accuracy {accuracy:.3f}", flush=True)


def measure(folder: Path) -> None:
    """Ingest the networks and print how often pairs of them are called different."""
    import filterdb as fdb
    from tests.models import chain

    names = sorted(path.stem for path in folder.glob("*.npz"))
    for name in names:
        with np.load(folder / f"{name}.npz") as weights:
            chain(folder / f"{name}.onnx", *(weights[key] for key in weights.files))
    with (folder / "catalog.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "name"), *((f"{name}.onnx", name) for name in names)])
    result = fdb.drift(fdb.ingest(folder / "db", catalog=folder / "catalog.csv").database, "model")
    print("| groups | pairs | D > floor_q95 | different by layers |\n|---|---|---|---|")
    for kind, other in PAIRS:
        pairs = [
            result.sel(group=a, other=b)
            for a, b in itertools.product(names, repeat=2)
            if (a.split("-")[1], b.split("-")[1]) == (kind, other)
            and (a < b if kind == other else a.split("-")[0] != b.split("-")[0])
        ]
        by_filters = np.mean([float(pair["drift"]) > float(pair["floor_q95"]) for pair in pairs])
        by_layers = np.mean([pair["verdict"].item() == "different_by_filters" for pair in pairs])
        print(f"| {kind} and {other} | {len(pairs)} | {by_filters:.0%} | {by_layers:.0%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["train", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.step == "train":
        train(arguments.folder, arguments.seeds)
    else:
        measure(arguments.folder)


if __name__ == "__main__":
    main()
