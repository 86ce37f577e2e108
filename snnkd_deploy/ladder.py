"""The accuracy ladder: how well each form of the network does on the same samples, and how busy its neurons are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from snnkd_deploy.bounds import bounds, largest
from snnkd_deploy.ir import Array, Graph, Neuron, Node, Output
from snnkd_deploy.runner import runner
from snnkd_deploy.simulate import batches, membranes, sample_axis
from snnkd_deploy.target import Target


@dataclass(frozen=True)
class Activity:
    """Of one layer over all samples: mean spikes per neuron and step, neurons that never fire, and that always fire."""

    rate: float
    neurons: int
    dead: int
    saturated: int


@dataclass(frozen=True)
class Rung:
    """One form of the network: accuracy 0..1 over so many samples."""

    accuracy: float
    samples: int
    layers: Mapping[str, Activity]
    answers: Array
    """The class with the largest logit, `(samples,)`."""
    run_by: str
    """Who ran it, in words."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        layers = {name: vars(activity) for name, activity in self.layers.items()}
        return {"accuracy": self.accuracy, "samples": self.samples, "run_by": self.run_by, "layers": layers}


def climb(graph: Graph, inputs: Array, labels: Array) -> Rung:
    """Run all samples: natively where that can be, else through the reference simulator."""
    who = runner(graph, inputs)
    logits, fired = _simulated(graph, inputs) if who.native is None else who.native.fired(inputs)
    found, samples = logits.argmax(axis=1), inputs.shape[sample_axis(graph)]
    layers = {name: _activity(counts, samples * graph.timesteps) for name, counts in fired.items()}
    return Rung(float((found == labels).mean()), samples, layers, found, who.by)


def _simulated(graph: Graph, inputs: Array) -> tuple[Array, dict[str, Array]]:
    """Logits, and how often each neuron fired."""
    fired: dict[str, Array] = {}

    def note(node: Node, arguments: tuple[Array, ...], value: Array) -> None:
        if isinstance(node, Neuron):
            fired[node.name] = fired.get(node.name, 0) + value.sum(axis=(0, 1), dtype=np.int64)

    return np.concatenate([record.logits for record in batches(graph, inputs, observe=note)]), fired


@dataclass(frozen=True)
class Margin:
    """How far one membrane (of the readout: the sum over time) goes, in weight units."""

    limit: float
    """What the target's state holds."""
    worst: float
    """What no sample whatever can exceed; see `bounds`."""
    observed: float
    """The largest magnitude on the samples."""


def margins(graph: Graph, inputs: Array, target: Target) -> dict[str, Margin]:
    """Of each neuron and the readout of an integer graph, over all samples."""
    limits, observed = bounds(graph), dict.fromkeys((node.name for node in graph.of(Neuron, Output)), 0.0)

    def note(node: Node, arguments: tuple[Array, ...], value: Array) -> None:
        if isinstance(node, Neuron):
            reach = max(int(np.abs(v).max()) for v, _ in membranes(node, arguments[0], graph.timesteps))
        elif isinstance(node, Output):
            steps = np.broadcast_to(arguments[0], (graph.timesteps, *arguments[0].shape[1:]))
            reach = int(np.abs(steps.cumsum(axis=0)).max())
        else:
            return
        observed[node.name] = max(observed[node.name], reach / _unit(node))

    for _ in batches(graph, inputs, observe=note):
        pass
    limit = float(target.state.maximum >> target.state.fraction_bits)
    return {
        name: Margin(limit, largest(limits.membranes[name]) / _unit(graph[name]), reach)
        for name, reach in observed.items()
    }


def warnings(rungs: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """What a reader of the ladder should not miss: accuracy lost in compiling, layers that say nothing."""
    found = []
    known = [name for name in CLIMBED if (rung := rungs.get(name)) and rung["accuracy"] is not None]
    for before, after in pairwise(known):
        first, second = rungs[before], rungs[after]
        assert first is not None
        assert second is not None
        lost = first["accuracy"] - second["accuracy"]
        noise = 2 * float(np.sqrt(first["accuracy"] * (1 - first["accuracy"]) / first["samples"]))
        if lost > max(LOSS, noise):
            found.append(f"from {before} to {after} the accuracy falls by {100 * lost:.1f} points")
    integer = rungs["integer"]
    assert integer is not None
    for name, layer in integer["layers"].items():
        found += [f"{name}: every neuron {what}" for key, what in STUCK.items() if layer[key] == layer["neurons"]]
    return found


CLIMBED = ("student", "folded", "ann", "network", "integer")
"""Forms of a network of ours, and of one of the user's own, in the order in which one is made from the other."""
LOSS = 0.01
"""A loss of accuracy that is worth a warning, if it is also more than twice the binomial deviation of the samples."""
STUCK = {"dead": "stays silent on all samples", "saturated": "fires at every step of all samples"}


def _unit(node: Node) -> int:
    return 2**node.fraction_bits if isinstance(node, Neuron) else 1


def _activity(counts: Array, chances: int) -> Activity:
    return Activity(
        rate=float(counts.mean() / chances),
        neurons=int(counts.size),
        dead=int((counts == 0).sum()),
        saturated=int((counts == chances).sum()),
    )
