"""Spikingformer against the equations of its paper, written out step by step and head by head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.config import load_config
from snnkd_deploy.distill import create, methods
from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn import models
from snnkd_deploy.snn.layers import Neuron
from snnkd_deploy.snn.lif import LIF
from snnkd_deploy.snn.network import Plan
from snnkd_deploy.snn.rate import check
from snnkd_deploy.snn.transformer import Attention, heads, pools, scale, spikingformer
from tests.distill.setups import batch, pair


def awake(network: nn.Module) -> Any:
    """Norms that make neurons fire, in evaluation and double precision."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features, generator=generator) * 0.1
            module.running_var = torch.rand(module.num_features, generator=generator) * 0.5 + 0.05
            module.bias.data.fill_(0.5)
    return network.double().eval()


class Steps:
    """The network of the paper over T steps; a function a layer, with a membrane for each layer of neurons."""

    def __init__(self, network: Any, decay: float) -> None:
        self.net, self.decay = network, decay
        self.membranes: dict[Neuron, Tensor] = {}
        self.fired = 0

    def neuron(self, module: Neuron, x: Tensor) -> Tensor:
        v = self.decay * self.membranes.get(module, torch.zeros_like(x)) + x
        s = (v > module.threshold).double()
        self.membranes[module] = v * (1 - s)
        self.fired += int(s.sum())
        return s

    def weigh(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        y: Tensor = norm(functional.conv2d(x, conv.weight, padding=conv.weight.shape[2] // 2))
        return y

    def step(self, image: Tensor) -> Tensor:
        first = self.net.blocks[0]
        x = self.weigh(first.conv, first.norm, image)
        for number in (1, 2, 3, 4):
            x = self.neuron(getattr(first, "neuron" if number == 1 else f"neuron{number}"), x)
            x = functional.max_pool2d(x, 2) if hasattr(first, f"pool{number}") else x
            x = self.weigh(getattr(first, f"conv{number}"), getattr(first, f"norm{number}"), x)
        for block in self.net.blocks[1:]:
            x = x + self.attend(block, x)
            hidden = self.weigh(block.expand.conv, block.expand.norm, self.neuron(block.expand.neuron, x))
            x = x + self.weigh(block.reduce.conv, block.reduce.norm, self.neuron(block.reduce.neuron, hidden))
        pooled = self.neuron(self.net.head.neuron, x).mean((2, 3))
        return functional.linear(pooled, self.net.head.linear.weight, self.net.head.linear.bias)

    def attend(self, block: Any, x: Tensor) -> Tensor:
        spikes = self.neuron(block.neuron, x)
        q, k, v = (
            self.neuron(part.neuron, self.weigh(part.conv, part.norm, spikes)) for part in (block.q, block.k, block.v)
        )
        y = plain_attention(q, k, v, block.attention.heads) / 8
        return self.weigh(block.project.conv, block.project.norm, self.neuron(block.project.neuron, y))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, count: int) -> Tensor:
    """(q k^T) v of each sample and head by itself, tokens in rows as in the paper."""
    y, size = torch.zeros_like(q), q.shape[1] // count
    for sample in range(len(q)):
        for head in range(count):
            part = slice(head * size, (head + 1) * size)
            rows = [one[sample, part].reshape(size, -1).T for one in (q, k, v)]
            mixed = torch.zeros_like(rows[0])
            for token in range(len(mixed)):
                for other in range(len(mixed)):
                    mixed[token] += (rows[0][token] * rows[1][other]).sum() * rows[2][other]
            y[sample, part] = mixed.T.reshape(size, *q.shape[2:])
    return y


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_attention_is_the_product_of_each_head_by_itself(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    q, k, v = ((torch.rand(2, 6, 3, 2, generator=generator) < 0.5).float() for _ in range(3))
    assert torch.equal(Attention(count, 0.25)(q, k, v), plain_attention(q, k, v, count) / 4)
    q, k, v = (torch.randn(2, 6, 3, 2, generator=generator) for _ in range(3))
    torch.testing.assert_close(Attention(count, 0.25)(q, k, v), plain_attention(q, k, v, count) / 4)


@pytest.mark.parametrize(("size", "depth"), [(8, 1), (14, 2)])
def test_the_network_is_that_of_the_paper_step_by_step(size: int, depth: int) -> None:
    torch.manual_seed(0)
    network = awake(spikingformer(Plan((2, size, size), 5, 8, depth, 3, LIF(decay=0.75))))
    images = torch.rand(2, 2, size, size, dtype=torch.float64)
    loop = Steps(network, 0.75)
    expected = torch.stack([loop.step(images) for _ in range(3)])
    assert loop.fired > 500
    with torch.no_grad():
        torch.testing.assert_close(network.outputs(images).steps, expected)


def test_its_size_is_the_published_one() -> None:
    """9.32 M for depth 4, width 384 on CIFAR-10; here without the biases in front of a BatchNorm, 6 x 384 a block."""
    with torch.device("meta"):
        network = models.student(load_config(model="spikingformer", width=384, depth=4), (3, 32, 32), 10)
    found = sum(parameter.numel() for parameter in network.parameters())
    assert round((found + 4 * 6 * 384) / 1e6, 2) == 9.32


@pytest.mark.parametrize(
    ("shape", "tokens"),
    [
        ((1, 1, 1), (1, 1)),
        ((1, 8, 8), (8, 8)),
        ((1, 9, 13), (9, 13)),
        ((1, 28, 28), (7, 7)),
        ((3, 32, 32), (8, 8)),
        ((2, 34, 34), (8, 8)),
        ((3, 224, 224), (14, 14)),
    ],
)
def test_pictures_become_about_as_many_tokens_as_in_the_paper(
    shape: tuple[int, int, int], tokens: tuple[int, int]
) -> None:
    plan = Plan(shape, 10, 8, 1, 2, LIF())
    with torch.device("meta"):
        network = spikingformer(plan).eval()
        taps = network.outputs(torch.zeros(2, *shape)).taps
    assert [tuple(tap.shape[1:]) for tap in taps] == [(8, *tokens)] * 2
    assert pools(plan) == sum(isinstance(one, nn.MaxPool2d) for one in network.modules())


def test_heads_have_32_channels_where_the_width_allows_it() -> None:
    assert {width: heads(width) for width in (1, 3, 6, 16, 64, 100, 256, 384)} == {
        1: 1, 3: 1, 6: 2, 16: 2, 64: 2, 100: 2, 256: 8, 384: 12
    }  # fmt: skip


def test_more_than_eight_products_fire_at_any_threshold() -> None:
    for threshold in (0.5, 1.0, 3.0):
        neuron = LIF(threshold=threshold)
        assert scale(Plan((1, 8, 8), 2, 8, 1, 1, neuron)) * 8 == threshold
    assert scale(Plan((1, 8, 8), 2, 8, 1)) == 1 / 8


def test_every_weight_and_every_product_reads_single_spikes() -> None:
    network = awake(spikingformer(Plan((1, 14, 14), 5, 16, 2, 2, LIF())))
    seen: list[Tensor] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | Attention) and name != "blocks.0.conv":
            module.register_forward_hook(lambda one, inputs, output: seen.extend(inputs))
    network(torch.rand(2, 1, 14, 14, dtype=torch.float64))
    assert len(seen) == 4 + 2 * (6 + 3)
    assert all(set(one.unique().tolist()) == {0.0, 1.0} for one in seen)


def test_the_membranes_are_those_of_the_neurons_that_read_a_block() -> None:
    network = spikingformer(Plan((1, 8, 8), 5, 8, 2, 2, LIF()))
    assert network.tapped() == [network.blocks[1].neuron, network.blocks[2].neuron, network.head.neuron]


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in methods()), ("feature", {"feature": "membrane"})], ids=str
)
def test_every_method_teaches_it(name: str, options: dict[str, Any]) -> None:
    student, teacher, setup = pair("spikingformer", timesteps=2, depth=1)
    method = create(name, setup, **options)
    images, labels = batch()
    method.prepare(student, teacher, images)
    losses = method.losses(student.outputs(images, membranes=True), teacher.outputs(images), images, labels)
    torch.autograd.backward(torch.stack(list(losses.values())).sum())
    slopes = [parameter.grad for parameter in student.parameters()]
    assert all(slope is not None and slope.isfinite().all() for slope in slopes)


def test_rates_are_refused_with_the_reason() -> None:
    plan = Plan((1, 8, 8), 5, 8, 1, 2, LIF())
    with pytest.raises(ConfigError, match=r"blocks\.1\.attention \(Attention\): the product of mean rates is not"):
        check(spikingformer(plan))
