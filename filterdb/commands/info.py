"""`filterdb info`: show what a database contains."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from filterdb import schema
from filterdb.commands.answer import Answer, head_of_database, print_answer
from filterdb.commands.group import commands
from filterdb.commands.layout import number, word
from filterdb.commands.options import database
from filterdb.commands.table import counts_line, print_table, say, warn, wide_option
from filterdb.wording import counted

if TYPE_CHECKING:
    from filterdb.store.database import Database


@commands.command()
@wide_option
@database
def info(db: Database, as_json: bool) -> None:
    """Show counts, segments and snapshot of a database.

    Examples:
        filterdb info s3://bucket/db
    """
    answer = to_answer(db)
    warn(damage["what"] for damage in answer["damaged"])
    print_answer(answer, as_json, show)


def to_answer(db: Database) -> Answer:
    """Return the answer: counts, segments, tags and damage."""
    import numpy as np

    from filterdb.analysis.coverage import coverage

    segments = [{"id": e.id, "filters": e.filters, "layers": e.layers, "models": e.models} for e in db.state.segments]
    damaged = db.damaged_tables()
    # With damaged tables these are unknown (null), not 0.
    skipped: Answer = dict.fromkeys(
        ("skipped_layers", "skipped_by_code", "unread_layers", "kernels", "weights", "coverage")
    )
    if not damaged:
        covered = coverage(db)
        skipped["kernels"] = [dataclasses.asdict(shape) for shape in covered.shapes]
        skipped["weights"], skipped["coverage"] = covered.weights, covered.share
        codes, counts = np.unique(db.skipped_columns["skipped_code"].values.astype(str), return_counts=True)
        skipped["skipped_layers"] = int(db.skipped_columns.sizes["skipped"])
        skipped["unread_layers"] = int(db.unread_columns.sizes["skipped"])
        skipped["skipped_by_code"] = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    return {
        **head_of_database(db),
        "segments": segments,
        "tags": dict(db.state.tags),
        "chunk_rows": [entry.chunk_rows for entry in db.state.segments],
        "url": db.url,
        **skipped,
        "damaged": [{"segment": segment, "what": what} for segment, what in damaged.items()],
        "basis": db.state.basis,
        "bases": dict(db.state.bases),
        "format": schema.FORMAT_OF_BANKS if db.state.has_banks else schema.FORMAT,
    }


def show(answer: Answer) -> None:
    """Print the segments, what is not stored, and the basis."""
    say(f"{answer['url']}: {counts_line(answer)}")
    print_table(
        ["segment", "filters", number("layers", 1), number("models", 1), number("chunk rows", 2)],
        [
            [s["id"], s["filters"], s["layers"], s["models"], size]
            for s, size in zip(answer["segments"], answer["chunk_rows"], strict=True)
        ],
    )
    if answer["kernels"]:
        print_table(
            [
                word("kernel"),
                number("layers", 2),
                "filters",
                number("weights", 1),
                number("% of weights"),
                word("filters stored"),
            ],
            [
                [s["kernel"], s["layers"], s["filters"], s["weights"], _percent(s["weights"], answer), s["is_stored"]]
                for s in answer["kernels"]
            ],
        )
        say(f"covered: {_percent(sum(s['weights'] for s in answer['kernels']), answer)} % of convolution weights")
    if answer["damaged"]:
        say(
            f"not stored: unknown, tables are damaged in {len(answer['damaged'])} of "
            f"{counted(len(answer['segments']), 'segment')}"
        )
    else:
        codes_text = ", ".join(f"{count:,} {code}" for code, count in answer["skipped_by_code"].items())
        skipped = f"{counted(answer['skipped_layers'], 'convolution')} ({codes_text or 'none'})"
        say(f"not stored: {skipped}; `filterdb layers --skipped` lists each reason")
        if answer["unread_layers"]:
            say(f"incomplete: {answer['unread_layers']:,} of these should have been read but could not be")
    say(f"basis: {answer['basis'] or 'none yet; the first reduce fits one'}")


def _percent(weights: int, answer: Answer) -> str:
    return f"{weights / answer['weights']:.1%}".removesuffix("%") if answer["weights"] else "–"
