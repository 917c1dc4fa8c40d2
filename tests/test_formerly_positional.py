"""Parameters that once could be given by position still can, with a warning that says where and which."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
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
def test_a_type_checker_refuses_the_old_order(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from filterdb.arguments import formerly_positional\n\n"
        "@formerly_positional('mode')\n"
        "def drift(db: str, *, mode: str = 'sound') -> str:\n    return db + mode\n\n"
        "drift('db', mode='paper')\n"
        "drift('db', 'paper')\n"
        "drift('db', mood='paper')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    lines = [line.split(":")[1] for line in done.stdout.splitlines() if ": error:" in line]
    assert lines == ["8", "9"], done.stdout
