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

EXACT, EXACT_FLOAT32 = 2**53, 2**24
"""Integers of smaller magnitude are exact in float64, and in float32, and so are their sums in any order."""
CACHED = 2**18
"""Values that a convolution works on at a time: 1 MiB of float32."""


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
    kind, result = _types(x, node.weight)
    return np.asarray((x.astype(kind) @ node.weight.T.astype(kind)).astype(result)) + node.bias


def conv2d(x: Array, node: Conv2d) -> Array:
    """`(N, in, height, width)` to `(N, out, ...)`: a product with columns of all that the kernel sees at each place.

    A few pictures at a time, so that their columns stay in the processor's cache.
    """
    kind, whole = _types(x, node.weight)
    (out, per_group, *kernel), groups, (up, left) = node.weight.shape, node.groups, node.padding
    weight: Array = node.weight.reshape(groups, out // groups, per_group, -1).swapaxes(2, 3).astype(kind)
    lines = _lines(weight)
    weight = np.ascontiguousarray(weight[:, :, lines])
    sides = zip(x.shape[2:], node.padding, node.dilation, kernel, node.stride, strict=True)
    size = tuple((side + 2 * pad - gap * (taps - 1) - 1) // step + 1 for side, pad, gap, taps, step in sides)
    result = np.empty((len(x), out, *size), dtype=np.result_type(whole, node.bias))
    few = min(len(x), max(1, CACHED // max(1, groups * weight.shape[2] * size[0] * size[1])))
    padded = np.zeros((groups, per_group, few, x.shape[2] + 2 * up, x.shape[3] + 2 * left), dtype=kind)
    for start in range(0, len(x), few):
        part = x[start : start + few].swapaxes(0, 1).reshape(groups, per_group, -1, *x.shape[2:])
        padded[:, :, : part.shape[2], up : up + x.shape[2], left : left + x.shape[3]] = part
        product = weight @ _columns(padded[:, :, : part.shape[2]], lines, node, size)
        result[start : start + few] = product.reshape(out, part.shape[2], *size).swapaxes(0, 1)
        result[start : start + few] += node.bias[:, None, None]
    return result


def _lines(weight: Array) -> Array:
    """Which taps and channels, `(taps, channels)`, `weight`, `(groups, out, taps, channels)`, reads: all but a few."""
    read = np.asarray(weight.any(axis=(0, 1)))
    return read if 2 * np.count_nonzero(read) < read.size else np.ones_like(read)


def _columns(padded: Array, lines: Array, node: Conv2d, size: Pair) -> Array:
    """What the kernel sees at each place: `(groups, in, N, height, width)` to `(groups, lines, N * places)`."""
    groups, _, count = padded.shape[:3]
    columns = np.empty((groups, int(np.count_nonzero(lines)), count, *size), dtype=padded.dtype)
    (down, right), (height, width), at = node.stride, size, 0
    for read, (row, column) in zip(lines, np.ndindex(*node.weight.shape[2:]), strict=True):
        channels = slice(None) if read.all() else np.flatnonzero(read)
        top, left = row * node.dilation[0], column * node.dilation[1]
        tap = padded[:, channels, :, top::down, left::right][..., :height, :width]
        columns[:, at : at + tap.shape[1]] = tap
        at += tap.shape[1]
    return columns.reshape(groups, columns.shape[1], count * height * width)


def conv(x: Array, node: Conv | ConvTranspose) -> Array:
    """`(N, in, *sides)` to `(N, out, ...)`, tap by tap, for every rank and padding."""
    weight, read, sizes = grouped(node), tables(node, x.shape[1:]), sides(node, x.shape[1:])
    groups, out, into, *kernel = weight.shape
    kind, whole = _types(x, weight.reshape(groups * out, -1))
    total: Array = np.zeros((len(x), groups, out, int(np.prod(sizes))), dtype=kind)
    for place, taps in zip(
        product(*map(range, kernel)), weight.reshape(groups, out, into, -1).transpose(3, 0, 1, 2), strict=True
    ):
        total += taps.astype(kind) @ tap(x, read, place).astype(kind).reshape(len(x), groups, into, -1)
    summed: Array = total.reshape(len(x), -1, *sizes).astype(whole)
    return np.asarray(summed + node.bias.reshape(-1, *[1] * len(sizes)))


def pool(x: Array, node: Window) -> Array:
    """`(N, channels, *sides)` to `(N, channels, ...)`: the mean or the maximum of each window."""
    read = tables(node, x.shape[1:])
    lowest = np.iinfo(x.dtype).min if is_integer(x) else -np.inf
    absent = lowest if isinstance(node, MaxPool) else 0
    taps = [tap(x, read, place, absent) for place in product(*map(range, node.kernel))]
    return np.asarray(np.max(taps, axis=0) if isinstance(node, MaxPool) else np.mean(taps, axis=0))


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


def windows(x: Array, node: Pool) -> Array:
    """`(N, channels, height, width)` to `(N, channels, out height, out width, kernel height, kernel width)`."""
    view: Array = np.lib.stride_tricks.sliding_window_view(x, node.kernel, axis=(2, 3))  # type: ignore[call-overload]
    return view[:, :, :: node.stride[0], :: node.stride[1]]


def is_integer(array: Array) -> bool:
    """Whether its values are stored as integers (not merely whole numbers)."""
    return bool(np.issubdtype(array.dtype, np.integer))


def _types(x: Array, weight: Array) -> tuple[type, type]:
    """In what type to compute the sums of products, and to give them: int64 of integers, which must be exact."""
    if not (is_integer(x) and is_integer(weight)):
        return np.float64, np.float64
    heaviest: Any = np.abs(weight).reshape(len(weight), -1).sum(axis=1).max(initial=0)
    bound = float(heaviest) * max(float(x.max(initial=0)), -float(x.min(initial=0)))
    assert bound < EXACT
    return np.float32 if bound < EXACT_FLOAT32 else np.float64, np.int64
