"""List the convolutions of a Keras model, from its graph or, if the file has none, from its weights alone."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

import numpy as np

from filterdb.errors import ModelError
from filterdb.models.convolutions import UNKNOWN_GROUPS, Convolution, make_model
from filterdb.models.keras.config import Graph, Layer
from filterdb.models.keras.graph import Node, Nodes, unroll
from filterdb.models.keras.kernels import (
    KERNELS,
    NO_CONVOLUTIONS,
    NORMS,
    Kernel,
    contradiction,
    groups,
    refusal,
    spatial,
)
from filterdb.models.keras.unlabelled import Found, find_kernels, is_norm
from filterdb.models.keras.weights import Layout
from filterdb.models.keras.weights_file import StoredTensor
from filterdb.models.model import Model, Request
from filterdb.models.parse_errors import NotStoredError
from filterdb.wording import counted

MAX_CONVOLUTIONS = 100_000
"""Most convolutions of a model."""


def read_model(graph: Graph | None, layout: Layout, request: Request, producer: str) -> Model:
    """Return the model. Raises ModelError if it has no convolution."""
    facts: dict[str, Any] = {"producer": producer, "source_format": "Keras"}
    if graph is None:
        convolutions, more, facts["depth_source"] = _of_weights(layout, request)
    else:
        nodes = unroll(graph)
        convolutions, more = _of_nodes(nodes, layout, request)
        facts |= {"depth_source": "graph", "model_depth": nodes.depth, "operators": nodes.operators}
    if not convolutions and not more:
        got = "weights of other layers" if graph is None else counted(len(graph.layers), "other layer")
        raise ModelError(
            f"{request.named}: no convolution found: expected a Conv2D or a layer like it, got {got}; "
            "give a convolutional network"
        )
    if len(convolutions) + len(more) > MAX_CONVOLUTIONS:
        got = f"{len(convolutions) + len(more):,}"
        raise ModelError(f"{request.named}: expected at most {MAX_CONVOLUTIONS:,} convolutions, got {got}")
    return make_model(convolutions, request.kernels, more=more, **facts)


def _of_nodes(nodes: Nodes, layout: Layout, request: Request) -> tuple[list[Convolution], list[Convolution]]:
    """Return the convolutions of a graph in the order of its nodes, and those of rank 3 inside unknown layers."""
    normalised = nodes.normalised()
    has_norms = any(node.layer.class_name in NORMS for node in nodes.nodes)
    known: dict[int, list[StoredTensor] | NotStoredError] = {}
    others: dict[int, tuple[list[Found], list[Found]]] = {}
    convolutions: list[Convolution] = []
    more: list[Convolution] = []
    for position, node in enumerate(nodes.nodes):
        layer, length = node.layer, nodes.lengths[position]
        if node.kernel is None:
            if id(layer) not in others:
                others[id(layer)] = _inside(layer, layout, request)
            for listed, inside in zip((convolutions, more), others[id(layer)], strict=True):
                listed += [_found(found, length, has_norms=has_norms) for found in inside]
            continue
        if id(layer) not in known:
            known[id(layer)] = _located(layer, layout)
        own_norm = position in normalised
        batch_norm = "unfolded" if own_norm else _elsewhere(_has_bias(node), has_norms=has_norms)
        convolutions.append(_convolution(layer, node.kernel, known[id(layer)], length, batch_norm))
    return convolutions, more


def _elsewhere(has_bias: bool, *, has_norms: bool) -> str:
    """Return where the batch normalisation is of a convolution that none follows.

    It may have been folded only into a weight with a bias, in a file that has no batch normalisation left.
    """
    return "none" if has_norms or not has_bias else "unknown"


def _has_bias(node: Node) -> bool:
    return node.is_last and node.layer.settings.get("use_bias") is not False


def _located(layer: Layer, layout: Layout) -> list[StoredTensor] | NotStoredError:
    try:
        return layout.kernels(layer)
    except NotStoredError as error:
        return error


def _inside(layer: Layer, layout: Layout, request: Request) -> tuple[list[Found], list[Found]]:
    """Return the kernels in a layer whose class is not known, as of a user's own layer made of layers."""
    if layer.class_name in NORMS | NO_CONVOLUTIONS:
        return [], []
    return find_kernels(layout.units_of(layer), request.kernels)


