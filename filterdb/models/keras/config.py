"""Parse the config of a Keras model into layers, the tensors that each call of a layer reads, and nested models.

Keras 2 writes the tensors of a call as [[layer, call, tensor, {keywords}], …], Keras 3 as dictionaries with a
`keras_history` inside the call's arguments. A Sequential model has a list of layers and no calls.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_CONFIG = 32 * 2**20
"""Most bytes of a config. Those of networks with a thousand layers have a few million."""

MAX_LAYERS = 100_000
"""Most layers of a config, those of nested models included."""

MAX_NESTED = 50
"""Most models and wrappers inside each other."""

Reference = tuple[int, int, int]
"""A tensor that a call reads: the position of the layer in its model, the number of its call, that of its result."""


@dataclass(slots=True)
class Layer:
    """A layer of a model. One that wraps another, such as TimeDistributed, is the layer that it wraps."""

    class_name: str
    name: str
    settings: dict[str, Any] = field(repr=False)
    path: tuple[str, ...]
    """Names of the models and wrappers around it, and its own."""
    store: str
    """Its group in a weights file of Keras 3."""
    calls: list[list[Reference]] = field(default_factory=list, repr=False)
    inner: Graph | None = field(default=None, repr=False)
    """The nested model that it is."""
    is_shared: bool = False
    """The same layer may be in another nested model, with its weights."""

    @property
    def is_input(self) -> bool:
        """Whether it only names an input."""
        return self.class_name == "InputLayer"

    @property
    def trainable(self) -> bool:
        """Whether its weights are trained, which orders them in a file of Keras 2."""
        return self.settings.get("trainable") is not False

    def leaves(self) -> Iterator[Layer]:
        """Yield the layers without layers inside, in the config's order."""
        pending = [self]
        while pending:
            layer = pending.pop()
            if layer.inner is None:
                yield layer
            else:
                pending += reversed(layer.inner.layers)


@dataclass(slots=True)
class Graph:
    """A model's layers in the config's order, and the tensors that are its inputs and outputs."""

    layers: list[Layer]
    inputs: list[Reference]
    outputs: list[Reference]


def parse_config(data: str | bytes) -> Graph | None:
    """Return the graph of a model's config; None if it has none, as that of a subclassed model.

    Raises ValueError, TypeError or RecursionError for a config that is none of Keras.
    """
    if len(data) > MAX_CONFIG:
        raise ValueError(f"a config of {len(data):,} bytes; the limit is {MAX_CONFIG:,}")
    config = json.loads(data)
    if not isinstance(config, dict):
        raise TypeError("a config that is no object")
    settings = config.get("config")
    if not _is_model(config.get("class_name"), settings):
        return None
    return _Parser().graph(config.get("class_name"), settings, (), "")


def _is_model(class_name: Any, settings: Any) -> bool:
    """Return whether a layer is a model whose config has its layers."""
    if class_name == "Sequential" and isinstance(settings, list):
        return True  # until Keras 2.2.2
    return (
        isinstance(settings, dict)
        and isinstance(settings.get("layers"), list)
        and (class_name in {"Sequential", "Functional", "Model"} or "input_layers" in settings)
    )


