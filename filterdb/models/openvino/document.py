"""Parse the XML of an OpenVINO model: its layers, their ports and attributes, and the edges between them.

The standard library's expat does the work. A document type declaration, without which no entity can be declared, is
rejected, so nothing is expanded and nothing else is opened. Elements that are not needed are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from filterdb.errors import ModelError
from filterdb.models.file_kinds import describe
from filterdb.models.formats import MAX_XML_BYTES
from filterdb.models.parse_errors import MAX_NAME, shortened

MAX_ELEMENTS = 4_000_000
"""Most elements of the XML. A layer takes about 20, and an edge 1."""

MAX_LAYERS = 300_000
"""Most layers, those of bodies included."""

MAX_EDGES = 1_000_000
"""Most edges, those of bodies included."""

MAX_NESTING = 200
"""Most elements inside each other. Each level of bodies takes three."""

MAX_DIMS = 64
"""Most dimensions of a port."""

VERSIONS = (10, 11)
"""Versions of the format that are read. Older ones keep weights inside their layers."""

_INTEGER = re.compile(r"\s*([+-]?[0-9]{1,20})\s*")
_BODIES = {"body": "port_map", "then_body": "then_port_map", "else_body": "else_port_map"}
_DATA = {
    "auto_broadcast", "destination_type", "dilations", "element_type", "levels", "offset", "shape", "size",
    "special_zero", "strides",
}  # fmt: skip
"""The attributes of `data` that are kept."""


@dataclass(frozen=True, slots=True)
class BodyInput:
    """Where a Parameter of a body gets its value: the owner's input port, and whether it is the same in each turn."""

    port: int
    is_sliced: bool


@dataclass(eq=False, slots=True)
class Layer:
    """A layer as the XML states it. Ports are identified by their ids."""

    id: int
    name: str
    type: str
    opset: str
    data: dict[str, str] = field(default_factory=dict)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    dims: list[list[int]] = field(default_factory=list)
    """The shape of each output; −1 is unknown."""
    bodies: list[Network] = field(default_factory=list)
    body_inputs: dict[str, dict[int, BodyInput]] = field(default_factory=dict)
    """By the name of the port map: for the id of a Parameter in the body, where its value comes from."""
    back_edges: set[int] = field(default_factory=set)
    """Ids of the Parameters in the body that get a value from the previous turn."""


