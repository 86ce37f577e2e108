"""Fold each BatchNorm into the layers around it; what no layer can take becomes a synapse of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.geometry import grouped
from snnkd_deploy.ir import (
    Add,
    Array,
    AvgPool,
    AvgPool2d,
    BatchNorm,
    Conv,
    Conv2d,
    ConvTranspose,
    Flatten,
    Graph,
    Linear,
    MaxPool,
    MaxPool2d,
    Node,
    Shape,
    Stage,
    Weighing,
)
from snnkd_deploy.simulate import affine
from snnkd_deploy.target import Target


def fold_batchnorm(graph: Graph, target: Target, calibration: Calibration) -> Graph:
    """y = scale * x + shift moves into the layers in front of it, else into those behind it, else into a synapse.

    In front: Linear, convolutions, another BatchNorm, through average pools and additions. Behind: Linear and
    convolutions, through Flatten and pools; what pads with zeros only where the shift is 0, since it pads with zeros
    and not with shifts. The synapse, a depthwise convolution of one tap, is exact in every place; a target may have no
    room for it.
    """
    for name in [norm.name for norm in reversed(graph.of(BatchNorm))]:
        norm = graph[name]  # which may have taken up the one behind it
        assert isinstance(norm, BatchNorm)
        scale, shift = affine(norm)
        folded = _into_source(graph, norm.inputs[0], scale, shift)
        folded = folded or _into_readers(graph, norm.name, scale, shift)
        graph = _without(folded, norm) if folded else _replaced(graph, _synapse_for(graph, norm))
    return replace(graph, stage=Stage.FOLDED)


def fold(layer: Weighing, norm: BatchNorm) -> Weighing:
    """The layer that computes `norm(layer(x))`."""
    return _scaled(layer, *affine(norm))


def synapse(name: str, source: str, shape: Shape, scale: Array, shift: Array) -> Linear | Conv2d | Conv:
    """scale * x + shift per channel, as a layer of one weight for each channel of `shape`."""
    if len(shape) == 1:
        return Linear(name=name, inputs=(source,), weight=np.diag(scale), bias=shift)
    weight, rank = scale.reshape(-1, *[1] * len(shape)), len(shape) - 1
    if rank == 2:
        return Conv2d(name=name, inputs=(source,), weight=weight, bias=shift, groups=shape[0])
    ones, nothing = (1,) * rank, (0,) * rank
    return Conv(
        name=name, inputs=(source,), weight=weight, bias=shift, stride=ones, before=nothing, after=nothing,
        dilation=ones, groups=shape[0],
    )  # fmt: skip


def _into_source(graph: Graph, name: str, scale: Array, shift: Array) -> Graph | None:
    """The graph in which node `name` gives scale * y + shift instead of y; None if it cannot, or others read it."""
    node = graph[name]
    if len(graph.consumers(name)) > 1:
        return None
    if isinstance(node, Weighing):
        return _replaced(graph, _scaled(node, scale, shift))
    if isinstance(node, BatchNorm):
        mixed = replace(node, gamma=node.gamma * scale, beta=node.beta * scale + shift)
        return _replaced(graph, mixed)
    if _passes(node, scale, shift):
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
    if isinstance(reader, Weighing):
        if _pads(reader) and shift.any():
            return None
        return _replaced(graph, _taking(reader, scale, shift))
    if isinstance(reader, Flatten):
        positions = graph.shapes[reader.name][0] // len(scale)
        return _into_readers(graph, reader.name, scale.repeat(positions), shift.repeat(positions))
    return _into_readers(graph, reader.name, scale, shift) if _passes(reader, scale, shift) else None


def _passes(node: Node, scale: Array, shift: Array) -> bool:
    """Whether scale * x + shift may be computed in front of a pool as well as behind it."""
    if isinstance(node, MaxPool2d | MaxPool):
        return bool((scale >= 0).all())
    return isinstance(node, AvgPool2d) or (isinstance(node, AvgPool) and not (any(node.padding) and shift.any()))


def _pads(layer: Weighing) -> bool:
    """Whether an output may read zeros that are no input's; a transposed one may read fewer inputs than others."""
    if isinstance(layer, Conv):
        return layer.mode == "zeros" and any((*layer.before, *layer.after))
    return isinstance(layer, ConvTranspose) or (isinstance(layer, Conv2d) and any(layer.padding))


def _scaled(layer: Weighing, scale: Array, shift: Array) -> Weighing:
    """scale * layer(x) + shift."""
    factors = _by_weight(layer, scale, axis=1)
    return replace(layer, weight=layer.weight * factors, bias=layer.bias * scale + shift)


def _taking(layer: Weighing, scale: Array, shift: Array) -> Weighing:
    """layer(scale * x + shift)."""
    scales, shifts = (_by_weight(layer, side, axis=2) for side in (scale, shift))
    axes = tuple(range(1, layer.weight.ndim))
    added = (layer.weight * shifts).sum(axis=axes) if shift.any() else 0
    return replace(layer, weight=layer.weight * scales, bias=layer.bias + added)


def _by_weight(layer: Weighing, values: Array, axis: int) -> Array:
    """One value for each output (axis 1) or input (axis 2) channel, in a shape that broadcasts to the weights."""
    groups = 1 if isinstance(layer, Linear) else layer.groups
    out, into = layer.weight.shape[:2] if isinstance(layer, Linear) else grouped(layer).shape[1:3]
    placed = np.expand_dims(values.reshape(groups, -1), 3 - axis)
    spread = np.broadcast_to(placed, (groups, out, into))
    spread = spread.swapaxes(1, 2) if isinstance(layer, ConvTranspose) else spread
    return spread.reshape(*layer.weight.shape[:2], *[1] * (layer.weight.ndim - 2))


def _synapse_for(graph: Graph, norm: BatchNorm) -> Node:
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
