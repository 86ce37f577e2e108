"""Make one synaptic layer of several that are added: their kernels side by side, zeros where a layer reads nothing.

A part is a layer and the channels that it reads, as the first channel of each source in the input of the merged layer;
a layer that reads two sources weighs their sum. `passing`, `(relays, input channels)`, adds outputs that read the pixel
at their own place alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from snnkd_deploy.ir import Array, Conv2d, Linear

SMALL = 2**15
"""Merged kernels are mostly zero, and large: integers below this are stored in 16 bits."""


class Grid(NamedTuple):
    """The taps of a merged kernel along one axis: `size` of them from `-padding` on, `dilation` apart."""

    size: int
    padding: int
    dilation: int


def merged_linear(parts: Sequence[tuple[Linear, tuple[int, ...]]], passing: Array, passing_bias: int = 0) -> Linear:
    """One Linear; starts and `passing` count features. Name and input are those of the first part."""
    first = parts[0][0]
    weight = np.zeros((len(first.weight), passing.shape[1]), np.int64)
    for layer, starts in parts:
        for start in starts:
            weight[:, start : start + layer.weight.shape[1]] += layer.weight
    stacked = np.concatenate([weight, passing])
    return replace(
        first, weight=stacked, bias=_bias([layer for layer, _ in parts], len(passing) * [passing_bias]), unit=None
    )


def merged_conv(parts: Sequence[tuple[Conv2d, tuple[int, ...]]], passing: Array, passing_bias: int = 0) -> Conv2d:
    """One Conv2d; all parts have one stride and give one shape. Name and input are those of the first part."""
    layers = [layer for layer, _ in parts]
    grids = [_grid(layers, axis, len(passing) > 0) for axis in (0, 1)]
    own = len(layers[0].weight)
    largest = sum(int(np.abs(layer.weight).max(initial=0)) * len(starts) for layer, starts in parts)
    kind = np.int16 if max(largest, int(np.abs(passing).max(initial=0))) < SMALL else np.int64
    weight = np.zeros((own + len(passing), passing.shape[1], grids[0].size, grids[1].size), kind)
    for layer, starts in parts:
        rows, columns = (_places(layer, axis, grids[axis]) for axis in (0, 1))
        for first, last, group, kernel in _dense_groups(layer):
            for start in starts:
                channel = start + group * kernel.shape[1]
                weight[first:last, channel : channel + kernel.shape[1], rows, columns] += kernel.astype(kind)
    centre = tuple(grid.padding // grid.dilation for grid in grids)
    weight[own:, :, centre[0], centre[1]] = passing
    return replace(
        layers[0],
        weight=weight,
        bias=_bias(layers, len(passing) * [passing_bias]),
        padding=(grids[0].padding, grids[1].padding),
        dilation=(grids[0].dilation, grids[1].dilation),
        groups=1,
        unit=None,
    )


def _grid(layers: Sequence[Conv2d], axis: int, centred: bool) -> Grid:
    """Taps that hold those of every layer, grown alike on both sides, so that the output keeps its size."""
    geometry = [(one.weight.shape[2 + axis], one.padding[axis], one.dilation[axis]) for one in layers]
    spread = {dilation for size, _, dilation in geometry if size > 1} or {1}
    step = spread.pop() if len(spread) == 1 else 1
    step = step if all(padding % step == 0 for _, padding, _ in geometry) else 1
    ends = [dilation * (size - 1) - padding for size, padding, dilation in geometry]
    surplus = geometry[0][1] - ends[0]
    padding = max(*(one for _, one, _ in geometry), *(end + surplus for end in ends), surplus if centred else 0)
    return Grid((2 * padding - surplus) // step + 1, padding, step)


def _places(layer: Conv2d, axis: int, grid: Grid) -> slice:
    """Where the layer's own taps lie among those of the grid."""
    size, step = layer.weight.shape[2 + axis], layer.dilation[axis] // grid.dilation
    start = (grid.padding - layer.padding[axis]) // grid.dilation
    return slice(start, start + (size - 1) * step + 1, step if size > 1 else 1)


def ungrouped(layer: Conv2d) -> Conv2d:
    """The same sums in one group, with zeros where groups do not meet."""
    if layer.groups == 1:
        return layer
    out, per_group, *kernel = layer.weight.shape
    weight = np.zeros((out, per_group * layer.groups, *kernel), layer.weight.dtype)
    for first, last, group, own in _dense_groups(layer):
        weight[first:last, group * per_group : (group + 1) * per_group] = own
    return replace(layer, weight=weight, groups=1)


def _dense_groups(layer: Conv2d) -> Iterator[tuple[int, int, int, Array]]:
    """First and last output, number and kernel of each group."""
    outputs = len(layer.weight) // layer.groups
    for group in range(layer.groups):
        first, last = group * outputs, (group + 1) * outputs
        yield first, last, group, layer.weight[first:last]


def _bias(layers: Sequence[Linear | Conv2d], relays: list[int]) -> Array:
    return np.concatenate([np.sum([layer.bias for layer in layers], axis=0), np.asarray(relays, np.int64)])
