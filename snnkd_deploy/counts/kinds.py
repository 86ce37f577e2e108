"""What an edge of a graph carries, and what a layer is wired to: from the graph alone, never from values met."""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose, prod
from typing import Literal

from snnkd_deploy.ir import (
    Add,
    AvgPool,
    AvgPool2d,
    Conv2d,
    Flatten,
    Graph,
    Input,
    MaxPool,
    MaxPool2d,
    Neuron,
    Node,
    Pool,
    Relu,
    Stage,
    SumPool2d,
    Window,
)

InputKind = Literal["spikes", "ternary", "sums", "picture", "values"]
"""0 or 1; -1, 0 or 1; sums of several spikes; pixels; real numbers and weighted sums. The last three are multiplied."""
PoolMode = Literal["graded", "folded", "own_layer", "max", "values"]
"""Spikes summed before the layer; the sum already in the layer's kernel; the layer is a pool, with neurons of its own
behind it; OR or maximum; a sum of anything else."""

ORDER: tuple[InputKind, ...] = ("spikes", "ternary", "sums", "picture", "values")
SPIKING: tuple[InputKind, ...] = ("spikes", "ternary", "sums")
"""Whole numbers of spikes."""


@dataclass(frozen=True)
class Carried:
    """What an edge carries; `unit` is what one spike in it is worth, where its kind is of `SPIKING`."""

    kind: InputKind
    unit: float = 1.0

    @property
    def multiplied(self) -> bool:
        """Whether a weight is multiplied with it; otherwise it is added, or subtracted."""
        return self.kind not in ("spikes", "ternary")


def carried(graph: Graph) -> dict[str, Carried]:
    """What each node puts out."""
    found: dict[str, Carried] = {}
    for node in graph:
        given = [found[name] for name in node.inputs]
        found[node.name] = _sample(node, graph.stage) if isinstance(node, Input) else _carried(node, given)
    return found


def kinds(graph: Graph) -> dict[str, InputKind]:
    """The kind of what each node puts out."""
    return {name: one.kind for name, one in carried(graph).items()}


def _sample(node: Input, stage: Stage) -> Carried:
    """Frames of which one unit is worth 1 are counts of events; every other number that is no spike is a pixel."""
    unit = 1.0 if stage >= Stage.INTEGER else node.scale
    if node.spikes:
        return Carried("spikes", unit)
    if node.low >= -1 and node.high <= 1:
        return Carried("ternary", unit)
    return Carried("sums" if not node.static and node.scale == 1 else "picture", unit)


def _carried(node: Node, given: list[Carried]) -> Carried:
    if isinstance(node, Neuron):
        return Carried("spikes")
    if isinstance(node, MaxPool2d | MaxPool | Flatten):
        return given[0]
    if isinstance(node, SumPool2d | AvgPool2d | AvgPool):
        area = prod(node.kernel)
        unit = given[0].unit / (1 if isinstance(node, SumPool2d) else area)
        kind = "sums" if given[0].kind in SPIKING and area > 1 else given[0].kind
        return Carried(kind, unit)
    if isinstance(node, Add):
        return _sum(given)
    return Carried("values")


def _sum(given: list[Carried]) -> Carried:
    kind = max("sums", *(one.kind for one in given), key=ORDER.index)
    alike = all(isclose(one.unit, given[0].unit) for one in given)
    return Carried(kind if alike or kind != "sums" else "values", given[0].unit)


def pool_mode(node: Pool | Window, kind: InputKind) -> PoolMode:
    """How a pool works on what arrives at it."""
    if isinstance(node, MaxPool2d | MaxPool):
        return "max"
    return "graded" if kind in SPIKING else "values"


def pooled_by(graph: Graph, node: Node) -> PoolMode | None:
    """The mode of the pool right in front of a layer."""
    source = graph[node.inputs[0]]
    if isinstance(source, Flatten):
        source = graph[source.inputs[0]]
    return pool_mode(source, kinds(graph)[source.inputs[0]]) if isinstance(source, Pool | Window) else None


def is_pool(node: Node) -> bool:
    """Whether a layer only adds up windows side by side, channel by channel, as a pool does."""
    if not isinstance(node, Conv2d) or node.weight.shape[:2] != (node.groups, 1) or prod(node.weight.shape[2:]) == 1:
        return False
    window = node.weight.shape[2:]
    moves = (node.stride, node.padding, node.dilation) == (window, (0, 0), (1, 1))
    return moves and not node.bias.any() and bool((node.weight == node.weight.flat[0]).all())


def fed_by(graph: Graph, name: str) -> tuple[str, ...]:
    """The neurons whose spikes `name` puts out, through pools and sums."""
    node = graph[name]
    if isinstance(node, Neuron):
        return (name,)
    if isinstance(node, Pool | Window | Flatten | Add):
        return tuple(found for one in node.inputs for found in fed_by(graph, one))
    return ()


def feeds(graph: Graph, node: Node) -> str | None:
    """The neuron that the output of `node`, alone or in a sum, arrives at; None if there is none or several."""
    readers = graph.consumers(node.name)
    if len(readers) != 1 or not isinstance(readers[0], Neuron | Relu | Pool | Window | Flatten | Add):
        return None
    return readers[0].name if isinstance(readers[0], Neuron | Relu) else feeds(graph, readers[0])
