"""A batch that the native runtime has run, handed to a watch node by node, as the simulator would."""

from __future__ import annotations

import numpy as np

from snnkd_deploy.counts.watch import Watch
from snnkd_deploy.ir import Add, Array, Attention, Flatten, Graph, Input, Neuron, Node, Output, Pool, Weighing, Window
from snnkd_deploy.native import Native
from snnkd_deploy.simulate import entering, evaluate

READING = (Weighing, Pool, Window, Attention)
"""Nodes of which it is counted what they read."""


def replay(graph: Graph, inputs: Array, native: Native, watch: Watch) -> None:
    """Spikes, logits and changes of membranes are the runtime's; else only what somebody counts is evaluated."""
    seen = native.observe(inputs)
    values: dict[str, Array] = {}
    wanted = _wanted(graph)
    last_reader = {name: node.name for node in graph for name in node.inputs}
    for node in graph:
        arguments = tuple(values[name] for name in node.inputs)
        if isinstance(node, Neuron):
            value = seen.spikes[node.name].astype(np.int64)
            watch.fired(node, value, seen.changes[node.name])
        elif isinstance(node, Input):
            value = entering(graph, inputs)
        elif isinstance(node, Output):
            value = seen.logits
        else:
            value = evaluate(node, arguments, graph) if node.name in wanted else _unseen(node, graph, len(seen.logits))
        values[node.name] = value
        watch.note(node, arguments, value)
        for name in node.inputs:
            if last_reader[name] == node.name:
                values.pop(name, None)


def _wanted(graph: Graph) -> set[str]:
    """What somebody looks at: inputs of nodes that read events, what these are made of, and products."""
    found = {node.name for node in graph if isinstance(node, Attention)}
    for node in reversed(graph.nodes):
        made = node.name in found and isinstance(node, Flatten | Add)
        if made or isinstance(node, READING):
            found.update(node.inputs)
    return found


def _unseen(node: Node, graph: Graph, samples: int) -> Array:
    """In place of a value of which only the shape matters, `(time or 1, batch, *shape)`; takes no memory."""
    time = 1 if node.name in graph.static else graph.timesteps
    return np.broadcast_to(np.int64(0), (time, samples, *graph.shapes[node.name]))
