"""Rounding and exact sums against Python's own integers and torch."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnkd_deploy.ir import Attention, Conv2d, Linear
from snnkd_deploy.numerics import attention, conv2d, linear, nearest, scale_by_fraction
from tests.networks import pair


@given(st.integers(-(2**24), 2**24), st.integers(0, 4096))
def test_the_leak_truncates_toward_zero(value: int, numerator: int) -> None:
    expected = abs(value) * numerator // 4096 * (1 if value >= 0 else -1)
    assert int(scale_by_fraction(np.asarray(value), numerator, 12)) == expected


def test_ties_round_to_even_and_what_is_beyond_the_limit_is_clipped() -> None:
    assert nearest(np.array([0.5, 1.5, 2.5, -0.5, -1.5]), 1.0, 9).tolist() == [0, 2, 2, 0, -2]
    assert nearest(np.array([0.9, -8.0, 3.0]), 0.5, 7).tolist() == [2, -7, 6]


def test_arrays_and_tensors_round_alike() -> None:
    torch = pytest.importorskip("torch")
    values, unit = np.random.default_rng(0).normal(size=10_000), 0.0371
    tied = np.concatenate([values, (np.arange(-50, 50) + 0.5) * unit])
    assert nearest(torch.tensor(tied), unit, 7).tolist() == nearest(tied, unit, 7).tolist()


@pytest.mark.parametrize("seed", range(30))
def test_convolution_equals_torch(seed: int) -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(seed)
    groups = int(random.choice([1, 2, 4]))
    kernel, stride, padding, dilation = (pair(random.integers(low, 4, 2)) for low in (1, 1, 0, 1))
    x = random.integers(-5, 6, (3, 4, 9, 11)) * 10 ** int(random.integers(0, 6))  # some beyond float32
    weight = random.integers(-127, 128, (8, 4 // groups, *kernel)) * (random.random((1, 4 // groups, *kernel)) < 0.6)
    bias = random.integers(-9, 9, 8)
    node = Conv2d(
        name="c",
        inputs=("x",),
        weight=weight,
        bias=bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    tensors = (torch.tensor(a) for a in (x, weight, bias))
    expected = torch.nn.functional.conv2d(*tensors, stride, padding, dilation, groups).numpy()
    met = conv2d(x, node)
    assert met.dtype == np.int64
    np.testing.assert_array_equal(met, expected)


@pytest.mark.parametrize("seed", range(20))
def test_attention_is_a_sum_over_tokens_and_channels_of_a_head(seed: int) -> None:
    random = np.random.default_rng(seed)
    heads, size, shape = int(random.integers(1, 4)), int(random.integers(1, 4)), pair(random.integers(1, 4, 2))
    q, k, v = random.integers(-3, 4, (3, 2, heads * size, *shape))
    expected = np.zeros_like(v)
    for sample, channel, *token in np.ndindex(*v.shape):
        first = channel // size * size
        for one, (row, column) in product(range(first, first + size), np.ndindex(*shape)):
            weight = q[sample, one, token[0], token[1]] * k[sample, one, row, column]
            expected[sample, channel, token[0], token[1]] += weight * v[sample, channel, row, column]
    node = Attention(name="a", inputs=("q", "k", "v"), heads=heads)
    met = attention(q, k, v, node)
    assert met.dtype == np.int64
    np.testing.assert_array_equal(met, expected)
    np.testing.assert_array_equal(attention(q, k, v, replace(node, scale=0.25)), expected / 4)


def test_counts_that_float64_cannot_hold_are_an_assertion() -> None:
    large = np.full((1, 1, 1, 1), 2**18)
    with pytest.raises(AssertionError):
        attention(large, large, large, Attention(name="a", inputs=(), heads=1))


def test_integer_sums_stay_exact_beyond_float32() -> None:
    weight = np.full((1, 3), 2**30 + 1)
    node = Linear(name="w", inputs=("x",), weight=weight, bias=np.zeros(1, dtype=np.int64))
    assert linear(np.array([[1, 1, -1]]), node).tolist() == [[2**30 + 1]]
    with pytest.raises(AssertionError):
        linear(np.array([[2**30, 0, 0]]), node)
