"""Carry biases past spikes to neurons that keep their current, for chips that add a bias behind that current.

In the network a bias arrives with the spikes, and the current keeps it; such a chip adds it to the membrane, where it
is gone with the next reset. So the layer in front gets neurons that no synapse reaches and whose own bias fires them at
every step: with their weights they are the bias, and arrive as spikes do. The first layer, which has no neurons in
front, gets its bias from the host, or constant inputs instead (see `bias_planes`, which comes next).
"""

from __future__ import annotations

from dataclasses import fields, replace
from math import prod

import numpy as np

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.errors import LegalityError
from snnkd_deploy.ir import Array, Conv2d, Flatten, Graph, Linear, Neuron, Node, Relay, Shape
from snnkd_deploy.passes.bias_planes import carried_by_planes, feeds_kept_current, inner_tap, reading, spread
from snnkd_deploy.passes.merge_layers import ungrouped
from snnkd_deploy.passes.quantize import host_layers
from snnkd_deploy.target import Target


def bias_neurons(graph: Graph, target: Target, calibration: Calibration) -> Graph:
    """Rewrite every layer behind neurons that needs it. LegalityError lists those that this cannot serve."""
    if "Relay" not in target.nodes:
        return graph
    problems: list[str] = []
    for name in [node.name for node in graph if isinstance(node, Linear | Conv2d)]:
        layer = graph[name]
        assert isinstance(layer, Linear | Conv2d)
        before = _neurons_before(graph, layer)
        if before is not None and layer.bias.any() and feeds_kept_current(graph, layer, target):
            reason = _obstacle(graph, layer, before, target)
            problems += [f"{name}: its bias is to reach a current that is kept, and {reason}"] if reason else []
            graph = graph if reason else _carried(graph, layer, before, target)
    if problems:
        raise LegalityError(f"{target.name} adds biases behind the current, to the membrane:", problems)
    return graph


def _neurons_before(graph: Graph, layer: Node) -> Neuron | None:
    """The neurons whose spikes a layer reads, past a Flatten."""
    source = graph[layer.inputs[0]]
    source = graph[source.inputs[0]] if isinstance(source, Flatten) else source
    return source if isinstance(source, Neuron) else None


def _obstacle(graph: Graph, layer: Linear | Conv2d, before: Neuron, target: Target) -> str | None:
    """Why no neurons beside `before` can carry the bias of `layer`."""
    advice = "leave the bias out (bias=False) and train again"
    if not isinstance(graph[before.inputs[0]], Linear | Conv2d):
        return f"{before.name} in front has no synapses; {advice}"
    free = host_layers(graph, target) | carried_by_planes(graph, target)
    if before.inputs[0] not in free and before.threshold.max() >= target.bias.maximum:
        most = f"a threshold of {before.threshold.max()}, a bias is at most {target.bias.maximum}"
        return f"no bias fires {before.name} in front at every step ({most}); use fewer weight bits, or {advice}"
    if isinstance(layer, Conv2d) and inner_tap(layer, graph.shapes[before.name]) is None:
        return f"its kernel has no tap that is inside the picture everywhere; use an odd kernel, or {advice}"
    return None


def _carried(graph: Graph, layer: Linear | Conv2d, before: Neuron, target: Target) -> Graph:
    """The graph with neurons beside `before` that fire at every step, and the bias of `layer` as their weights."""
    shape, synapse = graph.shapes[before.name], graph[before.inputs[0]]
    assert isinstance(synapse, Linear | Conv2d)
    layer = ungrouped(layer) if isinstance(layer, Conv2d) else layer
    widened = reading(layer, spread(layer.bias, target.weights.maximum), shape)
    channels = _channels(widened, shape) - shape[0]
    changed: dict[str, Node] = {
        synapse.name: _firing(synapse, channels, int(before.threshold.max()) + 1),
        before.name: _beside(before, shape[0], channels),
        layer.name: replace(widened, bias=np.zeros_like(layer.bias), unit=None),
    }
    return replace(graph, nodes=tuple(changed.get(node.name, node) for node in graph))


def _channels(layer: Linear | Conv2d, shape: Shape) -> int:
    """How many channels an ungrouped layer reads of pictures (or features) of this shape."""
    return int(layer.weight.shape[1]) // (prod(shape[1:]) if isinstance(layer, Linear) else 1)


def _firing(synapse: Linear | Conv2d, channels: int, bias: int) -> Linear | Conv2d:
    """The layer with further outputs that have nothing but a bias."""
    synapse = ungrouped(synapse) if isinstance(synapse, Conv2d) else synapse
    more = np.zeros((channels, *synapse.weight.shape[1:]), synapse.weight.dtype)
    biases = np.concatenate([synapse.bias, np.full(channels, bias)])
    return replace(synapse, weight=np.concatenate([synapse.weight, more]), bias=biases, unit=None)


def _beside(neuron: Neuron, own: int, channels: int) -> Relay:
    """The same neurons and so many more, which no record holds."""
    values = {field.name: getattr(neuron, field.name) for field in fields(neuron)}
    values |= {name: _longer(values[name], channels) for name in ("threshold", "decay", "current_decay")}
    return Relay(**{"own": own, **values})


def _longer(values: float | Array, channels: int) -> float | Array:
    """Of one per channel, the largest for the new ones."""
    return values if np.ndim(values) == 0 else np.concatenate([values, np.full(channels, np.max(values))])
