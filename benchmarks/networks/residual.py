"""A residual network as torch's own with snnTorch's neurons for ReLUs: an identity and a 1x1 shortcut."""

import snntorch as snn
import torch
from snntorch import utils
from torch import Tensor, nn

NUM_STEPS = 4


def spiking() -> snn.Leaky:
    return snn.Leaky(beta=0.5, reset_mechanism="zero", init_hidden=True)


class BasicBlock(nn.Module):
    def __init__(self, planes_in: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.lif1 = spiking()
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.lif2 = spiking()
        self.downsample = None
        if stride != 1 or planes_in != planes:
            self.downsample = nn.Sequential(nn.Conv2d(planes_in, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.lif1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.lif2(out)


class SpikingResNet(nn.Module):
    def __init__(self, channels: int, classes: int, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.lif1 = spiking()
        self.layer1 = BasicBlock(width, width)
        self.layer2 = BasicBlock(width, 2 * width, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        utils.reset(self)
        logits = []
        for _ in range(NUM_STEPS):
            out = self.lif1(self.bn1(self.conv1(x)))
            out = self.avgpool(self.layer2(self.layer1(out)))
            logits.append(self.fc(torch.flatten(out, 1)))
        return torch.stack(logits).mean(0)


def network(channels: int, side: int, classes: int) -> nn.Module:
    return SpikingResNet(channels, classes)


def scores(net: nn.Module, x: Tensor) -> Tensor:
    return net(x)
