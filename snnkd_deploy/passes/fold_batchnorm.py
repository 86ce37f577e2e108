"""Fold each BatchNorm into the layers around it; what no layer can take becomes a synapse of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.errors import GraphError
from snnkd_deploy.ir import (
    Add,
    Array,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    Graph,
    Linear,
    MaxPool2d,
    Node,
    Shape,
    Stage,
)
from snnkd_deploy.simulate import affine
from snnkd_deploy.target import Target


def fold_batchnorm(graph: Graph, target: Target, calibration: Calibration) -> Graph:
    """y = scale * x + shift moves into the layers in front of it, else into those behind it, else into a synapse.

    In front: Linear, Conv2d, another BatchNorm, through average pools and additions. Behind: Linear and Conv2d, through
    Flatten and pools; a Conv2d with padding only where the shift is 0, since it pads with zeros and not with shifts.
    The synapse, a 1x1 depthwise convolution, is exact in every place; a target may have no room for it.
    """
    for name in [norm.name for norm in reversed(graph.of(BatchNorm))]:
        norm = graph[name]  # which may have taken up the one behind it
        assert isinstance(norm, BatchNorm)
        scale, shift = affine(norm)
        folded = _into_source(graph, norm.inputs[0], scale, shift)
        folded = folded or _into_readers(graph, norm.name, scale, shift)
        graph = _without(folded, norm) if folded else _replaced(graph, _synapse_for(graph, norm))
    return replace(graph, stage=Stage.FOLDED)


def fold(layer: Linear | Conv2d, norm: BatchNorm) -> Linear | Conv2d:
    """The layer that computes `norm(layer(x))`."""
    return _scaled(layer, *affine(norm))


def synapse(name: str, source: str, shape: Shape, scale: Array, shift: Array) -> Linear | Conv2d:
    """scale * x + shift per channel, as a layer of one weight for each channel of `shape`."""
    if len(shape) == 1:
        return Linear(name=name, inputs=(source,), weight=np.diag(scale), bias=shift)
    if len(shape) != 3:
        raise GraphError(f"{name}: no synapse for a value of shape {shape}; accepted are features and pictures")
    weight = scale.reshape(-1, 1, 1, 1)
    return Conv2d(name=name, inputs=(source,), weight=weight, bias=shift, groups=shape[0])


def _into_source(graph: Graph, name: str, scale: Array, shift: Array) -> Graph | None:
    """The graph in which node `name` gives scale * y + shift instead of y; None if it cannot, or others read it."""
    node = graph[name]
    if len(graph.consumers(name)) > 1:
        return None
    if isinstance(node, Linear | Conv2d):
        return _replaced(graph, _scaled(node, scale, shift))
    if isinstance(node, BatchNorm):
        mixed = replace(node, gamma=node.gamma * scale, beta=node.beta * scale + shift)
        return _replaced(graph, mixed)
    if isinstance(node, AvgPool2d) or (isinstance(node, MaxPool2d) and (scale >= 0).all()):
        return _into_source(graph, node.inputs[0], scale, shift)
    return _into_terms(graph, node, scale, shift) if isinstance(node, Add) else None


def _into_terms(graph: Graph, node: Add, scale: Array, shift: Array) -> Graph:
    """Each term of a sum is scaled, one is shifted; a term that cannot take it gets a synapse."""
    for index, term in enumerate(node.inputs):
        part = shift if index == 0 else np.zeros_like(shift)
        scaled = _into_source(graph, term, scale, part)
        graph = scaled or _with_synapse(graph, node.name, index, scale, part)
    return graph


def _into_readers(graph: Graph, name: str, scale: Array, shift: Array) -> Graph | None:
    """The graph in which every reader of `name` computes scale * x + shift itself; None if one cannot."""
    for reader in graph.consumers(name):
        changed = _into_reader(graph, reader, scale, shift)
        if changed is None:
            return None
        graph = changed
    return graph


def _into_reader(graph: Graph, reader: Node, scale: Array, shift: Array) -> Graph | None:
    if isinstance(reader, Linear | Conv2d):
        if isinstance(reader, Conv2d) and any(reader.padding) and shift.any():
            return None
        return _replaced(graph, _taking(reader, scale, shift))
    if isinstance(reader, Flatten):
        positions = graph.shapes[reader.name][0] // len(scale)
        return _into_readers(graph, reader.name, scale.repeat(positions), shift.repeat(positions))
    if isinstance(reader, AvgPool2d) or (isinstance(reader, MaxPool2d) and (scale >= 0).all()):
        return _into_readers(graph, reader.name, scale, shift)
    return None


def _scaled(layer: Linear | Conv2d, scale: Array, shift: Array) -> Linear | Conv2d:
    """scale * layer(x) + shift."""
    weight = layer.weight * scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    return replace(layer, weight=weight, bias=layer.bias * scale + shift)


def _taking(layer: Linear | Conv2d, scale: Array, shift: Array) -> Linear | Conv2d:
    """layer(scale * x + shift)."""
    groups = layer.groups if isinstance(layer, Conv2d) else 1
    per_output = (
        np.repeat(side.reshape(groups, -1), len(layer.weight) // groups, axis=0).reshape(
            *layer.weight.shape[:2], *[1] * (layer.weight.ndim - 2)
        )
        for side in (scale, shift)
    )
    scales, shifts = per_output
    axes = tuple(range(1, layer.weight.ndim))
    return replace(layer, weight=layer.weight * scales, bias=layer.bias + (layer.weight * shifts).sum(axis=axes))


def _synapse_for(graph: Graph, norm: BatchNorm) -> Linear | Conv2d:
    return synapse(norm.name, norm.inputs[0], graph.shapes[norm.name], *affine(norm))


def _with_synapse(graph: Graph, name: str, index: int, scale: Array, shift: Array) -> Graph:
    """A synapse in front of input `index` of the node `name`."""
    node = graph[name]
    source = node.inputs[index]
    added = synapse(f"{name}.shortcut{index}", source, graph.shapes[source], scale, shift)
    inputs = (*node.inputs[:index], added.name, *node.inputs[index + 1 :])
    place = graph.nodes.index(node)
    nodes = (*graph.nodes[:place], added, replace(node, inputs=inputs), *graph.nodes[place + 1 :])
    return replace(graph, nodes=nodes)


def _without(graph: Graph, norm: BatchNorm) -> Graph:
    """The graph whose nodes read what the norm reads, and not the norm."""
    source = graph[norm.name].inputs[0]
    nodes = (
        replace(node, inputs=tuple(source if name == norm.name else name for name in node.inputs))
        for node in graph
        if node.name != norm.name
    )
    return replace(graph, nodes=tuple(nodes))


def _replaced(graph: Graph, changed: Node) -> Graph:
    return replace(graph, nodes=tuple(changed if node.name == changed.name else node for node in graph))
