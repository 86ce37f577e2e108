"""Carry the large biases of the first layer by constant inputs, for chips whose bias register is small.

Behind the channels of the picture come planes whose pixels always send the largest message. A plane weighed by w at one
kernel tap adds message * w to each output, if that tap lies inside the picture wherever the kernel stands. So a bias is
what is left in the register + message * the weights of all planes, exactly.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.ir import Array, BiasedInput, Conv2d, Flatten, Graph, Linear, Node, Pair, Shape
from snnkd_deploy.numerics import round_half_even
from snnkd_deploy.target import Target


def bias_planes(graph: Graph, target: Target, calibration: Calibration) -> Graph:
    """Add planes where the bias of the layer that `carried_by_planes` names leaves the target's range."""
    names = carried_by_planes(graph, target)
    layers = [node for node in graph if isinstance(node, Linear | Conv2d) and node.name in names]
    if not layers or np.abs(layers[0].bias).max() <= target.bias.maximum:
        return graph
    layer, message = layers[0], 2**target.entry.message_bits - 1
    total = np.where(np.abs(layer.bias) > target.bias.maximum, round_half_even(layer.bias / message), 0)
    weights = _spread(total, target.weights.maximum)
    source, changed = _widened(graph, layer, weights, message)
    changed = replace(changed, bias=layer.bias - message * total)
    swapped: dict[str, Node] = {source.name: source, layer.name: changed}
    return replace(graph, nodes=tuple(swapped.get(node.name, node) for node in graph))


def carried_by_planes(graph: Graph, target: Target) -> frozenset[str]:
    """The first layer's name, if this target takes its pixels as numbers and planes can carry its bias; else nothing.

    No plane can where several layers read the pixels, where the kernel has groups, or where padding and stride leave no
    tap that is always inside, as with even kernels and padding on both sides.
    """
    readers = graph.consumers(graph.input.name)
    if len(readers) == 1 and isinstance(readers[0], Flatten):
        readers = graph.consumers(readers[0].name)
    graded = target.entry.mode == "graded" and target.entry.message_bits > 0 and not graph.input.spikes
    if "BiasedInput" not in target.nodes or not graded or len(readers) != 1:
        return frozenset()
    layer = readers[0]
    if isinstance(layer, Conv2d) and (layer.groups > 1 or inner_tap(layer, graph.input.shape) is None):
        return frozenset()
    return frozenset({layer.name} if isinstance(layer, Linear | Conv2d) else ())


def inner_tap(layer: Conv2d, shape: Shape) -> Pair | None:
    """Row and column of the first kernel tap that reads a pixel of the picture, never padding, at every position."""
    found = []
    for axis in (0, 1):
        size, taps, padding = shape[1 + axis], layer.weight.shape[2 + axis], layer.padding[axis]
        step, stride = layer.dilation[axis], layer.stride[axis]
        last = (size + 2 * padding - step * (taps - 1) - 1) // stride * stride
        found.append([tap for tap in range(taps) if tap * step >= padding and last + tap * step - padding < size])
    return (found[0][0], found[1][0]) if all(found) else None


def _spread(total: Array, maximum: int) -> Array:
    """Integers `(out,)` as sums of weights `(out, planes)` up to `maximum` each."""
    count = -(-int(np.abs(total).max()) // maximum)
    left = np.abs(total)[:, None] - maximum * np.arange(count)
    return np.asarray(np.sign(total)[:, None] * np.clip(left, 0, maximum))


def _widened(graph: Graph, layer: Linear | Conv2d, weights: Array, message: int) -> tuple[BiasedInput, Linear | Conv2d]:
    """The input with its planes, and the layer with their weights."""
    count, sides = weights.shape[1], graph.input.shape[1:]
    if isinstance(layer, Conv2d):
        tap = inner_tap(layer, graph.input.shape)
        assert tap is not None
        constant = np.full((count, *sides), message)
        more = np.zeros((len(weights), count, *layer.weight.shape[2:]), np.int64)
        more[:, :, tap[0], tap[1]] = weights
    else:  # each pixel has weights of its own: the first ones send, the others stay silent
        pixels = int(np.prod(sides, dtype=int))
        room = -(-count // pixels) * pixels
        constant = np.where(np.arange(room) < count, message, 0).reshape(-1, *sides)
        more = np.pad(weights, [(0, 0), (0, room - count)])
    node = graph.input
    own = {field.name: getattr(node, field.name) for field in fields(node)}
    shape = (node.shape[0] + len(constant), *sides)
    source = BiasedInput(**{**own, "shape": shape}, constant=constant)
    return source, replace(layer, weight=np.concatenate([layer.weight, more], axis=1))
