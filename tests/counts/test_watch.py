"""What is collected while a graph runs."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_array_equal

from snnkd_deploy.counts import Neurons, count
from snnkd_deploy.ir import (
    Graph,
    Input,
    Linear,
    Neuron,
    Output,
    Stage,
)


def test_a_neuron_that_fires_on_what_it_kept_is_active() -> None:
    nodes = (
        Input(name="input", shape=(1,), high=9, static=False),
        Linear(name="layer", inputs=("input",), weight=np.array([[1], [0]]), bias=np.array([0, 0])),
        Neuron(name="lif", inputs=("layer",), decay=1.0, threshold=np.asarray(1), reset="subtract"),
        Output(name="output", inputs=("lif",)),
    )
    graph = Graph(nodes=nodes, timesteps=4, stage=Stage.INTEGER)
    lif = count(graph, np.array([3, 0, 0, 0]).reshape(4, 1, 1))["lif"]
    assert isinstance(lif, Neurons)
    assert lif.spikes_per_step == (1, 1, 0, 0)
    assert (lif.updates_active, lif.updates_inactive) == (3, 5)  # both at step 1: a zero weight delivers; one at step 2
    assert (lif.leak_multiplies, lif.reset_adds, lif.compares) == (0, 2, 8)


def test_a_still_picture_is_read_once_a_sample() -> None:
    nodes = (
        Input(name="input", shape=(4,), high=9),
        Linear(name="layer", inputs=("input",), weight=np.ones((2, 4), dtype=int), bias=np.array([1, 0])),
        Neuron(name="lif", inputs=("layer",), decay=0.5, threshold=np.asarray(5), decay_bits=1),
        Output(name="output", inputs=("lif",)),
    )
    counts = count(Graph(nodes=nodes, timesteps=6, stage=Stage.INTEGER), np.array([[1, 0, 2, 0], [0, 0, 0, 3]]))
    layer, lif = counts.synapses()[0], counts["lif"]
    assert (layer.events_in, layer.event_macs, layer.dense_macs, layer.bias_adds) == (3, 6, 8, 2)
    assert (layer.static, layer.feeds, layer.fed_by) == (True, "lif", ())
    assert isinstance(lif, Neurons)
    assert (lif.updates_active, lif.leak_multiplies) == (24, 24)
    assert_array_equal(counts.events["layer"], [1, 0, 1, 1])
