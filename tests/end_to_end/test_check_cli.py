"""`filterdb check` and `filterdb nearest` as a user, a CI job and a program meet them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import yaml

from tests.commands.running import run, run_process
from tests.filters import network, trained
from tests.models import chain, save

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


def test_a_newcomer_has_an_answer(demo_catalog: Path) -> None:
    """What takes seconds to import is not imported for the help."""
    path = next(demo_catalog.parent.glob("*nsfw*/**/*.onnx"))
    done = run_process("check", path)
    assert "collapsed" in done.stdout and "passed: 1 model, 53 layers, 314,560 filters · 1 warning" in done.stdout
    assert (
        "layers by kernel: 3×3: 16, 7×7: 1, 1×1: 36 (1×1: only peak, sparsity and duplicates are checked)"
        in done.stdout
    )
    assert done.stderr == ""
    done = run_process("check", path, "--kernel", "3x3")
    assert done.stdout.splitlines()[-2:] == [
        "not checked: 37 convolutions without a 3×3 weight (37 kernel)",
        "passed: 1 model, 16 layers, 314,368 filters · 1 warning",
    ]
    script = (
        "import sys, runpy; sys.argv = ['filterdb', 'check', '--help']\n"
        "try: runpy.run_module('filterdb', run_name='__main__')\n"
        "except SystemExit: print(*(m for m in ('distributed', 'bokeh', 'zarr', 'numba', 's3fs') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == ""


def test_check_in_ci(tmp_path: Path) -> None:
    """Exit codes, files for others, JSON."""
    zero = np.zeros((16, 16, 3, 3), np.float32)
    chain(tmp_path / "good.onnx", trained(16, 16), trained(16, 16, 1))
    chain(tmp_path / "bad.onnx", trained(16, 16, 2), zero)
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    assert "passed" in run("check", "good.onnx", cwd=tmp_path).stdout
    done = run("check", "good.onnx", "bad.onnx", "--sarif", "o.sarif", "--junit", "o.xml", code=1, cwd=tmp_path)
    line = next(line for line in done.stdout.splitlines() if "conv1" in line)
    assert all(word in line for word in ("bad.onnx", "dead", "all 256 filters are zero"))
    assert "could be pruned: 256 filters, 2,304 parameters (25.0% of the parameters of 3×3 layers)" in done.stdout
    (result,) = json.loads((tmp_path / "o.sarif").read_text())["runs"][0]["results"]
    assert (result["ruleId"], result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]) == (
        "dead",
        "bad.onnx",
    )
    assert ElementTree.parse(tmp_path / "o.xml").getroot().get("failures") == "1"
    found = json.loads(run("check", "good.onnx", "bad.onnx", "junk.onnx", "--json", code=1, cwd=tmp_path).stdout)
    assert found.keys() >= {"snapshot", "selection", "filters", "layers", "models", "ok", "rows"}
    assert (found["snapshot"], found["ok"], found["models"], found["layers"]) == (None, False, 2, 4)
    assert found["rows"][0].keys() >= {
        "file", "layer", "filters", "sparsity", "variance_entropy", "threshold", "verdict",
    }  # fmt: skip
    assert [row["verdict"] for row in found["rows"]] == [
        [], [], [], ["dead", "sparse", "collapsed"], ["unreadable"],
    ]  # fmt: skip
    (tmp_path / "rules.toml").write_text('fail = ["nonfinite"]')
    run("check", "good.onnx", "bad.onnx", "--rules", "rules.toml", cwd=tmp_path)


def test_what_was_not_checked_does_not_pass(tmp_path: Path) -> None:
    """Exit code 1 and a last line that says so; what is missing stands first."""
    chain(tmp_path / "dead.onnx", np.zeros((16, 16, 3, 3), np.float32))
    proto = onnx.load(chain(tmp_path / "m" / "odd.onnx", trained(16, 16), trained(16, 16, 1)))
    proto.graph.initializer[1].raw_data = b"short"
    save(tmp_path / "m" / "odd.onnx", proto)
    done = run("check", "dead.onnx", "m", code=1, cwd=tmp_path)
    lines = done.stdout.splitlines()
    rules = [
        rule for line in lines for rule in ("unread", "dead") if line.lstrip().startswith("✗") and rule in line.split()
    ]
    assert rules == ["unread", "dead"]
    assert lines[-1] == "incomplete: 2 models, 2 layers checked, 1 not read · 2 errors"
    (tmp_path / "rules.toml").write_text('ignore = ["m/odd.onnx:conv1", "vad.onnx:*"]')
    done = run("check", "m", "--rules", "rules.toml", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "incomplete: 1 model, 1 layer checked, 1 not read · 1 ignored"
    chain(tmp_path / "vad.onnx", np.ones((4, 4, 3, 3, 3), np.float32))
    done = run("check", "vad.onnx", code=1, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "nothing-checked: 1 model without a layer to check · 1 error"
    run("check", "vad.onnx", "--rules", "rules.toml", cwd=tmp_path)
    answer = json.loads(run("check", "vad.onnx", "m", "--json", code=1, cwd=tmp_path).stdout)
    assert [(file["status"], file["unread"]) for file in answer["files"]] == [("nothing-checked", 0), ("incomplete", 1)]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["junk.onnx"], 65, "filterdb: junk.onnx: not an ONNX model: expected a protobuf ModelProto"),
        (["absent.onnx"], 65, "filterdb: absent.onnx: expected a file, found none; check the path"),
        (["empty"], 65, "filterdb: empty: expected models (.onnx, "),
        (
            ["empty/*.onnx", "absent.onnx"],
            65,
            "none of the 2 inputs is a readable model: empty/*.onnx: expected files that match, found none",
        ),
        ([], 2, "Missing argument 'MODEL...'"),
        (["good.onnx", "--rules", "absent.toml"], 2, "absent.toml: expected rules in TOML"),
        (["good.onnx", "--sarif", "no/folder.sarif"], 2, "no/folder.sarif: cannot write the file: No such"),
        (["good.onnx", "--snapshot", "0"], 2, "--snapshot requires --db"),
        (["good.onnx", "--db", "nowhere", "--threads", "1"], 74, "expected a filterdb database, found no snapshot"),
    ],
)
def test_errors_of_check_are_one_line(tmp_path: Path, args: list[str], code: int, says: str) -> None:
    chain(tmp_path / "good.onnx", trained(16, 16))
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    (tmp_path / "empty").mkdir()
    done = run("check", *args, code=code, cwd=tmp_path)
    assert says in done.stderr
    assert len([line for line in done.stderr.splitlines() if line]) == 1


def test_check_and_nearest_with_a_database(tmp_path: Path) -> None:
    names = [network(tmp_path / f"m{i}.onnx", i, i % 2) for i in range(4)]
    run("ingest", tmp_path / "db", *names, "--threads", 1)
    query = network(tmp_path / "q.onnx", 8, 1)
    found = json.loads(run("check", query, "--db", tmp_path / "db", "--json", "--threads", 1).stdout)
    assert found["snapshot"] == 0
    assert {"sparsity_percentile", "ratio_percentile", "peers"} <= found["rows"][0].keys()
    assert [row["peers"] for row in found["rows"]] == [4, 4, 4]
    table = run("check", query, "--db", tmp_path / "db", "--threads", 1).stdout
    assert "percentiles among the database's layers" in table
    ranked = json.loads(run("nearest", tmp_path / "db", query, "-n", 3, "--json", "--threads", 1).stdout)
    assert ranked["rows"][0].keys() >= {"model", "drift", "floor", "task", "training_dataset"}
    assert [Path(row["model"]).stem for row in ranked["rows"][:2]] in (["m1", "m3"], ["m3", "m1"])
    table = run("nearest", tmp_path / "db", query, "--by-decile", "--threads", 1).stdout
    assert "0.4–0.5" in table and "it does not predict accuracy after transfer" in table
    assert "accuracy" in run("nearest", "--help").stdout
    refused = run("nearest", tmp_path / "db", query, "--where", "task=poetry", "--threads", 1, code=65)
    assert "expected layers with task = poetry" in refused.stderr


def test_the_hook_runs_check_on_models() -> None:
    """The example of its use is tested with the documentation (tests/docs)."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert (hook["id"], hook["entry"], hook["files"]) == ("filterdb-check", "filterdb check", r"\.onnx$")
