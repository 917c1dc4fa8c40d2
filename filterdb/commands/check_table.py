"""`filterdb check` on a terminal: a line for each finding, what to do about each kind, what could be pruned."""

from __future__ import annotations

from collections import Counter

from rich import box
from rich.table import Table
from rich.text import Text

from filterdb.analysis.findings import ERROR, FAILED, INCOMPLETE, NOTHING_CHECKED, PASSED, REMEDIES, WARNING
from filterdb.commands.answer import Answer
from filterdb.commands.table import _console, _say, _table, printable
from filterdb.ledger import is_unread

MARKS = {ERROR: ("✗", "bold red"), WARNING: ("!", "yellow")}
STYLES = {PASSED: "bold green", NOTHING_CHECKED: "bold yellow", FAILED: "bold red", INCOMPLETE: "bold red"}
LAYERS_SHOWN = 5
PLACES_SHOWN = 40
FAR = 5.0
"""Percent at either end beyond which a layer's place is told first."""


def checked(answer: Answer) -> None:
    """A line for each finding, then the whole."""
    console = _console()
    found = answer["findings"]
    names = _short([file["file"] for file in answer["files"]])
    if found:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("", "file", "layer", "rule", "found"):
            table.add_column(column, overflow="fold", no_wrap=column in {"", "rule"})
        for row in found:
            mark, style = MARKS.get(row["level"], ("·", "dim"))
            cells = [Text(printable(text)) for text in (names[row["file"]], row["layer"] or "–")]
            table.add_row(Text(mark, style), *cells, Text(row["rule"], style), Text(printable(row["message"])))
        console.print(table)
        for rule in dict.fromkeys(row["rule"] for row in found):
            console.print(Text.assemble((f"{rule}: ", "bold"), REMEDIES[rule]))
        console.print()
    if answer["snapshot"] is not None:
        _places(answer, names)
    for file in answer["files"]:
        if file["untrained"]:
            smallest = answer["rules"]["smallest"]
            _say(f"untrained: {names[file['file']]}: every layer of at least {smallest} filters is random")
    _pruned(answer)
    _not_looked_at(answer)
    console.print(_last_line(answer))


def _not_looked_at(answer: Answer) -> None:
    """Convolutions of other kinds, and layers without a verdict."""
    skipped = sum((Counter(file["skipped"]) for file in answer["files"]), Counter[str]())
    others = {code: count for code, count in sorted(skipped.items()) if not is_unread(code) and code != "nonfinite"}
    if others:
        codes = ", ".join(f"{count:,} {code}" for code, count in others.items())
        _say(f"not looked at: {_many(sum(others.values()), 'convolutions')} without a 3×3 weight ({codes})")
    unscaled = sum(row["scale_known"] is False for row in answer["rows"])
    if unscaled:
        _say(f"without a verdict: {_many(unscaled, 'layers')} with integer weights of unknown scale")


def _last_line(answer: Answer) -> Text:
    """The status, what was and was not checked, how many findings."""
    models, layers, filters = (_many(answer[name], name) for name in ("models", "layers", "filters"))
    # The usual line where everything was checked; else the numbers say what was not.
    numbers = f"{models}, {layers}, {filters}"
    if answer["status"] == INCOMPLETE:
        numbers = f"{models}, {layers} checked, {answer['unread']:,} not read"
    without = sum(file["status"] == NOTHING_CHECKED for file in answer["files"])
    if without == answer["models"]:
        numbers = f"{models} without a layer to check"
    elif without:
        numbers += f" · {_many(without, 'models')} without a layer to check"
    counted = [_many(answer[name], name) for name in ("errors", "warnings", "ignored") if answer[name]]
    status = Text(answer["status"], STYLES[answer["status"]])
    return Text.assemble(status, f": {numbers} · {', '.join(counted) or 'nothing found'}")


def _many(number: int, what: str) -> str:
    return f"{number:,} {what.removesuffix('s') if number == 1 else what}"


def _short(files: list[str]) -> dict[str, str]:
    """Files by their last part, where that tells them apart."""
    last = {file: file.rstrip("/").rsplit("/", 1)[-1] for file in files}
    return last if len(set(last.values())) == len(last) else {file: file for file in files}


def _pruned(answer: Answer) -> None:
    """What could be pruned, and what only looks as if it could."""
    prunable = answer["prunable"]
    layers = prunable["layers"]
    if layers:
        first = ", ".join(f"{row['layer']} ({row['filters']:,})" for row in layers[:LAYERS_SHOWN])
        more = f" and {len(layers) - LAYERS_SHOWN:,} more" if len(layers) > LAYERS_SHOWN else ""
        zero = prunable["channels"]
        channels = f"; {_many(zero, 'whole output channels')} of zeros" if zero else ""
        _say(
            f"could be pruned: {_many(prunable['filters'], 'filters')}, {prunable['parameters']:,} parameters "
            f"({prunable['share']:.1%} of the 3×3 layers'), below 1 % of their output channel's largest weight, in "
            f"{first}{more}{channels}"
        )
    small = prunable["small_relative_to_peak"]
    if small:
        _say(
            f"small relative to the layer's peak: {small:,} more; their own channels are small as well, so that is "
            "no reason to prune them"
        )


def _places(answer: Answer, files: dict[str, str]) -> None:
    """Where layers stand among the database's of their depth and size; those at the ends first."""
    rows = [row for row in answer["rows"] if row["peers"]]
    far = [row for row in rows if _is_far(row)]
    shown = rows if len(rows) <= PLACES_SHOWN else far[:PLACES_SHOWN]
    names = ["layer", "filters", "sparsity", "sparsity_percentile", "ratio", "ratio_percentile", "peers"]
    title = "percentiles among the database's layers of the same depth decile and size class"
    if len(shown) < len(rows):
        title += f" (of {len(rows):,} layers those beyond {FAR:g} % at either end; --json has all)"
    _table(["file", *names], ([files[row["file"]], *(row[name] for name in names)] for row in shown), title)


def _is_far(row: Answer) -> bool:
    """Whether a layer is sparser than nearly all others, or uses fewer or more directions."""
    sparse, ratio = row["sparsity_percentile"], row["ratio_percentile"]
    return any(value is not None and not FAR <= value <= 100 - FAR for value in (ratio, max(sparse or 0, FAR)))
