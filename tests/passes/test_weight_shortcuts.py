"""Spikes that are added to a current get a synapse; nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.ir import Add, Graph, Input, Linear, Neuron, Output
from snnkd_deploy.passes.fold_batchnorm import fold_batchnorm
from snnkd_deploy.passes.weight_shortcuts import carries_current, weight_shortcuts
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target
from tests.networks import ANY, random_inputs, random_network

TARGET, NOTHING = load_target("onnx"), Calibration(np.empty(0))
WITH_ADD = [seed for seed in range(80) if random_network(seed, ANY).of(Add)]


@pytest.mark.parametrize("seed", WITH_ADD[:15])
def test_every_spike_stays_and_every_sum_is_of_currents(seed: int) -> None:
    graph = fold_batchnorm(random_network(seed, ANY), TARGET, NOTHING)
    inputs = random_inputs(graph, 5, seed)
    weighted = weight_shortcuts(graph, TARGET, NOTHING)
    assert all(carries_current(weighted, name) for node in weighted.of(Add) for name in node.inputs)
    before, after = simulate(graph, inputs), simulate(weighted, inputs)
    for name, spikes in before.spikes.items():
        np.testing.assert_array_equal(after.spikes[name], spikes)


def test_a_sum_of_spikes_stays_a_sum_of_spikes() -> None:
    eye, zeros, one = np.eye(2), np.zeros(2), np.asarray(1.0)
    nodes = (
        Input(name="x", shape=(2,)),
        Linear(name="w", inputs=("x",), weight=eye, bias=zeros),
        Neuron(name="s", inputs=("w",), decay=1.0, threshold=one),
        Linear(name="w2", inputs=("s",), weight=eye, bias=zeros),
        Neuron(name="s2", inputs=("w2",), decay=1.0, threshold=one),
        Add(name="sum", inputs=("s", "s2")),
        Linear(name="r", inputs=("sum",), weight=eye, bias=zeros),
        Output(name="y", inputs=("r",)),
    )
    graph = fold_batchnorm(Graph(nodes=nodes, timesteps=2), TARGET, NOTHING)
    assert [node.name for node in weight_shortcuts(graph, TARGET, NOTHING)] == [node.name for node in nodes]
