"""What an edge carries is told by the graph."""

from __future__ import annotations

import numpy as np

from snnkd_deploy.counts import Synapses, count
from snnkd_deploy.ir import (
    Add,
    Graph,
    Input,
    Linear,
    Neuron,
    Output,
    Stage,
)
from tests.test_counts import one_layer, pooled_network


def test_sums_of_spikes_from_a_residual_are_graded() -> None:
    nodes = (
        Input(name="input", shape=(3,), high=2, static=False),
        Neuron(name="a", inputs=("input",), decay=0.0, threshold=np.asarray(0)),
        Neuron(name="b", inputs=("input",), decay=0.0, threshold=np.asarray(1)),
        Add(name="add", inputs=("a", "b")),
        Linear(name="layer", inputs=("add",), weight=np.array([[5, 0, 7]]), bias=np.array([0])),
        Output(name="output", inputs=("layer",)),
    )
    counts = count(Graph(nodes=nodes, timesteps=1, stage=Stage.INTEGER), np.array([[[1, 2, 0]]]))
    layer = counts.synapses()[0]
    assert (layer.input_kind, layer.fed_by) == ("sums", ("a", "b"))
    assert (layer.events_in, layer.event_macs, layer.event_macs_nonzero) == (2, 2, 1)
    assert (layer.synops_unit, layer.synops_unit_nonzero) == (3, 1)
    assert counts.total("residual_adds") == 3


def test_a_layer_behind_a_layer_reads_values() -> None:
    inner = Linear(name="inner", inputs=("input",), weight=np.array([[1, 1], [1, -1]]), bias=np.array([0, 0]))
    layer = Linear(name="layer", inputs=("inner",), weight=np.array([[1, 2]]), bias=np.array([0]))
    counts = count(one_layer(layer, (2,), inner), np.array([[3, 3], [3, 1]]))
    found = counts.synapses()[1]
    assert (found.input_kind, found.events_in, found.event_macs, found.synops_unit) == ("values", 3, 3, None)


def test_the_class_of_a_layer_does_not_depend_on_the_values_met() -> None:
    graph = pooled_network("conv")
    silent = count(graph, np.zeros((3, 2, 2, 8, 6), dtype=np.int64))["layer"]
    assert isinstance(silent, Synapses)
    assert (silent.input_kind, silent.events_in, silent.bias_adds) == ("sums", 0, 2 * 3 * 12)
