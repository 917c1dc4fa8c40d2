"""Build the answer of `filterdb check` from its result, and print it."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from filterdb.analysis.check import COUNTED, GEOMETRY, MEASURES
from filterdb.analysis.findings import (
    ERROR,
    FAILED,
    INCOMPLETE,
    NOTHING_CHECKED,
    PASSED,
    WARNING,
    Finding,
    findings,
    statuses,
    summary,
)
from filterdb.analysis.reference import PACKAGED
from filterdb.analysis.rules import FILE_RULES
from filterdb.commands.answer import Answer, rows
from filterdb.commands.layout import Column, name, number, text, word
from filterdb.commands.table import Styled, console, print_table, say
from filterdb.ledger import is_unread
from filterdb.redaction import printable
from filterdb.schema import KERNEL, has_bank, kernel_name, kernel_text, parse_shape
from filterdb.wording import counted

if TYPE_CHECKING:
    from rich.text import Text

    from filterdb.analysis.findings import Result

EVERY_SHAPE = "all"
"""The kernel of an answer about layers of every shape."""

MARKS = {ERROR: ("✗", "bold red"), WARNING: ("!", "yellow")}
STYLES = {PASSED: "bold green", NOTHING_CHECKED: "bold yellow", FAILED: "bold red", INCOMPLETE: "bold red"}
PRUNABLE_LAYERS_SHOWN = 5
PERCENTILES_SHOWN = 40
EXTREME_PERCENT = 5.0
"""If there are more layers than PERCENTILES_SHOWN, only those within this percentage of either end are shown."""


def to_answer(result: Result) -> Answer:
    """Return the answer: `ok`, a row for each layer, and a row for each file that was not checked at all."""
    names = {"file": "layer_file", "layer": "layer_name", "filters": "filters"}
    shown = [str(name) for name, array in result.variables.items() if array.dims == ("layer",)]
    names |= {name: name for name in shown if name not in {"layer", *names.values()}}
    rules = result["rule"].values.astype(str)
    table = [
        _row(row, rules[hits].tolist()) for row, hits in zip(rows(result, names), result["verdict"].values, strict=True)
    ]
    listed = findings(result)
    table += [
        {**dict.fromkeys(names), "file": finding.file, "verdict": [finding.rule], "reason": finding.message}
        for finding in listed
        if finding.rule in FILE_RULES
    ]
    return {
        "snapshot": result.attrs.get("snapshot"),
        **{name: result.attrs[name] for name in ("selection", "filters", "layers", "models")},
        "kernel": result.attrs["kernel"],
        "kernels": _kernels(result),
        "reference": json.loads(result.attrs["reference"]),
        **summary(result),
        "rules": json.loads(result.attrs["rules"]),
        "files": _files(result, listed),
        "rows": table,
        "findings": [
            {
                "file": finding.file,
                "layer": finding.layer or None,
                "rule": finding.rule,
                "level": finding.level,
                "message": finding.message,
                "kernel": kernel_name(finding.kernel) if finding.kernel[0] else None,
                "direction": finding.direction or None,
                "remedy": finding.remedy,
            }
            for finding in listed
        ],
    }


def _row(row: Answer, verdict: list[str]) -> Answer:
    """Return the row of a layer; a layer that was not read has no numbers."""
    row |= {"verdict": verdict if row["scale_known"] else None, "reason": row["nonfinite"] or row["unread_reason"]}
    row["direction"] = row["direction"] or None
    if row["unread_code"]:
        return {**row, **dict.fromkeys((*MEASURES, *GEOMETRY, "kernel"))}
    return row if has_bank(parse_shape(row["kernel"])) else {**row, **dict.fromkeys(COUNTED)}


def _kernels(result: Result) -> dict[str, int]:
    """Return the number of layers of each kernel shape that were read, in the order of `_place_of_shape`."""
    counts = Counter(name for name in result["kernel"].values.astype(str).tolist() if name)
    return {name: counts[name] for name in sorted(counts, key=_place_of_shape)}


def _place_of_shape(name: str) -> tuple[bool, bool, int, str]:
    """Return a key that sorts shapes: 3×3, then by number of weights, then those whose filters are not stored."""
    rows, columns = kernel = parse_shape(name)
    return not has_bank(kernel), kernel != KERNEL, rows * columns, name


def _files(result: Result, listed: list[Finding]) -> list[Answer]:
    """Return an entry for each file."""
    files = []
    for i, status in enumerate(statuses(result, listed)):
        file = result.isel(file=i)
        name, unread = str(file["file"].item()), int(file["unread"].item())
        files.append(
            {
                "file": name,
                "status": status,
                "layers": int((result["layer_file"].values == name).sum()) - unread,
                "unread": unread,
                "untrained": bool(file["untrained"].item()),
                "skipped": json.loads(file["skipped"].item()),
                "reason": str(file["reason"].item()) or None,
            }
        )
    return files


def show(answer: Answer) -> None:
    """Print a line for each finding, then what was checked and what was not."""
    from rich.text import Text  # takes a while, which JSON saves

    out = console()
    listed = answer["findings"]
    names = _short([file["file"] for file in answer["files"]])
    if listed:
        _show_findings(listed, names)
        for rule, remedy in dict.fromkeys((row["rule"], row["remedy"]) for row in listed):
            out.print(Text.assemble((f"{rule}: ", "bold"), remedy))
        out.print()
    if answer["reference"]["place"] != PACKAGED:
        _show_percentiles(answer, names)
        _show_stored(answer, names)
    _show_prunable(answer)
    _show_shapes(answer)
    _show_not_checked(answer)
    out.print(_last_line(answer))


def _show_findings(listed: list[Answer], files: dict[str, str]) -> None:
    """Print a row for each finding. The shape is a column only if some layer's is not 3×3."""
    shaped = any(row["kernel"] not in {None, kernel_name(KERNEL)} for row in listed)
    columns = [word(""), name("file", 0 if len(files) > 1 else 2), name("layer")]
    columns += [*([word("kernel", 1)] if shaped else []), word("rule"), text("finding")]
    table = []
    for row in listed:
        mark, style = MARKS.get(row["level"], ("·", "dim"))
        shape = [_shown(row["kernel"])] if shaped else []
        cells = [files[row["file"]], row["layer"] or "–", *shape, Styled(row["rule"], style), row["message"]]
        table.append([Styled(mark, style), *cells])
    print_table(columns, table)


