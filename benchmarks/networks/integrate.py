"""Integrate-and-fire: nothing leaks, spikes subtract; the last membrane of a neuron that never resets is the answer."""

import snntorch as snn
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

NUM_STEPS = 8


class IntegrateNet(nn.Module):
    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 16, kernel_size=3, stride=2, padding=1)
        self.if1 = snn.Leaky(beta=1.0)
        self.fc1 = nn.Linear(16 * (side // 2) ** 2, 64)
        self.if2 = snn.Leaky(beta=1.0)
        self.fc2 = nn.Linear(64, classes)
        self.readout = snn.Leaky(beta=1.0, reset_mechanism="none")

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, mem3 = self.if1.reset_mem(), self.if2.reset_mem(), self.readout.reset_mem()
        for _ in range(NUM_STEPS):
            spk1, mem1 = self.if1(self.conv(x), mem1)
            spk2, mem2 = self.if2(self.fc1(F.dropout(spk1.flatten(1), 0.1, self.training)), mem2)
            _, mem3 = self.readout(self.fc2(spk2), mem3)
        return mem3


def network(channels: int, side: int, classes: int) -> nn.Module:
    return IntegrateNet(channels, side, classes)


def scores(net: nn.Module, x: Tensor) -> Tensor:
    return net(x)
