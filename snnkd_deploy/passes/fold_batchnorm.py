"""Fold each BatchNorm into the layer that feeds it."""

from __future__ import annotations

from dataclasses import replace

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.errors import GraphError
from snnkd_deploy.ir import BatchNorm, Conv2d, Graph, Linear, Node, Stage
from snnkd_deploy.simulate import affine
from snnkd_deploy.target import Target


def fold_batchnorm(graph: Graph, target: Target, calibration: Calibration) -> Graph:
    """y = scale * (W x + b) + shift is one layer with weights scale * W and bias scale * b + shift (eps included).

    GraphError lists each norm that cannot be absorbed: it follows something else, or others read what it follows.
    """
    problems = [problem for norm in graph.of(BatchNorm) if (problem := _obstacle(graph, norm))]
    if problems:
        raise GraphError(f"{graph.name}: BatchNorm cannot be folded:", problems)
    absorbed = {norm.inputs[0]: norm for norm in graph.of(BatchNorm)}
    renamed = {norm.name: norm.inputs[0] for norm in absorbed.values()}
    nodes: list[Node] = []
    for node in graph:
        if isinstance(node, BatchNorm):
            continue
        if isinstance(node, Linear | Conv2d) and node.name in absorbed:
            node = fold(node, absorbed[node.name])
        nodes.append(replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs)))
    return replace(graph, nodes=tuple(nodes), stage=Stage.FOLDED)


def fold(layer: Linear | Conv2d, norm: BatchNorm) -> Linear | Conv2d:
    """The layer that computes `norm(layer(x))`."""
    scale, shift = affine(norm)
    weight = layer.weight * scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    return replace(layer, weight=weight, bias=layer.bias * scale + shift)


def _obstacle(graph: Graph, norm: BatchNorm) -> str | None:
    layer = graph[norm.inputs[0]]
    if not isinstance(layer, Linear | Conv2d):
        return f"{norm.name} follows {layer.name} ({type(layer).__name__}); only Linear and Conv2d can absorb it"
    if len(graph.consumers(layer.name)) > 1:
        return f"{norm.name} follows {layer.name}, which others read too"
    return None