def _shown(kernel: str | None) -> str:
    return "–" if kernel is None else kernel_text(parse_shape(kernel))


def _show_shapes(answer: Answer) -> None:
    """Print how many layers of which shapes were checked, and the shapes without layers to compare with."""
    if answer["kernel"] != EVERY_SHAPE or not answer["kernels"]:
        return
    counts = [f"{_shown(name)}: {count:,}" for name, count in answer["kernels"].items()]
    partly = [name for name in answer["kernels"] if not has_bank(parse_shape(name))]
    more = f" ({', '.join(map(_shown, partly))}: only peak, sparsity and duplicates are checked)" if partly else ""
    say(f"layers by kernel: {', '.join(counts)}{more}")
    compared = answer["reference"]["kernels"]
    without = [name for name in answer["kernels"] if name not in {*partly, *compared}]
    if without:
        where = "reference" if answer["snapshot"] is None else "database"
        has = ", ".join(map(_shown, compared))
        say(f"no percentiles for {', '.join(map(_shown, without))}: the {where} has only layers of {has}")


def _show_stored(answer: Answer, files: dict[str, str]) -> None:
    """Print for each file how many of its layers the database has."""
    layers = Counter(row["file"] for row in answer["rows"] if row["kernel"] and has_bank(parse_shape(row["kernel"])))
    stored = Counter(row["file"] for row in answer["rows"] if row["stored_in"])
    for file, count in stored.items():
        first = next(row["stored_in"] for row in answer["rows"] if row["file"] == file and row["stored_in"])
        say(
            f"{files[file]}: the database has {count:,} of {counted(layers[file], 'layer')}, such as {printable(first)}"
        )


def _show_not_checked(answer: Answer) -> None:
    """Print the number of convolutions of other kinds, and of layers without a verdict."""
    skipped = sum((Counter(file["skipped"]) for file in answer["files"]), Counter[str]())
    others = {code: count for code, count in sorted(skipped.items()) if not is_unread(code) and code != "nonfinite"}
    if others:
        codes = ", ".join(f"{count:,} {code}" for code, count in others.items())
        which = "" if answer["kernel"] == EVERY_SHAPE else f" without a {_shown(answer['kernel'])} weight"
        say(f"not checked: {counted(sum(others.values()), 'convolution')}{which} ({codes})")
    unscaled = sum(row["scale_known"] is False for row in answer["rows"])
    if unscaled:
        say(f"without a verdict: {counted(unscaled, 'layer')} with integer weights of unknown scale")


