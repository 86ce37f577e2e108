"""Layers as people combine them: what torch computes in evaluation is what the folded graph computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.frontend.network import read
from snnkd_deploy.ir import BatchNorm, Conv2d, Linear
from snnkd_deploy.passes.fold_batchnorm import fold_batchnorm
from snnkd_deploy.passes.weight_shortcuts import weight_shortcuts
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target
from tests.frontend.nets import pictures, seen

SAMPLES = pictures(0, 6, (4, 6, 6))
ONNX, NOTHING = load_target("onnx"), Calibration(np.empty(0))


class Shortcut(nn.Module):
    """Two paths that are added."""

    def __init__(self, path: nn.Module, shortcut: nn.Module, behind: nn.Module) -> None:
        super().__init__()
        self.path, self.shortcut, self.behind = path, shortcut, behind

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.behind(self.path(x) + self.shortcut(x))
        return found


class Reused(nn.Module):
    """One convolution, one norm and one ReLU, each called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.relu(self.norm(self.conv(self.relu(self.norm(self.conv(x))))))
        return found.flatten(1)


class Functional(nn.Module):
    """Nothing but weights are modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(torch.add(self.conv1(x), self.conv2(x)))
        x = functional.avg_pool2d(x, 2)
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(x, (1, 1)), 1))  # type: ignore[no-any-return]


def row(*layers: nn.Module) -> nn.Module:
    """The layers, ReLU, and the features."""
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten())


def tall() -> nn.Module:
    return row(nn.Conv2d(4, 4, (5, 3), padding="same", dilation=(1, 2)), nn.BatchNorm2d(4))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "a norm behind a convolution": lambda: row(nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5)),
    "a norm in front of a convolution": lambda: row(nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3)),
    "a norm in front of a padded convolution": lambda: row(nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3, padding=1)),
    "norms on both sides": lambda: row(nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)),
    "two norms in a row": lambda: row(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.BatchNorm2d(5)),
    "a norm without affine": lambda: row(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, affine=False)),
    "a norm of its own eps": lambda: row(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, eps=0.1)),
    "a norm of tiny variances": lambda: row(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)),
    "a norm behind groups": lambda: row(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)),
    "a norm in front of groups": lambda: row(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, groups=2)),
    "depthwise and pointwise": lambda: row(nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1)),
    "a norm behind a pool": lambda: row(nn.Conv2d(4, 5, 3), nn.AvgPool2d(2), nn.BatchNorm2d(5)),
    "a norm behind a maximum": lambda: row(nn.Conv2d(4, 5, 3), nn.MaxPool2d(2), nn.BatchNorm2d(5)),
    "a norm behind a dense layer": lambda: row(nn.Flatten(), nn.Linear(144, 5), nn.BatchNorm1d(5)),
    "a norm in front of a dense layer": lambda: row(nn.Flatten(), nn.BatchNorm1d(144), nn.Linear(144, 5)),
    "a norm ahead of flatten": lambda: row(nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5)),
    "padding same": lambda: row(nn.Conv2d(4, 4, 3, padding="same"), nn.BatchNorm2d(4)),
    "padding same of a tall kernel": tall,
    "padding valid": lambda: row(nn.Conv2d(4, 4, 3, padding="valid", stride=2)),
    "dropout and identity": lambda: row(nn.Conv2d(4, 4, 3), nn.Dropout2d(0.5), nn.Identity(), nn.Dropout(0.3)),
    "global pooling": lambda: row(nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1)),
    "global pooling by windows": lambda: row(nn.Conv2d(4, 4, 3), nn.AvgPool2d(4)),
    "pooling to 2x2": lambda: row(nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d((2, None)), nn.Flatten(), nn.Linear(32, 3)),
    "equal widths added": lambda: Shortcut(
        nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)), nn.Identity(), row(nn.BatchNorm2d(4))
    ),
    "unequal widths added": lambda: Shortcut(
        nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)),
        nn.Sequential(nn.Conv2d(4, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8)),
        row(nn.Conv2d(8, 3, 1)),
    ),
    "modules used twice": Reused,
    "functional calls": Functional,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_folded_graph_computes_what_torch_computes(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    network.train()(4 * torch.rand(16, 4, 6, 6) - 1)  # statistics of their own
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            if "tiny" in name:
                module.running_var = 10.0 ** torch.linspace(-12, -3, module.num_features)
    graph = read(network, SAMPLES).graph
    folded = weight_shortcuts(fold_batchnorm(graph, ONNX, NOTHING), ONNX, NOTHING)
    assert not folded.of(BatchNorm)
    with torch.no_grad():
        expected = network.double().eval()(seen(SAMPLES)).numpy()
    assert np.abs(expected).max() > 0
    met = simulate(folded, SAMPLES.integers(slice(None))).logits
    np.testing.assert_allclose(met, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())


def test_modules_that_are_used_twice_are_nodes_of_their_own_with_the_same_weights() -> None:
    graph = read(Reused().eval(), SAMPLES).graph
    first, second = graph.of(Conv2d)
    np.testing.assert_array_equal(first.weight, second.weight)
    assert first.name != second.name
    assert not graph.of(Linear)
