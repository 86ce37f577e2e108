"""Which inputs each output of a convolution or a pool reads: any rank, stride, padding, dilation, and transposed.

Along each side the reads are one table, `(taps, outputs)`, of input positions, -1 where there is only padding. A kernel
is the product of its sides, so all that follows from geometry follows from one table a side.
"""

from __future__ import annotations

from typing import Literal, cast

import numpy as np

from snnkd_deploy.ir import Array, Conv, Conv2d, ConvTranspose, PaddingMode, Pool, Shape, Window, sides

Moved = Conv2d | Conv | ConvTranspose | Pool | Window
"""What is moved over the sides of its input."""
NUMPY: dict[PaddingMode, Literal["reflect", "edge", "wrap"]] = {
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}


def tables(node: Moved, shape: Shape) -> tuple[Array, ...]:
    """For each side of an input of `shape`, `(channels, *sides)`: which position each tap of each output reads."""
    kernel, outputs = node.weight.shape[2:] if isinstance(node, Weighted) else node.kernel, sides(node, shape)
    return tuple(_table(node, side, shape[1 + side], kernel[side], outputs[side]) for side in range(len(kernel)))


Weighted = Conv2d | Conv | ConvTranspose
"""What weighs what it reads."""


def grouped(node: Weighted) -> Array:
    """Its weights as `(groups, out / groups, in / groups, *kernel)`."""
    first, second, *kernel = node.weight.shape
    weight = node.weight.reshape(node.groups, first // node.groups, second, *kernel)
    return weight.swapaxes(1, 2) if isinstance(node, ConvTranspose) else weight


def tap(x: Array, read: tuple[Array, ...], place: tuple[int, ...], absent: float = 0) -> Array:
    """What the tap at `place` reads of `x`, `(..., *sides)`: `(..., *outputs)`, `absent` on padding."""
    for axis, (table, index) in enumerate(zip(read, place, strict=True), start=-len(read)):
        x = along(x, table[index], axis, absent)
    return x


def along(x: Array, positions: Array, axis: int, absent: float = 0) -> Array:
    """`x` at these positions of a side, `axis` counted from the end; `absent` at -1."""
    taken: Array = np.take(x, positions, axis)
    if (positions >= 0).all():
        return taken
    there = (positions >= 0).reshape(-1, *[1] * (-1 - axis))
    return np.where(there, taken, np.asarray(absent, dtype=x.dtype))


def readers(table: Array, size: int) -> Array:
    """How many outputs read each of `size` inputs by each tap: `(taps, size)`."""
    found = np.zeros((len(table), size), dtype=np.int64)
    np.add.at(found, (np.nonzero(table >= 0)[0], table[table >= 0]), 1)
    return found


def _table(node: Moved, side: int, size: int, taps: int, outputs: int) -> Array:
    at, tapped = np.arange(outputs), np.arange(taps)[:, None]
    if isinstance(node, ConvTranspose):
        reached = at + node.padding[side] - tapped * node.dilation[side]
        places = np.where(reached % node.stride[side] == 0, reached // node.stride[side], -1)
        return np.where((places >= 0) & (places < size), places, -1)
    before, dilation = _before(node, side), 1 if isinstance(node, Pool | Window) else node.dilation[side]
    places = at * node.stride[side] + tapped * dilation
    if isinstance(node, Conv) and node.mode != "zeros":
        padding = node.before[side], node.after[side]
        return cast("Array", np.pad(np.arange(size), padding, mode=NUMPY[node.mode])[places])
    places = places - before
    return np.where((places >= 0) & (places < size), places, -1)


def _before(node: Conv2d | Conv | Pool | Window, side: int) -> int:
    """Padding in front of a side."""
    if isinstance(node, Conv):
        return node.before[side]
    return 0 if isinstance(node, Pool) else node.padding[side]
