"""Choose the network in a file that may hold several: averaged copies, teachers, and what the optimizer keeps."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from filterdb.errors import ModelError
from filterdb.models.parse_errors import shortened
from filterdb.models.tensors import Tensor

SHOWN = 6
"""Most candidates that a message lists."""

_OPTIMIZER = re.compile(
    r"optim|exp_avg|momentum_buffer|lr_sched|grad_scaler|(^|\.)adam|(^|\.)opt(\.|$)|(^|\.)state\.\d+$", re.IGNORECASE
)
"""Paths of an optimizer's state, whose tensors have the shapes of weights. PyTorch numbers them: `state.0`."""

_COPY = re.compile(
    r"(?<![a-z])(ema|swa)(?![a-z])|ema_?(model|net)|(model|net)_?ema|teacher|momentum|target|averag|shadow|copy|student"
    r"|online|backup|_[qk]$",
    re.IGNORECASE,
)
"""Names of networks that have a twin in the same file."""


def choose(tensors: Sequence[Tensor], key: str, where: str, ranks: Sequence[int] = (4,)) -> list[Tensor]:
    """Return the tensors of the network that `key` names, or of the only one.

    A network has weights of one of these `ranks`; the later ones only count where none has weights of the first.
    Raises ModelError if there are several and `key` is empty, or if it names none; the message lists
    them. `where` names the file in messages.
    """
    weights = [tensor for tensor in tensors if not _OPTIMIZER.search(tensor.container)]
    found = next(filter(None, (_candidates(weights, rank) for rank in ranks)), {})
    if key:
        chosen = [tensor for tensor in tensors if tensor.path.startswith(f"{key}.") or tensor.container == key]
        if not any(_shapes(chosen, rank) for rank in ranks):
            raise ModelError(
                f"{where}: --key {shortened(key, 100)!r}: expected one of {_listed(found)}, got another name"
            )
        return chosen
    if len(found) > 1:
        first = shortened(next(iter(found)), 60)
        raise ModelError(
            f"{where}: expected one network, got {len(found)}: {_listed(found)}; choose one, as with --key {first}"
        )
    return next(iter(found.values())) if found else list(weights)


def _candidates(tensors: Sequence[Tensor], rank: int) -> dict[str, list[Tensor]]:
    """Return the networks by name: mappings with convolutions, and the twins inside one mapping."""
    containers: defaultdict[str, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        containers[tensor.container].append(tensor)
    found: dict[str, list[Tensor]] = {}
    for container, members in containers.items():
        if not _shapes(members, rank):
            continue
        twins = _twins(members, rank)
        for prefix, chosen in twins.items():
            found[".".join(filter(None, (container, prefix)))] = chosen
        if not twins:
            found[container] = members
    return found


def _twins(members: Sequence[Tensor], rank: int) -> dict[str, list[Tensor]]:
    """Return the parts of a mapping that are copies of each other, by prefix; empty if there are none.

    Copies have convolutions of the same shapes below different prefixes, and the name of one says that it is a copy.
    """
    parts: defaultdict[str, list[Tensor]] = defaultdict(list)
    for tensor in members:
        parts[tensor.key.partition(".")[0]].append(tensor)
    by_shapes: defaultdict[frozenset[tuple[tuple[int, ...], int]], list[str]] = defaultdict(list)
    for prefix, chosen in parts.items():
        shapes = _shapes(chosen, rank)
        if shapes:
            by_shapes[frozenset(shapes.items())].append(prefix)
    copies = [
        prefix for same in by_shapes.values() if len(same) > 1 and any(map(_COPY.search, same)) for prefix in same
    ]
    return {prefix: parts[prefix] for prefix in copies}


def is_weight(tensor: Tensor, rank: int) -> bool:
    """Return whether a tensor has this rank. One of rank 3 also needs the name of a weight."""
    return len(tensor.shape) == rank and (rank == 4 or tensor.key.endswith("weight"))


def _shapes(tensors: Sequence[Tensor], rank: int) -> Counter[tuple[int, ...]]:
    """Count the shapes of weights of a rank."""
    return Counter(tensor.shape for tensor in tensors if is_weight(tensor, rank))


def _listed(found: dict[str, list[Tensor]]) -> str:
    names = [f"{shortened(name, 60)!r} ({_count(members)})" for name, members in found.items()]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more} (number of convolutions)" if names else "none with a convolution"


def _count(tensors: Sequence[Tensor]) -> int:
    """Return how many weights of convolutions there are: those of rank 4, or else those of rank 3."""
    return sum(_shapes(tensors, 4).values()) or sum(_shapes(tensors, 3).values())
