"""`filterdb reduce`: compute the summaries that the analyses need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from filterdb import schema
from filterdb.commands.answer import Answer, head_of_database, print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import database, kernel_option, mode_option, raw_option
from filterdb.commands.table import counts_line, say

if TYPE_CHECKING:
    from filterdb.choices import ModeName
    from filterdb.store.database import Database


@commands.command()
@database
@kernel_option
@mode_option
@raw_option
def reduce(db: Database, mode: ModeName, raw: bool, kernel: str | None, as_json: bool) -> None:
    """Run the missing passes over the filters.

    Analyses run the passes that they need by themselves. Without --kernel, the passes over all kernel shapes run.

    Examples:
        filterdb reduce s3://bucket/db --scheduler tcp://host:8786
    """
    from filterdb.numerics.modes import MODES
    from filterdb.reduce.basis import layer_histograms, projection, with_bases
    from filterdb.store.shapes import filled_shapes

    kernels = (filled_shapes(db) or [db.kernel]) if kernel is None else [schema.parse_kernel(kernel)]
    bases = {}
    if kernel is None and not raw and MODES[mode].keeps_basis:
        db = with_bases(db)
    for shape in kernels:
        bank, fitted = projection(db.bank(shape), mode, scaled=not raw)
        layer_histograms(bank, fitted)
        bases[schema.kernel_name(shape)] = fitted.id
        db = bank.root
    head, basis = head_of_database(db.bank(kernels[0])), bases[schema.kernel_name(kernels[0])]
    print_answer({**head, "mode": mode, "scaled": not raw, "basis": basis, "bases": bases}, as_json, show)


def show(answer: Answer) -> None:
    """Print the basis of the summaries."""
    say(f"summaries are complete · basis {answer['basis'] or 'fitted on the whole snapshot'} · {counts_line(answer)}")
