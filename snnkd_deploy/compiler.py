"""From a traced network to one that a target holds: the pipeline, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.check import general_problems, verify
from snnkd_deploy.errors import GraphError, LegalityError
from snnkd_deploy.ir import Graph, Neuron, Stage
from snnkd_deploy.passes.bias_neurons import bias_neurons
from snnkd_deploy.passes.bias_planes import bias_planes
from snnkd_deploy.passes.fold_batchnorm import fold_batchnorm
from snnkd_deploy.passes.fold_pooling import fold_pooling
from snnkd_deploy.passes.legalize import legalize
from snnkd_deploy.passes.or_pooling import or_pooling
from snnkd_deploy.passes.quantize import quantize
from snnkd_deploy.passes.relay_shortcuts import relay_shortcuts
from snnkd_deploy.passes.weight_shortcuts import weight_shortcuts
from snnkd_deploy.proof import first_difference
from snnkd_deploy.simulate import sample_axis, simulate
from snnkd_deploy.target import Target

Transform = Callable[[Graph, Target, Calibration], Graph]


@dataclass(frozen=True)
class Pass:
    """A function from graph to graph, the stage it takes and the stage it gives."""

    transform: Transform
    needs: Stage
    gives: Stage


PIPELINE = (
    Pass(fold_batchnorm, needs=Stage.TRACED, gives=Stage.FOLDED),
    Pass(weight_shortcuts, needs=Stage.FOLDED, gives=Stage.FOLDED),
    Pass(quantize, needs=Stage.FOLDED, gives=Stage.INTEGER),
    Pass(or_pooling, needs=Stage.INTEGER, gives=Stage.INTEGER),
    Pass(fold_pooling, needs=Stage.INTEGER, gives=Stage.INTEGER),
    Pass(relay_shortcuts, needs=Stage.INTEGER, gives=Stage.INTEGER),
    Pass(bias_neurons, needs=Stage.INTEGER, gives=Stage.INTEGER),
    Pass(bias_planes, needs=Stage.INTEGER, gives=Stage.INTEGER),
    Pass(legalize, needs=Stage.INTEGER, gives=Stage.LEGAL),
)


def adopting(integer: Graph) -> tuple[Pass, ...]:
    """The pipeline for a network whose integers were trained: these stand in for what `quantize` would make."""

    def adopt(graph: Graph, target: Target, calibration: Calibration) -> Graph:
        widths = target.decay.bits, target.state.fraction_bits
        others = [n for n in integer.of(Neuron) if (n.decay_bits, n.fraction_bits) != widths]
        if problems := [f"{n.name}: decay in {n.decay_bits} bits, membrane in {n.fraction_bits}" for n in others]:
            wanted = f"{widths[0]} and {widths[1]} bits"
            raise LegalityError(
                f"{target.name} computes with {wanted}, this network was trained for another:", problems
            )
        return integer

    return tuple(replace(step, transform=adopt) if step.transform is quantize else step for step in PIPELINE)


@dataclass(frozen=True, eq=False)
class Compiled:
    """The same network at the stages that outlive the compiler."""

    folded: Graph
    integer: Graph
    legal: Graph
    trail: tuple[tuple[str, Graph], ...] = ()
    """The graph that came in, and what each pass made of it, by the name of the pass."""

    @property
    def digest(self) -> str:
        """Names the integer network: the same for every target that holds these integers."""
        return self.integer.digest


def lower(graph: Graph, target: Target, calibration: Calibration, pipeline: tuple[Pass, ...] = PIPELINE) -> Compiled:
    """Run the pipeline, checking the graph after each pass; a broken graph is blamed on the pass that made it.

    A graph that is INTEGER already starts behind quantisation.
    GraphError or LegalityError list every reason why the network cannot be lowered.
    """
    verify(graph, target)
    if problems := general_problems(graph):
        raise LegalityError(f"no target holds {graph.name}, whose operations can only be counted (energy):", problems)
    reached, trail = {graph.stage: graph}, [("traced", graph)]
    for step in pipeline:
        if step.needs < graph.stage:
            continue
        assert graph.stage == step.needs, f"{step.transform.__name__} needs {step.needs.name}, met {graph.stage.name}"
        before, graph = graph, step.transform(graph, target, calibration)
        assert graph.stage == step.gives, f"{step.transform.__name__} gives {step.gives.name}, met {graph.stage.name}"
        if graph is not before:
            verify(graph, target)
        reached.setdefault(graph.stage, graph)
        trail.append((step.transform.__name__, graph))
    integer = reached[Stage.INTEGER]
    legal = replace(graph, origin=integer.digest)
    compiled = Compiled(reached.get(Stage.FOLDED, integer), integer, legal, tuple(trail))
    _same_spikes(compiled, calibration)
    return compiled


def _same_spikes(compiled: Compiled, calibration: Calibration) -> None:
    """Rewriting for the target must not move a single spike; where nothing was rewritten, nothing can have moved."""
    pairs = zip_longest(compiled.integer, compiled.legal)
    if all(one is other for one, other in pairs):
        return
    axis = sample_axis(compiled.legal)
    few = np.take(calibration.samples, range(min(4, calibration.samples.shape[axis])), axis=axis)
    difference = first_difference(compiled.integer, simulate(compiled.integer, few), simulate(compiled.legal, few))
    if difference:
        raise GraphError("rewriting for the target changed the network:", [str(difference)])
