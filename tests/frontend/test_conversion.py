"""A converted network answers as the ReLU network does, the better the more steps it has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import ConfigError, GraphError
from snnkd_deploy.frontend.conversion import Conversion, convert, largest_activations, spiking_sources
from snnkd_deploy.frontend.network import read
from snnkd_deploy.ir import Graph, Input, Linear, Neuron, Output, Relu
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target
from tests.frontend.nets import Plain, pictures

SAMPLES = pictures(1, 40)
INPUTS = SAMPLES.integers(slice(None))


def plain() -> Graph:
    torch.manual_seed(0)
    model = Plain().train()
    model(torch.rand(32, 1, 8, 8))
    return read(model, SAMPLES).graph


def one_relu(weight: float = 1.0) -> Graph:
    nodes = (
        Input(name="x", shape=(1,), scale=1 / 255),
        Linear(name="w", inputs=("x",), weight=np.array([[weight]]), bias=np.zeros(1)),
        Relu(name="r", inputs=("w",)),
        Output(name="y", inputs=("r",)),
    )
    return Graph(nodes=nodes, timesteps=1)


def test_a_converted_network_comes_closer_with_every_step() -> None:
    ann = plain()
    expected = simulate(ann, INPUTS).logits
    errors = [
        float(np.abs(simulate(convert(ann, INPUTS, Conversion(steps, 100.0)), INPUTS).logits - expected).mean())
        for steps in (2, 8, 32, 256)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02 * float(np.abs(expected).max())


def test_one_neuron_counts_to_the_nearest_step() -> None:
    """Half a threshold of head start: the count is current * T / threshold, rounded."""
    inputs = np.arange(256).reshape(-1, 1)
    met = simulate(convert(one_relu(), inputs, Conversion(10, 100.0)), inputs).logits[:, 0]
    assert np.abs(met - inputs[:, 0] / 255).max() <= 0.05 + 1e-9


def test_relus_that_meet_in_a_sum_share_a_threshold() -> None:
    ann = plain()
    tops = largest_activations(ann, INPUTS, 99.9)
    meeting = spiking_sources(ann, "add")
    assert meeting == set(tops)
    found = convert(ann, INPUTS, Conversion(4))
    assert {float(node.threshold) for node in found.of(Neuron)} == {max(tops.values())}


def test_the_integers_of_a_converted_network_stay_near_it() -> None:
    found = convert(plain(), INPUTS, Conversion(16))
    integer = lower(found, load_target("onnx"), Calibration(INPUTS)).integer
    logits = simulate(integer, INPUTS).logits * integer.output.unit / 16
    expected = simulate(found, INPUTS).logits
    assert np.abs(logits - expected).mean() < 0.1 * np.abs(expected).max()


def test_the_percentile_is_that_of_the_positive_activations() -> None:
    inputs = np.arange(256).reshape(-1, 1)
    assert largest_activations(one_relu(), inputs, 50.0)["r"] == pytest.approx(128 / 255)
    assert largest_activations(one_relu(-1.0), inputs, 50.0)["r"] == 0


def test_what_cannot_be_converted_says_why() -> None:
    inputs = np.arange(256).reshape(-1, 1)
    with pytest.raises(GraphError, match="r: no sample makes it active"):
        convert(one_relu(-1.0), inputs, Conversion(4))
    with pytest.raises(ConfigError, match="timesteps from 1"):
        convert(one_relu(), inputs, Conversion(0))
    bare = Graph(nodes=(Input(name="x", shape=(1,)), Output(name="y", inputs=("x",))), timesteps=1)
    with pytest.raises(GraphError, match="neither spiking neurons nor a ReLU"):
        convert(bare, inputs, Conversion(4))
