"""Learned leaks and thresholds, BatchNorm, a running count; the states are hidden and emptied by the forward itself."""

import snntorch as snn
import torch
from snntorch import utils
from torch import Tensor, nn
from torch.nn import functional

NUM_STEPS = 8


class LearnedNet(nn.Module):
    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        options = {"learn_beta": True, "learn_threshold": True, "reset_mechanism": "zero", "init_hidden": True}
        self.conv1 = nn.Conv2d(channels, 12, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(12)
        self.lif1 = snn.Leaky(beta=0.8, **options)
        self.conv2 = nn.Conv2d(12, 24, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(24)
        self.lif2 = snn.Leaky(beta=0.7, **options)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(24 * (side // 4) ** 2, classes)
        self.lif3 = snn.Leaky(beta=0.9, **options)

    def forward(self, x: Tensor) -> Tensor:
        utils.reset(self)
        count = torch.zeros(x.size(0), self.fc.out_features)
        for _ in range(NUM_STEPS):
            x1 = self.lif1(functional.avg_pool2d(self.norm1(self.conv1(x)), 2))
            x2 = self.lif2(functional.avg_pool2d(self.norm2(self.conv2(x1)), 2))
            count = count + self.lif3(self.fc(self.drop(x2.view(x.size(0), -1))))
        return count


def network(channels: int, side: int, classes: int) -> nn.Module:
    return LearnedNet(channels, side, classes)


def scores(net: nn.Module, x: Tensor) -> Tensor:
    return net(x)