class _Parser:
    """Parse models inside models, up to a number of layers."""

    def __init__(self) -> None:
        self.room = MAX_LAYERS

    def graph(self, class_name: Any, settings: Any, path: tuple[str, ...], store: str) -> Graph:
        """Return the graph of a model whose layers lie in the group `store` of a weights file of Keras 3."""
        if len(path) > MAX_NESTED:
            raise ValueError(f"a config with models more than {MAX_NESTED} deep")
        entries = settings if isinstance(settings, list) else settings["layers"]
        self.room -= len(entries)
        if self.room < 0:
            raise ValueError(f"a config of more than {MAX_LAYERS:,} layers")
        layers: list[Layer] = []
        places: dict[str, int] = {}
        counts: Counter[str] = Counter()
        for entry in entries:
            layer = self._layer(entry, path, f"{store}/layers".lstrip("/"), counts)
            if places.setdefault(layer.name, len(layers)) != len(layers):
                raise ValueError(f"two layers of the name {layer.name[:80]!r}")
            layers.append(layer)
        if isinstance(settings, list) or not any("inbound_nodes" in entry for entry in entries):
            return _sequential(layers)
        for layer, entry in zip(layers, entries, strict=True):
            nodes = entry.get("inbound_nodes") or []
            layer.calls = [list(_references(node, places)) for node in nodes] or [[]]
        inputs = list(_references(settings.get("input_layers"), places))
        return Graph(layers, inputs, list(_references(settings.get("output_layers"), places)))

    def _layer(self, entry: Any, path: tuple[str, ...], folder: str, counts: Counter[str]) -> Layer:
        """Return a layer of a model, and count its class, by which Keras 3 names its group."""
        class_name, settings = _described(entry)
        name = entry.get("name") or (settings.get("name") if isinstance(settings, dict) else None) or class_name
        if not isinstance(name, str):
            raise TypeError("a layer whose name is no text")
        group = _snake_case(class_name)
        counts[group] += 1
        store = f"{folder}/{group}" + (f"_{counts[group] - 1}" if counts[group] > 1 else "")
        own, place = name, (*path, name)
        while isinstance(settings, dict) and isinstance(settings.get("layer"), dict):
            class_name, settings = _described(settings["layer"])
            store = f"{store}/layer"
            own = settings.get("name", own) if isinstance(settings, dict) else own
            place = (*place, str(own))
            if len(place) > MAX_NESTED:
                raise ValueError(f"a config with layers more than {MAX_NESTED} deep")
        inner = self.graph(class_name, settings, place, store) if _is_model(class_name, settings) else None
        is_shared = entry.get("shared_object_id") is not None
        return Layer(
            class_name,
            name,
            settings if isinstance(settings, dict) else {},
            place,
            store,
            inner=inner,
            is_shared=is_shared,
        )


def _described(entry: Any) -> tuple[str, Any]:
    """Return the class and the settings of a layer's entry."""
    if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
        raise TypeError("a layer without a class_name")
    settings = entry.get("config")
    if not isinstance(settings, dict | list | None):
        raise TypeError(f"a layer whose config is a {type(settings).__name__}")
    # A registered class of the user is called package>Class.
    return entry["class_name"].rpartition(">")[2], {} if settings is None else settings


def _sequential(layers: list[Layer]) -> Graph:
    """Return the graph of layers that follow each other."""
    if not layers or not layers[0].is_input:
        layers = [Layer("InputLayer", "", {}, (), ""), *layers]
    for position, layer in enumerate(layers):
        layer.calls = [[(position - 1, 0, 0)] if position else []]
    return Graph(layers, [(0, 0, 0)], [(len(layers) - 1, 0, 0)])


def _references(data: Any, places: dict[str, int]) -> Iterator[Reference]:
    """Yield the tensors that a part of a config names, in the order in which Keras flattens it.

    Whatever else the part has, such as constants and names that no layer has, is skipped.
    """
    if isinstance(data, dict):
        if data.get("class_name") == "__keras_tensor__" and isinstance(data.get("config"), dict):
            yield from _references(data["config"].get("keras_history"), places)
            return
        for _, value in sorted(data.items()):
            yield from _references(value, places)
    elif isinstance(data, list):
        match data:
            case [str(name), int(call), int(tensor), *more] if name in places and call >= 0 and tensor >= 0:
                yield places[name], call, tensor
                yield from _references(more, places)
            case _:
                for value in data:
                    yield from _references(value, places)


def _snake_case(name: str) -> str:
    """Return the name that Keras 3 gives to the group of a class in a weights file (`naming.to_snake_case`)."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
