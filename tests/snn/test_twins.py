"""A twin shares every parameter and replaces only what it is told to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from snnkd_deploy.snn.twins import original, twin


def doubled(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    return (lambda x: 2 * x) if isinstance(module, nn.ReLU) else None


def test_a_function_stands_in_for_a_module_anywhere_below() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))
    other, x = twin(network, doubled), torch.rand(4, 3)
    inner = network[1]
    assert isinstance(inner, nn.Sequential)
    assert torch.equal(other(x), inner[1](2 * network[0](x)))
    assert torch.equal(network(x), inner[1](torch.relu(network[0](x))))
    assert all(one is same for one, same in zip(network.parameters(), other.parameters(), strict=True))


def test_a_function_knows_the_module_that_it_stands_for() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    same = twin(network, lambda module: torch.abs if isinstance(module, nn.ReLU) else None)
    assert original(same[1]) is network[1]
    assert original(same[0]) is network[0]
    assert list(same[1].modules()) == [same[1]]
