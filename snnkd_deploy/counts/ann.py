"""The ANN that has the shape of a graph: pools taken out of kernels, no layer in a shortcut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd, prod

import numpy as np

from snnkd_deploy.counts.fan_out import Weighing
from snnkd_deploy.ir import Add, Array, Conv2d, Flatten, Graph, Linear, Pair, Shape


@dataclass(frozen=True, eq=False)
class Collapsed:
    """The smaller layer behind a sum pool that computes the same, its input's shape, and the pool's window."""

    node: Weighing
    shape: Shape
    window: Pair

    @property
    def pool_adds(self) -> int:
        """Additions of the pool in one evaluation."""
        inputs = self.node.weight.shape[1] if isinstance(self.node, Linear) else prod(self.shape)
        return inputs * prod(self.window) if prod(self.window) > 1 else 0


def collapsed(node: Weighing, graph: Graph) -> Collapsed:
    """Take a sum pool out of a kernel; the window is (1, 1) if there is none in it.

    A kernel that is constant over windows side by side, in step with its stride and padding, equals a sum pool followed
    by a kernel with one tap a window. This undoes `passes.fold_pooling`.
    """
    shape = graph.shapes[node.inputs[0]]
    if isinstance(node, Conv2d) and node.weight.any():
        return _collapsed_conv(node, shape)
    if not isinstance(node, Linear) or not node.weight.any():
        return Collapsed(node, shape, (1, 1))
    source = graph[node.inputs[0]]
    before = graph.shapes[source.inputs[0]] if isinstance(source, Flatten) else shape
    return _collapsed_linear(node, before) if len(before) == 3 else Collapsed(node, shape, (1, 1))


def _collapsed_conv(node: Conv2d, shape: Shape) -> Collapsed:
    if node.dilation != (1, 1):
        return Collapsed(node, shape, (1, 1))
    tall, wide = (_window(node.weight, 2 + side, _conv_windows(node, side, shape[1 + side])) for side in (0, 1))
    small = replace(
        node,
        weight=node.weight[:, :, ::tall, ::wide],
        stride=(node.stride[0] // tall, node.stride[1] // wide),
        padding=(node.padding[0] // tall, node.padding[1] // wide),
    )
    return Collapsed(small, (shape[0], shape[1] // tall, shape[2] // wide), (tall, wide))


def _conv_windows(node: Conv2d, side: int, size: int) -> list[int]:
    """Window sides in step with stride and padding; with padding they must tile the input too."""
    common = gcd(node.weight.shape[2 + side], node.stride[side], node.padding[side])
    return [one for one in range(2, common + 1) if not common % one and not (node.padding[side] and size % one)]


def _collapsed_linear(node: Linear, before: Shape) -> Collapsed:
    weight = node.weight.reshape(len(node.weight), *before)
    tall, wide = (_window(weight, 2 + side, list(range(2, before[1 + side] + 1))) for side in (0, 1))
    height, width = before[1] // tall, before[2] // wide
    taps = weight[:, :, : height * tall : tall, : width * wide : wide].reshape(len(weight), -1)
    return Collapsed(replace(node, weight=taps), (taps.shape[1],), (tall, wide))


def _window(weight: Array, axis: int, sizes: list[int]) -> int:
    """The largest of `sizes` over which `weight` is constant along `axis`, what is left over being zero; else 1."""
    moved = np.moveaxis(weight, axis, 0)
    for size in reversed(sizes):
        whole = len(moved) // size * size
        blocks = moved[:whole].reshape(-1, size, *moved.shape[1:])
        if not moved[whole:].any() and (blocks == blocks[:, :1]).all():
            return size
    return 1


def is_shortcut(node: Weighing, graph: Graph) -> bool:
    """Whether it only gives each channel of a residual sum a weight (`passes.weight_shortcuts`)."""
    if node.bias.any() or not all(isinstance(reader, Add) for reader in graph.consumers(node.name)):
        return False
    if isinstance(node, Linear):
        square = node.weight.shape[0] == node.weight.shape[1]
        return square and not (node.weight - np.diag(np.diag(node.weight))).any()
    if not isinstance(node, Conv2d) or (node.stride, node.padding) != ((1, 1), (0, 0)):
        return False
    return node.weight.shape == (node.groups, 1, 1, 1)


def ann_layers(graph: Graph) -> tuple[Collapsed, ...]:
    """The layers of an ANN of this shape: pools taken out of kernels, no layer in a shortcut."""
    layers = (node for node in graph if isinstance(node, Weighing))
    return tuple(collapsed(node, graph) for node in layers if not is_shortcut(node, graph))
