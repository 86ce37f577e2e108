"""What a network does on a data set: exact integer counts of its operations, layer by layer.

A synaptic layer is watched through its event map: how often each of its inputs was not zero, summed over samples and
steps. All synaptic work is linear in that map, so it is derived afterwards from one array of the layer's size; nothing
grows with the data. Layers are classed by what feeds them in the graph, never by the values that were met.

Counts are sums over samples and evaluations. A layer that depends on a still picture alone (`static`) is evaluated once
a sample, and its counts are those of that one evaluation; any other layer is evaluated once a step.
"""

from __future__ import annotations

import numpy as np

from snnkd_deploy.counts.ann import ann_layers, collapsed
from snnkd_deploy.counts.derive import layer
from snnkd_deploy.counts.layers import Activations, Counts, Layer, Neurons, Pools, Products, Sums, Synapses
from snnkd_deploy.counts.watch import Watch
from snnkd_deploy.errors import GraphError, InputError
from snnkd_deploy.ir import Array, Graph, Stage, Synaptic
from snnkd_deploy.simulate import batches

__all__ = [
    "Activations", "Counts", "Layer", "Neurons", "Pools", "Products", "Sums", "Synapses", "ann_layers", "collapsed",
    "count",
]  # fmt: skip


def count(graph: Graph, inputs: Array, batch: int = 64) -> Counts:
    """Run `inputs`, as `simulate` takes them, and count. GraphError before FOLDED, InputError without samples."""
    if graph.stage < Stage.FOLDED:
        raise GraphError(f"{graph.name} cannot be counted:", ["fold its BatchNorm first; it is no operation of a chip"])
    watch = Watch(graph)
    predictions = [record.logits.argmax(axis=1) for record in batches(graph, inputs, batch, watch.note)]
    if not watch.samples:
        raise InputError(f"{graph.name} cannot be counted without samples")
    found = (layer(node, watch) for node in graph)
    return Counts(
        samples=watch.samples,
        timesteps=graph.timesteps,
        layers=tuple(one for one in found if one),
        predictions=np.concatenate(predictions),
        events={node.name: watch.events[node.name] for node in graph.of(*Synaptic)},
    )
