"""`filterdb randomness-threshold`: fit the entropy of random layers, as in the first paper's experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import filterdb as fdb
from filterdb.choices import INIT_NAMES, THRESHOLD_DRAWS, Init
from filterdb.commands.answer import Answer, print_answer
from filterdb.commands.group import commands
from filterdb.commands.layout import number
from filterdb.commands.numbers import WholeNumber
from filterdb.commands.one_of import OneOf
from filterdb.commands.options import debug_option, json_option, kernel_option, seed_option, threads_option
from filterdb.commands.table import print_table, say, wide_option
from filterdb.errors import UsageError
from filterdb.schema import KERNEL, kernel_name, parse_kernel

if TYPE_CHECKING:
    import xarray as xr

SYMBOLS = {"span": "L", "rate": "k", "centre": "x0", "offset": "b"}


@commands.command("randomness-threshold")
@wide_option
@click.option("--init", type=OneOf(INIT_NAMES), default="normal", show_default=True, help="How layers are drawn.")
@click.option("--sizes", metavar="N,N,…", help="Filters of a layer; by default powers of two.")
@click.option("--draws", type=WholeNumber(1), default=THRESHOLD_DRAWS, show_default=True, help="Layers of each size.")
@click.option(
    "--repeats",
    type=WholeNumber(1),
    default=5,
    show_default=True,
    help="Number of experiments, from which the scatter is computed.",
)
@seed_option
@json_option
@threads_option
@debug_option(expose_value=False)
@kernel_option
def randomness_threshold(
    init: Init,
    sizes: str | None,
    draws: int,
    repeats: int,
    seed: int,
    kernel: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Fit the entropy that marks a layer as random.

    The fit uses layers drawn at random. Needs no database.

    Examples:
        filterdb randomness-threshold --init kaiming --kernel 5x5
    """
    result = fdb.randomness_threshold(
        init,
        sizes=_sizes(sizes),
        draws=draws,
        repeats=repeats,
        seed=seed,
        kernel=parse_kernel(kernel or kernel_name(KERNEL)),
        threads=threads or 1,
    )
    print_answer(to_answer(result), as_json, show)


def _sizes(text: str | None) -> list[int] | None:
    """Parse sizes, written as "N,N,…"."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--sizes: expected numbers joined with commas, got {text!r}") from None


def to_answer(result: xr.Dataset) -> Answer:
    """Return the answer: the constants with their scatter, the paper's constants, and a row for each size."""
    import numpy as np

    constants = [str(name) for name in result["constant"].values]

    def named(variable: str) -> dict[str, Any]:
        return dict(zip(constants, result[variable].values.tolist(), strict=True))

    smallest = result["smallest"].values
    rows = zip(
        result["size"].values.tolist(),
        smallest.mean(axis=0).tolist(),
        result["threshold"].values.tolist(),
        result["paper_threshold"].values.tolist(),
        strict=True,
    )
    return {
        **dict.fromkeys(("snapshot", "selection", "filters", "layers", "models")),
        "init": result.attrs["init"],
        "draws": result.attrs["draws"],
        "repeats": result.sizes["repeat"],
        "seed": result.attrs["seed"],
        **({} if result.attrs["kernel"] == kernel_name(KERNEL) else {"kernel": result.attrs["kernel"]}),
        "constants": named("value"),
        "scatter": named("scatter"),
        "paper": named("paper"),
        "rms": float(np.sqrt(np.mean((smallest.mean(axis=0) - result["threshold"].values) ** 2))),
        "rows": [
            {"filters": size, "smallest_entropy": entropy, "threshold": fitted, "paper_threshold": paper}
            for size, entropy, fitted, paper in rows
        ],
    }


def show(answer: Answer) -> None:
    """Print the sizes, then the constants and the paper's."""
    names = ["filters", "smallest_entropy", "threshold", "paper_threshold"]
    print_table(
        ["filters", "smallest H", "fitted T_H", "P1's T_H"], ([row[name] for name in names] for row in answer["rows"])
    )
    constants = [
        [f"{symbol} ({name})", *(answer[key][name] for key in ("constants", "scatter", "paper"))]
        for name, symbol in SYMBOLS.items()
    ]
    print_table(["constant", "fitted", number("± over repetitions"), number("P1's")], constants)
    layers = f"layers of {answer['kernel'].replace('x', '×')} filters" if "kernel" in answer else "layers"
    say(f"{answer['init']}: {answer['repeats']} × {answer['draws']:,} {layers} of each size, seed {answer['seed']}")
