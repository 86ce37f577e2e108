"""torch networks become graphs that compute the same; what has no node is refused, all of it at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.config import TrainConfig
from snnkd_deploy.errors import TraceError
from snnkd_deploy.ir import Add, Attention, AvgPool2d, Conv2d, Input, Neuron, Relu
from snnkd_deploy.simulate import simulate
from snnkd_deploy.snn import models, transformer
from snnkd_deploy.snn.layers import Neuron as NeuronModule
from snnkd_deploy.snn.layers import Repeat, TimeMean
from snnkd_deploy.trace import trace

SHAPE = (2, 8, 8)
SOURCE = Input(name="input", shape=SHAPE, scale=1 / 255)


def awake(network: nn.Module) -> nn.Module:
    """Statistics and weights that make neurons fire, in evaluation."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.uniform_(0.05, 0.5, generator=generator)
            module.bias.data.fill_(0.5)
    return network.double().eval()


@pytest.mark.parametrize("model", sorted(models.MODELS))
@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_our_networks_compute_the_same_as_graphs(model: str, role: str, reset: str) -> None:
    config = TrainConfig(
        model=model, teacher_model=model, width=6, teacher_width=6, depth=1, teacher_depth=1, decay=0.75,
        timesteps=3, reset=reset,  # type: ignore[arg-type]
    )  # fmt: skip
    network = awake(getattr(models, role)(config, SHAPE, 5))
    images = np.random.default_rng(0).integers(0, 256, (9, *SHAPE))
    graph = trace(network, SOURCE)
    with torch.no_grad():
        expected = network(torch.tensor(images / 255)).numpy()
    np.testing.assert_allclose(simulate(graph, images).logits, expected, rtol=1e-9, atol=1e-9)
    assert graph.timesteps == (3 if role == "student" else 1)
    assert bool(graph.of(Relu)) == (role == "teacher")
    assert all(one.reset == reset and one.decay == 0.75 for one in graph.of(Neuron))
    assert bool(graph.of(Add)) == ("resnet" in model or model == "spikingformer")
    assert len(graph.of(Attention)) == (model == "spikingformer")


def trained(scope: Literal["layer", "channel"]) -> nn.Module:
    """A student a few steps on, so that its decays are no longer where they started."""
    torch.manual_seed(0)
    config = TrainConfig(model="cnn", width=6, timesteps=4, learn_decay=scope)
    network = models.student(config, SHAPE, 5)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(network(3 * torch.rand(10, *SHAPE)), torch.arange(10) % 5))
        optimizer.step()
    return network.double().eval()


@pytest.mark.parametrize("scope", ["layer", "channel"])
def test_a_learned_decay_reaches_the_graph_and_computes_the_same(scope: Literal["layer", "channel"]) -> None:
    network = trained(scope)
    graph = trace(network, SOURCE)
    found = [one.decays for one in network.modules() if isinstance(one, NeuronModule) and one.decays is not None]
    learned = [one.tolist() if scope == "channel" else one.item() for one in found]
    assert [np.asarray(one.decay).tolist() for one in graph.of(Neuron)] == learned
    values = np.concatenate([np.atleast_1d(one) for one in learned])
    assert len(set(values)) == len(values) == (2 if scope == "layer" else sum(map(len, found)))
    assert 0.5 not in values
    images = np.random.default_rng(0).integers(0, 256, (9, *SHAPE))
    with torch.no_grad():
        expected = network(torch.tensor(images / 255)).numpy()
    np.testing.assert_allclose(simulate(graph, images).logits, expected, rtol=1e-9, atol=1e-9)


class Shared(nn.Module):
    """An attention whose q and k are one value, or whose inputs are."""

    def __init__(self, heads: int = 1) -> None:
        super().__init__()
        self.attention = transformer.Attention(heads, 0.5)
        self.q, self.k = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.q(x), self.k(x)
        y: Tensor = self.attention(q, k, q)
        return y


def test_an_attention_may_read_one_value_twice_and_keeps_the_order() -> None:
    network = Shared().double().eval()
    images = np.random.default_rng(0).integers(0, 256, (4, *SHAPE))
    graph = trace(network, SOURCE)
    assert graph["attention"].inputs == ("q", "k", "q")
    with torch.no_grad():
        expected = network(torch.tensor(images / 255)).numpy()
    np.testing.assert_allclose(simulate(graph, images).logits, expected, rtol=1e-9)


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(TraceError, match="attention: 2 channels do not divide into 3 heads"):
        trace(Shared(heads=3), SOURCE)


