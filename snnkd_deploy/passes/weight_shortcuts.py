"""Give each shortcut that adds spikes to a current, or means to spikes, a synapse of its own, of weight 1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.ir import Add, AvgPool2d, BatchNorm, Conv2d, Flatten, Graph, Linear, Node, Pool, Synaptic
from snnkd_deploy.passes.fold_batchnorm import synapse
from snnkd_deploy.target import Target


def weight_shortcuts(graph: Graph, target: Target, calibration: Calibration) -> Graph:
    """A residual add of a current and of spikes has two units; after this pass both terms are weighted currents.

    So have spikes and means of spikes, which average pools make: as integers these are sums.

    The synapse is a 1x1 depthwise convolution, so that quantisation sees its weight beside the others of the sum.
    """
    nodes: list[Node] = []
    for node in graph:
        if isinstance(node, Add):
            carried = [carries_current(graph, name) for name in node.inputs]
            windows = {_window(graph, name) for name in node.inputs}
            if (any(carried) and not all(carried)) or (not any(carried) and len(windows) > 1):
                added = [
                    None if current else _unweighted(graph, name, f"{node.name}.shortcut{index}")
                    for index, (name, current) in enumerate(zip(node.inputs, carried, strict=True))
                ]
                nodes += [synapse for synapse in added if synapse]
                names = (new.name if new else old for new, old in zip(added, node.inputs, strict=True))
                node = replace(node, inputs=tuple(names))
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def carries_current(graph: Graph, name: str) -> bool:
    """Whether the value is a weighted sum that no neuron has turned into spikes yet."""
    node = graph[name]
    if isinstance(node, (*Synaptic, BatchNorm)):
        return True
    if isinstance(node, Add | AvgPool2d):
        return any(carries_current(graph, one) for one in node.inputs)
    return False


def _window(graph: Graph, name: str) -> int:
    """Over how many spikes a value is a mean."""
    node = graph[name]
    if not isinstance(node, Pool | Flatten):
        return 1
    area = node.kernel[0] * node.kernel[1] if isinstance(node, AvgPool2d) else 1
    return area * _window(graph, node.inputs[0])


def _unweighted(graph: Graph, source: str, name: str) -> Linear | Conv2d:
    shape = graph.shapes[source]
    made = synapse(name, source, shape, np.ones(shape[0]), np.zeros(shape[0]))
    assert isinstance(made, Linear | Conv2d)  # what has another rank never gets here
    return made
