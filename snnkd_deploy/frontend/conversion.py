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
from snnkd_deploy.ir import Add, Array, BatchNorm, Graph, Linear, Neuron, Node, Relu, Reset
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

    ConfigError if a setting is out of range, GraphError if the graph has no ReLU or one is never active.
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
    nodes: list[Node] = []
    for node in graph:
        nodes += _converted(graph, node, tops, chosen)
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


def _converted(graph: Graph, node: Node, tops: dict[str, float], chosen: Conversion) -> list[Node]:
    """A Relu becomes half a threshold, spread over the steps, a neuron, and the worth of its spikes, as a BatchNorm's
    equation, which the next pass folds into the layers behind."""
    if isinstance(node, Relu):
        top = tops[node.name]
        channels = graph.shapes[node.name][0]
        early = _affine(f"{node.name}.early", node.inputs[0], channels, 1.0, top / (2 * chosen.timesteps))
        neuron = Neuron(
            name=f"{node.name}.neuron",
            inputs=(early.name,),
            decay=chosen.decay,
            threshold=np.asarray(top),
            reset=chosen.reset,
        )
        return [early, neuron, _affine(node.name, neuron.name, channels, top, 0.0)]
    if isinstance(node, Add) and any(_is_spikes(graph, name) for name in node.inputs):
        return _weighted(graph, node)
    return [node]


def _weighted(graph: Graph, node: Add) -> list[Node]:
    """A sum in which spikes meet: each term of spikes gets a synapse, which carries their worth."""
    made: list[Node] = []
    names = []
    for index, name in enumerate(node.inputs):
        if _is_spikes(graph, name):
            shape = graph.shapes[name]
            made.append(synapse(f"{node.name}.shortcut{index}", name, shape, np.ones(shape[0]), np.zeros(shape[0])))
        names.append(made[-1].name if _is_spikes(graph, name) else name)
    return [*made, replace(node, inputs=tuple(names))]


def _is_spikes(graph: Graph, name: str) -> bool:
    """Whether a value comes from ReLUs alone, past pools and Flatten."""
    node = graph[name]
    if isinstance(node, Relu):
        return True
    passes = bool(node.inputs) and not isinstance(node, Linear | Add | BatchNorm) and not hasattr(node, "weight")
    return passes and _is_spikes(graph, node.inputs[0])


def _affine(name: str, source: str, channels: int, scale: float, shift: float) -> BatchNorm:
    ones = np.ones(channels)
    return BatchNorm(
        name=name, inputs=(source,), mean=0 * ones, variance=ones, gamma=scale * ones, beta=shift * ones, eps=0.0
    )