def _convolution(
    layer: Layer, kernel: Kernel, tensors: list[StoredTensor] | NotStoredError, length: int | None, batch_norm: str
) -> Convolution:
    """Return the convolution of a kernel of a layer that the config describes."""
    settings = layer.settings
    kernels = KERNELS[layer.class_name]
    refused = refusal(layer.class_name, settings)
    stored: tuple[int, ...] = (0,) * kernel.rank
    number, dtype = UNKNOWN_GROUPS, ""
    place: Hashable = (id(layer), kernel.role)
    path: tuple[str, ...] = ()
    read = partial(_unread, NotStoredError("missing", "the file has no such weight"))
    if isinstance(tensors, NotStoredError):
        refused = refused or tensors
    else:
        tensor = tensors[kernels.index(kernel)]
        stored, place, path = tensor.shape, tensor.address, (tensor.name,)
        dtype = _dtype(tensor, settings)
        read = partial(_read, tensor, kernel, dtype)
        refused = refused or contradiction(kernel, settings, stored)
        if refused is None:
            try:
                number = groups(kernel, settings, stored)
            except NotStoredError as error:
                refused = error
    return Convolution(
        name=clean("/".join((*layer.path, kernel.role) if len(kernels) > 1 else layer.path)),
        shape=kernel.shape(stored) if len(stored) >= 2 else stored,
        read=read,
        source_dtype=dtype,
        place=place,
        path=tuple(map(clean, path)),
        batch_norm=batch_norm,
        length=length,
        groups=number,
        operator=layer.class_name,
        strides=spatial(kernel, settings.get("strides")),
        dilations=spatial(kernel, settings.get("dilation_rate")),
        refused=refused,
    )


def _dtype(tensor: StoredTensor, settings: dict[str, Any]) -> str:
    """Return the type of a tensor. Keras 3 writes bfloat16 as opaque values into `.h5`: the layer's policy names it."""
    if not tensor.is_opaque:
        return tensor.dtype
    policy = settings.get("dtype")
    name = policy.get("config", {}).get("name") if isinstance(policy, dict) else policy
    return "bfloat16" if name == "bfloat16" else tensor.dtype


def _read(tensor: StoredTensor, kernel: Kernel, dtype: str) -> np.ndarray:
    return kernel.values(tensor.read(dtype))


def _unread(error: NotStoredError) -> np.ndarray:
    raise error


def _of_weights(layout: Layout, request: Request) -> tuple[list[Convolution], list[Convolution], str]:
    """Return the convolutions of a file without a graph, those of rank 3, and where their order comes from."""
    units = layout.units()
    has_norms = any(map(is_norm, units))
    places: dict[str, int] = {name: place for place, name in enumerate(request.order)}
    found = []
    for kernels in find_kernels(units, request.kernels):
        if request.order:
            lengths = [places.get(clean("/".join(kernel.name))) for kernel in kernels]
        else:
            lengths = list(range(len(kernels))) if layout.is_ordered else [None] * len(kernels)
        found.append(
            [
                _found(kernel, length, has_norms=has_norms, is_graph=False)
                for kernel, length in zip(kernels, lengths, strict=True)
            ]
        )
    return found[0], found[1], "order" if request.order or layout.is_ordered else "none"


def _found(found: Found, length: int | None, *, has_norms: bool, is_graph: bool = True) -> Convolution:
    """Return a convolution that its weight's names and shape tell."""
    kernel, tensor = found.kernel, found.tensor
    norm = "unfolded" if has_norms and not is_graph else _elsewhere(found.has_bias, has_norms=False)
    return Convolution(
        name=clean("/".join(found.name)),
        shape=kernel.shape(tensor.shape),
        read=partial(_read, tensor, kernel, tensor.dtype),
        source_dtype=tensor.dtype,
        place=tensor.address,
        path=(clean(tensor.name),),
        batch_norm="unknown" if is_graph and has_norms else norm,
        length=length,
        groups=tensor.shape[-2] if kernel.is_depthwise else UNKNOWN_GROUPS,
        operator=found.operator,
        refused=found.refused,
    )


def clean(text: str) -> str:
    """Return a text that UTF-8 can encode; what it cannot encode becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
