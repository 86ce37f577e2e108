"""Decide where each layer runs; the check that follows refuses what the target cannot hold."""

from __future__ import annotations

from dataclasses import replace

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.ir import Graph, Stage
from snnkd_deploy.passes.quantize import host_layers
from snnkd_deploy.target import Target


def legalize(graph: Graph, target: Target, calibration: Calibration) -> Graph:
    """Place the layers in front of the first neurons on the host, where the target takes in nothing but spikes."""
    host = host_layers(graph, target)
    nodes = (replace(node, placement="host") if node.name in host else node for node in graph)
    return replace(graph, nodes=tuple(nodes), stage=Stage.LEGAL)
