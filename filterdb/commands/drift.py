"""`filterdb drift`: compare all pairs of groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

import filterdb as fdb
from filterdb.choices import DRAWS, ENOUGH_PERMUTATIONS, METRIC_NAMES, MOST_DRAWS
from filterdb.commands.answer import Answer, basis_of_result, head_of_result, noise_of_matrix, print_answer
from filterdb.commands.figure import Draw, figure_option
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number
from filterdb.commands.numbers import WholeNumber
from filterdb.commands.one_of import OneOf
from filterdb.commands.options import by_option, database, gathered, mode_option, raw_option, selection, unit_option
from filterdb.commands.table import counts_line, print_basis_warning, print_table, say, say_units, wide_option
from filterdb.errors import UsageError
from filterdb.verdicts import WORDS, legend, mark
from filterdb.wording import counted

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from filterdb.choices import MetricName, ModeName
    from filterdb.store.database import Database

MATRIX_LIMIT = 12
"""Largest number of groups that are shown as a matrix; more are shown as a list of pairs."""

PAIRS_SHOWN = 20

ON_EDGE_SHOWN = 0.01
"""Smallest share of filters on an edge of a bin that is reported."""


@dataclass(frozen=True)
class _Comparison:
    """Hold the options that define the drift of two groups."""

    by: str
    mode: ModeName
    metric: MetricName
    raw: bool
    range_of: str
    noise: bool | None
    draws: int | None
    unit: str | None
    equal_models: bool

    def __post_init__(self) -> None:
        """Raise UsageError for options that exclude each other."""
        if self.draws is not None and self.noise is False:
            raise UsageError("--draws cannot be combined with --no-noise; leave one of them out")
        if self.range_of == "compared" and self.mode != "paper":
            raise UsageError("--range compared: expected with --mode paper, got sound, whose bins the basis fixes")

    @property
    def _options(self) -> dict[str, Any]:
        """Return the options as `drift` takes them."""
        from filterdb.numerics.modes import MODES, PAPER_OF_COMPARED

        return {
            "mode": PAPER_OF_COMPARED if self.range_of == "compared" else MODES[self.mode],
            "metric": self.metric,
            "scaled": not self.raw,
            "noise": self.noise if self.draws is None else self.draws,
            "unit": self.unit,
            "equal_models": self.equal_models,
        }

    def drift(self, db: Database, *, within: str | None = None, out: str | None = None) -> xr.Dataset:
        """Compute the drift between all pairs of groups."""
        return fdb.drift(db, self.by, within=within, out=out, **self._options)

    def strata(self, db: Database, within: str) -> dict[str, xr.Dataset]:
        """Compute the drift within each group of `within`."""
        from filterdb.analysis.drift import drift_strata

        return drift_strata(db, self.by, within, **self._options)


@commands.command()
@wide_option
@database
@selection
@mode_option
@by_option(required=True)
@click.option(
    "--metric", type=OneOf(METRIC_NAMES), default="kl", show_default=True, help="How two distributions are compared."
)
@raw_option
@click.option(
    "--range",
    "range_of",
    type=OneOf(["all", "compared"]),
    default="all",
    show_default=True,
    help="With --mode paper: bins over the coefficients of the whole database, or of the compared groups.",
)
@click.option("--within", metavar="KEY", help="One matrix for each of these groups.")
@click.option("-o", "--output", metavar="OUT", help="Write the matrix to this Zarr group, for 10,000 groups or more.")
@click.option(
    "--noise/--no-noise",
    default=None,
    help="Always or never compute floors, verdicts and intervals. Default: only if that takes seconds.",
)
@click.option(
    "--draws",
    type=WholeNumber(ENOUGH_PERMUTATIONS, MOST_DRAWS),
    metavar="N",
    help=f"Number of permutations per pair and of draws of models. Default: {DRAWS:,}.",
)
@unit_option
@click.option("--equal-models", is_flag=True, help="Each model of a group weighs the same, not each filter.")
@click.option(
    "--draw",
    "shows",
    type=OneOf(["matrix", "components", "ridges", "families"]),
    default="matrix",
    show_default=True,
    help="What --figure shows; with --within it is a box plot for each of those groups.",
)
@figure_option
@gathered("comparison", _Comparison)
def drift(
    db: Database,
    comparison: _Comparison,
    within: str | None,
    output: str | None,
    shows: str,
    draw: Draw,
    as_json: bool,
) -> None:
    """Compare all pairs of groups, with noise floors.

    Figures: the matrix, box plots of each component's drift, ridges of the coefficients, or the matrix of models with
    those of one family side by side.

    Examples:
        filterdb drift db --by task
        filterdb drift db --by task --within depth_decile --metric js
        filterdb drift db --by model --where 'task=face detection'
    """
    if shows == "families" and comparison.by != "model":
        raise UsageError(f"--draw families: expected with --by model, got --by {comparison.by}")
    if output is not None:
        written = comparison.drift(db, within=within, out=output)
        print_answer(to_answer_of_file(written, output), as_json, show_file)
        return
    strata = comparison.strata(db, within) if within else None
    result = comparison.drift(db)
    print_answer(to_answer(result, strata, within), as_json, show)
    if strata is not None:
        draw(lambda: _boxes_of_strata(result, strata, str(within)))
    else:
        draw(lambda: _figure(shows, db, result))


def _figure(shows: str, db: Database, result: xr.Dataset) -> Axes:
    """Draw what --draw names."""
    if shows == "families":
        from filterdb.page.results import family_of_models

        return fdb.plot.drift(result, family=family_of_models(db, result))
    if shows == "components" and "per_component" not in result:
        from filterdb.analysis.drift import PER_COMPONENT_LIMIT

        raise UsageError(
            f"--draw components: expected a sum over components and at most {PER_COMPONENT_LIMIT:,} groups, "
            f"got {result.attrs['metric']} and {result.sizes['group']:,}"
        )
    if shows == "ridges":
        return fdb.plot.ridges(result)
    return fdb.plot.drift(result) if shows == "matrix" else fdb.plot.boxes(result)


def _boxes_of_strata(whole: xr.Dataset, strata: dict[str, xr.Dataset], within: str) -> Axes:
    """Draw a box plot of D between groups for each stratum."""
    from filterdb.analysis.strata import align

    aligned = align({label: stratum[["drift"]] for label, stratum in strata.items()}, whole["group"].values)
    return fdb.plot.boxes(aligned.assign_attrs(by=whole.attrs["by"], within=within))


def to_answer(result: xr.Dataset, strata: dict[str, xr.Dataset] | None = None, within: str | None = None) -> Answer:
    """Return the answer, with a matrix for each stratum if there are any."""
    answer = {**head_of_result(result), **_matrix(result), "within": within, "verdict_words": legend()}
    if strata is not None:
        answer["strata"] = [
            {"stratum": label, **head_of_result(stratum), **_matrix(stratum)} for label, stratum in strata.items()
        ]
    return answer


def to_answer_of_file(result: xr.Dataset, place: str) -> Answer:
    """Return the answer about a matrix that was written to `place`, without the matrix itself."""
    return {
        **head_of_result(result),
        **_matrix(result, matrix=False),
        "within": None,
        "verdict_words": legend(),
        "output": place,
    }


def _matrix(result: xr.Dataset, *, matrix: bool = True) -> Answer:
    """Return everything about the groups of a result; the drift only with `matrix`."""
    from filterdb.numerics.modes import MODES

    attrs = result.attrs
    return {
        "by": attrs["by"],
        "mode": attrs["mode"],
        "metric": attrs["metric"],
        "bins": result.sizes["bin"],
        "range": attrs["range"],
        "weights": result["weights"].values,
        "groups": [str(label) for label in result["group"].values],
        "counts": result["count"].values,
        "few": result["few"].values,
        "group_models": result["models"].values,
        "units_by": attrs.get("units_by"),
        "row_mean": result["row_mean"].values if matrix else None,
        **{name: _box(result[name]) if name in result else None for name in ("drift_box", "component_box")},
        "drift": result["drift"].values if matrix else None,
        "scaled": bool(attrs["scaled"]),
        "equal_models": bool(attrs["equal_models"]),
        "per_component": result["per_component"].values if "per_component" in result else None,
        "per_component_metric": attrs.get("per_component_metric"),
        "outside": result["outside"].values,
        "on_edge": result["on_edge"].values,
        **basis_of_result(result),
        "sign_rule": attrs["sign_rule"],
        **(noise_of_matrix(result) if MODES[attrs["mode"]].has_noise else {}),
    }


def _box(box: xr.DataArray) -> Answer | list[Answer]:
    """Return a box, or the box of each component, with names for its numbers."""
    if box.ndim == 1:
        return dict(zip(box["statistic"].values.tolist(), box.values.tolist(), strict=True))
    return [dict(zip(box["statistic"].values.tolist(), row, strict=True)) for row in box.values.tolist()]


def show(answer: Answer) -> None:
    """Print the matrix, and one for each stratum."""
    import numpy as np

    _show_matrix(answer, "all layers" if answer["within"] else None)
    for stratum in answer.get("strata", ()):
        _show_matrix(stratum, f"{answer['within']} = {stratum['stratum']}")
    if any(matrix.get("verdict") for matrix in (answer, *answer.get("strata", ()))):
        say(f"{WORDS} (under 1,000 filters) · ° too few models: judged by the number of filters only")
        say_units(answer)
    if answer["component_box"] and len(answer["groups"]) > 1:
        means = " ".join(f"c{i} {box['mean']:.3g}" for i, box in enumerate(answer["component_box"]))
        say(f"mean over pairs: D {answer['drift_box']['mean']:.3g}; by component, unweighted: {means}")
    on_edge = np.asarray(answer["on_edge"]).sum(axis=0).max(initial=0) / max(answer["filters"], 1)
    if on_edge >= ON_EDGE_SHOWN:
        say(f"{on_edge:.1%} of the filters lie on a bin edge and count in the bin above (docs/explanation/method.md)")
    say(f"{answer['metric']} drift by {answer['by']}, mode {answer['mode']} · {counts_line(answer)}")
    print_basis_warning(answer)


def show_file(answer: Answer) -> None:
    """Print what was written and where."""
    size = len(answer["groups"])
    say(f"{answer['output']}: {answer['metric']} drift of {size:,} × {counted(size, 'group')} by {answer['by']}")
    say(f"mode {answer['mode']} · {counts_line(answer)}; xarray.open_zarr opens it, lazily")
    print_basis_warning(answer)


def _show_matrix(answer: Answer, title: str | None) -> None:
    """Print the matrix of few groups, or the pairs of many groups with the largest drift."""
    import numpy as np

    groups, matrix = answer["groups"], np.asarray(answer["drift"])
    if len(groups) == 1:
        say(f"{title + ': ' if title else ''}only one group, {groups[0]!r}: nothing to compare")
        return
    if len(groups) <= MATRIX_LIMIT:
        flags = [" (few)" if few else "" for few in answer["few"]]

        def units(i: int) -> list[int]:
            return [int(answer["units"][i])] if "units" in answer else []

        rows = [
            [
                f"{i + 1} {group}{flags[i]}",
                int(answer["group_models"][i]),
                int(answer["counts"][i]),
                *units(i),
                float(answer["row_mean"][i]),
                *(_marked(answer, i, j) for j in range(len(groups))),
            ]
            for i, group in enumerate(groups)
        ]
        names = [name("group"), number("models", 2), number("filters", 1)]
        names += [number("units", 3)] if "units" in answer else []
        matrix_columns = [number(str(i + 1)) for i in range(len(groups))]
        print_table([*names, number("mean", 4), *matrix_columns], rows, title)
        return
    from filterdb.numerics import divergence

    pairs = divergence.largest_pairs(matrix, PAIRS_SHOWN)
    shown = f"the {len(pairs)} largest of {len(groups) * (len(groups) - 1) // 2:,} pairs; --json has all"
    print_table(
        ["group", "other", number("drift")],
        ([groups[a], groups[b], _marked(answer, a, b)] for a, b in pairs),
        f"{title}: {shown}" if title else shown,
    )


def _marked(answer: Answer, i: int, j: int) -> Any:
    """Return a drift, followed by the mark of its verdict."""

    value = float(answer["drift"][i][j])
    if not answer.get("verdict") or i == j:
        return value
    return f"{value:.4g}{mark(answer['verdict'][i][j], answer['judged_by'][i][j])}"
