"""`filterdb ingest`: add model files to a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import filterdb as fdb
from filterdb import schema
from filterdb.commands.answer import Answer, head_of_database, print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import (
    catalog_option,
    chunk_rows_option,
    commit_every_option,
    compact_option,
    database_argument,
    kernels_option,
    limits_option,
    network_options,
    place,
)
from filterdb.commands.table import counts_line, say
from filterdb.redaction import printable
from filterdb.terminal import complain
from filterdb.wording import counted

if TYPE_CHECKING:
    from filterdb.ingestion.ingested import Ingested


@commands.command()
@database_argument
@click.argument("sources", nargs=-1)
@catalog_option()
@chunk_rows_option
@commit_every_option
@compact_option
@kernels_option
@limits_option
@network_options
@place
def ingest(db: str, sources: tuple[str, ...], catalog: str | None, as_json: bool, **options: Any) -> None:
    """Add the filters of models to a database.

    Reads model files (ONNX, PyTorch, safetensors, Keras, OpenVINO, TensorFlow Lite), folders, globs or URLs (also
    hf://org/repo), or every row of a catalog. A file that cannot be fetched or read is reported, and the rest is
    added. A run that stopped resumes when it is repeated: remote files that are stored and have not changed are not
    fetched again.

    Examples:
        filterdb ingest db model.onnx models/
        filterdb ingest db --catalog models.csv
        filterdb ingest db hf://timm/resnet50.a1_in1k
    """
    done = fdb.ingest(db, sources, catalog=catalog, **options)
    for reason in done.rejected.values():
        complain(f"filterdb: rejected {printable(reason)}")
    _report_unread(done.unread)
    if done.left:
        complain(
            f"filterdb: filters of other shapes were not added to {counted(len(done.left), 'model')}, such as "
            f"{printable(done.left[0])}: pass all models of their segment together"
        )
    print_answer(to_answer(done), as_json, show)


def _report_unread(unread: list[tuple[str, str, str]]) -> None:
    """Print on stderr how many convolutions could not be read, and why the first could not."""
    if unread:
        model, layer, reason = map(printable, unread[0])
        what = f"{counted(len(unread), 'convolution')} could not be read"
        complain(f"filterdb: {what}, such as {model} layer {layer}: {reason}; `filterdb layers --skipped` lists all")


def to_answer(done: Ingested) -> Answer:
    """Return the answer of `filterdb ingest` and `filterdb import-hdf5`."""
    from filterdb.store.shapes import filled_shapes

    rejected = [{"model": model, "reason": reason} for model, reason in done.rejected.items()]
    return {
        **head_of_database(done.database),
        "segment": done.segment,
        "segments": done.segments,
        "added": done.added,
        "present": done.present,
        "widened": done.widened,
        "kernels": [schema.kernel_name(kernel) for kernel in filled_shapes(done.database)],
        "duplicates": done.duplicates,
        "rejected": rejected,
        "unread": len(done.unread),
    }


def show(answer: Answer) -> None:
    """Print how many models were added, present and rejected."""
    added, present, rejected = (len(answer[name]) for name in ("added", "present", "rejected"))
    segment = "nothing new" if answer["segment"] is None else f"segment {answer['segment']}"
    if len(answer["segments"]) > 1:
        segment = counted(len(answer["segments"]), "segment")
    widened = f", {len(answer['widened'])} of them now with more kernel shapes" if answer["widened"] else ""
    came = f"{added:,} added ({segment}), {present:,} already stored{widened}, {rejected:,} rejected"
    others = ", ".join(kernel.replace("x", "×") for kernel in answer["kernels"] if kernel != "3x3")
    say(f"models: {came} · now {counts_line(answer)}" + (f" · also {others} filters" if others else ""))
    copies = answer["duplicates"]
    if copies:
        is_one = len(copies) == 1
        what = f"{counted(len(copies), 'added model')} ({'' if is_one else 'such as '}{copies[0]})"
        what += " duplicates another" if is_one else " duplicate others"
        say(f"{what}; `--where duplicate_of=` leaves duplicates out")
