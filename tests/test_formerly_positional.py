"""Parameters that once could be given by position still can, with a warning that says where and which."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import filterdb as fdb
from filterdb.arguments import formerly_positional


@formerly_positional("mode", "metric")
def drift(
    db: str, by: str = "task", *, mode: str = "sound", metric: str = "kl", scaled: bool = True
) -> tuple[Any, ...]:
    """Return the arguments."""
    return db, by, mode, metric, scaled


OLD: Any = drift
"""The same function, for calls that a type checker refuses."""

SUBJECTS = {"by", "columns", "init", "snapshot", "sources", "where"}
"""Parameters with a default that say what a function is about. They may be given by position, options may not."""

FORMERLY = {
    "check": ["db", "rules"],
    "degeneration": ["mode", "rules", "threshold"],
    "density": ["components", "bins"],
    "drift": ["mode", "metric"],
    "exclude_verdict": ["mode"],
    "explain": ["mode"],
    "nearest": ["n"],
    "phenotypes": ["pairs"],
    "randomness_threshold": ["sizes", "draws", "repeats", "seed"],
    "report": ["mode"],
    "series": ["mode"],
}
"""What each of them once took by position as well, in this order."""


def positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters that a function takes by position."""
    parameters = inspect.signature(function).parameters.values()
    by_name = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    return [parameter for parameter in parameters if parameter.kind not in by_name]


def test_options_of_all_public_functions_are_keyword_only() -> None:
    wrong = [
        f"{name}({parameter.name})"
        for name in fdb.__all__
        if inspect.isfunction(function := getattr(fdb, name))
        for parameter in positional(function)
        if parameter.default is not inspect.Parameter.empty and parameter.name not in SUBJECTS
    ]
    assert not wrong


def test_the_database_comes_first() -> None:
    """But `catalog`, `check`, `randomness_threshold` and `summarise` need none, and `connect` is about workers."""
    first = {
        name: positional(getattr(fdb, name))[0].name for name in fdb.__all__ if inspect.isfunction(getattr(fdb, name))
    }
    others = {name for name, parameter in first.items() if parameter not in {"db", "url"}}
    assert others == {"catalog", "check", "connect", "randomness_threshold", "summarise"}


@pytest.mark.parametrize("name", FORMERLY)
def test_public_functions_take_their_old_order(name: str) -> None:
    """The warning, made an error here, comes before anything is computed."""
    function = getattr(fdb, name)
    arguments = [*(parameter.name for parameter in positional(function)), *FORMERLY[name]]
    listed = ", ".join(f"{option}=…" for option in FORMERLY[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning, match=f"{name}: pass {listed} by keyword"):
            function(*arguments)


def test_new_calls_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drift("db") == ("db", "task", "sound", "kl", True)
        assert drift("db", "model", metric="js", scaled=False) == ("db", "model", "sound", "js", False)


@pytest.mark.parametrize(
    ("arguments", "named", "mode", "metric"),
    [(("paper",), "mode=… by keyword; by position it is", "paper", "kl"),
     (("paper", "js"), "mode=…, metric=… by keyword; by position they are", "paper", "js")],
)  # fmt: skip
def test_old_calls_warn_where_they_are(arguments: tuple[str, ...], named: str, mode: str, metric: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"drift: pass {named} deprecated") as caught:
        assert OLD("db", "model", *arguments, scaled=False) == ("db", "model", mode, metric, False)
    assert [warning.filename for warning in caught] == [__file__]


def test_wrong_calls_are_errors_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError, match="positional arguments"):
            OLD("db", "model", "paper", "js", False)
        with pytest.raises(TypeError):
            OLD("db", "model", "paper", mode="sound")
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            OLD("db", mood="sound")


def test_an_unknown_option_is_an_error_before_anything_is_opened() -> None:
    call: Any = fdb.drift
    with pytest.raises(TypeError, match=r"drift\(\) got an unexpected keyword argument 'equal_model'"):
        call("nowhere", "task", equal_model=True)


def test_the_signature_is_the_new_one() -> None:
    parameters = inspect.signature(drift).parameters
    assert parameters["mode"].kind is parameters["metric"].kind is inspect.Parameter.KEYWORD_ONLY
    assert (drift.__name__, drift.__doc__) == ("drift", "Return the arguments.")


def test_randomness_threshold_takes_the_old_order() -> None:
    new = fdb.randomness_threshold("uniform", sizes=[4, 16, 64, 256], draws=5, repeats=2, seed=3)
    call: Any = fdb.randomness_threshold
    with pytest.warns(DeprecationWarning, match="randomness_threshold: pass sizes=…, draws=…, repeats=…, seed=… by"):
        old = call("uniform", [4, 16, 64, 256], 5, 2, 3)
    xr.testing.assert_identical(old, new)


@pytest.mark.slow
def test_a_type_checker_refuses_the_old_order_and_wrong_names(tmp_path: Path) -> None:
    """With the project's own settings, so that what `make lint` has cached is used."""
    script = tmp_path / "script.py"
    script.write_text(
        "import filterdb as fdb\n\n"
        "fdb.drift('db', by='task', mode='paper', metric='kl')\n"
        "fdb.drift('db', 'task', 'paper')\n"
        "fdb.drift('db', 'task', mood='paper')\n"
        "fdb.drift('db', 'task', metric='hellinger distance')\n"
        "fdb.ingest('db', 'model.onnx', chunkrows=9)\n"
        "fdb.drift('db', 'task', unit='family', equal_models=True, noise=200)\n"
        "fdb.drift('db', 'task', equal_model=True)\n"
        "fdb.drift('db', 'task', unit=7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    lines = [line.split(":")[1] for line in done.stdout.splitlines() if ": error:" in line]
    assert lines == ["4", "5", "6", "7", "9", "10"], done.stdout