class Odd(nn.Module):
    """Operations that have no node, beside one that has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.InstanceNorm2d(3)
        self.pool = nn.AvgPool2d(3, ceil_mode=True)
        self.fine = nn.Conv2d(2, 3, 3)
        self.linear = nn.Linear(108, 2)

    def forward(self, x: Tensor) -> Tensor:
        a: Tensor = self.pool(self.norm(self.conv(x)))
        b = torch.sigmoid(self.fine(x))
        y: Tensor = self.linear(torch.flatten(self.fine(x), 1))
        return y + a.mean() * b.sum()


def test_refusal_lists_every_reason() -> None:
    with pytest.raises(TraceError) as caught:
        trace(Odd(), SOURCE, "odd")
    text = str(caught.value)
    assert "odd holds what cannot be compiled" in text
    for reason in (
        "norm: InstanceNorm2d has no node",
        "'sigmoid' has no node; known are add, flatten and relu",
        "fine: is used twice",
    ):
        assert reason in text, text
    assert len(caught.value.reasons) >= 3


class Sums(nn.Module):
    """An addition of the given kind behind a convolution."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if self.kind == "constant":
            return y + 1
        if self.kind == "itself":
            return y + y
        if self.kind == "alpha":
            return torch.add(y, x, alpha=2)
        if self.kind == "branch":
            return y if y.sum() > 0 else x
        return y.mul(2)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("constant", "only the sum of two values"),
        ("itself", "adds a value to itself"),
        ("alpha", "only the sum of two values"),
        ("branch", "its forward depends on values"),
        ("mul", "'mul' has no node"),
    ],
)
def test_sums_that_are_not_plain_are_refused(kind: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        trace(Sums(kind), SOURCE)


def plain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (plain(nn.BatchNorm2d(2, track_running_stats=False)), "no running statistics"),
        (plain(nn.AvgPool2d(2, ceil_mode=True)), "ceil_mode"),
        (plain(nn.AvgPool2d(2, padding=1, count_include_pad=False)), "count_include_pad=False"),
        (plain(nn.MaxPool2d(2, dilation=2)), "dilation"),
        (plain(nn.AdaptiveAvgPool2d(3)), r"\(2, 8, 8\) does not divide"),
        (plain(nn.Flatten(0)), "start_dim=1"),
        (plain(nn.Linear(5, 2)), r"takes 5 features, met shape \(2, 8, 8\)"),
        (plain(nn.GELU()), "GELU has no node; known are"),
        (plain(NeuronModule(2), NeuronModule(3), TimeMean(2)), "runs 3 steps, others run 2"),
        (plain(NeuronModule(2), TimeMean(2), nn.Flatten()), "comes after the mean over time"),
        (plain(Repeat(2), NeuronModule(2)), r"mean over time \(TimeMean\) is missing"),
    ],
)
def test_what_a_node_cannot_say_is_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        trace(network, SOURCE)


def test_common_modules_have_their_nodes() -> None:
    network = (
        plain(
            nn.Conv2d(2, 4, (3, 5), stride=(2, 1), padding="valid", groups=2),
            nn.Dropout(),
            nn.Identity(),
            nn.ReLU(),
            nn.MaxPool2d((1, 2)),
            nn.Conv2d(4, 4, 3, padding="same", dilation=2),
            nn.AdaptiveAvgPool2d((1, 1)),
            nn.Flatten(),
            nn.Linear(4, 3, bias=False),
        )
        .double()
        .eval()
    )
    images = np.random.default_rng(0).integers(0, 256, (4, *SHAPE))
    with torch.no_grad():
        expected = network(torch.tensor(images / 255)).numpy()
    graph = trace(network, SOURCE)
    np.testing.assert_allclose(simulate(graph, images).logits, expected, rtol=1e-9, atol=1e-12)
    assert graph.of(Conv2d)[1].padding == (2, 2)
    assert graph.of(AvgPool2d)[0].kernel == (3, 2)


def test_a_norm_without_affine_is_scale_one_shift_zero() -> None:
    network = plain(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, affine=False)).double().eval()
    images = np.random.default_rng(0).integers(0, 256, (4, *SHAPE))
    graph = trace(network, replace(SOURCE, scale=1.0))
    with torch.no_grad():
        expected = network(torch.tensor(images).double()).numpy()
    np.testing.assert_allclose(simulate(graph, images).logits, expected, rtol=1e-9)
