"""What trains is what the chip computes: every spike and every sum is that of the integer simulator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import Tensor

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.check import graph_problems
from snnkd_deploy.errors import LegalityError
from snnkd_deploy.ir import Array, Graph, Input, Linear, Neuron, Output
from snnkd_deploy.passes.fold_batchnorm import fold_batchnorm
from snnkd_deploy.passes.quantize import choose_scales, worst_cases
from snnkd_deploy.passes.weight_shortcuts import weight_shortcuts
from snnkd_deploy.simulate import simulate
from snnkd_deploy.snn.integer import IntegerNetwork
from snnkd_deploy.snn.lif import LIF
from snnkd_deploy.target import load_target
from tests.networks import ANY, ATTENTIVE, Recipe, random_inputs, random_network

ONNX = load_target("onnx")


def network(graph: Graph, **options: object) -> IntegerNetwork:
    calibration = Calibration(random_inputs(graph, 8), **options)  # type: ignore[arg-type]
    weighed = weight_shortcuts(fold_batchnorm(graph, ONNX, calibration), ONNX, calibration)
    return IntegerNetwork(weighed, choose_scales(weighed, ONNX, calibration), LIF())


def pictures(graph: Graph, inputs: Array) -> Tensor:
    """As a student takes them: real numbers, samples first."""
    seen = torch.tensor(inputs * graph.input.scale).float()
    return seen if graph.input.static else seen.transpose(0, 1)


def moved(net: IntegerNetwork, by: float, seed: int) -> IntegerNetwork:
    """With weights that have changed, as a training changes them."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(by * parameter.abs().mean() * torch.randn_like(parameter))
    return net


@pytest.mark.parametrize("recipe", [ANY, ATTENTIVE], ids=["residual", "attention"])
def test_every_spike_and_sum_is_that_of_the_simulator(recipe: Recipe) -> None:
    compared, kinds = 0, set[tuple[object, ...]]()
    for seed in range(30):
        graph, bits = random_network(seed, recipe), (8, 6, 4)[seed % 3]
        try:
            net = network(graph, weight_bits=bits, granularity=("layer", "channel")[seed % 2])
        except LegalityError:
            continue
        if graph_problems(net.integer):  # a threshold below one unit
            continue
        moved(net, 0.1, seed).settle()
        inputs = random_inputs(graph, 12, seed)
        seen = pictures(graph, inputs)
        with torch.no_grad():
            values, sums = net._values(seen), net.sums(seen)
        expected = simulate(net.integer, inputs)
        for name, spikes in expected.spikes.items():
            assert_array_equal(values[name].numpy(), spikes)
        assert_array_equal(sums.numpy(), expected.logits)
        kinds |= {(bits, node.reset, node.decay, node.threshold.ndim) for node in net.integer.of(Neuron)}
        compared += 1
    assert compared > 12
    assert {reset for _, reset, *_ in kinds} == {"zero", "subtract"}
    assert len({decay for _, _, decay, _ in kinds}) > 3
    assert {dimensions for *_, dimensions in kinds} == {0, 1}


def test_outputs_are_the_integers_in_real_numbers() -> None:
    graph = random_network(3, Recipe(timesteps=(3, 3)))
    net, inputs = network(graph), random_inputs(graph, 12)
    outputs = net.outputs(pictures(graph, inputs))
    integer = net.integer
    logits = simulate(integer, inputs).logits * integer.output.unit / graph.timesteps
    np.testing.assert_allclose(outputs.logits.detach().numpy(), logits, rtol=1e-5)
    torch.testing.assert_close(outputs.steps.mean(0), outputs.logits, rtol=1e-4, atol=1e-5)
    assert len(outputs.steps) == 3


def dense(weight: Array, high: int = 1, decay: float = 1.0) -> Graph:
    nodes = (
        Input(name="x", shape=(weight.shape[1],), high=high),
        Linear(name="w", inputs=("x",), weight=weight, bias=np.zeros(len(weight))),
        Neuron(name="s", inputs=("w",), decay=decay, threshold=np.asarray(1.0)),
        Linear(name="r", inputs=("s",), weight=np.eye(len(weight)), bias=np.zeros(len(weight))),
        Output(name="y", inputs=("r",)),
    )
    return Graph(nodes=nodes, timesteps=2)


def test_the_gradient_is_that_of_the_real_network_and_ends_where_weights_are_clipped() -> None:
    weight = np.array([[0.5, -0.25], [0.3, 0.125]])
    net = network(dense(weight), method="max")
    synapse = net._synapse("w")
    images = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    net.outputs(images).logits[:, 0].sum().backward()
    assert synapse.weight.grad is not None
    assert synapse.weight.grad[1].eq(0).all()  # the other neuron's
    assert synapse.weight.grad[0].gt(0).all()
    v = torch.tensor([0.25, 0.5])  # membranes of step 0; twice that in step 1, which step 0's current reaches too
    slope = [1 / (1 + (torch.pi * (k * v - 1)) ** 2) for k in (1, 2)]
    by_current = (slope[0] + 2 * slope[1]) / 2  # mean over two steps; the still picture is the current of both
    expected = (by_current[:, None] * images).sum(0) * synapse.size
    torch.testing.assert_close(synapse.weight.grad[0], expected.float(), rtol=0.02, atol=0)
    with torch.no_grad():
        synapse.weight[0, 0] = 1.2
    synapse.weight.grad = None
    net.outputs(images).logits[:, 0].sum().backward()
    assert synapse.weight.grad is not None
    assert synapse.weight.grad[0, 0] == 0
    assert synapse.weight.grad[0, 1] > 0


def test_worst_cases_are_kept_by_shrinking_the_channels_that_leave_them() -> None:
    net = network(dense(np.array([[0.5] * 9, [0.1] * 9]), high=255))
    assert not worst_cases(net.integer, net.scales)
    before = net._synapse("w").weight.detach().clone()
    with torch.no_grad():
        net._synapse("w").weight[0] *= 1.5
    (ratios,) = worst_cases(net.integer, net.scales).values()
    assert ratios[0] > 1.2
    assert ratios[1] <= 1
    net.settle()
    assert not worst_cases(net.integer, net.scales)
    after = net._synapse("w").weight.detach()
    assert torch.equal(after[1], before[1])
    assert 0.9 < float(after[0, 0] / before[0, 0]) <= 1.01
