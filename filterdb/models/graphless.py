"""Find the convolutions of a file that has named tensors and no graph, such as a checkpoint.

A convolution is a floating tensor of rank 4. The tensors around it tell what its shape does not: a bias or the norm
that follows has as many numbers as the convolution has output channels, which is the first dimension of a convolution
and the second of a transposed one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from filterdb.errors import ModelError
from filterdb.models.candidates import choose
from filterdb.models.convolutions import UNKNOWN_GROUPS, Convolution, make_model
from filterdb.models.model import Model, Request
from filterdb.models.parse_errors import NotStoredError, shortened
from filterdb.models.tensors import Tensor
from filterdb.schema import KERNEL

MAX_TENSORS = 1_000_000
"""Most tensors of a file."""

FLOATING = frozenset(
    {"float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"}
)
"""The types of weights, as NumPy and ml_dtypes name them."""

_COMPUTED = re.compile(r"(^|[._])(weight_[vg]|weight_orig|parametrizations\..*|original[01]?|weight_[uv])$")
"""Names of what PyTorch computes a weight from: weight and spectral normalisation, pruning, parametrisations."""

_BUFFER = re.compile(
    r"(^|[._])(relative_position_\w+|pos_embed\w*|position_embedding\w*|rel_pos_\w+|anchor\w*|grid|weight_mask)$"
)
"""Names of tensors of rank 4 that no convolution uses."""

_TRANSPOSED_NAME = re.compile(
    r"deconv|transpos|trans_?conv|conv_?trans|up_?conv|conv_?up|up_?sampl|(^|[._])up([._]|$)|unpool", re.IGNORECASE
)
"""Names that people give to transposed convolutions, and to others; not the transitions of a DenseNet."""


def read_tensors(
    tensors: Sequence[Tensor], request: Request, *, source_format: str, ordered: bool, producer: str = ""
) -> Model:
    """Return the model of a file's tensors, which are in the file's order.

    If the file's order is the order of execution, as far as anybody can say, it is `ordered`. Raises ModelError if the
    tensors have no convolution, and if they are several networks of which the request names none.
    """
    if len(tensors) > MAX_TENSORS:
        raise ModelError(f"{request.named}: expected at most {MAX_TENSORS:,} tensors, got {len(tensors):,}")
    chosen = choose(tensors, request.key, request.named)
    positions, depth_source = _positions(chosen, request.order, request.named, ordered=ordered)
    has_norms = any(tensor.key.endswith("running_mean") for tensor in chosen)
    lengths = _lengths(chosen)
    convolutions = []
    for position, tensor in enumerate(chosen):
        if len(tensor.shape) not in {4, 5} or _BUFFER.search(tensor.key):
            continue
        norm = _following(chosen, position) if ordered else None
        biased = _prefix(tensor.key) + "bias" in lengths
        stated = tensor.stated
        convolutions.append(
            Convolution(
                tensor.key,
                tensor.shape,
                tensor.read,
                tensor.dtype,
                tensor.place,
                path=(tensor.path,),
                batch_norm="unfolded" if has_norms else "unknown" if biased else "none",
                length=positions.get(tensor.key),
                groups=UNKNOWN_GROUPS if stated is None else stated.groups,
                operator="" if stated is None else stated.operator,
                strides=None if stated is None else stated.strides,
                dilations=None if stated is None else stated.dilations,
                refused=_refused(tensor, lengths.get(_prefix(tensor.key) + "bias"), norm),
            )
        )
    if not convolutions:
        raise ModelError(
            f"{request.named}: no convolution found: expected a weight of rank 4, got {len(chosen):,} tensors of other "
            "ranks; give the weights of a convolutional network"
        )
    return make_model(
        convolutions, request.kernels, source_format=source_format, depth_source=depth_source, producer=producer
    )


def _prefix(key: str) -> str:
    """Return the name of the module that a tensor belongs to, with the separator."""
    return key[: key.rfind(".") + 1]


def _lengths(tensors: Sequence[Tensor]) -> dict[str, int]:
    """Return the lengths of the vectors, by key."""
    return {tensor.key: tensor.shape[0] for tensor in tensors if len(tensor.shape) == 1}


def _following(tensors: Sequence[Tensor], position: int) -> int | None:
    """Return the length of the norm that follows a weight in the same block; None if something else follows.

    In the next block may be the norm of a layer that takes more than this convolution's result, as in a DenseNet.
    """
    own = _prefix(tensors[position].key)
    for tensor in tensors[position + 1 : position + 4]:
        module = _prefix(tensor.key)
        if module == own:
            continue
        is_norm = len(tensor.shape) == 1 and tensor.key.endswith(("weight", "gamma", "running_mean", "scale"))
        return tensor.shape[0] if is_norm and _prefix(module[:-1]) == _prefix(own[:-1]) else None
    return None


def _refused(tensor: Tensor, bias: int | None, norm: int | None) -> NotStoredError | None:
    """Return why a tensor is not stored as a convolution; None if it is one."""
    if tensor.key.endswith("kernel") and tensor.shape[:2] == KERNEL != tensor.shape[-2:]:
        return NotStoredError("unsupported", "the kernel is (height, width, in, out) as in Flax, which is not read")
    if tensor.dtype not in FLOATING and tensor.shape[-2:] == KERNEL:
        return NotStoredError("dtype", f"the tensor has dtype {tensor.dtype}: packed or quantised without its scale")
    if _COMPUTED.search(tensor.key):
        reason = "the weight is computed from it (weight norm or another parametrisation); fuse it and save again"
        return NotStoredError("unsupported", shortened(f"{tensor.key}: {reason}"))
    if tensor.stated is not None and tensor.stated.is_transposed:
        return NotStoredError("transposed", f"a {tensor.stated.operator}")
    if len(tensor.shape) != 4 or tensor.stated is not None:
        return None
    out, per_group = tensor.shape[:2]
    known = bias if bias is not None else norm
    if out != per_group and known is not None and known in {out, per_group}:
        return NotStoredError("transposed", "a transposed convolution, by its bias or norm") if known != out else None
    if _TRANSPOSED_NAME.search(tensor.key) and (out == per_group or known is None):
        reason = "it may be a transposed convolution: its name says so, and no bias or norm decides"
        return NotStoredError("transposed?", reason)
    return None


def _positions(
    tensors: Sequence[Tensor], order: Sequence[str], where: str, *, ordered: bool
) -> tuple[dict[str, int], str]:
    """Return the position of each key in the order of execution, and where the order comes from."""
    if order:
        places = {name: place for place, name in enumerate(order)}
        known = {tensor.key: _place(tensor.key, places) for tensor in tensors}
        if all(known[tensor.key] is None for tensor in tensors if len(tensor.shape) == 4):
            example = next((tensor.key for tensor in tensors if len(tensor.shape) == 4), "")
            raise ModelError(
                f"{where}: --order: expected names of its weights such as {shortened(example, 100)!r}, got none of them"
            )
        return {key: place for key, place in known.items() if place is not None}, "order"
    if ordered:
        return {tensor.key: position for position, tensor in enumerate(tensors)}, "order"
    return {}, "none"


def _place(key: str, places: dict[str, int]) -> int | None:
    """Return the position of a tensor that an order names in full, or by its module."""
    return next((places[name] for name in (key, _prefix(key).rstrip(".")) if name in places), None)
