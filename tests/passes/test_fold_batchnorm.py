"""Folding keeps the function, eps included; what cannot be folded is listed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.errors import GraphError
from snnkd_deploy.ir import BatchNorm, Conv2d, Graph, Input, Linear, Output
from snnkd_deploy.passes.fold_batchnorm import fold, fold_batchnorm
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target
from tests.networks import ANY, random_inputs, random_network

TARGET, NOTHING = load_target("onnx"), Calibration(np.empty(0))


@pytest.mark.parametrize("seed", range(40))
def test_folding_keeps_every_spike(seed: int) -> None:
    graph = random_network(seed, ANY)
    inputs = random_inputs(graph, 6, seed)
    folded = fold_batchnorm(graph, TARGET, NOTHING)
    assert not folded.of(BatchNorm)
    before, after = simulate(graph, inputs), simulate(folded, inputs)
    for name, spikes in before.spikes.items():
        np.testing.assert_array_equal(after.spikes[name], spikes)
    np.testing.assert_allclose(after.logits, before.logits, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("variance", [1e-5, 1e-3, 1.0])
@pytest.mark.parametrize("kind", ["linear", "conv", "grouped"])
def test_eps_is_part_of_the_fold(variance: float, kind: str) -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    groups = 2 if kind == "grouped" else 1
    layer, norm = (
        (torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4))
        if kind == "linear"
        else (torch.nn.Conv2d(6, 4, 3, groups=groups), torch.nn.BatchNorm2d(4))
    )
    norm.running_var.fill_(variance)
    norm.running_mean.copy_(torch.tensor(random.normal(size=4)))
    values = {"weight": layer.weight, "bias": layer.bias}
    arrays = {name: value.detach().double().numpy() for name, value in values.items()}
    statistics = {"mean": norm.running_mean, "variance": norm.running_var, "gamma": norm.weight, "beta": norm.bias}
    described = {name: value.detach().double().numpy() for name, value in statistics.items()}
    node = (
        Linear(name="w", inputs=("x",), **arrays)
        if kind == "linear"
        else Conv2d(name="w", inputs=("x",), groups=groups, **arrays)
    )
    folded = fold(node, BatchNorm(name="n", inputs=("w",), eps=norm.eps, **described))
    x = torch.randn(5, 6, *([] if kind == "linear" else [4, 4])).double()
    expected = norm.double().eval()(layer.double()(x)).detach().numpy()
    weight, bias = torch.tensor(folded.weight), torch.tensor(folded.bias)
    functional = torch.nn.functional
    met = functional.linear(x, weight, bias) if kind == "linear" else functional.conv2d(x, weight, bias, groups=groups)
    np.testing.assert_allclose(met.numpy(), expected, rtol=1e-10, atol=1e-9)


def test_refusal_lists_every_reason() -> None:
    ones = np.ones(3)
    norm = BatchNorm(name="n1", inputs=("x",), mean=ones, variance=ones, gamma=ones, beta=ones, eps=1e-5)
    nodes = (
        Input(name="x", shape=(3,)),
        norm,
        replace(norm, name="n2", inputs=("n1",)),
        Output(name="y", inputs=("n2",)),
    )
    with pytest.raises(GraphError, match=r"n1 follows x \(Input\)") as caught:
        fold_batchnorm(Graph(nodes=nodes, timesteps=1), TARGET, NOTHING)
    assert len(caught.value.reasons) == 2
