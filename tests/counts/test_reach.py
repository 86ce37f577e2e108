"""Active updates: every way in which something arrives at a neuron, against masks of the neurons' own size."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from snnkd_deploy.counts import Neurons, count
from snnkd_deploy.counts.reach import Reach, active
from snnkd_deploy.ir import Add, Conv, ConvTranspose, Flatten, Graph, Input, MaxPool, Neuron, Node, Output, Stage
from tests.networks import random_inputs


@pytest.mark.parametrize("seed", range(20))
def test_active_updates_are_those_of_a_mask_of_every_neuron(seed: int) -> None:
    random = np.random.default_rng(seed)
    time, batch, groups, each = (int(one) for one in random.integers(1, 4, size=4))
    steps = time if seed % 2 else 1
    mask = random.random((steps, batch, groups, 3, 2)) < random.choice([0.1, 0.9, 1])
    always = random.random(groups * each) < random.choice([0, 0.5, 1])
    spikes = random.random((time, batch, groups * each, 3, 2)) < 0.3
    every = mask.repeat(each, axis=2) | always[:, None, None] | spikes
    assert_array_equal(active(Reach(mask, always), spikes), every.sum(axis=(0, 2, 3, 4)))


def neuron(name: str, source: str) -> Neuron:
    return Neuron(name=name, inputs=(source,), decay=0.5, threshold=np.asarray(2), decay_bits=1)


def test_events_arrive_through_every_kind_of_node() -> None:
    """A row of five, one spike at one place: what lies within its reach is active, and nothing else."""
    ones = np.ones((2, 1, 3), dtype=int)
    nodes: list[Node] = [
        Input(name="input", shape=(1, 5), high=1, static=False),
        Conv(name="conv", inputs=("input",), weight=ones, bias=np.array([0, 7]), stride=(1,), before=(1,), after=(1,),
             dilation=(1,)),
        neuron("behind conv", "conv"),
        MaxPool(name="pool", inputs=("conv",), kernel=(2,), stride=(2,), padding=(0,)),
        neuron("behind pool", "pool"),
        ConvTranspose(name="back", inputs=("input",), weight=np.ones((1, 2, 2), dtype=int), bias=np.zeros(2, int),
                      stride=(2,), padding=(0,), output_padding=(0,), dilation=(1,)),
        neuron("behind back", "back"),
        Conv(name="other", inputs=("input",), weight=ones[:, :, :1], bias=np.zeros(2, int), stride=(1,), before=(0,),
             after=(0,), dilation=(1,)),
        Add(name="sum", inputs=("conv", "other")),
        neuron("behind sum", "sum"),
        Flatten(name="flat", inputs=("other",)),
        neuron("behind flat", "flat"),
        Output(name="output", inputs=("behind flat",)),
    ]  # fmt: skip
    graph = Graph(nodes=tuple(nodes), timesteps=1, stage=Stage.INTEGER)
    inputs = np.zeros((1, 1, 1, 5), dtype=int)
    inputs[0, 0, 0, 4] = 1
    counts = count(graph, inputs)
    met = {layer.name: layer.updates_active for layer in counts.layers if isinstance(layer, Neurons)}
    biased = 5  # the other channel has a bias
    assert met == {
        "behind conv": 2 + biased,
        "behind pool": 1 + 2,
        "behind back": 2 * 2,
        "behind sum": 2 + biased,
        "behind flat": 2,
    }


def test_what_is_active_does_not_depend_on_the_batch() -> None:
    ones = np.ones((2, 1, 3), dtype=int)
    nodes: list[Node] = [
        Input(name="input", shape=(1, 9), high=1, static=False),
        Conv(name="conv", inputs=("input",), weight=ones, bias=np.zeros(2, int), stride=(3,), before=(0,), after=(0,),
             dilation=(1,)),
        neuron("lif", "conv"),
        Flatten(name="flat", inputs=("lif",)),
        Output(name="output", inputs=("flat",)),
    ]  # fmt: skip
    graph = Graph(nodes=tuple(nodes), timesteps=3, stage=Stage.INTEGER)
    inputs = random_inputs(graph, 6) * (np.random.default_rng(3).random((3, 6, 1, 9)) < 0.4)
    whole, parts = count(graph, inputs), count(graph, inputs, batch=1)
    for what in ("updates_active", "updates_inactive"):
        assert_array_equal(whole.per_sample["lif"][what], parts.per_sample["lif"][what])
    assert 0 < whole.total("updates_inactive") < 3 * 6 * 6
