"""What an edge of a graph carries, and what a layer is wired to: from the graph alone, never from values met."""

from __future__ import annotations

from math import prod
from typing import Literal

from snnkd_deploy.ir import Add, AvgPool2d, Flatten, Graph, Input, MaxPool2d, Neuron, Node, Pool, Relu, SumPool2d

InputKind = Literal["spikes", "sums", "picture", "values"]
"""0 or 1; sums of several spikes; pixels; real numbers and weighted sums. All but spikes need a multiply."""
PoolMode = Literal["graded", "folded", "max", "values"]
"""Spikes summed before the layer; the sum already in the layer's kernel; OR or maximum; a sum of anything else."""

ORDER: tuple[InputKind, ...] = ("spikes", "sums", "picture", "values")


def kinds(graph: Graph) -> dict[str, InputKind]:
    """What each node puts out."""
    found: dict[str, InputKind] = {}
    for node in graph:
        given = [found[name] for name in node.inputs]
        found[node.name] = _kind(node, given)
    return found


def _kind(node: Node, given: list[InputKind]) -> InputKind:
    if isinstance(node, Input):
        return "spikes" if node.spikes else "picture"
    if isinstance(node, Neuron):
        return "spikes"
    if isinstance(node, MaxPool2d | Flatten):
        return given[0]
    if isinstance(node, SumPool2d):
        return "sums" if given[0] == "spikes" and prod(node.kernel) > 1 else given[0]
    if isinstance(node, AvgPool2d):
        return "values" if given[0] in ("spikes", "sums") else given[0]
    if isinstance(node, Add):
        return max("sums", *given, key=ORDER.index)
    return "values"


def pool_mode(node: Pool, kind: InputKind) -> PoolMode:
    """How a pool works on what arrives at it."""
    """How a pool works on what arrives at it."""
    if isinstance(node, MaxPool2d):
        return "max"
    return "graded" if kind in ("spikes", "sums") else "values"


def pooled_by(graph: Graph, node: Node) -> PoolMode | None:
    """The mode of the pool right in front of a layer."""
    source = graph[node.inputs[0]]
    if isinstance(source, Flatten):
        source = graph[source.inputs[0]]
    return pool_mode(source, kinds(graph)[source.inputs[0]]) if isinstance(source, Pool) else None


def fed_by(graph: Graph, name: str) -> tuple[str, ...]:
    """The neurons whose spikes `name` puts out, through pools and sums."""
    """The neurons whose spikes `name` puts out, through pools and sums."""
    node = graph[name]
    if isinstance(node, Neuron):
        return (name,)
    if isinstance(node, Pool | Flatten | Add):
        return tuple(found for one in node.inputs for found in fed_by(graph, one))
    return ()


def feeds(graph: Graph, node: Node) -> str | None:
    """The neuron that the output of `node`, alone or in a sum, arrives at; None if there is none or several."""
    """The neuron that the output of `node`, alone or in a sum, arrives at; None if there is none or several."""
    readers = graph.consumers(node.name)
    if len(readers) != 1 or not isinstance(readers[0], Neuron | Relu | Pool | Flatten | Add):
        return None
    return readers[0].name if isinstance(readers[0], Neuron | Relu) else feeds(graph, readers[0])
