"""Taps of a network that is not ours: where they are found, and that cutting there changes no bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.errors import ConfigError, UnknownNameError
from snnkd_deploy.snn.taps import Foreign, ForeignNetwork, Step, choose, tapped

IMAGES = torch.rand(5, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def conv(channels: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, stride, padding=1)


class Residual(nn.Module):
    """In-place operations, functions, a shortcut, a parameter of its own: what networks in the wild look like."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.conv = conv(2, 4), conv(4, 6, 2), conv(6, 6)
        self.relu, self.scale = nn.ReLU(inplace=True), nn.Parameter(torch.tensor(0.5))
        self.readout = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = functional.relu(self.down(x), inplace=True)
        y = self.conv(x) * self.scale
        y += x
        y = functional.relu(y)
        logits: Tensor = self.readout(functional.adaptive_avg_pool2d(y, 1).view(y.size(0), -1))
        return logits


class Branching(nn.Module):
    """Its forward depends on values, so that symbols cannot follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.pool, self.readout = conv(2, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.act(x if x.mean() > 0 else -x)
        logits: Tensor = self.readout(self.pool(x).flatten(1))
        return logits


def plain() -> nn.Sequential:
    return nn.Sequential(
        *(conv(2, 4), nn.ReLU(), conv(4, 4), nn.ReLU(), nn.MaxPool2d(2)),
        *(conv(4, 6), nn.BatchNorm2d(6), nn.GELU(), nn.AvgPool2d(2), nn.Dropout()),
        *(nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3)),
    )


def network(module: nn.Module, names: list[str] | None = None) -> ForeignNetwork:
    torch.manual_seed(0)
    whole = nn.Sequential()
    whole.add_module("network", module)
    return tapped(Foreign(whole.eval(), module, "network."), IMAGES, names)


def shapes(found: ForeignNetwork) -> list[tuple[int, ...]]:
    return [tuple(tap.shape[1:]) for tap in found.outputs(IMAGES).taps]


@torch.no_grad()
@pytest.mark.parametrize(
    ("module", "names", "expected"),
    [
        (plain(), ("4", "9"), [(4, 4, 4), (6, 2, 2)]),
        (Residual(), ("relu", "relu_1()"), [(4, 8, 8), (6, 4, 4)]),
        (nn.Sequential(nn.Flatten(), nn.Linear(128, 9), nn.Tanh(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 3)),
         ("2", "4"), [(9,), (7,)]),
        (nn.Sequential(conv(2, 4, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
         ("1",), [(4, 4, 4)]),
    ],
    ids=["plain", "residual", "mlp", "global-pool"],
)  # fmt: skip
def test_features_are_found_and_cutting_there_changes_no_bit(
    module: nn.Module, names: tuple[str, ...], expected: list[tuple[int, ...]]
) -> None:
    found = network(module)
    assert (found.names, shapes(found), found.uncut) == (names, expected, "")
    seen, logits = found.outputs(IMAGES), module(IMAGES)
    assert torch.equal(seen.logits, logits)
    assert torch.equal(found(IMAGES), logits)
    x = seen.taps[0].clone()
    for block in found.blocks[1:]:
        x = block(x)
    assert torch.equal(found.head(x), logits)  # what a method does that goes on behind a tap
    assert not torch.equal(found.head(2 * x), logits)


def test_taps_are_not_written_over_by_what_follows() -> None:
    module = Residual().eval()
    seen = network(module, ["down"]).outputs(IMAGES)
    expected = module.down(functional.relu(module.stem(IMAGES)))
    assert expected.min() < 0
    torch.testing.assert_close(seen.taps[0], expected)


@torch.no_grad()
def test_a_forward_that_depends_on_values_is_watched_instead() -> None:
    module = Branching()
    found = network(module)
    assert found.names == ("pool",)
    assert "cannot be followed" in found.uncut
    assert len(found.blocks) == 0
    seen, logits = found.outputs(IMAGES), module(IMAGES)
    assert torch.equal(seen.logits, logits)
    assert torch.equal(seen.steps, logits[None])
    assert torch.equal(module.readout(seen.taps[0].flatten(1)), logits)


@torch.no_grad()
def test_a_tap_that_values_pass_around_is_watched_instead() -> None:
    found = network(Residual(), ["conv", "stem"])
    assert found.names == ("stem", "conv")  # in the order of computation
    assert found.uncut == "values pass around conv"
    assert shapes(found) == [(4, 8, 8), (6, 4, 4)]


def test_containers_and_functions_can_be_named() -> None:
    nested = nn.Sequential(nn.Sequential(conv(2, 4), nn.ReLU()), nn.Flatten(), nn.Linear(256, 3))
    assert shapes(network(nested, ["0"])) == [(4, 8, 8)]
    assert shapes(network(Residual(), ["relu_1()"])) == [(6, 4, 4)]


def test_what_is_no_module_or_no_feature_is_refused() -> None:
    for module in (plain(), Branching()):
        with pytest.raises(UnknownNameError, match="no module to tap in the teacher 'pol'; known: "):
            network(module, ["pol"])
    tokens = nn.Sequential(conv(2, 4), nn.Flatten(2), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))
    with pytest.raises(ConfigError, match=r"teacher_taps: 2 gives \(4, 64\); a feature is \(channels, height, width\)"):
        network(tokens, ["2"])
    assert network(tokens).names == ()


def test_the_last_of_each_resolution_is_chosen_with_its_pool() -> None:
    steps = [
        *(Step("a", "relu", (4, 8, 8)), Step("b", "relu", (4, 8, 8)), Step("c", "maxpool2d", (4, 4, 4))),
        *(Step("d", "conv2d", (8, 4, 4)), Step("e", "relu", (8, 4, 4)), Step("f", "avgpool2d", (8, 1, 1))),
        *(Step("g", "linear", (9,)), Step("h", "relu", (9,)), Step("i", "linear", (3,))),
    ]
    assert choose(steps) == ["c", "e"]
    assert choose(steps[6:]) == ["h"]
    assert choose([]) == []
