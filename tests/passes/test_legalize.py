"""Where pixels cannot enter a chip, the host computes the first layer; nothing else is placed there."""

from __future__ import annotations

import numpy as np

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.ir import Graph, Synaptic
from snnkd_deploy.target import load_target
from tests.networks import Recipe, random_inputs, random_network


def host(graph: Graph) -> list[str]:
    return [node.name for node in graph if node.placement == "host"]


def compiled(name: str, spiking_input: bool) -> Graph:
    graph = random_network(5, Recipe(spiking_input=spiking_input))
    return lower(graph, load_target(name), Calibration(random_inputs(graph, 4))).legal


def test_the_first_layer_runs_on_the_host_only_where_the_target_says_so() -> None:
    on_loihi = compiled("loihi", spiking_input=False)
    first = next(node.name for node in on_loihi if isinstance(node, Synaptic))
    assert first in host(on_loihi)
    assert sum(isinstance(on_loihi[name], Synaptic) for name in host(on_loihi)) == 1
    assert host(compiled("loihi2", spiking_input=False)) == []


def test_spikes_enter_the_chip_as_they_are() -> None:
    assert host(compiled("loihi", spiking_input=True)) == []


def test_placement_does_not_change_the_integer_network() -> None:
    graph = random_network(8, Recipe(spiking_input=False, decays=(0.5,), timesteps=(2, 4)))
    samples = Calibration(random_inputs(graph, 4))
    digests = {lower(graph, load_target(name), samples).digest for name in ("loihi", "onnx", "nir")}
    assert len(digests) == 1
    assert np.all(samples.samples >= 0)
