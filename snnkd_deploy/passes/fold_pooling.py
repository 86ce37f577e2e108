"""Move each sum pool into the kernel that follows, for targets that cannot pool.

A sum over a window, then a weighted sum, is one weighted sum whose weight is repeated over the window. Weights keep
their values, and each spike still reaches every output that it reached before.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.errors import LegalityError
from snnkd_deploy.ir import Array, Conv2d, Flatten, Graph, Linear, Neuron, Node, Shape, SumPool2d
from snnkd_deploy.target import Target


def fold_pooling(graph: Graph, target: Target, calibration: Calibration) -> Graph:
    """Fold every SumPool2d if the target has none. LegalityError lists the pools that no kernel can take up."""
    if "SumPool2d" in target.nodes:
        return graph
    problems: list[str] = []
    changed: dict[str, Node] = {}
    for pool in graph.of(SumPool2d):
        problems += _fold(graph, pool, changed)
    if problems:
        raise LegalityError(f"{target.name} has no SumPool2d, and the kernel behind cannot take it up:", problems)
    sources = {pool.name: pool.inputs[0] for pool in graph.of(SumPool2d)}
    nodes = [changed.get(node.name, node) for node in graph if not isinstance(node, SumPool2d)]
    return replace(
        graph, nodes=tuple(replace(one, inputs=tuple(sources.get(name, name) for name in one.inputs)) for one in nodes)
    )


def _fold(graph: Graph, pool: SumPool2d, changed: dict[str, Node]) -> list[str]:
    """Put the widened kernels of the pool's readers into `changed`; returns what stands in the way."""
    if pool.kernel != pool.stride:
        return [
            f"{pool.name}: window {pool.kernel} moves by {pool.stride}; only windows side by side fold into a kernel"
        ]
    shape = graph.shapes[pool.inputs[0]]
    problems = []
    for reader in graph.consumers(pool.name):
        layers = graph.consumers(reader.name) if isinstance(reader, Flatten) else (reader,)
        for layer in layers:
            if isinstance(layer, Linear):
                weight = widened_features(layer.weight, shape, pool)
                changed[layer.name] = replace(layer, weight=weight)
            elif isinstance(layer, Conv2d) and (not any(layer.padding) or _divides(pool, shape)):
                changed[layer.name] = widened_conv(layer, pool)
            else:
                problems.append(
                    f"{pool.name}: {layer.name} ({type(layer).__name__}) behind it, on {shape}{_advice(layer)}"
                )
    return problems


def _advice(layer: Node) -> str:
    if isinstance(layer, Neuron):
        return f"; pool behind {layer.name}, its spikes in place of its currents, and train again"
    return "; pool sides that the window divides, or leave the padding out" if isinstance(layer, Conv2d) else ""


def widened_conv(layer: Conv2d, pool: SumPool2d) -> Conv2d:
    """The convolution that does the pool's sum too: each tap becomes a window, dilation is written out as zeros."""
    (tall, wide), (down, right) = pool.kernel, layer.dilation
    out, per_group, rows, columns = layer.weight.shape
    shape = (out, per_group, tall * ((rows - 1) * down + 1), wide * ((columns - 1) * right + 1))
    weight = np.zeros(shape, dtype=layer.weight.dtype)
    for row in range(rows):
        for column in range(columns):
            top, left = row * down * tall, column * right * wide
            weight[:, :, top : top + tall, left : left + wide] = layer.weight[:, :, row, column, None, None]
    stride, padding = ((one * tall, two * wide) for one, two in (layer.stride, layer.padding))
    return replace(layer, weight=weight, stride=stride, padding=padding, dilation=(1, 1))


def widened_features(weight: Array, shape: Shape, pool: SumPool2d) -> Array:
    """`(out, channels * pooled positions)` to `(out, channels * positions)`; positions outside every window get 0."""
    channels, height, width = shape
    tall, wide = pool.kernel
    pooled = weight.reshape(len(weight), channels, height // tall, width // wide)
    repeated = pooled.repeat(tall, axis=2).repeat(wide, axis=3)
    full = np.zeros((len(weight), channels, height, width), dtype=weight.dtype)
    full[:, :, : repeated.shape[2], : repeated.shape[3]] = repeated
    return full.reshape(len(weight), -1)


def _divides(pool: SumPool2d, shape: Shape) -> bool:
    return shape[1] % pool.kernel[0] == 0 and shape[2] % pool.kernel[1] == 0
