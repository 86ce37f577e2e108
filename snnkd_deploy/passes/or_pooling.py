"""Turn max pools of spikes into neurons, for targets that cannot pool.

The maximum of spikes is their OR. A neuron without leak that gets 2 from each spike of its window, and fires above 1,
says just that at each step: any spike fires and resets it, and without one nothing has piled up.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.ir import Conv2d, Graph, MaxPool2d, Neuron, Node
from snnkd_deploy.target import Target

WEIGHT, THRESHOLD = 2, 1


def or_pooling(graph: Graph, target: Target, calibration: Calibration) -> Graph:
    """Rewrite each MaxPool2d that reads a neuron, if the target has none; the neurons take over the pool's name.

    Other max pools stay, and the target's check refuses them.
    """
    if "MaxPool2d" in target.nodes:
        return graph
    nodes: list[Node] = []
    for node in graph:
        if isinstance(node, MaxPool2d) and isinstance(graph[node.inputs[0]], Neuron):
            nodes += neurons(node, graph.shapes[node.name][0], target)
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def neurons(pool: MaxPool2d, channels: int, target: Target) -> tuple[Conv2d, Neuron]:
    """The depthwise synapses and the neurons that compute what `pool` does on spikes."""
    synapse = Conv2d(
        name=f"{pool.name}.any",
        inputs=pool.inputs,
        weight=np.full((channels, 1, *pool.kernel), WEIGHT),
        bias=np.zeros(channels, dtype=np.int64),
        stride=pool.stride,
        groups=channels,
    )
    neuron = Neuron(
        name=pool.name,
        inputs=(synapse.name,),
        decay=1.0,
        threshold=np.asarray(THRESHOLD),
        decay_bits=target.decay.bits,
        fraction_bits=target.state.fraction_bits,
    )
    return synapse, neuron
