"""Every command in terminals of 60, 80, 120 and 200 columns: no line is wider, and no number is broken or cut.

A command runs once. Its answer, with counts as large as those of the largest databases, is then printed at each width.
"""

from __future__ import annotations

import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from fcntl import ioctl
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len

import filterdb as fdb
from filterdb import commands as program
from filterdb import demo
from filterdb.cluster import progress
from filterdb.commands import layout, table
from filterdb.commands.group import commands, listed_helps
from tests import loggers
from tests.commands.running import run
from tests.filters import trained
from tests.hub.server import Repository, serving
from tests.models import chain, weights
from tests.models.published import published

WIDTHS = (60, 80, 120, 200)

LARGE = 1_463_842_917
"""More filters than the published data set has."""

COUNTS = {"filters", "count", "counts", "bytes", "objects", "in_channels", "out_channels", "peers", "layers", "models"}
"""Keys of answers whose numbers become LARGE."""

LONG = "organisation-with-a-long-name/detector-of-very-small-objects"

CASES = {
    "catalog": ["hf://timm", "hf://timm -o {tmp}/catalog.csv"],
    "check": ["{folder}/bad.onnx", "{folder}/bad.onnx {folder}/m0.onnx --db {db}"],
    "codebook": ["{db} --by model -k 4", "{one} -k 4"],
    "compact": ["{copy}"],
    "degeneration": ["{db}", "{db} --by model --drift", "{one}"],
    "demo": ["--dir {tmp}/demo"],
    "density": ["{db} --by model", "{one}"],
    "distributions": ["{db} --by model", "{one}"],
    "drift": [
        "{db} --by model",
        "{db} --by model,depth_decile",
        "{db} --by task --within depth_decile",
        "{one} --by task",
    ],
    "expire": ["{copy} --keep 1"],
    "explain": ["{db} GROUPS --by task"],
    "filter-scale": ["{db}", "{one}"],
    "gc": ["{copy}", "{stale}"],
    "import-hdf5": ["{tmp}/imported {folder}/dataset.h5"],
    "info": ["{db}", "{one}"],
    "ingest": ["{tmp}/new {folder}/m0.onnx {folder}/broken.onnx {folder}/bad.onnx", "{copy} {folder}/m0.onnx"],
    "layers": ["{db}", "{db} --skipped", "{db} --kernel 1x1", "{one}"],
    "lineage": ["{db}", "{one}"],
    "models": ["{db}", "{one}"],
    "nearest": ["{db} {folder}/m0.onnx", "{db} {folder}/m0.onnx --by-decile", "{one} {folder}/m1.onnx"],
    "pca": ["{db} --by model", "{one}"],
    "phenotypes": ["{db} --by model --no-pairs", "{one}"],
    "randomness-threshold": ["--draws 20 --repeats 2 --sizes 16,32,64,128"],
    "reduce": ["{db}"],
    "reference": ["{db} -o {tmp}/reference.json"],
    "refit": ["{copy}"],
    "relabel": ["{copy} --catalog {folder}/catalog.csv"],
    "remove": ["{copy} MODEL", "{copy} MODEL --purge"],
    "report": ["{one} -o {tmp}/page"],
    "restore": ["{copy} --snapshot 0"],
    "series": ["{db}", "{one}"],
    "snapshots": ["{copy}"],
    "spectrum": ["{db} --by model", "{one}"],
    "statistics": ["{db}", "{one}"],
    "tag": ["{copy} a-name-of-a-snapshot"],
    "verify": ["{db}", "{damaged}"],
}
"""Arguments of each command. A new command has a case here, unless it is one of ENDLESS."""

ENDLESS = {"serve": "it runs until it is stopped"}


class Terminal(io.StringIO):
    """A stream that says that it is a terminal; COLUMNS says how wide."""

    def isatty(self) -> bool:
        return True


