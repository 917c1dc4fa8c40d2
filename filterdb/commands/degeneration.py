"""`filterdb degeneration`: judge every layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

import filterdb as fdb
from filterdb.commands.answer import Answer, head_of_result, print_answer, rows, rows_along
from filterdb.commands.figure import Draw, figure_option
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number, word
from filterdb.commands.options import by_option, database, mode_option, selection
from filterdb.commands.table import counts_line, print_rows, print_table, say, wide_option
from filterdb.errors import UsageError
from filterdb.wording import counted

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.choices import ModeName
    from filterdb.store.database import Database


@commands.command()
@wide_option
@database
@selection
@mode_option
@by_option()
@click.option("--drift", "with_drift", is_flag=True, help="Correlate the groups' degeneration with their mean drift.")
@figure_option
def degeneration(db: Database, mode: ModeName, by: str | None, with_drift: bool, draw: Draw, as_json: bool) -> None:
    """Show the sparsity, entropy, test of randomness and verdict of every layer, or summaries by group.

    The figure shows every layer over its depth; with --by, box plots of the groups.

    Examples:
        filterdb degeneration db --where model=resnet50
        filterdb degeneration db --by task --drift
    """
    if with_drift and by is None:
        raise UsageError("--drift: expected with --by, got no groups; such as --by model")
    result = fdb.degeneration(db, by=by, mode=mode)
    correlation = fdb.degeneration_drift(db, by, mode=mode) if with_drift and by is not None else None
    print_answer(to_answer(result, correlation), as_json, show)
    draw(lambda: _plot(result, by))


def _plot(result: xr.Dataset, by: str | None) -> Any:
    """Draw what --figure shows, and return its Axes."""
    if by is None:
        return fdb.plot.depth(result)
    from filterdb.plotting.box_plot import both_measures

    return both_measures(result)


def to_answer(result: xr.Dataset, correlation: xr.Dataset | None = None) -> Answer:
    """Return the answer: a row for each layer, the summaries of each group, and their correlation with drift."""
    names = {"model": "layer_model", "layer": "layer_name", "filters": "filters", "group": "layer_group"}
    shown = [str(name) for name, array in result.variables.items() if array.dims == ("layer",)]
    table = rows(result, {**names, **{name: name for name in shown if name not in {"layer", *names.values()}}})
    rules = [str(rule) for rule in result["rule"].values]
    for row, verdict in zip(table, result["verdict"].values, strict=True):
        hits = [rule for rule, hit in zip(rules, verdict, strict=True) if hit]
        row["verdict"] = hits if row["scale_known"] else None
        row["direction"] = row["direction"] or None
    untrained = [str(name) for name in result["model"].values[result["untrained"].values]]
    return {
        **head_of_result(result),
        "mode": result.attrs["mode"],
        "by": result.attrs["by"],
        "rows": table,
        "groups": _groups(result),
        "correlation": None if correlation is None else rows_along(correlation, "measure"),
        "untrained": untrained,
    }


def _groups(result: xr.Dataset) -> list[Answer]:
    """Return a row for each group, with its boxes and the share of layers with each verdict."""
    from filterdb.analysis.degeneration_groups import BOXES

    groups = rows_along(result, "group")
    rules, statistics = result["rule"].values.tolist(), result["statistic"].values.tolist()
    for i, row in enumerate(groups):
        for box in BOXES:
            row[box] = dict(zip(statistics, result[box].values[i].tolist(), strict=True))
        row["verdict_share"] = dict(zip(rules, result["verdict_share"].values[i].tolist(), strict=True))
    return groups


def show(answer: Answer) -> None:
    """Print a row for each layer or each group, then the untrained models."""
    from filterdb.analysis.grouping import WHOLE

    if answer["by"] == WHOLE:
        _show_layers(answer)
    else:
        _show_groups(answer)
    if answer["correlation"]:
        names = ("measure", "pearson", "spearman", "p_value")
        print_table(
            names, ([row[name] for name in names] for row in answer["correlation"]), "correlation with mean drift"
        )
    for model in answer["untrained"]:
        say(f"untrained: {model}")
    with_verdict = sum(bool(row["verdict"]) for row in answer["rows"])
    judged = f"{with_verdict:,} of {counted(len(answer['rows']), 'layer')} with a verdict"
    say(f"{judged}, mode {answer['mode']} · {counts_line(answer)}")


def _show_groups(answer: Answer) -> None:
    """Print entropy and sparsity of each group."""
    quartiles = ("q1", "median", "q3")
    hide = {"mean": 0, "q1": 3, "median": 2, "q3": 3}
    columns = [number(f"{measure} {statistic}", rank) for measure in "HS" for statistic, rank in hide.items()]
    print_table(
        [name(answer["by"]), number("layers", 1), *columns, number("S < 0.01", 4), number("sparse", 1)],
        (
            [
                row["group"],
                row["layer_count"],
                row["mean_entropy"],
                *(row["entropy_box"][quartile] for quartile in quartiles),
                row["mean_sparsity"],
                *(row["sparsity_box"][quartile] for quartile in quartiles),
                row["share_dense"],
                row["share_sparse"],
            ]
            for row in answer["groups"]
        ),
        "entropy H and sparsity S of layers",
    )


def _show_layers(answer: Answer) -> None:
    """Print a row for each layer, then their means and shares, as P1 has them."""
    print_rows(
        answer,
        [
            "model",
            "layer",
            number("filters", 2),
            number("sparsity", 1),
            number("variance_entropy", 1),
            number("threshold", 5),
            number("ratio", 3),
            number("p_value", 4),
            number("orthogonality", 6),
            word("verdict"),
            word("direction", 2),
        ],
    )
    for whole in answer["groups"]:  # none without layers
        say(
            f"mean H {_text(whole['mean_entropy'], '.2f')}, mean S {_text(whole['mean_sparsity'], '.2f')}; "
            f"S below 0.01 in {_text(whole['share_dense'], '.1%')} of the layers, "
            f"sparse {_text(whole['share_sparse'], '.1%')}"
        )


def _text(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)
