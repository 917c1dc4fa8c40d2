"""`filterdb catalog`: list the models of an organisation of the hub as a catalog."""

from __future__ import annotations

import click

from filterdb.commands.answer import Answer, print_answer
from filterdb.commands.group import commands
from filterdb.commands.layout import name
from filterdb.commands.numbers import WholeNumber
from filterdb.commands.options import debug_option, json_option
from filterdb.commands.table import print_rows, say, wide_option
from filterdb.wording import counted


@commands.command()
@wide_option
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

    Examples:
        filterdb catalog hf://timm --limit 100 -o timm.csv
    """
    from filterdb.models.hub_catalog import list_models

    rows = list_models(source, output=output, filters=filters, limit=limit)
    counts = {"snapshot": None, "selection": "all", "filters": None, "layers": None, "models": len(rows)}
    print_answer({**counts, "output": output, "rows": rows}, as_json, show)


def show(answer: Answer) -> None:
    """Print the main columns, or where they were written."""
    if answer["output"] is None:
        print_rows(
            answer, ["name", name("task", 2), name("training_dataset", 3), name("architecture", 1), name("licence", 4)]
        )
    else:
        file = answer["output"]
        say(f"{file}: {counted(answer['models'], 'model')}; `filterdb ingest DB --catalog {file}` reads them")
