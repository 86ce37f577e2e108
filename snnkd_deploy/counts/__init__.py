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
from snnkd_deploy.counts.derive import derive
from snnkd_deploy.counts.layers import Activations, Counts, FanOut, Layer, Neurons, Pools, Products, Sums, Synapses
from snnkd_deploy.counts.native import NativeCounter, holds
from snnkd_deploy.counts.replay import replay
from snnkd_deploy.counts.seen import contradiction
from snnkd_deploy.counts.tally import Tally
from snnkd_deploy.counts.watch import Watch
from snnkd_deploy.errors import InputError
from snnkd_deploy.ir import Array, Graph, Weighing
from snnkd_deploy.runner import parts, runner
from snnkd_deploy.simulate import sample_axis, simulate

__all__ = [
    "Activations", "Counts", "FanOut", "Layer", "Neurons", "Pools", "Products", "Sums", "Synapses", "Tally",
    "ann_layers", "collapsed", "count", "counted",
]  # fmt: skip

AT_ONCE = 2**22
"""Numbers of samples that the native runtime is handed together, at the most."""


def count(graph: Graph, inputs: Array, batch: int = 64) -> Counts:
    """Run `inputs`, as `simulate` takes them, natively where that can be, and count.

    GraphError before FOLDED, InputError without samples.
    """
    who = runner(graph, inputs)
    size = inputs.size // inputs.shape[sample_axis(graph)] if inputs.size else 1
    tally = Tally(graph, who.by)
    watch = Watch(tally)
    counter = None
    if who.native is not None and holds(graph, who.native, tally):
        counter = NativeCounter(graph, who.native, tally)
        batch = max(batch, min(16 * batch, AT_ONCE // size))  # each call lays out the fan-outs anew
    for part in parts(graph, inputs, batch):
        if counter is not None:
            counter.add(part)
        elif who.native is not None:
            replay(graph, part, who.native, watch)
        else:
            simulate(graph, part, watch.note, watch.look)
    return counted(tally)


def counted(tally: Tally) -> Counts:
    """What follows from a tally, whoever ran the network. InputError if it holds no samples."""
    graph = tally.graph
    if not tally.samples:
        raise InputError(f"{graph.name} cannot be counted without samples")
    found = [one for node in graph if (one := derive(node, tally))]
    return Counts(
        samples=tally.samples,
        timesteps=graph.timesteps,
        stage=graph.stage.name,
        simulator=tally.simulator,
        layers=tuple(one.layer for one in found),
        predictions=np.concatenate(tally.predictions),
        events={node.name: tally.events[node.name] for node in graph if isinstance(node, Weighing)},
        per_sample={one.layer.name: one.per_sample for one in found},
        warnings=_warnings(tally),
    )


def _warnings(tally: Tally) -> tuple[str, ...]:
    sources = {name: tally.carried[tally.graph[name].inputs[0]] for name in tally.seen}
    told = (contradiction(name, seen, sources[name]) for name, seen in tally.seen.items())
    return tuple(one for one in told if one)
