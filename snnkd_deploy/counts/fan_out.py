"""How many outputs read each input of a layer: from its geometry and its weights, borders exact.

All work of synapses is linear in the events that arrive: events times fan-out, summed over the inputs.
"""

from __future__ import annotations

from math import prod

import numpy as np

from snnkd_deploy.geometry import grouped, readers, tables
from snnkd_deploy.ir import Array, Conv, Conv2d, ConvTranspose, Linear, Pool, Shape, Window, sides

Weighing = Linear | Conv2d | Conv | ConvTranspose
"""Layers of synapses."""


def fan_out(node: Weighing | Pool | Window, shape: Shape, nonzero: bool = False) -> Array:
    """Reads of each input of `shape`, int64; with `nonzero` without those by a weight that is zero."""
    if isinstance(node, Linear):
        counted = node.weight != 0 if nonzero else np.ones_like(node.weight)
        return np.asarray(counted.sum(axis=0, dtype=np.int64))
    found = _by_tap(node, shape[0], nonzero)
    for table, size in zip(tables(node, shape), shape[1:], strict=True):
        found = np.tensordot(found, readers(table, size), axes=(1, 0))
    return found


def _by_tap(node: Conv2d | Conv | ConvTranspose | Pool | Window, channels: int, nonzero: bool) -> Array:
    """Outputs that each tap serves, `(channels, *kernel)`, if none lay on padding."""
    if isinstance(node, Pool | Window):
        return np.ones((channels, *node.kernel), dtype=np.int64)
    weight = grouped(node)
    if nonzero:
        return np.asarray(np.count_nonzero(weight, axis=1).reshape(channels, *weight.shape[3:]))
    return np.full((channels, *weight.shape[3:]), weight.shape[1], dtype=np.int64)


def pairs(node: Weighing | Pool | Window, events: Array, nonzero: bool = False) -> int:
    """Sum over the event map `events` of each event times the outputs that read it (by a weight that is not zero)."""
    return int((events * fan_out(node, events.shape, nonzero)).sum())


def dense(node: Weighing, shape: Shape) -> tuple[int, int, int]:
    """Multiply-accumulates of one evaluation on `shape`: textbook, without padding, without zero weights as well."""
    every, nonzero = (int(fan_out(node, shape, without).sum()) for without in (False, True))
    return node.weight.size * places(node, shape), every, nonzero


def places(node: Weighing, shape: Shape) -> int:
    """How often textbooks apply the kernel: once for each output position, transposed for each input position."""
    if isinstance(node, Linear):
        return 1
    return prod(shape[1:]) if isinstance(node, ConvTranspose) else prod(sides(node, shape))
