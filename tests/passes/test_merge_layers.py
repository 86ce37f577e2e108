"""A merged layer gives the sum of its parts, whatever their kernels, and hands on what its relays read."""

from __future__ import annotations

import numpy as np
import pytest

from snnkd_deploy.ir import Array, Conv2d, Linear, output_shape
from snnkd_deploy.numerics import conv2d, linear
from snnkd_deploy.passes.merge_layers import merged_conv, merged_linear

RANDOM = np.random.default_rng(0)
NONE = np.zeros((0, 9), np.int64)


def conv(channels: int, kernel: tuple[int, int], **geometry: object) -> Conv2d:
    groups = geometry.get("groups", 1)
    weight = RANDOM.integers(-9, 10, (4, channels // groups, *kernel))  # type: ignore[operator]
    return Conv2d(name="c", inputs=("x",), weight=weight, bias=RANDOM.integers(-9, 10, 4), **geometry)  # type: ignore[arg-type]


CASES: dict[str, list[tuple[Conv2d, tuple[int, ...]]]] = {
    "one": [(conv(3, (3, 3), padding=(1, 1)), (2,))],
    "3x3 and 1x1": [(conv(3, (3, 3), padding=(1, 1)), (0,)), (conv(6, (1, 1)), (3,))],
    "1x1 and 5x3": [(conv(3, (1, 1)), (6,)), (conv(3, (5, 3), padding=(2, 1)), (0,))],
    "strided": [(conv(3, (3, 3), padding=(1, 1), stride=(2, 2)), (0,)), (conv(3, (1, 1), stride=(2, 2)), (3,))],
    "groups": [(conv(4, (3, 3), padding=(1, 1), groups=2), (1,)), (conv(4, (1, 1), groups=4), (5,))],
    "two sources": [(conv(3, (3, 3), padding=(1, 1)), (0, 5)), (conv(2, (1, 1)), (3,))],
    "one dilation": [(conv(3, (3, 2), padding=(2, 1), dilation=(2, 2)), (0,))],
    "dilations that differ": [
        (conv(3, (3, 3), padding=(2, 2), dilation=(2, 2)), (0,)),
        (conv(3, (3, 3), padding=(1, 1)), (4,)),
    ],
    "without padding": [(conv(3, (2, 2), stride=(2, 2)), (0,)), (conv(3, (2, 2), stride=(2, 2)), (6,))],
    "even and odd": [(conv(3, (2, 2), stride=(2, 2)), (0,)), (conv(3, (3, 3), padding=(1, 1), stride=(2, 2)), (6,))],
}


def apart(parts: list[tuple[Conv2d, tuple[int, ...]]], x: Array) -> Array:
    """The sum of the parts, each on its own channels."""
    total = []
    for layer, starts in parts:
        channels = layer.weight.shape[1] * layer.groups
        total.append(conv2d(np.asarray(sum(x[:, start : start + channels] for start in starts)), layer))
    return np.asarray(sum(total))


@pytest.mark.parametrize("case", CASES)
def test_a_merged_convolution_is_the_sum_of_its_parts(case: str) -> None:
    x = RANDOM.integers(0, 3, (2, 9, 8, 6))
    merged = merged_conv(CASES[case], NONE)
    assert output_shape(merged, [x.shape[1:]]) == apart(CASES[case], x).shape[1:]
    np.testing.assert_array_equal(conv2d(x, merged), apart(CASES[case], x))


@pytest.mark.parametrize("case", CASES)
def test_relays_read_the_pixel_at_their_place(case: str) -> None:
    x = RANDOM.integers(0, 3, (2, 9, 8, 6))
    passing = RANDOM.integers(-9, 10, (5, 9))
    y = conv2d(x, merged_conv(CASES[case], passing, 7))
    np.testing.assert_array_equal(y[:, :4], apart(CASES[case], x))
    (down, right), (height, width) = CASES[case][0][0].stride, y.shape[2:]
    seen = x[:, :, ::down, ::right][:, :, :height, :width]
    expected = np.einsum("oc,nchw->nohw", passing, seen) + 7
    np.testing.assert_array_equal(y[:, 4:, : seen.shape[2], : seen.shape[3]], expected)


def test_large_weights_keep_their_value() -> None:
    for largest in (2**14 - 1, 2**14, 2**20):
        layer = Conv2d(name="c", inputs=("x",), weight=np.full((1, 1, 1, 1), largest), bias=np.zeros(1, np.int64))
        assert merged_conv([(layer, (0,)), (layer, (0,))], np.zeros((0, 1), np.int64)).weight.item() == 2 * largest


def test_a_merged_linear_is_the_sum_of_its_parts() -> None:
    one, two = (
        Linear(name="l", inputs=("x",), weight=RANDOM.integers(-9, 10, (4, size)), bias=RANDOM.integers(-9, 10, 4))
        for size in (3, 2)
    )
    x, passing = RANDOM.integers(0, 3, (5, 9)), RANDOM.integers(-9, 10, (2, 9))
    y = linear(x, merged_linear([(one, (0, 6)), (two, (4,))], passing, 7))
    np.testing.assert_array_equal(y[:, :4], linear(x[:, :3] + x[:, 6:], one) + linear(x[:, 4:6], two))
    np.testing.assert_array_equal(y[:, 4:], x @ passing.T + 7)
