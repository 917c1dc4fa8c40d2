"""What the XML of an OpenVINO model must be, and what is taken from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from filterdb.errors import ModelError
from filterdb.models.model import Request
from filterdb.models.openvino import document
from filterdb.models.openvino.document import parse
from filterdb.models.openvino.reading import OpenVinoFile
from tests.models import weights
from tests.models.openvino import Net, chain


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "m.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def small() -> Net:
    net = Net()
    net.add("Result", [net.conv(net.input(), net.const(weights()))])
    return net


@pytest.mark.parametrize("version", [0, 6, 7, 9, 12, -1])
def test_other_versions_are_rejected_with_the_remedy(tmp_path: Path, version: int) -> None:
    with pytest.raises(ModelError, match=rf"version 10 or 11, got {version}; convert the original model again"):
        parse(small().write(tmp_path / "m.xml", version))


@pytest.mark.parametrize("version", [10, 11])
def test_versions_that_are_read(tmp_path: Path, version: int) -> None:
    assert len(parse(small().write(tmp_path / "m.xml", version)).network.layers) == 4


@pytest.mark.parametrize(
    "declaration",
    [
        "<!DOCTYPE net>",
        '<!DOCTYPE net SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE net [<!ENTITY a "b">]>',
        '<!DOCTYPE net [<!ENTITY % a SYSTEM "http://localhost/"> %a;]>',
    ],
)
def test_document_types_are_rejected(tmp_path: Path, declaration: str) -> None:
    """Without one, a file can declare no entity, so that none is expanded or fetched."""
    text = small().text().replace("<net", f"{declaration}\n<net", 1)
    with pytest.raises(ModelError, match="expected no document type declaration"):
        parse(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<net", "well-formed"),
        ('<net version="11"><layers>', "well-formed"),
        ('<net version="11"><layers></net>', "well-formed"),
        ('<net version="11">&undeclared;</net>', "well-formed"),
        (b'<net version="11"><layers><layer id="0" name="\xff\xfe" type="Const"/></layers></net>', "well-formed"),
        ("<html><body/></html>", "an element <net>, got an HTML page"),
        ("<net/>", "an integer, got None"),
        ('<net version="1.9"/>', "an integer, got '1.9'"),
        (f'<net version="{"9" * 5_000}"/>', "an integer, got '999"),
    ],
)
def test_what_is_no_model(tmp_path: Path, text: str | bytes, reason: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse(written(tmp_path, text))
    assert reason in str(caught.value) and len(str(caught.value).replace(str(tmp_path), "")) < 200


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('<layer id="2"', '<layer id="1"', "ids of layers that differ, got 1 twice"),
        ('<layer id="2"', "<layer", "an integer, got None"),
        ('<layer id="2"', '<layer id="two"', "an integer, got 'two'"),
        ('<port id="0"/>', '<port id="-"/>', "an integer"),
        ('<port id="0"/>', '<port id="0"><dim>x</dim></port>', "an integer, got 'x'"),
        ('<port id="0"/>', f'<port id="0">{"<dim>1</dim>" * 65}</port>', "at most 64 dimensions"),
        ('to-layer="2"', "", "an integer, got None"),
    ],
)
def test_what_is_wrong_in_a_model(tmp_path: Path, old: str, new: str, reason: str) -> None:
    text = small().text()
    assert old in text
    with pytest.raises(ModelError, match=reason):
        parse(written(tmp_path, text.replace(old, new)))


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("MAX_LAYERS", 3, "at most 3 layers"),
        ("MAX_EDGES", 2, "at most 2 edges"),
        ("MAX_ELEMENTS", 20, "at most 20 elements"),
        ("MAX_NESTING", 4, "nested at most 4 deep"),
        ("MAX_XML_BYTES", 500, "the limit is 0.0 MB"),
    ],
)
def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, reason: str) -> None:
    path = small().write(tmp_path / "m.xml")
    parse(path)
    monkeypatch.setattr(document, limit, value)
    with pytest.raises(ModelError, match=reason):
        parse(path)


def test_elements_with_known_names_elsewhere_are_skipped(tmp_path: Path) -> None:
    more = '<rt_info><layers><layer id="0" name="x" type="Const"/></layers><MO_version value="7"/></rt_info>'
    inside = '<rt_info><data offset="9"/><input><port id="7"/></input><layer id="0"/></rt_info>'
    net = small()
    net.add("ReLU", [0], inside=inside)
    parsed = parse(net.write(tmp_path / "m.xml", more=more))
    assert len(parsed.network.layers) == 5 and parsed.network.layers[4].inputs == [0]
    assert parsed.producer == "OpenVINO 7"


@pytest.mark.parametrize(
    ("more", "producer"),
    [
        ("", ""),
        ('<meta_data><MO_version value="2022.1.0-7019"/></meta_data>', "OpenVINO 2022.1.0-7019"),
        ('<rt_info><Runtime_version value="2026.4.1"/><MO_version value="x"/></rt_info>', "OpenVINO 2026.4.1"),
        ("<rt_info><Runtime_version/></rt_info>", ""),
    ],
)
def test_producer(tmp_path: Path, more: str, producer: str) -> None:
    assert parse(small().write(tmp_path / "m.xml", more=more)).producer == producer


def test_the_data_file_has_the_name_of_the_xml(tmp_path: Path) -> None:
    weight = weights()
    path = chain(tmp_path / "a.b.xml", weight)
    file = OpenVinoFile(path, parse(path), Request("m.xml", 2**30))
    assert file.external_files() == {"a.b.bin": weight.nbytes}
    (layer,) = file.model().layers
    np.testing.assert_array_equal(layer.weight().filters, weight.reshape(-1, 9))


def test_no_data_file_is_needed_without_constants(tmp_path: Path) -> None:
    net = Net()
    net.add("Result", [net.add("ReLU", [net.input()])])
    path = net.write(tmp_path / "m.xml")
    assert OpenVinoFile(path, parse(path), Request("m.xml", 2**30)).external_files() == {}
