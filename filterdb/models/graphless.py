"""Find the convolutions of a file that has named tensors and no graph, such as a checkpoint.

A convolution is a floating tensor of rank 4, or of rank 3 where more says so. The tensors around it tell what its
shape does not: a bias or the norm that follows has as many numbers as the convolution has output channels, which is
the first dimension of a convolution and the second of a transposed one.

Tensors of rank 4 and 3×3 are taken for convolutions whatever their names are. There are too many tensors of other
shapes that are none, such as the scales of a normalisation, (1, 1, 1, channels), and the masks of an attention.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from filterdb.errors import ModelError
from filterdb.models.candidates import choose
from filterdb.models.convolutions import UNKNOWN_GROUPS, Convolution, make_model
from filterdb.models.model import Model, Request, is_wanted, wants_1d
from filterdb.models.parse_errors import NotStoredError, shortened
from filterdb.models.tensors import Tensor
from filterdb.schema import KERNEL, MAX_WEIGHTS, Kernels
from filterdb.wording import counted

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


_CONVOLUTION_NAME = re.compile(r"conv(?!ert)", re.IGNORECASE)
"""Names that people give to convolutions."""


@dataclass(frozen=True, slots=True)
class _Network:
    """The tensors of a network, and what is known of all of them together."""

    tensors: Sequence[Tensor]
    kernels: Kernels
    ordered: bool
    lengths: dict[str, int]
    """The lengths of the vectors, by key."""
    keys: frozenset[str]
    has_norms: bool
    is_stated: bool
    """Whether the file states the modules of its convolutions."""

    @classmethod
    def of(cls, tensors: Sequence[Tensor], kernels: Kernels, *, ordered: bool) -> _Network:
        """Describe the tensors."""
        lengths = {tensor.key: tensor.shape[0] for tensor in tensors if len(tensor.shape) == 1}
        keys = frozenset(tensor.key for tensor in tensors)
        has_norms = any(key.endswith("running_mean") for key in keys)
        is_stated = any(tensor.stated is not None for tensor in tensors)
        return cls(tensors, kernels, ordered, lengths, keys, has_norms, is_stated)

    def channels(self, position: int) -> int | None:
        """Return how many output channels the bias of a weight, or else the norm behind it, says that there are."""
        bias = self.lengths.get(_prefix(self.tensors[position].key) + "bias")
        return bias if bias is not None or not self.ordered else _following(self.tensors, position)

    def is_1d(self, position: int) -> bool:
        """Return whether a tensor of rank 3 is the weight of a one-dimensional convolution."""
        tensor = self.tensors[position]
        if len(tensor.shape) != 3 or _BUFFER.search(tensor.key):
            return False
        if self.is_stated:
            return tensor.stated is not None
        if not tensor.key.endswith("weight") or not self._has_fitting_bias(tensor) or tensor.shape[2] > MAX_WEIGHTS:
            return False
        return _CONVOLUTION_NAME.search(tensor.key) is not None or self.channels(position) == tensor.shape[0]

    def is_named(self, tensor: Tensor) -> bool:
        """Return whether the name of a tensor of rank 4, and of that beside it, are those of a convolution."""
        own = tensor.key[len(_prefix(tensor.key)) :]
        searched = tensor.key if own == "kernel" else own
        is_weight = own.endswith(("weight", "weights")) or _CONVOLUTION_NAME.search(searched) is not None
        return is_weight and self._has_fitting_bias(tensor)

    def _has_fitting_bias(self, tensor: Tensor) -> bool:
        """Return whether the bias beside a tensor is a vector, if there is one."""
        bias = _prefix(tensor.key) + "bias"
        return bias not in self.keys or bias in self.lengths


def _are_channels_last(shapes: Sequence[tuple[int, ...]]) -> bool:
    """Return whether most weights look like (out, height, width, in) or (out, k, in), as MLX writes them.

    Most kernels are as high as wide. If there are none of rank 4, most convolutions have more input channels than a
    kernel has columns.
    """
    first = sum(shape[2] == shape[3] for shape in shapes if len(shape) == 4)
    last = sum(1 < shape[1] == shape[2] != shape[3] for shape in shapes if len(shape) == 4)
    if not first and not last:
        first = sum(shape[1] > shape[2] for shape in shapes if len(shape) == 3)
        last = sum(1 < shape[1] < shape[2] for shape in shapes if len(shape) == 3)
    return last > max(1, 3 * first)


def read_tensors(
    tensors: Sequence[Tensor], request: Request, *, source_format: str, ordered: bool, producer: str = ""
) -> Model:
    """Return the model of a file's tensors, which are in the file's order.

    If the file's order is the order of execution, as far as anybody can say, it is `ordered`. Raises ModelError if the
    tensors have no convolution, and if they are several networks of which the request names none.
    """
    if len(tensors) > MAX_TENSORS:
        raise ModelError(f"{request.named}: expected at most {MAX_TENSORS:,} tensors, got {len(tensors):,}")
    ranks = (4, 3) if wants_1d(request.kernels) else (4,)
    chosen = choose(tensors, request.key, request.named, ranks)
    network = _Network.of(chosen, request.kernels, ordered=ordered)
    places = [i for i, tensor in enumerate(chosen) if len(tensor.shape) in {4, 5} and not _BUFFER.search(tensor.key)]
    more = [i for i in range(len(chosen)) if network.is_1d(i)] if 3 in ranks else []
    keys = [tensor.key for tensor in chosen if len(tensor.shape) == 4] or [chosen[i].key for i in more]
    positions, depth_source = _positions(chosen, request, keys, ordered=ordered)
    if not places and not more:
        expected = "of rank 4" + (", or one of a one-dimensional convolution" if 3 in ranks else "")
        raise ModelError(
            f"{request.named}: no convolution found: expected a weight {expected}, got "
            f"{counted(len(chosen), 'tensor')} {'without one' if 3 in ranks else 'of other ranks'}; "
            "give the weights of a convolutional network"
        )
    listed = [chosen[i] for i in (*places, *more)]
    is_last = _are_channels_last([t.shape for t in listed if t.stated is None and t.key.endswith("weight")])
    return make_model(
        [_convolution(network, i, positions, is_last=is_last) for i in places],
        request.kernels,
        more=[_convolution(network, i, positions, is_last=is_last) for i in more],
        source_format=source_format,
        depth_source=depth_source,
        producer=producer,
    )


def _convolution(network: _Network, position: int, positions: dict[str, int], *, is_last: bool) -> Convolution:
    """Return what is known of a convolution without reading its weight.

    `positions` are those of keys in the order of execution. `is_last`: the file has channels last.
    """
    tensor = network.tensors[position]
    biased = _prefix(tensor.key) + "bias" in network.lengths
    stated = tensor.stated
    return Convolution(
        tensor.key,
        tensor.shape,
        tensor.read,
        tensor.dtype,
        tensor.place,
        path=(tensor.path,),
        batch_norm="unfolded" if network.has_norms else "unknown" if biased else "none",
        length=positions.get(tensor.key),
        groups=UNKNOWN_GROUPS if stated is None else stated.groups,
        operator="" if stated is None else stated.operator,
        strides=None if stated is None else stated.strides,
        dilations=None if stated is None else stated.dilations,
        refused=_refused(network, position, is_last=is_last),
    )


def _prefix(key: str) -> str:
    """Return the name of the module that a tensor belongs to, with the separator."""
    return key[: key.rfind(".") + 1]


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


def _refused(network: _Network, position: int, *, is_last: bool) -> NotStoredError | None:
    """Return why a tensor is not stored as a convolution; None if it is one."""
    tensor = network.tensors[position]
    layout = _other_layout(tensor, network.kernels, is_last=is_last)
    if layout is not None:
        return layout
    kernel = tensor.shape[-min(2, len(tensor.shape) - 2) :]
    is_small = math.prod(kernel) <= MAX_WEIGHTS
    if tensor.dtype not in FLOATING and is_small and is_wanted(kernel, network.kernels):
        return NotStoredError("dtype", f"the tensor has dtype {tensor.dtype}: packed or quantised without its scale")
    if _COMPUTED.search(tensor.key):
        reason = "the weight is computed from it (weight norm or another parametrisation); fuse it and save again"
        return NotStoredError("unsupported", shortened(f"{tensor.key}: {reason}"))
    if tensor.stated is not None and tensor.stated.is_transposed:
        return NotStoredError("transposed", f"a {tensor.stated.operator}")
    if len(tensor.shape) == 5 or tensor.stated is not None:
        return None
    is_other = len(tensor.shape) == 4 and kernel != KERNEL and is_wanted(kernel, network.kernels)
    if is_other and (tensor.dtype not in FLOATING or not network.is_named(tensor)):
        what = f"the kernel would be {kernel[0]}×{kernel[1]}, of a tensor that is not named as a weight"
        return NotStoredError("kernel", what)
    out, per_group = tensor.shape[:2]
    known = network.channels(position)
    if out != per_group and known is not None and known in {out, per_group}:
        return NotStoredError("transposed", "a transposed convolution, by its bias or norm") if known != out else None
    if _TRANSPOSED_NAME.search(tensor.key) and (out == per_group or known is None):
        reason = "it may be a transposed convolution: its name says so, and no bias or norm decides"
        return NotStoredError("transposed?", reason)
    return None


def _other_layout(tensor: Tensor, kernels: Kernels, *, is_last: bool) -> NotStoredError | None:
    """Return why a tensor is not read that has its channels last, or its kernel's shape first."""
    shape = tensor.shape
    is_square = shape[0] == shape[1] <= _LARGEST_SQUARE and not shape[-2] == shape[-1] <= _LARGEST_SQUARE
    is_flax = len(shape) > 3 and tensor.key.endswith("kernel") and (is_square or shape[:2] == KERNEL)
    if is_flax and is_wanted(shape[:2], kernels) and shape[:2] != shape[-2:]:
        return NotStoredError("unsupported", "the kernel is (height, width, in, out) as in Flax, which is not read")
    is_other = is_last and tensor.stated is None and shape[2:] != KERNEL
    if is_other and is_wanted(shape[2:], kernels):
        return NotStoredError("unsupported", "the weights seem to be (out, height, width, in), which is not read")
    return None


_LARGEST_SQUARE = 16
"""Most rows of a kernel that is taken for one by its shape alone."""


def _positions(
    tensors: Sequence[Tensor], request: Request, weights: Sequence[str], *, ordered: bool
) -> tuple[dict[str, int], str]:
    """Return the position of each key in the order of execution, and where the order comes from.

    Raises ModelError if an order that was asked for has none of the `weights`.
    """
    if request.order:
        places = {name: place for place, name in enumerate(request.order)}
        known = {tensor.key: _place(tensor.key, places) for tensor in tensors}
        if all(known[key] is None for key in weights):
            example = next(iter(weights), "")
            raise ModelError(
                f"{request.named}: --order: expected names of its weights such as {shortened(example, 100)!r}, got "
                "none of them"
            )
        return {key: place for key, place in known.items() if place is not None}, "order"
    if ordered:
        return {tensor.key: position for position, tensor in enumerate(tensors)}, "order"
    return {}, "none"


def _place(key: str, places: dict[str, int]) -> int | None:
    """Return the position of a tensor that an order names in full, or by its module."""
    return next((places[name] for name in (key, _prefix(key).rstrip(".")) if name in places), None)
