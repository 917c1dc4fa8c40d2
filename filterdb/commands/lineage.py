"""`filterdb lineage`: show parents and relatives of models, as a table, JSON or a graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import filterdb as fdb
from filterdb.commands.answer import Answer, head_of_result, print_answer, rows_along
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number, word
from filterdb.commands.options import database, selection, training_option
from filterdb.commands.table import counts_line, print_table, say, wide_option
from filterdb.errors import UsageError
from filterdb.redaction import printable
from filterdb.wording import counted

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.store.database import Database


@commands.command()
@wide_option
@database
@selection
@training_option
@click.option("--dot", metavar="FILE", help="Write the tree to this file for Graphviz.")
def lineage(db: Database, training: str | None, dot: str | None, as_json: bool) -> None:
    """Show the likeliest parent of each model.

    Models are compared by their weights, layer by layer. The catalog's columns `epoch`, `pretraining_dataset` and
    `training_dataset` help to decide which of two relatives came first.

    Examples:
        filterdb lineage db --dot family.dot
    """
    answer = to_answer(fdb.lineage(db, training=training))
    if dot is not None:
        try:
            Path(dot).write_text(to_dot(answer), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--dot {dot}: cannot write the file: {error.strerror}") from error
    print_answer(answer, as_json, show)


def to_answer(result: xr.Dataset) -> Answer:
    """Return the answer: a row for each model, families of relatives, and their trees as roots and edges."""
    texts = ("parent", "direction", "evidence")
    rows = [
        {"model": row["model"], **row, **{key: row[key] or None for key in texts}}
        for row in rows_along(result, "model")
    ]
    families: dict[int, list[str]] = {}
    for row in rows:
        if row["family"]:
            families.setdefault(row["family"], []).append(row["model"])
    edges = [
        {"parent": row["parent"], "child": row["model"], "direction": row["direction"], "similarity": row["similarity"]}
        for row in rows
        if row["parent"]
    ]
    roots = [row["model"] for row in rows if row["family"] and not row["parent"]]
    tree = {"roots": roots, "edges": edges}
    return {**head_of_result(result), "rows": rows, "families": list(families.values()), "tree": tree}


def to_dot(answer: Answer) -> str:
    """Return the families as a graph in the DOT language. A dashed line without an arrow joins relatives."""
    lines = ["digraph lineage {", "  rankdir=LR;", "  node [shape=box];"]
    lines += [f"  {_quoted(model)};" for family in answer["families"] for model in family]
    for edge in answer["tree"]["edges"]:
        label = "" if edge["similarity"] is None else f'label="{edge["similarity"]:.2f}"'
        style = "" if edge["direction"] else "dir=none, style=dashed"
        attributes = ", ".join(filter(None, (label, style)))
        lines.append(f"  {_quoted(edge['parent'])} -> {_quoted(edge['child'])} [{attributes}];")
    return "\n".join([*lines, "}", ""])


def _quoted(model: str) -> str:
    """Return a name as a quoted identifier of DOT, with control characters replaced."""
    return '"' + printable(model).replace("\\", "\\\\").replace('"', '\\"') + '"'


def show(answer: Answer) -> None:
    """Print the trees, each model after its parent."""
    columns = [
        name("model"),
        name("parent"),
        name("known by", 2),
        number("similarity"),
        number("distance", 3),
        word("equal layers", 1),
    ]
    rows = [row for row in in_tree_order(answer["rows"]) if row["family"]]
    if rows:
        print_table(columns, map(_cells, rows))
    alone = len(answer["rows"]) - len(rows)
    families = counted(len(answer["families"]), "family", "families")
    say(f"{families}; {counted(alone, 'model')} without relatives")
    if any(row["parent"] and not row["direction"] for row in rows):
        say("= related: which of the two came first, or whether they are siblings, is not known")
    if any(row["same_filters"] for row in answer["rows"]):
        say("≡ the same filters as its parent, apart from the scale and sign of each output channel")
    say("copies with permuted or pruned channels are not recognised")
    say(counts_line(answer))


def in_tree_order(rows: list[Answer]) -> list[Answer]:
    """Return the rows by family, each model directly after its parent or a sibling's descendants."""
    children: dict[str | None, list[Answer]] = {}
    for row in rows:
        children.setdefault(row["parent"], []).append(row)
    ordered: list[Answer] = []
    todo = sorted(children.get(None, []), key=lambda row: -row["family"])
    while todo:
        row = todo.pop()
        ordered.append(row)
        todo.extend(reversed(children.get(row["model"], [])))
    return ordered


def _cells(row: Answer) -> list[object]:
    """Return the cells of a model."""
    parent = row["parent"] if row["direction"] or not row["parent"] else f"= {row['parent']}"
    equal = f"{row['equal_layers']} of {row['compared_layers']}" if row["parent"] else ""
    if row["same_filters"]:
        equal = f"≡ {equal}"
    return [row["model"], parent or "", row["evidence"] or "", row["similarity"], row["distance"], equal]
