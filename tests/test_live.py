"""Counts of a forward in torch are those of the reference simulator, where both fire alike: in float64."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from snnkd_deploy.counts import Counts, Neurons, Synapses, count, counted
from snnkd_deploy.errors import GraphError
from snnkd_deploy.ir import Graph, Input
from snnkd_deploy.live import counting, folded
from snnkd_deploy.snn import models
from snnkd_deploy.snn.layers import Neuron
from snnkd_deploy.snn.lif import LIF
from snnkd_deploy.snn.models import Plan

SHAPE, SAMPLES = (2, 8, 8), 5
UNSEEN = ("membrane_changes", "values_seen", "value_range")
"""What a forward does not show."""


def settled(model: str, timesteps: int, spiking: bool, shifted: bool) -> tuple[nn.Module, Graph, np.ndarray]:
    """A network with norms of its own (or fresh ones, whose biases fold to zero), its graph, and pictures."""
    torch.manual_seed(3)
    network = models.build(model, Plan(SHAPE, 4, 4, 1, timesteps, LIF(0.5, 0.6) if spiking else None)).double()
    images = np.random.default_rng(0).integers(0, 256, (SAMPLES, *SHAPE)) * (
        np.random.default_rng(1).random(SHAPE) < 0.6
    )
    if shifted:
        network.train()(torch.tensor(images / 255))
        for one in network.modules():
            if isinstance(one, nn.BatchNorm2d | nn.BatchNorm1d):
                nn.init.uniform_(one.bias, 0.05, 0.6)
    return network.eval(), folded(network, Input(name="input", shape=SHAPE, scale=1 / 255)), images


def rows(counts: Counts) -> list[dict[str, Any]]:
    return [{key: value for key, value in asdict(layer).items() if key not in UNSEEN} for layer in counts.layers]


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("shifted", [True, False], ids=["shifted", "fresh"])
@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet", "resnet18", "sew_resnet18", "vgg9", "spikingformer"])
def test_a_forward_counts_as_the_simulator_does(model: str, shifted: bool, per_sample: bool) -> None:
    network, graph, images = settled(model, 3, True, shifted)
    expected = count(graph, images)
    with torch.no_grad(), counting(network, graph, per_sample) as tally:
        for part in (images[:2], images[2:]):
            network(torch.tensor(part / 255))
    found = counted(tally)
    assert rows(found) == rows(expected)
    assert any(layer.spikes_out for layer in found.layers if isinstance(layer, Neurons))
    np.testing.assert_array_equal(found.predictions, expected.predictions)
    for layer in expected.synapses():
        np.testing.assert_array_equal(found.events[layer.name], expected.events[layer.name])
        if per_sample:
            for what, numbers in found.per_sample[layer.name].items():
                np.testing.assert_array_equal(numbers, expected.per_sample[layer.name][what])
    assert "torch" in found.simulator


def test_a_teacher_is_counted_by_its_activations() -> None:
    network, graph, images = settled("cnn", 1, False, True)
    with torch.no_grad(), counting(network, graph) as tally:
        network(torch.tensor(images / 255))
    assert rows(counted(tally)) == rows(count(graph, images))


@pytest.mark.parametrize("per_sample", [True, False])
def test_the_order_of_memory_does_not_matter(per_sample: bool) -> None:
    network, graph, images = settled("cnn", 3, True, True)
    given = torch.tensor(images / 255)
    found = []
    for form in (torch.contiguous_format, torch.channels_last):
        with torch.no_grad(), counting(network.to(memory_format=form), graph, per_sample) as tally:  # type: ignore[call-overload]
            network(given.contiguous(memory_format=form))
        found.append(counted(tally))
    assert rows(found[0]) == rows(found[1])
    assert all((found[0].events[name] == found[1].events[name]).all() for name in found[0].events)


def test_bfloat16_is_counted_exactly() -> None:
    network, graph, images = settled("cnn", 3, True, True)
    fired = {}
    neurons = {name: one for name, one in network.named_modules() if isinstance(one, Neuron)}
    for name, one in neurons.items():
        one.register_forward_hook(lambda module, given, out, name=name: fired.update({name: int(out.float().sum())}))
    with torch.no_grad(), counting(network.bfloat16(), graph) as tally:
        network(torch.tensor(images / 255, dtype=torch.bfloat16))
    counts = counted(tally)
    assert {name: counts[name].spikes_out for name in neurons} == fired  # type: ignore[attr-defined]
    assert "bfloat16" in counts.simulator


def test_hooks_are_gone_afterwards() -> None:
    network, graph, images = settled("cnn", 3, True, True)
    with torch.no_grad():
        with counting(network, graph) as tally:
            network(torch.tensor(images / 255))
        network(torch.tensor(images / 255))
    counts = counted(tally)
    assert counts.samples == SAMPLES
    assert isinstance(counts["blocks.0.conv"], Synapses)


def test_a_node_without_a_module_is_refused_by_name() -> None:
    _, graph, _ = settled("cnn", 3, True, True)
    other = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(GraphError, match=r"blocks.0.conv: no module of this name"), counting(other, graph):
        pass
