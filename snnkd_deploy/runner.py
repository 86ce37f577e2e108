"""Who runs an integer network: the native runtime where it can, else the simulator. Both give the same integers.

`simulate` is what a network means; the runtime computes the same in a fraction of the time. Before it is trusted with
the samples, the first few are run by both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from snnkd_deploy.errors import BundleError, RuntimeMissingError
from snnkd_deploy.ir import Array, Graph, Stage, Weighing
from snnkd_deploy.native import Native, library, load
from snnkd_deploy.native.network_file import refusals
from snnkd_deploy.proof import first_difference
from snnkd_deploy.simulate import Record, sample_axis, simulate

SIMULATOR = "reference simulator, {} arithmetic"
HELD = 2
"""Samples that the simulator runs too."""
WORTH_BUILDING = 5e10
"""Multiplications of the simulator, of dense layers, that take longer than the library takes to be compiled."""


@dataclass(frozen=True, eq=False)
class Runner:
    """`by`: who runs the network, in words; `why`: why it is not the native runtime, empty if it is."""

    graph: Graph
    native: Native | None
    why: str = ""

    @property
    def by(self) -> str:
        """For a manifest or a report."""
        if self.native is not None:
            return f"native runtime ({self.native.instructions}), equal to the reference simulator on {HELD} samples"
        return SIMULATOR.format("integer" if self.graph.stage >= Stage.INTEGER else "float64")

    def records(self, inputs: Array, size: int = 64) -> Iterator[Record]:
        """What the network does, `size` samples at a time."""
        for part in parts(self.graph, inputs, size):
            yield simulate(self.graph, part) if self.native is None else self.native.record(part)


def runner(graph: Graph, inputs: Array) -> Runner:
    """The native runtime if there is a compiler, it holds the network, and it is worth building for so many samples."""
    if problems := list(refusals(graph)):
        return Runner(graph, None, problems[0])
    samples = inputs.shape[sample_axis(graph)]
    if not samples:
        return Runner(graph, None, "there are no samples")
    if not library.built() and work(graph) * samples < WORTH_BUILDING:
        return Runner(
            graph, None, "the native runtime is not built yet, and would take longer to build than to simulate"
        )
    try:
        native = load(graph)
    except (RuntimeMissingError, BundleError) as error:
        return Runner(graph, None, str(error))
    few = next(parts(graph, inputs, HELD))
    difference = first_difference(graph, simulate(graph, few), native.record(few))
    return (
        Runner(graph, native) if difference is None else Runner(graph, None, f"the native runtime errs: {difference}")
    )


def parts(graph: Graph, inputs: Array, size: int) -> Iterator[Array]:
    """`size` samples at a time."""
    axis = sample_axis(graph)
    for start in range(0, inputs.shape[axis], size):
        yield np.take(inputs, range(start, min(start + size, inputs.shape[axis])), axis=axis)


def work(graph: Graph) -> int:
    """Multiplications of one sample, all steps, if nothing is left out for being zero."""
    layers = [
        (node, prod(graph.shapes[node.name]) * node.weight[0].size) for node in graph if isinstance(node, Weighing)
    ]
    return sum(macs * (1 if node.name in graph.static else graph.timesteps) for node, macs in layers)