@dataclass(eq=False, slots=True)
class Network:
    """The whole network, or a body of one of its layers (of a Loop, TensorIterator or If)."""

    port_map: str = ""
    layers: dict[int, Layer] = field(default_factory=dict)
    edges: list[tuple[int, int, int, int]] = field(default_factory=list)
    """From layer, from port, to layer, to port."""


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed XML file."""

    network: Network
    constants: list[Layer]
    """Every layer of type Const, those of bodies too."""
    producer: str


def parse(path: Path) -> Document:
    """Parse the XML at `path`. Raises ModelError if it is not a readable OpenVINO model."""
    size = path.stat().st_size
    if size > MAX_XML_BYTES:
        raise ModelError(f"{path}: XML is {size / 1e6:.1f} MB; the limit is {MAX_XML_BYTES / 1e6:.1f} MB")
    parser = _Parser(path)
    try:
        parser.expat.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise ModelError(f"{path}: not an OpenVINO model: expected well-formed XML, got {error}") from error
    return Document(parser.root, parser.constants, parser.producer)


def integer(text: str | None) -> int:
    """Return the integer that a text has. Raises ValueError if it has none."""
    match = _INTEGER.fullmatch(text or "")
    if match is None:
        raise ValueError(f"expected an integer, got {shortened(repr(text), 40)}")
    return int(match[1])


Attributes = dict[str, str]


class _Parser:
    """Collects what expat reports. `path` has the elements that are open; it is empty text for a skipped one."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.root = Network()
        self.constants: list[Layer] = []
        self.producer = ""
        self.path: list[str] = []
        self.networks: list[Network] = []
        self.layers: list[Layer] = []
        self.dim: str | None = None
        self.elements = self.count = self.edges = 0
        self.expat = expat.ParserCreate()
        self.expat.buffer_text = True
        self.expat.StartDoctypeDeclHandler = self.doctype
        self.expat.EntityDeclHandler = self.doctype
        self.expat.StartElementHandler = self.start
        self.expat.EndElementHandler = self.end
        self.expat.CharacterDataHandler = self.text

    def fail(self, expected: str, got: str) -> NoReturn:
        """Raise ModelError for the current line."""
        line = self.expat.CurrentLineNumber
        raise ModelError(
            f"{self.file}: not an OpenVINO model: line {line}: expected {expected}, got {shortened(got, 60)}"
        )

    def doctype(self, *_: object) -> NoReturn:
        self.fail("no document type declaration", "one")

    def start(self, name: str, attributes: Attributes) -> None:
        self.elements += 1
        if self.elements > MAX_ELEMENTS:
            self.fail(f"at most {MAX_ELEMENTS:,} elements", "more")
        if len(self.path) >= MAX_NESTING:
            self.fail(f"elements nested at most {MAX_NESTING} deep", "deeper ones")
        parent = self.path[-1] if self.path else "/"
        handler = _HANDLERS.get((parent, name))
        if handler is not None:
            handler(self, attributes)
            self.path.append(name)
        elif parent in {"rt_info", "meta_data"}:
            self.producer = self.producer or _producer(name, attributes)
            self.path.append("")
        elif parent == "/":
            with self.file.open("rb") as file:
                self.fail("an element <net>", describe(file))
        else:
            self.path.append("")

    def end(self, _: str) -> None:
        name = self.path.pop()
        if name == "dim" and self.dim is not None:
            dims = self.layers[-1].dims[-1]
            if len(dims) == MAX_DIMS:
                self.fail(f"at most {MAX_DIMS} dimensions", "more")
            dims.append(self.number(self.dim))
            self.dim = None
        elif name == "layer":
            self.layers.pop()
        elif name in _BODIES:
            self.layers[-1].bodies.append(self.networks.pop())

    def text(self, data: str) -> None:
        if self.dim is not None:
            self.dim = shortened(self.dim + data, 40)

    def number(self, text: str | None) -> int:
        try:
            return integer(text)
        except ValueError as error:
            raise ModelError(
                f"{self.file}: not an OpenVINO model: line {self.expat.CurrentLineNumber}: {error}"
            ) from error

    def net(self, attributes: Attributes) -> None:
        version = self.number(attributes.get("version"))
        if version not in VERSIONS:
            remedy = "with OpenVINO 2020.4 or later" if version < VERSIONS[0] else "as IR version 11"
            raise ModelError(
                f"{self.file}: expected OpenVINO IR version 10 or 11, got {version}; convert the original model again "
                f"{remedy}"
            )
        self.networks.append(self.root)

    def body(self, port_map: str) -> None:
        self.networks.append(Network(port_map))

    def layer(self, attributes: Attributes) -> None:
        self.count += 1
        if self.count > MAX_LAYERS:
            self.fail(f"at most {MAX_LAYERS:,} layers", "more")
        number = self.number(attributes.get("id"))
        layer = Layer(
            number,
            shortened(attributes.get("name", ""), MAX_NAME),
            shortened(attributes.get("type", ""), 200),
            shortened(attributes.get("version", ""), 40),
        )
        layers = self.networks[-1].layers
        if number in layers:
            self.fail("ids of layers that differ", f"{number} twice")
        layers[number] = layer
        self.layers.append(layer)
        if layer.type == "Const":
            self.constants.append(layer)

    def data(self, attributes: Attributes) -> None:
        self.layers[-1].data |= {name: attributes[name] for name in _DATA & attributes.keys()}

    def port(self, attributes: Attributes) -> None:
        layer, number = self.layers[-1], self.number(attributes.get("id"))
        if self.path[-1] == "input":
            layer.inputs.append(number)
        else:
            layer.outputs.append(number)
            layer.dims.append([])

    def dimension(self, _: Attributes) -> None:
        self.dim = "" if self.path[-2] == "output" else None

    def body_input(self, attributes: Attributes) -> None:
        inner = self.number(attributes.get("internal_layer_id"))
        source = BodyInput(self.number(attributes.get("external_port_id")), "axis" in attributes)
        self.layers[-1].body_inputs.setdefault(self.path[-1], {})[inner] = source

    def back_edge(self, attributes: Attributes) -> None:
        self.layers[-1].back_edges.add(self.number(attributes.get("to-layer")))

    def edge(self, attributes: Attributes) -> None:
        self.edges += 1
        if self.edges > MAX_EDGES:
            self.fail(f"at most {MAX_EDGES:,} edges", "more")
        numbers = [self.number(attributes.get(name)) for name in ("from-layer", "from-port", "to-layer", "to-port")]
        self.networks[-1].edges.append((numbers[0], numbers[1], numbers[2], numbers[3]))

    def nothing(self, _: Attributes) -> None:
        pass


def _producer(name: str, attributes: Attributes) -> str:
    """Return the producer that an entry of the network's metadata states, or nothing."""
    value = attributes.get("value")
    return f"OpenVINO {shortened(value, 200)}" if name in {"MO_version", "Runtime_version"} and value else ""


def _body(port_map: str) -> Callable[[_Parser, Attributes], None]:
    return lambda parser, _: parser.body(port_map)


_HANDLERS: dict[tuple[str, str], Callable[[_Parser, Attributes], None]] = {
    ("/", "net"): _Parser.net,
    ("net", "rt_info"): _Parser.nothing,
    ("net", "meta_data"): _Parser.nothing,
    **{(owner, "layers"): _Parser.nothing for owner in ("net", *_BODIES)},
    **{(owner, "edges"): _Parser.nothing for owner in ("net", *_BODIES)},
    ("layers", "layer"): _Parser.layer,
    ("layer", "data"): _Parser.data,
    ("layer", "input"): _Parser.nothing,
    ("layer", "output"): _Parser.nothing,
    ("input", "port"): _Parser.port,
    ("output", "port"): _Parser.port,
    ("port", "dim"): _Parser.dimension,
    **{("layer", name): _body(port_map) for name, port_map in _BODIES.items()},
    **{("layer", port_map): _Parser.nothing for port_map in _BODIES.values()},
    **{(port_map, "input"): _Parser.body_input for port_map in _BODIES.values()},
    ("layer", "back_edges"): _Parser.nothing,
    ("back_edges", "edge"): _Parser.back_edge,
    ("edges", "edge"): _Parser.edge,
}
"""What is done with an element, by its parent and its name. Every other element is skipped, with all that is in it."""
