"""Answers as tables for a terminal. What a model's file says is printed without its control characters."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from filterdb.commands.answer import Answer

MATRIX_LIMIT = 12
PAIRS_SHOWN = 20
WIDE = 240

ON_EDGE_SHOWN = 0.01
"""A share of filters on the edge of a bin that a table mentions."""


def printable(text: object) -> str:
    """Text without control characters: names come from files of strangers."""
    return "".join(c if c.isprintable() else "�" for c in str(text))


def _console() -> Console:
    # A pipe gets whole rows, a terminal what fits.
    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, emoji=False)


def _say(text: str) -> None:
    _console().print(Text(printable(text)))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    listed = [[_cell(value) for value in row] for row in rows]
    for i, column in enumerate(columns):
        numeric = all(kind for row in listed for kind in [row[i][1]]) and bool(listed)
        table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        table.add_row(*(Text(text) for text, _ in row))
    _console().print(table)


def _cell(value: Any) -> tuple[str, bool]:
    """A value as text, and whether it is a number."""
    if isinstance(value, Text):
        return value.plain, True
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–", True
    if isinstance(value, bool | np.bool_):
        return ("yes" if value else "no"), False
    if isinstance(value, int | np.integer):
        return f"{value:,}", True
    if isinstance(value, float | np.floating):
        return f"{value:.4g}", True
    if isinstance(value, list):
        return ", ".join(printable(item) for item in value) or "–", False
    return printable(value), False


def _columns(answer: Answer, names: Sequence[str], title: str | None = None) -> None:
    _table(names, ([row[name] for name in names] for row in answer["rows"]), title)


def counts(answer: Answer) -> str:
    """The line under a table."""
    where = "" if answer["selection"] == "all" else f" where {answer['selection']}"
    numbers = ", ".join(f"{answer[name]:,} {name}" for name in ("filters", "layers", "models"))
    return f"{numbers}{where} · snapshot {answer['snapshot']}"


def basis_warning(answer: Answer) -> None:
    """Say that the basis is stale, where it is."""
    if answer.get("basis_warning"):
        _console().print(Text(f"warning: {answer['basis_warning']}", "yellow"))


def info(answer: Answer) -> None:
    """`filterdb info`."""
    _say(f"{answer['url']}: {counts(answer)}")
    _table(
        ["segment", "filters", "layers", "models", "chunk rows"],
        [
            [s["id"], s["filters"], s["layers"], s["models"], size]
            for s, size in zip(answer["segments"], answer["chunk_rows"], strict=True)
        ],
    )
    if answer["damaged"]:
        _say(
            f"not stored: unknown, tables are damaged in {len(answer['damaged'])} of {len(answer['segments'])} segments"
        )
    else:
        why = ", ".join(f"{count} {code}" for code, count in answer["skipped_by_code"].items())
        skipped = f"{answer['skipped_layers']} convolutions ({why or 'none'})"
        _say(f"not stored: {skipped}; `filterdb layers` gives each reason")
        if answer["unread_layers"]:
            _say(f"incomplete: {answer['unread_layers']:,} of these should have been read and could not be")
    _say(f"basis: {answer['basis'] or 'none yet; the first reduce fits one'}")


def models(answer: Answer) -> None:
    """`filterdb models`."""
    _columns(
        answer,
        ["model", "task", "visual_category", "training_dataset", "filters", "layers", "opset", "producer"],
    )
    _say(counts(answer))


def layers(answer: Answer) -> None:
    """`filterdb layers`."""
    names = [
        "model",
        "layer",
        "filters",
        "conv_depth",
        "conv_depth_norm",
        "in_channels",
        "out_channels",
        "groups",
    ]
    _columns(answer, [*names, "weight_source"])
    if answer["skipped"]:
        columns = ["model", "layer", "code", "unread", "reason"]
        title = "not stored; unread: it should have been read"
        _table(columns, ([row[name] for name in columns] for row in answer["skipped"]), title)
    _say(counts(answer))


def pca(answer: Answer) -> None:
    """`filterdb pca`."""
    _table(
        ["group", "filters", *(f"ratio {i}" for i in range(9))],
        ([g["group"], g["count"], *g["explained_variance_ratio"]] for g in answer["groups"]),
        "explained-variance ratios" + ("" if answer["scaled"] else " (raw filters)"),
    )
    _say(counts(answer))


def drift(answer: Answer) -> None:
    """`filterdb drift`."""
    _drift(answer, "all layers" if answer["within"] else None)
    for stratum in answer.get("strata", ()):
        _drift(stratum, f"{answer['within']} = {stratum['stratum']}")
    if any(one.get("verdict") for one in (answer, *answer.get("strata", ()))):
        _say(
            "≈ within noise · ? under 1,000 filters: no verdict · ° too few models to judge by, numbers of filters only"
        )
    on_edge = np.asarray(answer["on_edge"]).sum(axis=0).max(initial=0) / max(answer["filters"], 1)
    if on_edge >= ON_EDGE_SHOWN:
        _say(f"{on_edge:.1%} of the filters lie on a bin edge and count in the bin above (docs/explanation/method.md)")
    _say(f"{answer['metric']} drift by {answer['by']}, mode {answer['mode']} · {counts(answer)}")
    basis_warning(answer)


def drift_written(answer: Answer) -> None:
    """`filterdb drift -o`."""
    number = len(answer["groups"])
    _say(f"{answer['output']}: {answer['metric']} drift of {number:,} × {number:,} groups by {answer['by']}")
    _say(f"mode {answer['mode']} · {counts(answer)}; xarray.open_zarr opens it, lazily")
    basis_warning(answer)


def _drift(answer: Answer, title: str | None) -> None:
    groups, matrix = answer["groups"], np.asarray(answer["drift"])
    if len(groups) == 1:
        _say(f"{title + ': ' if title else ''}only one group, {groups[0]!r}: nothing to compare")
        return
    if len(groups) <= MATRIX_LIMIT:
        flags = [" (few)" if few else "" for few in answer["few"]]
        rows = [
            [
                f"{i + 1} {group}{flags[i]}",
                int(answer["counts"][i]),
                *(_marked(answer, i, j) for j in range(len(groups))),
            ]
            for i, group in enumerate(groups)
        ]
        _table(["group", "filters", *(str(i + 1) for i in range(len(groups)))], rows, title)
        return
    upper = np.triu_indices(len(groups), 1)
    top = np.argsort(-matrix[upper], kind="stable")[:PAIRS_SHOWN]
    pairs = [(upper[0][i], upper[1][i]) for i in top]
    shown = f"the {len(pairs)} largest of {len(upper[0])} pairs; --json has all"
    _table(
        ["group", "other", "drift"],
        ([groups[a], groups[b], _marked(answer, a, b)] for a, b in pairs),
        f"{title}: {shown}" if title else shown,
    )


def _marked(answer: Answer, i: int, j: int) -> Any:
    """A drift, behind it what its verdict says."""
    value = float(answer["drift"][i][j])
    if not answer.get("verdict"):
        return value
    mark = {"indistinguishable": "≈", "few": "?"}.get(answer["verdict"][i][j], "")
    how = "°" if answer["judged_by"][i][j] in {"sampling", "few models"} and mark != "?" else ""
    return Text(f"{value:.4g}{mark}{how}")


def degeneration(answer: Answer) -> None:
    """`filterdb degeneration`."""
    _columns(
        answer,
        [
            "model",
            "layer",
            "filters",
            "sparsity",
            "variance_entropy",
            "threshold",
            "ratio",
            "orthogonality",
            "verdict",
        ],
    )
    for model in answer["untrained"]:
        _say(f"untrained: {model}")
    bad = sum(bool(row["verdict"]) for row in answer["rows"])
    _say(f"{bad} of {len(answer['rows'])} layers with a verdict, mode {answer['mode']} · {counts(answer)}")


def ingested(answer: Answer) -> None:
    """`filterdb ingest`."""
    new, there, bad, twice = (len(answer[name]) for name in ("added", "present", "rejected", "duplicates"))
    added = "nothing new" if answer["segment"] is None else f"segment {answer['segment']}"
    _say(f"models: {new} added ({added}), {there} were there, {bad} rejected · now {counts(answer)}")
    if twice:
        first = answer["duplicates"][0]
        _say(f"{twice} of them have another model's content, such as {first}; `--where duplicate_of=` leaves them out")


def reduced(answer: Answer) -> None:
    """`filterdb reduce`, `filterdb refit`."""
    _say(f"summaries are complete · basis {answer['basis'] or 'fitted on the whole snapshot'} · {counts(answer)}")


def reported(answer: Answer) -> None:
    """`filterdb report`."""
    _say(f"page: {answer['page']}")


def demo(answer: Answer) -> None:
    """`filterdb demo`."""
    _say(f"database: {answer['database']} · {counts(answer)}")
    _say(f"page: {answer['page']}")


def changed(answer: Answer) -> None:
    """`filterdb relabel`, `remove`, `tag`, `compact`, `restore`."""
    what = answer["action"] if answer["changed"] else "nothing to change"
    _say(f"{what} · now {counts(answer)}, {len(answer['segments'])} segments")


def collected(answer: Answer) -> None:
    """`filterdb gc`."""
    if not answer["rows"]:
        _say("nothing to collect")
        return
    names = ["kind", "name", "objects", "bytes"]
    _columns(answer, names, "removed" if answer["deleted"] else "to be removed by --delete")


def verified(answer: Answer) -> None:
    """`filterdb verify`."""
    if answer["ok"]:
        _say(f"intact: chunks {answer['chunks']}, {counts(answer)}")
        return
    names = ["segment", "variable", "chunk", "what"]
    _table(names, ([problem[name] for name in names] for problem in answer["problems"]), "damage")


def history(answer: Answer) -> None:
    """`filterdb snapshots`."""
    _table(
        ["snapshot", "tags", "created", "action", "segments", "filters", "layers", "models", "basis"],
        (
            [
                str(r["snapshot"]),
                r["tags"],
                r["created"],
                "damaged" if r["damage"] else r["action"],
                None if r["damage"] else len(r["segments"]),
                r["filters"],
                r["layers"],
                r["models"],
                r["basis"],
            ]
            for r in answer["rows"]
        ),
    )
