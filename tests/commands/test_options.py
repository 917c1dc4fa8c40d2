"""One option has one help text, type, default and place in all commands."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import click
import pytest

from filterdb.commands.group import commands

EXCEPTIONS = {
    ("--by", "filter-scale"): "models are the groups that the command is for, so they are the default",
    ("--by", "statistics"): "columns to count by, each a table of its own: no grouping",
    ("--db", "report"): "also finds the nearest models",
    ("--components", "phenotypes"): "several pairs; all neighbours by default",
    ("--draws", "randomness-threshold"): "layers of a size; drift draws permutations",
    ("--output", "catalog"): "a CSV file; drift writes a Zarr group",
    ("--output", "report"): "a folder of files; drift writes a Zarr group",
    ("--output", "reference"): "a JSON file; drift writes a Zarr group",
    ("--snapshot", "restore"): "the snapshot to go back to; DB is opened at its newest",
}
"""Options that mean something else in one command than in the others, and what."""

ELSEWHERE = {
    ("--catalog", "relabel"): "after the options of every command, because DB is opened before",
    ("--chunk-rows", "compact"): "after the options of every command, because DB is opened before",
    ("--draws", "randomness-threshold"): "beside the other numbers of the experiment",
    ("--seed", "randomness-threshold"): "beside the other numbers of the experiment",
    ("--snapshot", "check"): "beside --db, its database",
    ("--snapshot", "report"): "beside --db, its database",
    ("--snapshot", "restore"): "the one thing to say",
    ("--snapshot", "snapshots"): "first, because DB is opened even if it is damaged",
}
"""Options that stand elsewhere in the help of one command than in that of the others, and why."""


def all_commands() -> dict[str, click.Command]:
    context = click.Context(commands)
    names = commands.list_commands(context)
    listed = {name: commands.get_command(context, name) for name in names}
    return {name: command for name, command in listed.items() if command is not None}


def options(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command, in their order, under their longest names."""
    return {max(option.opts, key=len): option for option in command.params if isinstance(option, click.Option)}


def definition(option: click.Option) -> dict[str, Any]:
    return {
        "names": (option.opts, option.secondary_opts),
        "help": option.help,
        "type": option.type.to_info_dict(),
        "default": option.to_info_dict()["default"],
        "metavar": option.metavar,
        "is_flag": option.is_flag,
        "multiple": option.multiple,
        "nargs": option.nargs,
        "show_default": bool(option.show_default),
    }


def test_an_option_has_one_definition_in_all_commands() -> None:
    seen: dict[str, tuple[str, dict[str, Any]]] = {}
    unused = set(EXCEPTIONS)
    for name, command in all_commands().items():
        for long, option in options(command).items():
            if (long, name) in EXCEPTIONS:
                unused.discard((long, name))
                continue
            first, expected = seen.setdefault(long, (name, definition(option)))
            assert definition(option) == expected, f"{long} of {name} and of {first}"
    assert not unused, "exceptions that no command needs"


def test_an_exception_differs() -> None:
    listed = all_commands()
    for long, name in EXCEPTIONS:
        mine = definition(options(listed[name])[long])
        others = [options(command) for other, command in listed.items() if other != name]
        same = [definition(each[long]) == mine for each in others if long in each]
        assert same and not any(same), (long, name)


def test_options_have_one_order_in_all_commands() -> None:
    before: dict[tuple[str, str], str] = {}
    for name, command in all_commands().items():
        placed = [long for long in options(command) if (long, name) not in ELSEWHERE]
        for first, second in combinations(placed, 2):
            assert (second, first) not in before, f"{first}, {second} in {name}; not in {before[second, first]}"
            before[first, second] = name


@pytest.mark.parametrize("long", ["--json", "--debug"])
def test_every_command_has(long: str) -> None:
    assert all(long in options(command) for command in all_commands().values())


def test_every_number_says_what_is_expected() -> None:
    """No option has click's own words, which name neither the bounds nor what was given."""
    found = 0
    for command in all_commands().values():
        for option in options(command).values():
            if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType):
                found += 1
                for wrong in ("x", "", "-1e99", "1,5"):
                    with pytest.raises(click.BadParameter, match=r"expected a (whole )?number.*, got '") as raised:
                        option.type(wrong, option, None)
                    assert wrong in raised.value.message
    assert found > 15
