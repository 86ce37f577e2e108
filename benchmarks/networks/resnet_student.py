"""The residual student of this package, T = 4."""

from torch import Tensor, nn

from snnkd_deploy.config import load_config
from snnkd_deploy.snn.models import student


def network(channels: int, side: int, classes: int) -> nn.Module:
    return student(load_config(model="resnet", width=8), (channels, side, side), classes)


def scores(net: nn.Module, x: Tensor) -> Tensor:
    return net(x)
