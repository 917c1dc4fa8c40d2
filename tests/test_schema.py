"""Kernel shapes as text: which are read, and what the errors say."""

from __future__ import annotations

import pytest

from filterdb.errors import UsageError
from filterdb.schema import KERNEL, MAX_WEIGHTS, Kernel, has_bank, kernel_name, parse_kernel, parse_kernels


@pytest.mark.parametrize("kernel", [KERNEL, (1, 2), (2, 1), (16, 16), (1, 256), (7, 3)])
def test_a_shape_with_a_bank_has_a_name_that_is_read_back(kernel: Kernel) -> None:
    assert has_bank(kernel)
    assert parse_kernel(kernel_name(kernel)) == kernel
    assert parse_kernels(kernel_name(kernel)) == (kernel,)


def test_shapes_are_sorted_and_each_occurs_once() -> None:
    assert parse_kernels("7x7, 3x3,1x5,3x3") == ((1, 5), (3, 3), (7, 7))
    assert parse_kernels(" all ") is None


@pytest.mark.parametrize("text", ["1x1", "17x17", "1x257", "999x999"])
def test_a_shape_without_a_bank_is_an_error_that_says_how_many_weights_it_has(text: str) -> None:
    rows, columns = map(int, text.split("x"))
    assert not has_bank((rows, columns))
    with pytest.raises(UsageError, match=rf"2 to {MAX_WEIGHTS} weights, got {text}, which has {rows * columns}$"):
        parse_kernel(text)


@pytest.mark.parametrize("text", ["", "3", "3x", "0x3", "3x3x3", "-1x3", "3×3", "1000x1", "x", "a" * 10_000, "3x3,"])
def test_other_text_is_an_error_in_one_line(text: str) -> None:
    for parse in (parse_kernel, parse_kernels):
        with pytest.raises(UsageError, match="expected") as caught:
            parse(text)
        assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)
