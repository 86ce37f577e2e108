"""A ReLU network as a rate-coded spiking one: thresholds from the activations that samples cause.

A neuron without leak that subtracts its threshold fires, over many steps, at a rate of current / threshold, which is
what ReLU says up to the largest activation (Diehl et al., IJCNN 2015). The threshold of a layer is a percentile of its
positive activations, so that a few outliers do not slow all others down (Rueckauer et al., Front. Neurosci. 2017); a
spike is then worth the threshold to the layers behind. Half a threshold, spread over the steps, is added to each bias,
which turns the floor of a spike count into rounding (Deng and Gu, ICLR 2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from snnkd_deploy.errors import ConfigError, GraphError
from snnkd_deploy.ir import (
    Add,
    Array,
    BatchNorm,
    Flatten,
    Graph,
    Neuron,
    Node,
    Output,
    Pool,
    Relu,
    Reset,
    Weighing,
    Window,
)
from snnkd_deploy.passes.fold_batchnorm import synapse
from snnkd_deploy.simulate import batches


@dataclass(frozen=True)
class Conversion:
    """`percentile` of the positive activations that a rate of 1 stands for, the neuron's leak and reset."""

    timesteps: int
    percentile: float = 99.9
    decay: float = 1.0
    reset: Reset = "subtract"


def convert(graph: Graph, samples: Array, chosen: Conversion) -> Graph:
    """The spiking network of a ReLU graph, calibrated on integer `samples`.

    ReLUs that meet in a sum get one threshold, so that their spikes are worth the same. ConfigError if a setting is out
    of range, GraphError if the graph has no ReLU or one is never active.
    """
    if chosen.timesteps < 1 or not 0 < chosen.percentile <= 100:
        raise ConfigError(f"{chosen}: timesteps from 1, percentile above 0 and up to 100")
    if not graph.of(Relu):
        raise GraphError(f"{graph.name} cannot be converted:", ["it has neither spiking neurons nor a ReLU"])
    tops = largest_activations(graph, samples, chosen.percentile)
    if silent := [name for name, top in tops.items() if top <= 0]:
        raise GraphError(
            f"{graph.name} cannot be converted:", [f"{name}: no sample makes it active" for name in silent]
        )
    for node in graph.of(Add) * len(graph.of(Add)):  # a ReLU may be part of several sums
        alike = spiking_sources(graph, node.name)
        tops.update(dict.fromkeys(alike, max((tops[name] for name in alike), default=0.0)))
    nodes = [one for node in graph for one in _converted(graph, node, tops, chosen)]
    return replace(graph, nodes=tuple(nodes), timesteps=chosen.timesteps)


def largest_activations(graph: Graph, samples: Array, percentile: float) -> dict[str, float]:
    """The percentile of the positive outputs of each Relu; 0 where there are none."""
    found: dict[str, list[Array]] = {node.name: [] for node in graph.of(Relu)}

    def note(node: Node, arguments: tuple[Array, ...], value: Array) -> None:
        if isinstance(node, Relu):
            found[node.name].append(value[value > 0])

    for _ in batches(graph, samples, observe=note):
        pass
    values = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: float(np.percentile(one, percentile)) if one.size else 0.0 for name, one in values.items()}


def spiking_sources(graph: Graph, name: str) -> frozenset[str]:
    """The ReLUs that a value is made of, past pools, Flatten and sums; none if anything else is part of it."""
    node = graph[name]
    if isinstance(node, Relu):
        return frozenset({name})
    if not isinstance(node, Pool | Window | Flatten | Add):
        return frozenset()
    parts = [spiking_sources(graph, source) for source in node.inputs]
    return frozenset().union(*parts) if all(parts) else frozenset()


def _converted(graph: Graph, node: Node, tops: dict[str, float], chosen: Conversion) -> list[Node]:
    """The node on spikes: what reads them takes their worth into its weights."""
    if isinstance(node, Relu):
        return _neuron(graph, node, tops[node.name], chosen)
    worth = [_worth(graph, name, tops) for name in node.inputs]
    if isinstance(node, Weighing) and worth[0]:
        return [replace(node, weight=node.weight * worth[0])]
    if isinstance(node, BatchNorm) and worth[0]:
        return [replace(node, mean=node.mean / worth[0], gamma=node.gamma * worth[0])]
    weigh = isinstance(node, Output) or (isinstance(node, Add) and not all(worth))
    if not (weigh and any(worth)):
        return [node]
    names = [f"{node.name}.weighted{index}" if one else node.inputs[index] for index, one in enumerate(worth)]
    made = [
        _weighted(graph, name, source, one) for name, source, one in zip(names, node.inputs, worth, strict=True) if one
    ]
    return [*made, replace(node, inputs=tuple(names))]


def _neuron(graph: Graph, node: Relu, top: float, chosen: Conversion) -> list[Node]:
    """Half a threshold over all steps, as a BatchNorm that folding takes into the layer in front, and a neuron."""
    ones = np.ones(graph.shapes[node.name][0])
    early = BatchNorm(
        name=f"{node.name}.early",
        inputs=node.inputs,
        mean=0 * ones,
        variance=ones,
        gamma=ones,
        beta=top / (2 * chosen.timesteps) * ones,
        eps=0.0,
    )
    threshold = np.asarray(top)
    neuron = Neuron(name=node.name, inputs=(early.name,), decay=chosen.decay, threshold=threshold, reset=chosen.reset)
    return [early, neuron]


def _worth(graph: Graph, name: str, tops: dict[str, float]) -> float:
    """What a spike of this value stands for; 0 if it is not made of spikes."""
    return max((tops[source] for source in spiking_sources(graph, name)), default=0.0)


def _weighted(graph: Graph, name: str, source: str, worth: float) -> Node:
    shape = graph.shapes[source]
    return synapse(name, source, shape, worth * np.ones(shape[0]), np.zeros(shape[0]))
