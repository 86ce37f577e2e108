"""How many outputs read each input of a layer: from its geometry and its weights, borders exact."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from snnkd_deploy.ir import Array, Conv2d, Linear, Shape


def taps(node: Conv2d, x: Array) -> Iterator[tuple[int, int, Array]]:
    """Each kernel tap and what it reads of `x` `(..., height, width)`: `(..., output height, output width)`."""
    (up, left), (rows, columns) = node.padding, node.weight.shape[2:]
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(up, up), (left, left)])
    height = (padded.shape[-2] - node.dilation[0] * (rows - 1) - 1) // node.stride[0] + 1
    width = (padded.shape[-1] - node.dilation[1] * (columns - 1) - 1) // node.stride[1] + 1
    for row in range(rows):
        for column in range(columns):
            top, start = row * node.dilation[0], column * node.dilation[1]
            tap = padded[..., top :: node.stride[0], start :: node.stride[1]]
            yield row, column, tap[..., :height, :width]


def pairs(node: Linear | Conv2d, events: Array, nonzero: bool = False) -> int:
    """Sum over the event map `events` of each event times the outputs that read it (by a weight that is not zero)."""
    mask: Array = node.weight != 0 if nonzero else np.ones(node.weight.shape, dtype=bool)
    if isinstance(node, Linear):
        return int(events @ mask.sum(axis=0))
    out, per_group, rows, columns = mask.shape
    fan_out = mask.reshape(node.groups, out // node.groups, per_group, rows, columns).sum(axis=1)
    fan_out = fan_out.reshape(-1, rows, columns)
    return sum(int(tap.sum(axis=(1, 2)) @ fan_out[:, row, column]) for row, column, tap in taps(node, events))


def dense(node: Linear | Conv2d, shape: Shape) -> tuple[int, int, int]:
    """Multiply-accumulates of one evaluation on `shape`: textbook, without padding, without zero weights as well."""
    ones = np.ones(shape, dtype=np.int64)
    places = 1 if isinstance(node, Linear) else prod(next(taps(node, ones))[2].shape[1:])
    return node.weight.size * places, pairs(node, ones), pairs(node, ones, nonzero=True)
