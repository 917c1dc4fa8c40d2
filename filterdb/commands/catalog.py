"""`filterdb catalog`: list the models of an organisation of the hub as a catalog."""

from __future__ import annotations

import click

from filterdb.commands.answer import Answer, print_answer
from filterdb.commands.group import commands
from filterdb.commands.numbers import WholeNumber
from filterdb.commands.options import debug_option, json_option
from filterdb.commands.table import print_rows, say


@commands.command()
@click.argument("source")
@json_option
@debug_option(expose_value=False)
@click.option("--filter", "filters", multiple=True, metavar="TAG", help="Only models with this tag (repeatable).")
@click.option("--limit", type=WholeNumber(1), metavar="N", help="At most this many models.")
@click.option("-o", "--output", metavar="FILE", help="The CSV file to write.")
def catalog(source: str, filters: tuple[str, ...], limit: int | None, output: str | None, as_json: bool) -> None:
    """List the models of an organisation of the Hugging Face hub as a catalog.

    SOURCE is hf://ORGANISATION. The rows have what each model's card and config say; `ingest --catalog` reads them. The
    hub is HF_ENDPOINT and the token HF_TOKEN, from the environment.
    """
    from filterdb.models.hub_catalog import list_models

    rows = list_models(source, output=output, filters=filters, limit=limit)
    counts = {"snapshot": None, "selection": "all", "filters": None, "layers": None, "models": len(rows)}
    print_answer({**counts, "output": output, "rows": rows}, as_json, show)


def show(answer: Answer) -> None:
    """Print the main columns, or where they were written."""
    if answer["output"] is None:
        print_rows(answer, ["name", "task", "training_dataset", "architecture", "licence"])
    else:
        file = answer["output"]
        say(f"{file}: {answer['models']:,} models; `filterdb ingest DB --catalog {file}` reads them")
