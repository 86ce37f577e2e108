"""Carry the large biases of the first layer by constant inputs, for chips whose bias register is small.

Behind the channels of the picture come planes whose pixels always send the largest message. A plane weighed by w at one
kernel tap adds message * w to each output, if that tap lies inside the picture wherever the kernel stands. So a bias is
what is left in the register + message * the weights of all planes, exactly.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.ir import Array, BiasedInput, Conv2d, Flatten, Graph, Linear, Neuron, Node, Pair, Shape
from snnkd_deploy.numerics import round_half_even
from snnkd_deploy.target import Target


def bias_planes(graph: Graph, target: Target, calibration: Calibration) -> Graph:
    """Add planes for the bias of the layer that `carried_by_planes` names, where the register cannot say it.

    Where it leaves the target's range most of it goes into planes; all of it, to the last unit, where the neurons keep
    their current and the target would add the register behind that.
    """
    names = carried_by_planes(graph, target)
    layers = [node for node in graph if isinstance(node, Linear | Conv2d) and node.name in names]
    whole = bool(layers) and feeds_kept_current(graph, layers[0], target) and bool(layers[0].bias.any())
    if not layers or (not whole and np.abs(layers[0].bias).max() <= target.bias.maximum):
        return graph
    layer, message = layers[0], _message(graph, target)
    large = np.abs(layer.bias) >= (message if whole else target.bias.maximum + 1)
    total = np.where(large, round_half_even(layer.bias / message), 0)
    rest = layer.bias - message * total
    weights = [spread(total, target.weights.maximum), spread(rest if whole else 0 * rest, target.weights.maximum)]
    sent = np.repeat([message, 1], [one.shape[1] for one in weights])
    source, changed = _widened(graph, layer, np.concatenate(weights, axis=1), sent)
    changed = replace(changed, bias=0 * rest if whole else rest)
    swapped: dict[str, Node] = {source.name: source, layer.name: changed}
    return replace(graph, nodes=tuple(swapped.get(node.name, node) for node in graph))


def carried_by_planes(graph: Graph, target: Target) -> frozenset[str]:
    """The first layer's name, if planes of this target can carry its bias; else nothing.

    They can where the target takes pixels as numbers, and carry biases to kept currents past spikes too. No plane can
    where several layers read the input, where the kernel has groups, or where padding and stride leave no tap that is
    always inside, as with even kernels and padding on both sides.
    """
    readers = graph.consumers(graph.input.name)
    if len(readers) == 1 and isinstance(readers[0], Flatten):
        readers = graph.consumers(readers[0].name)
    if "BiasedInput" not in target.nodes or len(readers) != 1:
        return frozenset()
    layer = readers[0]
    if not isinstance(layer, Linear | Conv2d):
        return frozenset()
    graded = target.entry.mode == "graded" and target.entry.message_bits > 0 and not graph.input.spikes
    if not graded and not (graph.input.spikes and feeds_kept_current(graph, layer, target)):
        return frozenset()
    if isinstance(layer, Conv2d) and (layer.groups > 1 or inner_tap(layer, graph.input.shape) is None):
        return frozenset()
    return frozenset({layer.name})


def feeds_kept_current(graph: Graph, layer: Node, target: Target) -> bool:
    """Whether a layer's neurons keep their current, and the target would add its bias behind that."""
    behind = target.current is not None and target.current.bias == "membrane"
    readers = graph.consumers(layer.name)
    return behind and any(isinstance(reader, Neuron) and reader.keeps_current for reader in readers)


def _message(graph: Graph, target: Target) -> int:
    """The largest that an input can send."""
    return 1 if graph.input.spikes else int(2**target.entry.message_bits) - 1


def inner_tap(layer: Conv2d, shape: Shape) -> Pair | None:
    """Row and column of the first kernel tap that reads a pixel of the picture, never padding, at every position."""
    found = []
    for axis in (0, 1):
        size, taps, padding = shape[1 + axis], layer.weight.shape[2 + axis], layer.padding[axis]
        step, stride = layer.dilation[axis], layer.stride[axis]
        last = (size + 2 * padding - step * (taps - 1) - 1) // stride * stride
        found.append([tap for tap in range(taps) if tap * step >= padding and last + tap * step - padding < size])
    return (found[0][0], found[1][0]) if all(found) else None


def spread(total: Array, maximum: int) -> Array:
    """Integers `(out,)` as sums of weights `(out, planes)` up to `maximum` each."""
    count = -(-int(np.abs(total).max()) // maximum)
    left = np.abs(total)[:, None] - maximum * np.arange(count)
    return np.asarray(np.sign(total)[:, None] * np.clip(left, 0, maximum))


def _widened(graph: Graph, layer: Linear | Conv2d, weights: Array, sent: Array) -> tuple[BiasedInput, Linear | Conv2d]:
    """The input with planes that send `sent`, and the layer with their weights `(out, planes)`."""
    count, sides = weights.shape[1], graph.input.shape[1:]
    if isinstance(layer, Conv2d):
        constant = np.tile(sent.reshape(-1, 1, 1), (1, *sides))
    else:  # each pixel has weights of its own: the first ones send, the others stay silent
        pixels = int(np.prod(sides, dtype=int))
        constant = np.pad(sent, [(0, -count % pixels)]).reshape(-1, *sides)
    node = graph.input
    own = {field.name: getattr(node, field.name) for field in fields(node)}
    shape = (node.shape[0] + len(constant), *sides)
    return BiasedInput(**{**own, "shape": shape}, constant=constant), reading(layer, weights, graph.input.shape)


def reading(layer: Linear | Conv2d, weights: Array, shape: Shape) -> Linear | Conv2d:
    """The layer with further channels behind those of its input of this shape, each weighed `(out, channels)`.

    A Conv2d of one group weighs them at a tap that is always inside; of a Linear on pictures, each pixel is one.
    """
    if isinstance(layer, Linear):
        pixels = int(np.prod(shape[1:], dtype=int))
        more = np.pad(weights, [(0, 0), (0, -weights.shape[1] % pixels)])
        return replace(layer, weight=np.concatenate([layer.weight, more], axis=1))
    tap = inner_tap(layer, shape)
    assert tap is not None
    more = np.zeros((*weights.shape, *layer.weight.shape[2:]), np.int64)
    more[:, :, tap[0], tap[1]] = weights
    return replace(layer, weight=np.concatenate([layer.weight, more], axis=1))
