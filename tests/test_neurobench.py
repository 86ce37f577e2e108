"""The block for NeuroBench, in numbers worked out by hand; against NeuroBench itself: `peers/test_neurobench.py`."""

from __future__ import annotations

import numpy as np
import pytest

from snnkd_deploy.counts import Tally, count, counted
from snnkd_deploy.ir import Graph, Input, Linear, Neuron, Node, Output, Relu, Stage
from snnkd_deploy.neurobench import neurobench_block


def network(spiking: bool) -> Graph:
    """Two pixels, two neurons (or ReLUs), one of four weights zero, a readout."""
    activation: Node = Neuron(name="lif", inputs=("first",), decay=0.5, threshold=np.asarray(2), decay_bits=1)
    if not spiking:
        activation = Relu(name="lif", inputs=("first",))
    nodes = (
        Input(name="input", shape=(2,), high=9),
        Linear(name="first", inputs=("input",), weight=np.array([[1, 0], [1, 1]]), bias=np.array([0, 0])),
        activation,
        Linear(name="readout", inputs=("lif",), weight=np.array([[3, 3]]), bias=np.array([5])),
        Output(name="output", inputs=("readout",)),
    )
    stage = Stage.INTEGER if spiking else Stage.FOLDED
    return Graph(nodes=nodes, timesteps=3 if spiking else 1, stage=stage)


def test_a_still_picture_is_multiplied_at_each_step() -> None:
    graph = network(spiking=True)
    block = neurobench_block(count(graph, np.array([[2, 3]])), graph)
    # first: 3 weights at 3 steps; currents 2 and 5; membranes 2, 3 (fires), 2 and 5, 5, 5 (each fires)
    assert block["synaptic_operations"] == {"effective_macs": 9, "effective_acs": 4, "dense": 18}
    assert block["activation_sparsity"] == pytest.approx(2 / 6)
    assert block["connection_sparsity"] == round(1 / 6, 4)
    assert block["membrane_updates"] == 3 + 1  # the second neuron is at 5 at each step
    assert block["footprint"] == 6 * 1 + 4 + 4 * 2  # 3 bits in a byte, one bias, threshold and decay


def test_an_ann_multiplies_everything_once() -> None:
    graph = network(spiking=False)
    block = neurobench_block(count(graph, np.array([[2, 3], [0, 0]])), graph)
    assert block["synaptic_operations"] == {"effective_macs": (3 + 2) / 2, "effective_acs": 0, "dense": 6}
    assert block["activation_sparsity"] == 0.5
    assert block["membrane_updates"] == 0
    assert block["footprint"] == 4 * 6 + 4


def test_the_network_that_was_read_may_say_its_own_footprint() -> None:
    graph = network(spiking=False)
    assert neurobench_block(count(graph, np.array([[2, 3]])), graph, footprint=123)["footprint"] == 123


def test_membranes_that_nobody_watched_are_not_reported_as_zero() -> None:
    graph = network(spiking=True)
    tally = Tally(graph, "a runtime without membranes")
    tally.samples = 1
    tally.arrived("first", np.array([[1, 1]]))
    tally.arrived("readout", np.array([[1, 3]]))
    tally.fired("lif", np.array([[1], [2], [1]]))
    tally.predictions.append(np.array([0]))
    assert neurobench_block(counted(tally), graph)["membrane_updates"] is None
