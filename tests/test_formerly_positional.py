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

POSITIONAL = {
    "check": ["paths"],
    "compact": ["db"],
    "connect": ["where"],
    "degeneration": ["db"],
    "density": ["db", "by"],
    "drift": ["db", "by"],
    "exclude_verdict": ["db", "verdicts"],
    "explain": ["db", "by", "a", "b"],
    "filter_scale": ["db", "by"],
    "gc": ["url"],
    "import_hdf5": ["url", "file"],
    "ingest": ["url", "sources"],
    "nearest": ["db", "path"],
    "open": ["url", "snapshot"],
    "pca": ["db", "by"],
    "phenotypes": ["db", "by"],
    "principal_angles": ["db", "by"],
    "randomness_threshold": ["init"],
    "refit": ["db"],
    "relabel": ["db", "catalog"],
    "remove": ["db", "models"],
    "report": ["db", "folder"],
    "restore": ["db", "snapshot"],
    "series": ["db"],
    "statistics": ["db", "columns"],
    "tag": ["db", "name"],
    "verify": ["db"],
}
"""What each public function takes by position: the database and what it is asked about, never an option."""

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


def test_options_of_all_public_functions_are_keyword_only() -> None:
    functions = {name: getattr(fdb, name) for name in fdb.__all__ if inspect.isfunction(getattr(fdb, name))}
    positional = {
        name: [
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        ]
        for name, function in functions.items()
    }
    assert positional == POSITIONAL


@pytest.mark.parametrize("name", FORMERLY)
def test_public_functions_take_their_old_order(name: str) -> None:
    """The warning, made an error here, comes before anything is computed."""
    arguments = [*POSITIONAL[name], *FORMERLY[name]]
    listed = ", ".join(f"{option}=…" for option in FORMERLY[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning, match=f"{name}: pass {listed} by keyword"):
            getattr(fdb, name)(*arguments)


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
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    lines = [line.split(":")[1] for line in done.stdout.splitlines() if ": error:" in line]
    assert lines == ["4", "5", "6", "7"], done.stdout