@dataclass
class Captured:
    """What a command printed, by the width of the terminal; None is a pipe."""

    out: dict[int | None, list[str]] = field(default_factory=dict)
    wide: str = ""
    """With --wide, in the narrowest terminal."""

    def print_answer(self, answer: dict[str, Any], as_json: bool, show: Callable[[dict[str, Any]], None]) -> None:
        """Print an answer at every width, as commands print theirs once."""
        assert not as_json
        answer = enlarged(answer)
        for width in (*WIDTHS, None):
            self.out.setdefault(width, []).append(printed(lambda: show(answer), width))
        context = click.get_current_context()
        if any("--wide" in parameter.opts for parameter in context.command.params):
            context.meta[table._WIDE] = True
            self.wide += printed(lambda: show(answer), WIDTHS[0])
            context.meta[table._WIDE] = False


def enlarged(value: Any, key: str = "") -> Any:
    """Return an answer with large counts."""
    if isinstance(value, dict):
        return {name: enlarged(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [enlarged(item, key) for item in value]
    if isinstance(value, np.ndarray) and value.ndim == 1 and key in COUNTS:
        return np.full(value.shape, LARGE)
    is_count = isinstance(value, int | np.integer) and not isinstance(value, bool) and key in COUNTS
    return LARGE if is_count and value > 1 else value


def printed(show: Callable[[], object], width: int | None) -> str:
    """Return what a function prints in a terminal of a width, or in a pipe, without styles."""
    stream = io.StringIO() if width is None else Terminal()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stream):
        patch.setenv("COLUMNS", str(width or 1))
        show()
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models, a database of them, one of a single model, and copies of which nothing is kept."""
    folder = tmp_path_factory.mktemp("terminal")
    rows = []
    for number in range(5):
        file = folder / f"m{number}.onnx"
        layers = [trained(16, 16, 10 * number + i, number % 2) for i in range(2)]
        chain(
            file, *layers, weights(4, 16, number, (1, 1)), weights(4, 4, number, (3, 3, 3)), prefix=f"{LONG}/{number}/"
        )
        labels = {"task": f"segmentation of {LONG} {number % 3}", "visual_category": "x" * 70, "family": "ResNet"}
        training = {"architecture": f"net {LONG}", "training_dataset": f"set {LONG}", "epoch": number, "seed": ""}
        if number >= 3:
            training |= {"epoch": "", "seed": number}
        rows.append({"path": file.name, "name": f"{LONG}-{number}-fine-tuned", **labels, **training})
    pd.DataFrame(rows).to_csv(folder / "catalog.csv", index=False)
    dead = trained(16, 16, 99)
    dead[:] = 0
    chain(folder / "bad.onnx", trained(16, 16, 98), dead, np.full((8, 8, 3, 3), np.nan, np.float32), prefix=f"{LONG}.")
    (folder / "broken.onnx").write_bytes(b"<!doctype html><html>an error page</html>")
    published.write_csv(folder / "dataset.h5", published.frame())
    published.add_filters(folder / "dataset.h5")
    fdb.ingest(folder / "db", catalog=folder / "catalog.csv")
    fdb.ingest(folder / "one", folder / "m0.onnx")
    for name in ("db", "one"):
        run("reduce", folder / name)
    shutil.copytree(folder / "db", folder / "damaged")
    for chunk in (folder / "damaged/segments").rglob("c/*"):
        if chunk.is_file():
            chunk.unlink()
    return {"folder": folder, "db": folder / "db", "one": folder / "one", "damaged": folder / "damaged"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve a hub with two networks of long names."""
    with serving() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        for number in range(2):
            name = f"timm/resnet50-{LONG.replace('/', '-')}-{number}"
            served.add(Repository(name, {"config.json": b"{}"}, "image-classification", ("timm", "license:mit")))
        yield


def arguments(case: str, places: dict[str, Path], tmp_path: Path) -> list[str]:
    """Return the arguments of a case; copies of the database are made."""
    for name in ("copy", "stale"):
        if f"{{{name}}}" in case:
            shutil.copytree(places["db"], tmp_path / name)
    if "{stale}" in case:
        shutil.copytree(places["one"] / "segments", tmp_path / "stale/segments", dirs_exist_ok=True)
        case += " --grace 0"
    words = [
        word.format(**places, copy=tmp_path / "copy", stale=tmp_path / "stale", tmp=tmp_path) for word in case.split()
    ]
    groups = [f"segmentation of {LONG} {number}" for number in range(2)]
    replaced = {"GROUPS": groups, "MODEL": [f"{LONG}-1-fine-tuned"]}
    return [each for word in words for each in replaced.get(word, [word])]


def capture(name: str, case: str, places: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> Captured:
    """Run a command once, and return what it prints at each width. Its messages fit into the narrowest terminal."""
    captured = Captured()
    module = import_module(f"filterdb.commands.{name.replace('-', '_')}")
    if hasattr(module, "print_answer"):
        patch.setattr(module, "print_answer", captured.print_answer)
    words = [name, *arguments(case, places, tmp_path)]
    if any("--threads" in parameter.opts for parameter in all_commands()[name].params):
        words += ["--threads", "2"]
    messages = Terminal()
    patch.setenv("COLUMNS", str(WIDTHS[0]))
    direct = Terminal()
    with loggers.restored(), redirect_stdout(direct), redirect_stderr(messages):
        code = program.run(words)
    assert code in {0, 1}, messages.getvalue()
    if direct.getvalue():  # `demo` prints other commands' tables
        captured.out.setdefault(WIDTHS[0], []).append(re.sub(r"\x1b\[[0-9;]*m", "", direct.getvalue()))
    assert_fits(settled(messages.getvalue()), WIDTHS[0])
    return captured


def settled(text: str) -> str:
    """Return what is left on a terminal of lines that a progress bar draws again and again."""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    return "\n".join(part for line in text.splitlines() for part in line.split("\r"))


def all_commands() -> dict[str, click.Command]:
    context = click.Context(commands)
    listed = {name: commands.get_command(context, name) for name in listed_helps()}
    return {name: command for name, command in listed.items() if command is not None}


def assert_fits(text: str, width: int) -> None:
    for line in text.splitlines():
        assert cell_len(line.rstrip()) <= width, f"{cell_len(line)} columns of {width}: {line!r}"


NUMBER = re.compile(r"[~<]?-?\d[\d,]*(\.\d+)?(e[+-]\d+)?[≈≠=?°~%]*")


CUT = re.compile(r"[~<]?-?(\d[\d,.e+-]*…[\d,.e+-]*|…[\d,.e+-]*\d)[≈≠=?°~%]*")


def numbers(text: str) -> set[str]:
    """Return the words of a text that are numbers, but for the titles of hidden columns. None is cut."""
    text = re.sub(r"\d+ columns? hidden: .*?;\s--wide\sshows\sall", "", text, flags=re.DOTALL)
    words = set(re.split(r"[\s×()]+", text))
    assert not [word for word in words if CUT.fullmatch(word)]
    return {word for word in words if NUMBER.fullmatch(word)}


def test_every_command_has_a_case() -> None:
    assert set(CASES) | ENDLESS.keys() >= set(listed_helps())
    assert set(CASES) <= set(listed_helps()), "cases of commands that are gone"


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, listed in CASES.items() for case in listed])
def test_output_fits(
    name: str, case: str, places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    if name == "catalog":
        request.getfixturevalue("hub")
    if name == "demo":  # without its downloads and its page
        database = fdb.open(places["db"])
        monkeypatch.setattr(demo, "run", lambda folder: demo.Demo(database, folder / "report/index.html"))
    if name == "report":  # the page takes seconds, and has tests of its own
        monkeypatch.setattr(fdb, "report", lambda db, output, **options: Path(output) / "index.html")
    captured = capture(name, case, places, tmp_path, monkeypatch)
    assert captured.out.keys() >= set(WIDTHS)
    whole = "\n".join(captured.out[None])
    for width in WIDTHS:
        text = "\n".join(captured.out[width])
        assert text.strip()
        assert_fits(text, width)
        if name != "demo":
            assert numbers(text) - numbers(whole) - numbers(captured.wide) <= {str(n) for n in range(30)}, width
    for line in whole.splitlines():
        if captured.wide and line.startswith(" ") and "   " in line.strip():  # a row of a table
            assert line.rstrip() in [each.rstrip() for each in captured.wide.splitlines()], line


def test_tables_have_wide() -> None:
    """A command that prints a table has --wide, and no other has."""
    folder = Path(str(program.__file__)).parent
    for name, command in all_commands().items():
        module = folder / f"{name.replace('-', '_')}.py"
        has_table = re.search(r"print_(table|rows)\(", module.read_text("utf-8")) is not None
        has_wide = any("--wide" in parameter.opts for parameter in command.params)
        assert has_wide == (has_table or name in {"check", "demo"}), name  # which print others' tables


@pytest.mark.parametrize("width", WIDTHS)
def test_help_fits(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for name in ("", *listed_helps()):
        with redirect_stdout(Terminal()) as stream:
            assert program.run([*([name] if name else []), "--help"]) == 0
        assert_fits(stream.getvalue(), width)


@pytest.mark.parametrize(
    "words",
    [
        ["drift", "/no/such/folder/" + "with-a-long-name/" * 9, "--by", "task"],
        ["drift", "db", "--by", "task", "--metric", "entropy" * 20],
        ["check", *("missing.onnx " * 3).split()],
        ["no-such-command" * 9],
        ["tag", "db", "--no-such-option"],
    ],
)
@pytest.mark.parametrize("width", WIDTHS)
def test_errors_fit(words: list[str], width: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(width))
    with loggers.restored(), redirect_stdout(Terminal()), redirect_stderr(Terminal()) as messages:
        assert program.run(words) != 0
    assert messages.getvalue().startswith("filterdb: ")
    assert_fits(messages.getvalue(), width)


def test_the_width_is_that_of_the_terminal(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A real terminal, whose width no variable says."""
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal, inner = pty.openpty()
    ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 72, 0, 0))
    command = [sys.executable, "-m", "filterdb", "models", str(places["db"])]
    with subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner) as process:
        os.close(inner)
        text = b""
        with suppress(OSError):  # Linux ends a terminal whose last process has ended with an error
            while data := os.read(terminal, 65_536):
                text += data
    os.close(terminal)
    assert process.returncode == 0, text
    shown = settled(text.decode())
    assert_fits(shown, 72)
    assert "hidden: " in shown and max(map(cell_len, shown.splitlines())) > 60


TABLE = [layout.name("model"), layout.number("filters"), layout.number("layers", 1), layout.text("reason", 2)]


def laid_out(columns: list[layout.Column], rows: list[list[Any]], width: int | None) -> str:
    return printed(lambda: table.print_table(columns, rows), width)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("drift {db} --by taks", "; did you mean task?"),
        ("drift {db} --by colour", ", such as task"),
        ("info {db} --snapshot newest", "; there are tags: none"),
        ("models {db} --where famly=ResNet", "; did you mean family?"),
        ("models {db} --where x=1", ", such as task"),
        ("layers {db} --exclude-verdict collapse", "; did you mean collapsed?"),
        ("layers {db} --exclude-verdict bad", "got 'bad'\n"),
        ("remove {db} " + LONG + "-1-finetuned", f"; did you mean {LONG}-1-fine-tuned?"),
        ("remove {db} vgg", "got 'vgg'; `filterdb models` lists them"),
        ("series {db} --training architectur", "; did you mean architecture?"),
        ("series {db} --training x", "got 'x'\n"),
        ("drift {db} --by task --mode sond", "; did you mean sound?"),
    ],
)
def test_a_near_name_is_suggested(words: str, hint: str, places: dict[str, Path]) -> None:
    """Of columns, keys, verdicts, models, choices; and none that is not near."""
    error = run(*words.format(**places).split(), code=2).stderr
    assert hint in error and error.count("did you mean") == hint.count("did you mean"), error


def test_skipped_convolutions_are_counted(places: dict[str, Path]) -> None:
    """With their reason; --skipped lists them."""
    text = run("layers", places["db"]).stdout
    assert "not stored: 5 convolutions; --skipped lists them\n  5 rank: " in text
    assert text.count("rank: ") == 1 and text.count("rank 5") == 1
    assert run("layers", places["db"], "--skipped").stdout.count("has rank 5") == 5
    assert "not stored: 1 convolution; --skipped lists it\n  1 rank: " in run("layers", places["one"]).stdout
    assert "512 filters, 2 layers, 1 model ·" in run("info", places["one"]).stdout


@pytest.mark.parametrize("width", WIDTHS)
def test_progress_fits(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers are whole at every width; the rate is shown where there is room."""
    monkeypatch.setenv("COLUMNS", str(width))
    with (
        redirect_stderr(Terminal()) as stream,
        progress.tally("joint histograms", 999_999, bars=True, lines=False) as tally,
    ):
        tally._recent.append((tally._recent[-1][0] - 10, 0))
        tally.done(123_456)
    text = settled(stream.getvalue())
    assert_fits(text, width)
    assert "123456/999999" in text and ("per second" in text) == (width > 80)


def test_names_stay_distinct() -> None:
    """They differ only in their middle, so they cannot be cut there."""
    names = [f"{'a' * 20}{i}{'b' * 20}" for i in range(3)]
    text = laid_out(
        [layout.name("name"), layout.number("n"), layout.number("m", 1)], [[name, LARGE, LARGE] for name in names], 60
    )
    assert all(name in text for name in names) and "1 column hidden: m" in text
    ends = [f"{'a' * 60}{i}" for i in range(3)]
    text = laid_out([layout.name("name"), layout.number("n")], [[name, LARGE] for name in ends], 40)
    assert len({line.split()[0] for line in text.splitlines() if "…" in line}) == 3


def test_the_least_important_columns_are_hidden_first() -> None:
    rows = [["m" * 20, LARGE, 12, "some words about a reason"]]
    assert "hidden" not in laid_out(TABLE, rows, 90)
    assert "1 column hidden: reason; --wide shows all" in laid_out(TABLE, rows, 50)
    assert "2 columns hidden: layers, reason; --wide shows all" in laid_out(TABLE, rows, 36).replace("\n", " ")
    assert "hidden" not in laid_out(TABLE, rows, None)


def test_rows_become_blocks() -> None:
    """Nothing is hidden then."""
    text = laid_out(TABLE, [["m" * 20, LARGE, 12, "some words"], ["n" * 50, 1, 1, "more"]], 24)
    titles = ("model", "filters", "layers", "reason")
    assert [line.split()[0] for line in text.splitlines() if line.startswith(titles)] == [*titles, *titles]
    assert f"{LARGE:,}" in text
    assert_fits(text, 24)


def test_a_mark_in_a_block_is_beside_a_value() -> None:
    """Before the first value, or behind the one before."""
    columns = [layout.word(""), layout.name("file"), layout.number("n"), layout.word(""), layout.text("found")]
    text = laid_out(columns, [["!", f"{'f' * 40}{k}{'f' * 40}", LARGE, "few", "words " * 9] for k in range(2)], 40)
    assert "file   ! fff" in text and f"n      {LARGE:,} few\n" in text and "\n       !" not in text


def test_numbers_continue_below() -> None:
    columns = [layout.name("group"), *(layout.number(str(i)) for i in range(12))]
    text = laid_out(columns, [[f"group {k}", *(round(0.1234 + i + k, 4) for i in range(12))] for k in range(3)], 40)
    assert numbers(text) >= {f"{0.1234 + i + k:.4g}" for i in range(12) for k in range(3)}
    assert text.count("group 0") > 1
    assert_fits(text, 40)


@pytest.mark.parametrize("seed", range(20))
def test_any_table_fits(seed: int) -> None:
    """Names of any length, also of characters two columns wide; a number is wider than no terminal."""
    rng = np.random.default_rng(seed)
    letters = ["a", "b", "-", "/", "_", " ", "漢", "é", "e\u0301", "🚀", "❤\ufe0f"]
    kinds: list[Callable[..., layout.Column]] = [layout.number, layout.name, layout.text, layout.word]
    columns = [
        kinds[rng.integers(4)](str("".join(rng.choice(letters, rng.integers(0, 30)))), int(rng.integers(4)))
        for _ in range(8)
    ]

    def cell(column: layout.Column) -> Any:
        if column.kind == "number":
            return int(10 ** rng.uniform(0, 10))
        return "".join(rng.choice(letters, rng.integers(0, 9 if column.kind == "word" else 90)))

    rows = [[cell(column) for column in columns] for _ in range(int(rng.integers(0, 6)))]
    for width in (30, *WIDTHS):
        text = laid_out(columns, rows, width)
        assert_fits(text, width)
        cells = [each for row in rows for each in zip(columns, row, strict=True) if each[0].kind == "number"]
        assert numbers(text) <= {f"{value:,}" for _, value in cells} | {str(n) for n in range(9)}
        assert numbers(text) >= {f"{value:,}" for column, value in cells if not column.hide}
