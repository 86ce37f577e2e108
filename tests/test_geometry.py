"""Which inputs are read: tables worked out by hand. Every geometry at random is in `counts/test_brute_force.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from snnkd_deploy.geometry import grouped, readers, tables, tap
from snnkd_deploy.ir import AvgPool, Conv, Conv2d, ConvTranspose, SumPool2d, output_shape


def conv(mode: Any = "zeros", before: int = 1, after: int = 1, **options: Any) -> Conv:
    given: dict[str, Any] = {"stride": (1,), "dilation": (1,), **options}
    weight, bias = np.ones((1, 1, 3)), np.zeros(1)
    given |= {"before": (before,), "after": (after,), "mode": mode}
    return Conv(name="layer", inputs=("x",), weight=weight, bias=bias, **given)


@pytest.mark.parametrize(
    ("mode", "first", "last"), [("zeros", -1, -1), ("reflect", 1, 2), ("replicate", 0, 3), ("circular", 3, 0)]
)
def test_padding_reads_what_its_mode_says(mode: str, first: int, last: int) -> None:
    (table,) = tables(conv(mode), (1, 4))
    assert_array_equal(table, [[first, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, last]])


def test_padding_may_differ_at_both_ends() -> None:
    (table,) = tables(conv(before=0, after=2), (1, 4))
    assert_array_equal(table, [[0, 1, 2, 3], [1, 2, 3, -1], [2, 3, -1, -1]])


def test_stride_and_dilation_move_taps() -> None:
    (table,) = tables(conv(before=0, after=0, stride=(2,), dilation=(2,)), (1, 7))
    assert_array_equal(table, [[0, 2], [2, 4], [4, 6]])


def test_a_transposed_tap_reads_where_the_stride_lets_it() -> None:
    node = ConvTranspose(
        name="layer", inputs=("x",), weight=np.ones((1, 1, 3)), bias=np.zeros(1), stride=(2,), padding=(1,),
        output_padding=(0,), dilation=(1,),
    )  # fmt: skip
    (table,) = tables(node, (1, 2))
    assert_array_equal(table, [[-1, 1, -1], [0, -1, 1], [-1, 0, -1]])


def test_windows_may_overlap_and_may_be_padded() -> None:
    (table,) = tables(AvgPool(name="pool", inputs=("x",), kernel=(3,), stride=(2,), padding=(1,)), (1, 4))
    assert_array_equal(table, [[-1, 1], [0, 2], [1, 3]])
    assert_array_equal(readers(table, 4).sum(axis=0), [1, 2, 1, 1])


def test_the_older_kinds_are_read_by_the_same_tables() -> None:
    node = Conv2d(
        name="layer", inputs=("x",), weight=np.ones((2, 1, 2, 1)), bias=np.zeros(2), stride=(2, 1), padding=(1, 0)
    )
    rows, columns = tables(node, (1, 4, 3))
    assert_array_equal(rows, [[-1, 1, 3], [0, 2, -1]])
    assert_array_equal(columns, [[0, 1, 2]])
    pool = SumPool2d(name="pool", inputs=("x",), kernel=(2, 2), stride=(2, 2))
    assert_array_equal(tables(pool, (1, 5, 2))[0], [[0, 2], [1, 3]])


def test_what_a_tap_reads_of_padding_is_absent() -> None:
    read = tables(conv(), (1, 4))
    assert_array_equal(tap(np.array([[5, 6, 7, 8]]), read, (0,)), [[0, 5, 6, 7]])
    assert_array_equal(tap(np.array([[5, 6, 7, 8]]), read, (2,), absent=-9), [[6, 7, 8, -9]])


def test_weights_are_grouped_with_outputs_first_in_both_directions() -> None:
    weight = np.arange(4 * 3 * 2).reshape(4, 3, 2)
    sides: dict[str, Any] = {"stride": (1,), "dilation": (1,), "groups": 2}
    forward = Conv(name="a", inputs=(), weight=weight, bias=np.zeros(4), before=(0,), after=(0,), **sides)
    back = ConvTranspose(
        name="b", inputs=(), weight=weight, bias=np.zeros(6), padding=(0,), output_padding=(0,), **sides
    )
    assert_array_equal(grouped(forward)[1, 0, 2], weight[2, 2])
    assert_array_equal(grouped(back)[1, 2, 0], weight[2, 2])
    assert grouped(forward).shape == (2, 2, 3, 2)
    assert grouped(back).shape == (2, 3, 2, 2)


@pytest.mark.parametrize("shape", [(1, 4), (2, 4, 4), (1, 1)])
def test_a_kernel_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    node = conv(before=0, after=0)
    if shape == (1, 4):
        assert output_shape(node, [shape]) == (1, 2)
        return
    with pytest.raises(ValueError, match="takes 1 channels of 1 sides" if len(shape) == 3 else "does not fit"):
        output_shape(node, [shape])
