"""The convolutional network of snnTorch's tutorial 6: nn.Sequential with hidden states, one step for each call."""

import snntorch as snn
import torch
from snntorch import surrogate, utils
from torch import Tensor, nn

TIMESTEPS = 10


def network(channels: int, side: int, classes: int) -> nn.Module:
    spike_grad = surrogate.fast_sigmoid(slope=25)
    after = (((side - 2) // 2) - 2) // 2 if side > 8 else (side // 2) // 2
    padding = 0 if side > 8 else 1
    return nn.Sequential(
        nn.Conv2d(channels, 12, 3, padding=padding),
        nn.MaxPool2d(2),
        snn.Leaky(beta=0.5, spike_grad=spike_grad, init_hidden=True),
        nn.Conv2d(12, 24, 3, padding=padding),
        nn.MaxPool2d(2),
        snn.Leaky(beta=0.5, spike_grad=spike_grad, init_hidden=True),
        nn.Flatten(),
        nn.Linear(24 * after * after, classes),
        snn.Leaky(beta=0.5, spike_grad=spike_grad, init_hidden=True, output=True),
    )


def scores(net: nn.Module, x: Tensor) -> Tensor:
    utils.reset(net)
    spk_rec = []
    for _ in range(TIMESTEPS):
        spk_out, _ = net(x)
        spk_rec.append(spk_out)
    return torch.stack(spk_rec).sum(0)
