"""Run the examples of public docstrings, on one small database of two classifiers and two detectors."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import filterdb as fdb
from filterdb.arguments import formerly_positional
from tests.filters import moved, network
from tests.models import chain

CATALOG = """\
path,name,task,architecture,training_dataset,seed,epoch
models/classifier-1.onnx,classifier-1,classification,A,ImageNet,1,
models/classifier-2.onnx,classifier-2,classification,A,ImageNet,2,
models/detector-10.onnx,detector-10,detection,B,COCO,,10
models/detector-20.onnx,detector-20,detection,B,COCO,,20
"""

DOCUMENTED = {name: getattr(fdb, name) for name in fdb.__all__ if callable(getattr(fdb, name))}
DOCUMENTED["formerly_positional"] = formerly_positional

ANALYSES = {
    name
    for name, documented in DOCUMENTED.items()
    if inspect.isfunction(documented) and documented.__module__.startswith("filterdb.analysis.")
}
"""Public functions that must have an example."""


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Make the names that examples use, in a folder with the models that they read."""
    folder = tmp_path_factory.mktemp("doctests")
    (folder / "models").mkdir()
    for family, kind in enumerate((("classifier-1", "classifier-2"), ("detector-10", "detector-20"))):
        for seed, name in enumerate(kind):
            network(folder / f"models/{name}.onnx", seed, family)
    rng = np.random.default_rng(0)
    fresh = [rng.normal(0, 0.05, (out, into, 3, 3)).astype(np.float32) for into, out in ((16, 32), (32, 64), (64, 48))]
    chain(folder / "models/fresh.onnx", *fresh)
    moved(folder / "models/detector-10.onnx", folder / "models/tuned.onnx", share=0.2)
    (folder / "models.csv").write_text(CATALOG, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        db = fdb.ingest("db", catalog="models.csv").database
        yield {"fdb": fdb, "np": np, "db": db, "formerly_positional": formerly_positional}


def _example(name: str, globs: dict[str, Any]) -> doctest.DocTest:
    """Return the example of a public name. doctest's own finder skips functions that a decorator wraps."""
    docstring = inspect.getdoc(DOCUMENTED[name]) or ""
    return doctest.DocTestParser().get_doctest(docstring, dict(globs), name, None, None)


def test_every_analysis_has_an_example() -> None:
    assert {name for name in ANALYSES if not _example(name, {}).examples} == set()


@pytest.mark.parametrize("name", [name for name in DOCUMENTED if _example(name, {}).examples])
def test_example(name: str, namespace: dict[str, Any]) -> None:
    lines: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(_example(name, namespace), out=lines.append)
    assert result.failed == 0, "".join(lines)
