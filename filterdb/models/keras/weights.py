"""Find the weights of layers in the layouts of Keras' HDF5 files.

Layered files, which Keras 2 wrote and Keras 3 still writes as `.h5`, have a group for each layer of the outermost
model, with the names of its weights in order. Tree files, the `.weights.h5` of Keras 3, have a group for each layer at
the place where its model has it, with weights named 0, 1, ….
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from filterdb.models.keras.config import Layer
from filterdb.models.keras.kernels import KERNELS, NO_CONVOLUTIONS
from filterdb.models.keras.weights_file import StoredTensor, WeightsFile
from filterdb.models.parse_errors import NotStoredError


@dataclass(frozen=True, slots=True)
class Unit:
    """Weights that belong to one layer, as far as the file's names tell, by the name of each weight.

    `labels` are names that may tell the layer's class: of the layer itself, and of its group.
    """

    name: tuple[str, ...]
    labels: tuple[str, ...]
    tensors: dict[str, StoredTensor] = field(repr=False)


class Layout(Protocol):
    """Where a file has the weights of layers."""

    def kernels(self, layer: Layer) -> list[StoredTensor]:
        """Return the kernels of a layer whose class is in KERNELS, in the order of its class.

        Raises NotStoredError if the file does not have them.
        """

    def units_of(self, layer: Layer) -> list[Unit]:
        """Return the weights of a layer of another class, whose parts may be layers."""

    def units(self) -> list[Unit]:
        """Return all weights of the file's model, in the file's order."""

    @property
    def is_ordered(self) -> bool:
        """Whether the file has its layers in the order in which they were made."""


def role(name: str) -> str:
    """Return what a weight is by its name, such as `kernel` for conv2d_1/kernel:0, or kernel_1:0 of TensorFlow 1."""
    found = re.sub(r"(_\d+)?(:\d+)?$", "", name.rpartition("/")[2])
    return "kernel" if found.endswith("_W") else found  # of Keras 1


def missing(layer: Layer, what: str) -> NotStoredError:
    """Return the error for a layer without its weights."""
    return NotStoredError("missing", f"the file has no {what} for this {layer.class_name}")


@dataclass(slots=True)
class LayeredFile:
    """A layout with the names of layers and of each layer's weights in attributes."""

    file: WeightsFile
    group: Any
    names: list[str]
    tops: dict[str, Layer]
    """The layers of the outermost model, by name; empty if there is no config."""
    _known: dict[str, dict[str, StoredTensor]] = field(default_factory=dict, repr=False)
    _inside: dict[str, dict[int, list[StoredTensor]]] = field(default_factory=dict, repr=False)

    is_ordered = True

    def kernels(self, layer: Layer) -> list[StoredTensor]:
        """Return a layer's kernels (`Layout`)."""
        top = self.tops[layer.path[0]]
        if top.inner is not None:
            found = self._nested(top).get(id(layer), [])
        else:
            rank = KERNELS[layer.class_name][0].rank
            found = [tensor for tensor in self._weights(top.name).values() if len(tensor.shape) == rank]
            found = found[:1] if layer.class_name.startswith("ConvLSTM") else found
        if len(found) != len(KERNELS[layer.class_name]):
            raise missing(layer, "kernel" if not found else "kernel that is certain")
        return found

    def units_of(self, layer: Layer) -> list[Unit]:
        """Return the weights of a layer (`Layout`)."""
        top = self.tops[layer.path[0]]
        units = self._grouped(top.name)
        return units if top.inner is None else [unit for unit in units if layer.name in unit.name]

    def units(self) -> list[Unit]:
        """Return all weights (`Layout`)."""
        return [unit for name in self.names for unit in self._grouped(name)]

    def _weights(self, name: str) -> dict[str, StoredTensor]:
        """Return the weights of a layer of the outermost model by name, in order."""
        if name not in self._known:
            group = self.file.group(self.group, name)
            names = (self.file.texts(group, "weight_names") if group is not None else None) or []
            tensors = {weight: self.file.tensor(group, weight) for weight in names}
            self._known[name] = {weight: tensor for weight, tensor in tensors.items() if tensor is not None}
        return self._known[name]

    def _grouped(self, name: str) -> list[Unit]:
        """Return the weights of a layer of the outermost model, by the layers inside it that their names tell."""
        parts: dict[str, dict[str, StoredTensor]] = {}
        for weight, tensor in self._weights(name).items():
            parts.setdefault(weight.rpartition("/")[0], {}).setdefault(role(weight), tensor)
        units = []
        for prefix, tensors in parts.items():
            inner = prefix.split("/")
            own = (name,) if len(parts) == 1 else (name, *inner[inner[:1] == [name] :])
            units.append(Unit(own, tuple(dict.fromkeys((own[-1], inner[-1]))), tensors))
        return units

    def _nested(self, top: Layer) -> dict[int, list[StoredTensor]]:
        """Return the kernels of the convolutions inside a nested model, by layer.

        Found by the names of the weights if these are those of the layers, else by their order, in which the weights
        that are not trained come last.
        """
        if top.name in self._inside:
            return self._inside[top.name]
        leaves = [leaf for leaf in top.leaves() if leaf.class_name in KERNELS]
        weights = self._weights(top.name)
        found = _by_name(leaves, weights)
        if found is None:
            ranks = {kernel.rank for leaf in leaves for kernel in KERNELS[leaf.class_name]}
            kernels = [tensor for tensor in weights.values() if len(tensor.shape) in ranks]
            found = _by_order(leaves, kernels) if all(map(_is_known, top.leaves())) else {}
        self._inside[top.name] = found
        return found


