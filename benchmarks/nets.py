"""The two networks that every benchmark measures, as this package, snnTorch and SpikingJelly run them.

S: conv32-BN-LIF-pool2-conv64-BN-LIF-pool2-fc10 on 1x28x28, average pooling. R: CIFAR's ResNet-18 of width 16 on
3x32x32, 10 classes. LIF: decay 0.5, threshold 1, arctan surrogate, reset to zero and detached; the picture is the
input of every step. The peers' networks have the same layers and the same weights: snnTorch's calls all of them once
per step, as its tutorials do, SpikingJelly's neurons take all steps at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from snnkd_deploy.ir import Graph, Input
from snnkd_deploy.snn import models
from snnkd_deploy.snn.layers import Neuron, Repeat, TimeMean
from snnkd_deploy.snn.lif import LIF, lif
from snnkd_deploy.snn.models import Network, Plan
from snnkd_deploy.trace import trace

SHAPES = {"S": (1, 28, 28), "R": (3, 32, 32)}
CLASSES = 10
Make = Callable[[Neuron], nn.Module]


def ours(name: str, timesteps: int, width: int | None = None) -> Network:
    """Net S or R with fresh weights, in training mode and torch's usual memory order."""
    model, usual = {"S": ("cnn", 32), "R": ("resnet18", 16)}[name]
    return models.build(model, Plan(SHAPES[name], CLASSES, width or usual, 2, timesteps, LIF()))


def pictures(name: str, count: int) -> Tensor:
    """(count, C, H, W) of whole multiples of 1 / 255, smooth as pictures are."""
    shape = SHAPES[name]
    coarse = torch.rand(count, shape[0], 5, 5)
    smooth = nn.functional.interpolate(coarse, shape[1:], mode="bilinear", align_corners=True)
    return (255 * smooth).round() / 255


@torch.no_grad()
def settled(network: Network, images: Tensor, rate: float = 0.1) -> Network:
    """The network in evaluation, its BatchNorms shifted until each layer fires at `rate` on these images."""
    handles = []
    for one in network.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.momentum = 1.0
    for neuron, norm in _pairs(network):
        handles.append(neuron.register_forward_pre_hook(_shifting(norm, rate)))
    network.train()(images)
    for handle in handles:
        handle.remove()
    return network.eval()


def graph(network: Network, name: str) -> Graph:
    """A settled network as a graph, TRACED."""
    return trace(network, Input(name="input", shape=SHAPES[name], scale=1 / 255), name)


def folded(network: Network) -> Network:
    """A copy in evaluation with every BatchNorm in the layer in front of it."""
    same = copy.deepcopy(network).eval()
    for part in same.modules():
        for layer, norm in (("conv", "norm"), ("conv1", "norm1"), ("conv2", "norm2")):
            if isinstance(getattr(part, norm, None), nn.BatchNorm2d):
                setattr(part, layer, fuse_conv_bn_eval(getattr(part, layer), getattr(part, norm)))
                setattr(part, norm, nn.Identity())
    return same


def plain(network: Network) -> Network:
    """The folded network with neurons of plain torch operations and a loop over time, for torch.compile."""
    return _with(folded(network), _Plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class _Plain(nn.Module):
    def __init__(self, neuron: Neuron) -> None:
        super().__init__()
        self.timesteps, self.decay, self.threshold = neuron.timesteps, neuron.decay, neuron.threshold

    def forward(self, current: Tensor) -> Tensor:
        potential, spikes = torch.zeros(()), []
        for arriving in current.unflatten(0, (self.timesteps, -1)).unbind():
            potential = self.decay * potential + arriving
            spikes.append((potential > self.threshold).to(current.dtype))
            potential = potential * (1 - spikes[-1])
        return torch.cat(spikes)


class SnnTorch(nn.Module):
    """The same layers with `snntorch.Leaky`, called once per step; mean logits (B, classes)."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        import snntorch

        self.timesteps = network.timesteps
        self.network = _one_step(network, lambda one: snntorch.Leaky(
            one.decay, one.threshold, init_hidden=True, reset_mechanism=one.reset
        ))  # fmt: skip
        self.neurons = [one for one in self.network.modules() if isinstance(one, snntorch.Leaky)]

    def forward(self, images: Tensor) -> Tensor:
        """Mean logits."""
        for neuron in self.neurons:  # utils.reset sees only those that are not inside of another module
            neuron.reset_mem()
        logits = [self.network(images) for _ in range(self.timesteps)]
        return torch.stack(logits).mean(0)


class SpikingJelly(nn.Module):
    """The same layers with SpikingJelly's LIFNode in multi-step mode; tau 2 and undecayed input keep half.

    ImportError if SpikingJelly is not installed.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = _with(copy.deepcopy(network), lambda one: _MultiStep(one.timesteps))

    def forward(self, images: Tensor) -> Tensor:
        """Mean logits."""
        from spikingjelly.activation_based import functional

        functional.reset_net(self.network)
        logits: Tensor = self.network(images)
        return logits


class _MultiStep(nn.Module):
    def __init__(self, timesteps: int) -> None:
        super().__init__()
        from spikingjelly.activation_based import neuron, surrogate

        self.timesteps = timesteps
        self.node: Any = neuron.LIFNode(
            tau=2.0, decay_input=False, surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m"
        )

    def forward(self, current: Tensor) -> Tensor:
        spikes: Tensor = self.node(current.unflatten(0, (self.timesteps, -1)))
        return spikes.flatten(0, 1)


def _one_step(network: Network, make: Make) -> Network:
    """A copy that computes one step."""
    same = _with(copy.deepcopy(network), make)
    for part in same.modules():
        if isinstance(part, Network | Repeat | TimeMean):
            part.timesteps = 1
    return same


def _with(network: Network, make: Make) -> Network:
    """The network with other neurons, in place."""
    for part in list(network.modules()):
        for name, child in part.named_children():
            if isinstance(child, Neuron):
                setattr(part, name, make(child))
    return network


def _pairs(network: Network) -> Iterator[tuple[Neuron, nn.BatchNorm2d]]:
    """Each neuron with the BatchNorm that feeds it."""
    for part in network.modules():
        for neuron, norm in (("neuron", "norm"), ("neuron1", "norm1"), ("neuron2", "norm2")):
            if isinstance(found := getattr(part, neuron, None), Neuron):
                yield found, getattr(part, norm)


def _shifting(norm: nn.BatchNorm2d, rate: float) -> Callable[[Neuron, tuple[Tensor]], Tensor]:
    """A hook that shifts the current until the neurons fire at `rate`, and keeps the shift in the BatchNorm."""

    def shift(neuron: Neuron, given: tuple[Tensor]) -> Tensor:
        current, equation, _ = neuron.folded(given[0])
        low, high = -10.0, 10.0
        for _ in range(20):
            middle = (low + high) / 2
            too_many = float(lif(current + middle, equation).mean()) > rate
            low, high = (low, middle) if too_many else (middle, high)
        norm.bias.add_(low)
        return given[0] + low

    return shift
