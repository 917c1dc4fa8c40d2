"""Format the findings of a check as SARIF 2.1.0 (OASIS Standard, 2020), which code hosts and editors show."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from filterdb.analysis.findings import ERROR, IGNORED, MEANINGS, REMEDIES, Finding, findings
from filterdb.plotting.drawing import visible
from filterdb.schema import kernel_name
from filterdb.version import __version__

if TYPE_CHECKING:
    from filterdb.analysis.findings import Result

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(result: Result, folder: Path | None = None) -> str:
    """Return a SARIF log as JSON text. Paths below `folder` (default: the current folder) are relative to it."""
    folder = (folder or Path.cwd()).resolve()
    failing = set(json.loads(result.attrs["rules"])["fail"])
    rules = list(MEANINGS)
    driver = {
        "name": "filterdb",
        "version": __version__,
        "semanticVersion": __version__,
        "rules": [
            {
                "id": rule,
                "name": rule.title().replace("-", ""),
                "shortDescription": {"text": MEANINGS[rule]},
                "help": {"text": REMEDIES[rule]},
                "defaultConfiguration": {"level": "error" if rule in failing else "warning"},
            }
            for rule in rules
        ],
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": not all(result["reason"].values)}],
        "results": [_result(finding, rules.index(finding.rule), folder) for finding in findings(result)],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _result(finding: Finding, index: int, folder: Path) -> dict[str, Any]:
    """Return a SARIF result for a finding; `index` is the position of its rule."""
    uri = _uri(finding.file, folder)
    # A model has no lines, but viewers require one.
    place: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": 1}}}
    if finding.layer:
        name = f"{finding.file}:{finding.layer}"
        place["logicalLocations"] = [{"name": finding.layer, "fullyQualifiedName": name, "kind": "object"}]
    subject = _plain(finding.layer or finding.file)
    digest = hashlib.sha256("\n".join((uri, finding.layer, finding.rule)).encode()).hexdigest()[:16]
    more: dict[str, Any] = {}
    if finding.level == IGNORED:
        more["suppressions"] = [{"kind": "external", "justification": "ignored by the file of rules"}]
    shape = {"kernel": kernel_name(finding.kernel)} if finding.kernel[0] else {}
    if finding.numbers or shape:
        more["properties"] = {**finding.numbers, **shape}
    return {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": "error" if finding.level == ERROR else "warning",
        "message": {"text": f"{subject}: {finding.rule}: {_plain(finding.message)}. {finding.remedy}"},
        "locations": [place],
        # The fingerprint identifies a finding across runs, whatever else changes in the file.
        "partialFingerprints": {"primaryLocationLineHash": f"{digest}:1"},
        **more,
    }


def _plain(text: str) -> str:
    """Escape text that may be hostile, so that SARIF reads no link and no placeholder (3.11.5, 3.11.6)."""
    escaped = re.sub(r"([\\\[\]])", r"\\\1", visible(text))
    return escaped.replace("{", "{{").replace("}", "}}")


def _uri(file: str, folder: Path) -> str:
    """Return the URI of a file, relative to `folder` if it lies below."""
    if "://" in file:
        return quote(file, safe=":/%")
    path = Path(file).resolve()
    return quote(path.relative_to(folder).as_posix()) if path.is_relative_to(folder) else path.as_uri()
