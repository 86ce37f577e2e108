"""The accuracy ladder: how well each form of the network does on the same samples, and how busy its neurons are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from snnkd_deploy.ir import Array, Graph, Neuron, Node
from snnkd_deploy.simulate import batches, sample_axis


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

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        layers = {name: vars(activity) for name, activity in self.layers.items()}
        return {"accuracy": self.accuracy, "samples": self.samples, "layers": layers}


def climb(graph: Graph, inputs: Array, labels: Array) -> Rung:
    """Run all samples through the reference simulator."""
    fired: dict[str, Array] = {}

    def note(node: Node, arguments: tuple[Array, ...], value: Array) -> None:
        if isinstance(node, Neuron):
            fired[node.name] = fired.get(node.name, 0) + value.sum(axis=(0, 1), dtype=np.int64)

    found = np.concatenate([record.logits.argmax(axis=1) for record in batches(graph, inputs, observe=note)])
    samples = inputs.shape[sample_axis(graph)]
    layers = {name: _activity(counts, samples * graph.timesteps) for name, counts in fired.items()}
    return Rung(float((found == labels).mean()), samples, layers)


def _activity(counts: Array, chances: int) -> Activity:
    return Activity(
        rate=float(counts.mean() / chances),
        neurons=int(counts.size),
        dead=int((counts == 0).sum()),
        saturated=int((counts == chances).sum()),
    )