def _is_known(leaf: Layer) -> bool:
    """Return whether no weight of a layer could be taken for another's kernel."""
    return leaf.class_name not in NO_CONVOLUTIONS - {"Dense"} and not leaf.class_name.startswith("ConvLSTM")


def _by_name(leaves: Sequence[Layer], weights: dict[str, StoredTensor]) -> dict[int, list[StoredTensor]] | None:
    """Return the kernels of layers by the names of the weights; None if the names of two layers are equal."""
    parts: dict[str, list[tuple[str, StoredTensor]]] = {}
    for weight, tensor in weights.items():
        parts.setdefault("/".join(weight.split("/")[-2:-1]), []).append((role(weight), tensor))
    found: dict[int, list[StoredTensor]] = {}
    ends = {leaf.path[-1] for leaf in leaves}
    for leaf in leaves:
        wanted = [kernel.role for kernel in KERNELS[leaf.class_name]]
        wanted += ["kernel"] if wanted == ["depthwise_kernel"] else []  # as Keras 3 calls it
        names = dict.fromkeys((leaf.path[-1], leaf.name))
        tensors = [tensor for name in names for own, tensor in parts.get(name, []) if own in wanted]
        if len(tensors) != len(KERNELS[leaf.class_name]) or len(ends) < len(leaves):
            return None
        found[id(leaf)] = tensors
    return found


def _by_order(leaves: Sequence[Layer], kernels: Sequence[StoredTensor]) -> dict[int, list[StoredTensor]]:
    """Return the kernels of layers by the order of the weights; nothing if they are not as many."""
    ordered = [leaf for leaf in leaves if leaf.trainable] + [leaf for leaf in leaves if not leaf.trainable]
    counts = [len(KERNELS[leaf.class_name]) for leaf in ordered]
    if sum(counts) != len(kernels):
        return {}
    ends = [sum(counts[: number + 1]) for number in range(len(counts))]
    return {id(leaf): list(kernels[end - count : end]) for leaf, count, end in zip(ordered, counts, ends, strict=True)}


@dataclass(slots=True)
class TreeFile:
    """A layout with a group for each layer, called after its class, at the place where its model has it."""

    file: WeightsFile
    group: Any
    _shared: dict[str, list[StoredTensor]] = field(default_factory=dict, repr=False)

    is_ordered = False

    def kernels(self, layer: Layer) -> list[StoredTensor]:
        """Return a layer's kernels (`Layout`)."""
        kernels = KERNELS[layer.class_name]
        group = self._variables(layer)
        found = [] if group is None else [self.file.tensor(group, str(number)) for number in range(len(kernels))]
        tensors = [tensor for tensor in found if tensor is not None]
        if len(tensors) == len(kernels):
            self._shared.setdefault(layer.name, tensors)
            return tensors
        # Keras stores a layer of two nested models once, where it came first.
        if group is None and layer.is_shared and layer.name in self._shared:
            return self._shared[layer.name]
        raise missing(layer, "kernel")

    def units_of(self, layer: Layer) -> list[Unit]:
        """Return the weights of a layer (`Layout`)."""
        group = self._at(layer.store)
        return [] if group is None else self._below(group, layer.path)

    def units(self) -> list[Unit]:
        """Return all weights (`Layout`)."""
        return self._below(self.group, ())

    def _at(self, store: str) -> Any | None:
        """Return a layer's group. Keras 2.12 and 2.13 called the list of layers otherwise."""
        group = self.file.group(self.group, store)
        if group is None:
            group = self.file.group(self.group, store.replace("layers", "_layer_checkpoint_dependencies"))
        return group

    def _variables(self, layer: Layer) -> Any | None:
        """Return the group with a layer's weights. If it says that it is another layer's, look for it beside it."""
        group = self._at(layer.store)
        own = None if group is None else self.file.group(group, "vars")
        name = None if own is None else self.file.text(own, "name")
        if name is None or name == layer.path[-1]:
            return own
        folder = self._at(layer.store.rpartition("/")[0])
        for other in self.file.members(folder) if folder is not None else ():
            variables = self.file.group(folder, f"{other}/vars")
            if variables is not None and self.file.text(variables, "name") == layer.path[-1]:
                return variables
        return None

    def _below(self, group: Any, path: tuple[str, ...]) -> list[Unit]:
        """Return the weights below a group, except those of an optimizer."""
        own = {place.removesuffix("vars").strip("/"): item for place, item in self.file.walk(group) if _is_own(place)}
        labels = {place: self.file.text(item, "name") for place, item in own.items()}
        units = []
        for place, item in own.items():
            parts = place.split("/") if place else []
            # A wrapper such as SpectralNormalization may store its layer's kernel again.
            if {"optimizer", "_optimizer"} & set(parts) or "/".join((*parts, "layer")) in own:
                continue
            ends = [number for number, part in enumerate(parts, start=1) if part not in _LISTS]
            # Newer versions of Keras write the layer's name beside its weights.
            names = (labels.get("/".join(parts[:end])) or parts[end - 1] for end in ends)
            tensors = {name: self.file.tensor(item, name) for name in self.file.members(item)}
            units.append(
                Unit(
                    (*path, *names),
                    tuple(text for text in (*parts[-1:], labels[place]) if text),
                    {key: tensor for key, tensor in tensors.items() if tensor is not None},
                )
            )
        return units


_LISTS = frozenset({"layers", "_layer_checkpoint_dependencies"})
"""Groups that stand for the list of a model's layers."""


def _is_own(place: str) -> bool:
    """Return whether a group has the weights of one layer."""
    return place.rpartition("/")[2] == "vars"
