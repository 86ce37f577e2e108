"""Frames of spikes, time first, `x[step]` into explicit states; resets to zero, average pools behind the neurons."""

import snntorch as snn
import torch
from snntorch import spikegen
from torch import Tensor, nn

NUM_STEPS = 5


class EventNet(nn.Module):
    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 12, 3, padding=1)
        self.lif1 = snn.Leaky(beta=0.5, reset_mechanism="zero")
        self.pool = nn.AvgPool2d(2)
        self.conv2 = nn.Conv2d(12, 24, 3, padding=1, bias=False)
        self.lif2 = snn.Leaky(beta=0.5, threshold=0.8, reset_mechanism="zero")
        self.fc = nn.Linear(24 * (side // 4) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        out = []
        for step in range(x.size(0)):
            spk1, mem1 = self.lif1(self.conv1(x[step]), mem1)
            spk2, mem2 = self.lif2(self.conv2(self.pool(spk1)), mem2)
            out.append(self.fc(self.pool(spk2).flatten(1)))
        return torch.stack(out).mean(0)


def network(channels: int, side: int, classes: int) -> nn.Module:
    return EventNet(channels, side, classes)


def samples(pictures: Tensor) -> Tensor:
    """Rate code, `(batch, time, ...)` as a data set of recordings has it."""
    with torch.random.fork_rng():
        torch.manual_seed(len(pictures))
        return spikegen.rate(pictures, num_steps=NUM_STEPS).transpose(0, 1)


def scores(net: nn.Module, x: Tensor) -> Tensor:
    return net(x.transpose(0, 1))
