"""Format the findings of a check as JUnit XML, which CI servers show as tests: a suite per file, a case per layer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from filterdb.analysis.findings import ERROR, IGNORED, NOT_CHECKED, Finding, findings
from filterdb.analysis.rules import MODEL_RULES
from filterdb.plotting.drawing import visible

if TYPE_CHECKING:
    from filterdb.analysis.findings import Result

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not allow, not even escaped; names come from files that may be hostile."""


def junit(result: Result) -> str:
    """Return JUnit XML. A broken rule is a failure, a layer that could not be checked an error, a warning is output."""
    by_layer: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings(result):
        by_layer.setdefault((finding.file, finding.layer), []).append(finding)
    suites = ElementTree.Element("testsuites", name="filterdb check")
    columns = (result[name].values for name in ("layer_file", "layer_name", "kernel"))
    layers = [(str(file), str(layer), str(kernel)) for file, layer, kernel in zip(*columns, strict=True)]
    for file in map(str, result["file"].values):
        suite = ElementTree.SubElement(suites, "testsuite", name=_text(file))
        whole = by_layer.get((file, ""), [])
        _case(suite, file, "can be checked", [finding for finding in whole if finding.rule in NOT_CHECKED])
        own = [(layer, kernel) for owner, layer, kernel in layers if owner == file]
        if own:
            _case(suite, file, "is trained", [finding for finding in whole if finding.rule in MODEL_RULES])
        for layer, kernel in own:
            _case(suite, file, layer, by_layer.get((file, layer), []), kernel)
        _count(suite)
    _count(suites)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, file: str, name: str, listed: list[Finding], kernel: str = "") -> None:
    """Add the case of a layer, whose kernel shape is a property, or of a whole file."""
    case = ElementTree.SubElement(suite, "testcase", classname=_text(file), name=_text(name))
    if kernel:
        properties = ElementTree.SubElement(case, "properties")
        ElementTree.SubElement(properties, "property", name="kernel", value=kernel)
    errors = [finding for finding in listed if finding.level == ERROR]
    if errors:
        # Only one verdict for a case, because some readers reject a second.
        kind = "error" if errors[0].rule in NOT_CHECKED else "failure"
        element = ElementTree.SubElement(case, kind, type=errors[0].rule, message=_text(_line(errors[0])))
        element.text = _text("\n".join(f"{_line(finding)}. {finding.remedy}" for finding in errors))
    elif listed and all(finding.level == IGNORED for finding in listed):
        ElementTree.SubElement(case, "skipped", message=_text(f"ignored: {_line(listed[0])}"))
    rest = [finding for finding in listed if finding.level != ERROR]
    if rest:
        ElementTree.SubElement(case, "system-out").text = _text("\n".join(f"{f.level}: {_line(f)}" for f in rest))


def _count(element: ElementTree.Element) -> None:
    """Set the number of cases of each kind."""
    for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(name, str(len(element.findall(f".//{tag}"))))


def _line(finding: Finding) -> str:
    return f"{finding.rule}: {finding.message}"


def _text(text: str) -> str:
    """Return text that XML allows. Line breaks stay, because only filterdb adds them."""
    return _NOT_XML.sub("�", "\n".join(map(visible, text.split("\n"))))
