"""Help says what matters first: usage, examples that parse, options in groups; a shell completes all of it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from contextlib import redirect_stderr
from io import StringIO

import click
import pytest
from click.shell_completion import BashComplete, CompletionItem

from filterdb import commands as program
from filterdb.analysis.findings import REMEDIES, UNREAD_REMEDIES, Finding
from filterdb.commands.group import COMPLETION, SECTIONS, commands, listed_helps
from filterdb.commands.help import GROUPS, OWN, Helpful, grouped_options, long_name
from filterdb.commands.one_of import OneOf
from filterdb.commands.options import KEYS
from filterdb.ledger import CODES
from filterdb.schema import LABELS
from tests import loggers

TO_COME = {"serve"}
"""Commands that the list of commands has a place for before they exist."""


def helpful(name: str) -> Helpful:
    command = commands.get_command(click.Context(commands), name)
    assert isinstance(command, Helpful)
    return command


def context(name: str) -> click.Context:
    return click.Context(helpful(name), info_name=name, parent=click.Context(commands, info_name="filterdb"))


def options(name: str) -> dict[str, click.Option]:
    return {long_name(each): each for each in helpful(name).params if isinstance(each, click.Option)}


@pytest.mark.parametrize("name", listed_helps())
def test_examples_parse(name: str) -> None:
    """With all that is required, and values of the right types."""
    command = helpful(name)
    assert command.examples and "Examples" not in (command.help or "")
    for example in command.examples:
        first, second, *words = shlex.split(example)
        assert (first, second) == ("filterdb", name)
        command.make_context(name, words, parent=click.Context(commands))
    shown = command.get_help(context(name)).replace(" \\\n     ", "")
    assert all(" ".join(example.split()) in " ".join(shown.split()) for example in command.examples)


def test_the_examples_of_the_program_parse() -> None:
    assert isinstance(commands, Helpful) and len(commands.examples) > 1
    for example in commands.examples:
        _, name, *words = shlex.split(example)
        helpful(name).make_context(name, words, parent=click.Context(commands))


@pytest.mark.parametrize("name", listed_helps())
def test_usage_names_what_is_required(name: str) -> None:
    usage = helpful(name).get_usage(context(name))
    assert usage.endswith(" [OPTIONS]")
    for parameter in helpful(name).params:
        if isinstance(parameter, click.Argument):
            assert f" {parameter.make_metavar(context(name))}" in usage
        elif parameter.required:
            assert f" {long_name(parameter)} {parameter.metavar}" in usage
    if "--by" in options(name):
        assert "--by " in usage


def test_each_option_is_in_one_group() -> None:
    used = set()
    for name in listed_helps():
        groups = grouped_options(helpful(name), context(name))
        listed = [long_name(option) for group in groups.values() for option in group]
        assert sorted(listed) == sorted([*options(name), "--help"]), name
        assert list(groups) == [heading for heading in (OWN, *GROUPS) if heading in groups]
        if "--by" in options(name):
            assert long_name(groups[OWN][0]) == "--by"
        used |= set(listed)
        text = helpful(name).get_help(context(name))
        for heading, group in groups.items():
            if shown := [long_name(option) for option in group if not option.hidden]:
                start = text.index(f"{heading}:\n")
                assert all(option in text[start:] for option in shown)
    shared = {option for names in GROUPS.values() for option in names}
    assert shared - used == {"--version"}, "options that no command has"


def test_every_command_has_a_section() -> None:
    placed = [name for names in SECTIONS.values() for name in names]
    assert len(placed) == len(set(placed))
    assert set(placed) - TO_COME == set(listed_helps()) - TO_COME


def test_every_option_says_what_it_does() -> None:
    for name in listed_helps():
        assert [long for long, option in options(name).items() if not option.help] == [], name


def completed(*words: str) -> list[str]:
    *before, last = words
    items = BashComplete(commands, {}, "filterdb", "_FILTERDB_COMPLETE").get_completions(before, last)
    return [item.value for item in items]


def test_a_shell_completes() -> None:
    assert completed("dr") == ["drift"]
    assert set(completed("")) >= set(listed_helps())
    assert set(completed("drift", "--")) >= {"--by", "--wide", "--where"}
    assert completed("drift", "db", "--metric", "h") == ["hellinger"]
    assert completed("drift", "db", "--by", "") == list(KEYS)
    assert set(KEYS) > set(LABELS)
    assert completed("pca", "db", "--by", "task,dep") == ["task,depth_decile"]
    (item,) = BashComplete(commands, {}, "filterdb", "_FILTERDB_COMPLETE").get_completions(["info"], "filter")
    assert isinstance(item, CompletionItem) and item.type == "dir"


def test_completion_imports_no_command() -> None:
    """The line that the help names makes a shell ask like this at every tab."""
    assert COMPLETION in commands.get_help(click.Context(commands, info_name="filterdb"))
    code = (
        "import sys; from filterdb import commands\n"
        "try: commands.run([])\n"
        "finally: print([name for name in sys.modules if name in {'filterdb.commands.drift', 'numpy', 'rich'}])"
    )
    ask = {"_FILTERDB_COMPLETE": "bash_complete", "COMP_WORDS": "filterdb d", "COMP_CWORD": "1"}
    for variables, expected in ((ask, "plain,drift"), ({"_FILTERDB_COMPLETE": "bash_source"}, "complete -o")):
        environment = {**os.environ, **variables}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
        )
        assert expected in done.stdout and done.stdout.endswith("[]\n"), (done.stdout, done.stderr)


def test_every_choice_says_what_is_expected() -> None:
    """And suggests a value only if one is near."""
    number = 0
    for name in listed_helps():
        for long, option in options(name).items():
            if not isinstance(option.type, click.Choice):
                continue
            number += 1
            assert isinstance(option.type, OneOf), (name, long)
            first = str(option.type.choices[0])
            for wrong, hint in ((f"{first}{first[-1]}", f"; did you mean {first}?"), ("no-such-value", "")):
                with pytest.raises(click.BadParameter) as raised:
                    option.type(wrong, option, None)
                words = ", ".join(map(str, option.type.choices))
                assert raised.value.message == f"expected one of {words}, got {wrong!r}{hint}", (name, long)
    assert number > 10


def test_numbers_have_no_formula_in_the_help() -> None:
    """Click writes INTEGER RANGE and [x>=1]."""
    for name in listed_helps():
        text = helpful(name).get_help(context(name))
        assert "RANGE" not in text and "x>=" not in text and "<=x" not in text, name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("drfit", "no command 'drfit'; did you mean drift? (see `filterdb --help`)"),
        ("paint", "no command 'paint' (see `filterdb --help`)"),
        ("drift db --whre x", "no option --whre; did you mean --where? (see `filterdb drift --help`)"),
        ("drift db --colour x", "no option --colour (see `filterdb drift --help`)"),
        ("remove db", "Missing argument 'MODELS...'. (see `filterdb remove --help`)"),
        (
            "drift db --by task --threads x",
            "Invalid value for '--threads': expected a whole number of at least 1, got 'x'",
        ),
    ],
)
def test_wrong_usage(words: str, message: str) -> None:
    with loggers.restored(), redirect_stderr(StringIO()) as stream:
        assert program.run(words.split()) == 2
    assert stream.getvalue().startswith(f"filterdb: {message}")


def test_remedies_fit_the_cause() -> None:
    """A model is to be exported again only where that helps: for weights in a form that is not read."""
    assert set(UNREAD_REMEDIES) | {"ambiguous"} == {code for code, entry in CODES.items() if entry.is_unread}
    advice = {code: Finding("f", "l", "unread", "error", "", unread_code=code).remedy for code in UNREAD_REMEDIES}
    again = {code for code, remedy in advice.items() if "xport" in remedy}
    assert again == {"operator", "unsupported"}
    assert len(set(advice.values())) == len(advice)
    assert Finding("f", "l", "unread", "error", "").remedy == REMEDIES["unread"]
    assert not [rule for rule, remedy in REMEDIES.items() if "xport the model again" in remedy]
