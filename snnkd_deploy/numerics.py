"""Rounding, truncation and exact sums: the only place where a number is made less precise."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from snnkd_deploy.geometry import grouped, tables, tap
from snnkd_deploy.ir import (
    Array,
    Attention,
    Conv,
    Conv2d,
    ConvTranspose,
    Linear,
    MaxPool,
    Pair,
    Pool,
    Window,
    sides,
)

EXACT = 2**53
"""Integers of smaller magnitude are exact in float64, and so are their sums in any order."""
CACHED = 2**17
"""Sums of a convolution that are worked on at a time: 1 MiB of float64."""


def round_half_even(values: Array) -> Array:
    """Nearest integer as int64, ties to even."""
    return np.asarray(np.rint(values).astype(np.int64))


def nearest(values: Any, unit: Any, limit: float) -> Any:
    """The whole numbers in -limit..limit nearest to values / unit, ties to even.

    Of numpy arrays and torch tensors: in float64 both give the same, so weights in training are those of an export.
    """
    return (values / unit).round().clip(-limit, limit)


def scale_by_fraction(values: Array, numerator: Array | int, bits: int) -> Array:
    """values * numerator / 2**bits, truncated toward zero (Loihi's decay: sign(v) * ((|v| * k) >> 12))."""
    grown: Array = np.abs(values) * numerator
    return np.asarray(np.sign(values) * (grown >> bits))


def linear(x: Array, node: Linear) -> Array:
    """`(..., in)` to `(..., out)`."""
    return _sum_exactly(x, node.weight, x @ node.weight.T.astype(np.float64)) + node.bias


def conv2d(x: Array, node: Conv2d) -> Array:
    """`(N, in, height, width)` to `(N, out, ...)`: for each kernel tap, the shifted picture times its weights.

    A few pictures at a time, so that their sums stay in the processor's cache from tap to tap.
    """
    out, per_group, rows, columns = node.weight.shape
    height = (x.shape[2] + 2 * node.padding[0] - node.dilation[0] * (rows - 1) - 1) // node.stride[0] + 1
    width = (x.shape[3] + 2 * node.padding[1] - node.dilation[1] * (columns - 1) - 1) // node.stride[1] + 1
    weight = node.weight.reshape(node.groups, out // node.groups, per_group, rows, columns).astype(np.float64)
    taps = np.ascontiguousarray(weight.transpose(3, 4, 0, 1, 2))
    total = np.zeros((len(x), node.groups, out // node.groups, height * width))
    few = max(1, CACHED // (out * height * width))
    for start in range(0, len(x), few):
        _add_taps(total[start : start + few], x[start : start + few], taps, node, (height, width))
    return _sum_exactly(x, node.weight, total.reshape(len(x), out, height, width)) + node.bias[:, None, None]


def conv(x: Array, node: Conv | ConvTranspose) -> Array:
    """`(N, in, *sides)` to `(N, out, ...)`, tap by tap, for every rank and padding."""
    weight, read, sizes = grouped(node), tables(node, x.shape[1:]), sides(node, x.shape[1:])
    groups, out, into, *kernel = weight.shape
    total, at = np.zeros((len(x), groups, out, int(np.prod(sizes)))), product(*map(range, kernel))
    for place, taps in zip(at, weight.reshape(groups, out, into, -1).transpose(3, 0, 1, 2), strict=True):
        total += taps.astype(np.float64) @ tap(x, read, place).reshape(len(x), groups, into, -1)
    summed = _sum_exactly(x, weight.reshape(groups * out, -1), total.reshape(len(x), -1, *sizes))
    return summed + node.bias.reshape(-1, *[1] * len(sizes))


def pool(x: Array, node: Window) -> Array:
    """`(N, channels, *sides)` to `(N, channels, ...)`: the mean or the maximum of each window."""
    read = tables(node, x.shape[1:])
    lowest = np.iinfo(x.dtype).min if is_integer(x) else -np.inf
    absent = lowest if isinstance(node, MaxPool) else 0
    taps = [tap(x, read, place, absent) for place in product(*map(range, node.kernel))]
    return np.asarray(np.max(taps, axis=0) if isinstance(node, MaxPool) else np.mean(taps, axis=0))


def _add_taps(total: Array, x: Array, taps: Array, node: Conv2d, size: Pair) -> None:
    """Add each tap's product to `total`, `(N, groups, out / groups, positions)`."""
    (up, left), (down, right), (height, width) = node.padding, node.stride, size
    rows, columns, groups, _, per_group = taps.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (up, up), (left, left)))
    for row in range(rows):
        for column in range(columns):
            top, start = row * node.dilation[0], column * node.dilation[1]
            tap = padded[:, :, top::down, start::right][:, :, :height, :width]
            _add_tap(total, taps[row, column], tap.reshape(len(x), groups, per_group, height * width))


def by_heads(x: Array, heads: int) -> Array:
    """`(..., channels, height, width)` to `(..., heads, channels of a head, tokens)`."""
    *leading, channels, height, width = x.shape
    return x.reshape(*leading, heads, channels // heads, height * width)


def attention(q: Array, k: Array, v: Array, node: Attention) -> Array:
    """scale * v (k^T q) of `(..., channels, height, width)` each; integers stay integers where scale is 1."""
    queries, keys, values = (by_heads(one.astype(np.float64), node.heads) for one in (q, k, v))
    mixed: Array = (values @ keys.swapaxes(-1, -2) @ queries).reshape(np.broadcast_shapes(q.shape, k.shape, v.shape))
    if node.scale != 1 or not all(is_integer(one) for one in (q, k, v)):
        return node.scale * mixed
    reach: Any = np.prod([np.abs(one).max(initial=0.0) for one in (queries, keys, values)])
    assert float(reach) * queries.shape[-1] * queries.shape[-2] < EXACT
    return mixed.astype(np.int64)


def _add_tap(total: Array, weight: Array, tap: Array) -> None:
    """total += weight @ tap, `(N, groups, out, places)`; where most of a weight is zero, without its empty lines."""
    if len(weight) > 1 or 4 * np.count_nonzero(weight) > weight.size:
        total += weight @ tap
        return
    rows, columns = np.flatnonzero(weight[0].any(axis=1)), np.flatnonzero(weight[0].any(axis=0))
    total[:, :, rows] += weight[:, rows][:, :, columns] @ tap[:, :, columns]


def windows(x: Array, node: Pool) -> Array:
    """`(N, channels, height, width)` to `(N, channels, out height, out width, kernel height, kernel width)`."""
    view: Array = np.lib.stride_tricks.sliding_window_view(x, node.kernel, axis=(2, 3))  # type: ignore[call-overload]
    return view[:, :, :: node.stride[0], :: node.stride[1]]


def is_integer(array: Array) -> bool:
    """Whether its values are stored as integers (not merely whole numbers)."""
    return bool(np.issubdtype(array.dtype, np.integer))


def _sum_exactly(x: Array, weight: Array, total: Array) -> Array:
    """`total`, computed in float64 for speed, as int64 where both factors are integers; exact, or an assertion."""
    if not (is_integer(x) and is_integer(weight)):
        return total
    bound: Any = np.abs(weight).reshape(len(weight), -1).sum(axis=1).max(initial=0)
    assert float(bound) * float(np.abs(x).max(initial=0)) < EXACT
    return total.astype(np.int64)