def _last_line(answer: Answer) -> Text:
    """Return the status, what was checked and what was not, and the number of findings."""
    from rich.text import Text

    models, layers, filters = (counted(answer[f"{noun}s"], noun) for noun in ("model", "layer", "filter"))
    # If something was not checked, the numbers say what.
    numbers = f"{models}, {layers}, {filters}"
    if answer["status"] == INCOMPLETE:
        numbers = f"{models}, {layers} checked, {answer['unread']:,} not read"
    without = sum(file["status"] == NOTHING_CHECKED for file in answer["files"])
    if without == answer["models"]:
        numbers = f"{models} without a layer to check"
    elif without:
        numbers += f" · {counted(without, 'model')} without a layer to check"
    results = [counted(answer[f"{noun}s"], noun) for noun in ("error", "warning") if answer[f"{noun}s"]]
    results += [f"{answer['ignored']:,} ignored"] if answer["ignored"] else []
    status = Text(answer["status"], STYLES[answer["status"]])
    return Text.assemble(status, f": {numbers} · {', '.join(results) or 'no findings'}")


def _short(files: list[str]) -> dict[str, str]:
    """Return the name to show for each file: the last part of its path if these all differ, else the whole path."""
    last = {file: file.rstrip("/").rsplit("/", 1)[-1] for file in files}
    return last if len(set(last.values())) == len(last) else {file: file for file in files}


def _show_prunable(answer: Answer) -> None:
    """Print what could be pruned, and what only looks as if it could."""
    prunable = answer["prunable"]
    layers = prunable["layers"]
    if layers:
        first = ", ".join(f"{row['layer']} ({row['filters']:,})" for row in layers[:PRUNABLE_LAYERS_SHOWN])
        rest = len(layers) - PRUNABLE_LAYERS_SHOWN
        more = f" and {rest:,} more" if rest > 0 else ""
        zero = prunable["channels"]
        channels = f"; {counted(zero, 'whole output channel')} of zeros" if zero else ""
        of = f"{prunable['share']:.1%} of the parameters of {_counted(answer)} layers"
        what = f"{counted(prunable['filters'], 'filter')}, {counted(prunable['parameters'], 'parameter')} ({of})"
        small_weights = "with all weights below 1 % of the largest in their output channel"
        say(f"could be pruned: {what}, {small_weights}, in {first}{more}{channels}")
    small = prunable["small_relative_to_peak"]
    if small:
        count = f"{small:,} more" if layers else counted(small, "filter")
        verb, whose, them = ("is", "its", "it") if small == 1 else ("are", "their", "them")
        channels = f"{whose} whole channel{'' if small == 1 else 's'} {verb} small"
        say(f"{count} {verb} small only relative to the layer's peak: {channels}, so do not prune {them} for that")


def _counted(answer: Answer) -> str:
    """Return what to call the layers in which prunable filters are counted."""
    shapes = [name for name in answer["kernels"] if has_bank(parse_shape(name))]
    return _shown(shapes[0]) if len(shapes) == 1 else "k×k"


def _show_percentiles(answer: Answer, files: dict[str, str]) -> None:
    """Print the percentiles of layers among the compared layers of their depth and size, or only extreme ones."""
    with_peers = [row for row in answer["rows"] if row["peers"]]
    extreme = [row for row in with_peers if _is_extreme(row)]
    shown = with_peers if len(with_peers) <= PERCENTILES_SHOWN else extreme[:PERCENTILES_SHOWN]
    columns: list[Column] = [name("file", 1), name("layer")]
    columns += [number("filters", 2), number("sparsity", 3), number("sparsity_percentile")]
    columns += [number("ratio", 3), number("ratio_percentile"), number("peers", 1)]
    where = "reference" if answer["snapshot"] is None else "database"
    title = f"percentiles among the {where}'s layers of the same depth decile and size class"
    if len(shown) < len(with_peers):
        extremes = f"those beyond {EXTREME_PERCENT:g} % at either end"
        title += f" (of {counted(len(with_peers), 'layer')} {extremes}; --json has all)"
    if any(row["kernel"] != kernel_name(KERNEL) for row in shown):
        columns.insert(2, word("kernel", 2))
        shown = [{**row, "kernel": _shown(row["kernel"])} for row in shown]
        title = title.replace("of the same depth", "of the same kernel, depth")
    shown = [{**row, "file": files[row["file"]]} for row in shown]
    print_table(columns, ([row[column.title] for column in columns] for row in shown), title)


def _is_extreme(row: Answer) -> bool:
    """Return whether a layer is sparser, or uses fewer or more directions, than nearly all others."""
    sparse, ratio = row["sparsity_percentile"], row["ratio_percentile"]
    low, high = EXTREME_PERCENT, 100 - EXTREME_PERCENT
    return any(value is not None and not low <= value <= high for value in (ratio, max(sparse or 0, low)))
