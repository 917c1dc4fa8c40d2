"""The ledger's codes: why a convolution was not stored, and whether it should have been."""

from __future__ import annotations

from typing import NamedTuple


class Code(NamedTuple):
    """What a code means.

    `is_unread`: the convolution has, or may have, a weight of a kernel shape that was asked for, which could not be
    read.
    """

    is_unread: bool
    meaning: str


CODES = {
    # Not read, because such convolutions are never stored.
    "kernel": Code(False, "the kernel has another shape than was asked for"),
    "rank": Code(False, "the convolution has three dimensions, or one and its kernel was not asked for"),
    "transposed": Code(False, "a ConvTranspose"),
    "transposed?": Code(False, "a convolution or a transposed one; the file does not tell"),
    "deformable": Code(False, "a DeformConv, which samples its input at positions of its own"),
    "generated": Code(False, "the weight is filled by ConstantOfShape"),
    "computed": Code(False, "the weight depends on an input of the model or on a random operator"),
    "unreachable": Code(False, "no input of the model reaches the convolution"),
    "empty": Code(False, "the weight has no numbers"),
    # Read, but not stored.
    "nonfinite": Code(False, "the weight has NaN or infinities in float32"),
    "rejected": Code(False, "the whole file could not be read as a model, or exceeds the limits of reading one"),
    # Should have been read.
    "unreadable": Code(True, "the weight is damaged, or takes too long to compute"),
    "memory": Code(True, "the weight takes more memory than reading a model may take"),
    "many": Code(True, "with it the model would have more filters, weights or kernel shapes than a model may have"),
    "missing": Code(True, "the convolution has no weight, or one of a name that nothing defines"),
    "operator": Code(True, "the operator is a form of convolution that is not supported"),
    "unsupported": Code(True, "the weight is an expression with an operator that is not evaluated"),
    "ambiguous": Code(True, "the weight's tensor has its values in two places"),
    "underflow": Code(True, "filters of float64 that float32 would lose"),
    "dtype": Code(True, "the weight's type is not one of numbers that can be read"),
}
"""Every code of the ledger. A convolution with an unread code makes a check incomplete."""


def is_unread(code: str) -> bool:
    """Return whether a convolution with this code should have been read. True for codes of other versions."""
    return code not in CODES or CODES[code].is_unread
