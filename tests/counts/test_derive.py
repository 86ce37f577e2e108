"""Counts that follow from what was collected."""

from __future__ import annotations

import numpy as np
import pytest

from snnkd_deploy.counts import Neurons, Products, count
from snnkd_deploy.ir import (
    Attention,
    Flatten,
    Graph,
    Input,
    Neuron,
    Node,
    Output,
    Stage,
)


@pytest.mark.parametrize(("shape", "order"), [((4, 2, 3), "context"), ((4, 1, 1), "scores")])
def test_an_attention_multiplies_in_the_shorter_order_and_each_pair_once(shape: tuple[int, ...], order: str) -> None:
    nodes: list[Node] = [Input(name="x", shape=shape, high=1, static=False)]
    nodes += [Attention(name="a", inputs=("x", "x", "x"), heads=2), Output(name="y", inputs=("a",))]
    counts = count(Graph(nodes=tuple(nodes), timesteps=1, stage=Stage.INTEGER), np.ones((1, 2, *shape), dtype=int))
    layer = counts["a"]
    assert isinstance(layer, Products)
    tokens = shape[1] * shape[2]
    pairs = {"context": 2 * 2 * 2 * tokens, "scores": 2 * 2 * tokens * tokens}  # 2 heads of 2 channels, each product
    assert (layer.order, layer.input_kind, layer.events_in) == (order, "spikes", 2 * 3 * 4 * tokens)
    assert layer.attention_and == layer.attention_adds == 2 * pairs[order]
    assert layer.dense_macs == layer.ann_macs_nonzero == 2 * pairs[order] == 2 * min(pairs.values())


def test_channels_that_do_not_leak_multiply_nothing() -> None:
    nodes = (
        Input(name="input", shape=(4, 2, 1), high=1, static=False),
        Neuron(
            name="lif", inputs=("input",), decay=np.array([0.5, 1.0, 0.0, 0.25]), threshold=np.asarray(1), decay_bits=2
        ),
        Flatten(name="flat", inputs=("lif",)),
        Output(name="output", inputs=("flat",)),
    )
    lif = count(Graph(nodes=nodes, timesteps=3, stage=Stage.INTEGER), np.ones((3, 5, 4, 2, 1), dtype=int))["lif"]
    assert isinstance(lif, Neurons)
    assert (lif.compares, lif.leak_multiplies) == (3 * 5 * 8, 3 * 5 * 4)
