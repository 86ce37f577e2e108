"""Recording leaves the user's network as it was, and copies what it needs."""

from __future__ import annotations

import pytest
import snntorch as snn
import torch
from torch import Tensor, nn

from snnkd_deploy.errors import TraceError
from snnkd_deploy.frontend.network import read
from snnkd_deploy.frontend.record import in_float64, is_leaf
from tests.frontend.nets import Dense, pictures, strong


def test_the_network_keeps_its_weights_types_and_hooks() -> None:
    torch.manual_seed(0)
    model = strong(Dense())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    read(model, pictures())
    assert all(
        torch.equal(value, before[key]) and value.dtype == before[key].dtype
        for key, value in model.state_dict().items()
    )
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_network_can_be_read_in_the_middle_of_its_training() -> None:
    """Its neurons still hold membranes that autograd knows."""
    model = nn.Sequential(nn.Linear(9, 4), snn.Leaky(beta=0.5, init_hidden=True))
    model(torch.rand(2, 9))
    assert model[1].mem.grad_fn is not None
    assert read(model, pictures(shape=(9,)), 3).graph.timesteps == 3


def test_a_network_that_keeps_results_cannot_be_copied_and_says_so() -> None:
    model = nn.Linear(3, 2)
    model.kept = model(torch.rand(1, 3))  # type: ignore[assignment]
    with pytest.raises(TraceError, match="keep no results of a forward in its modules"):
        in_float64(model, "mine")


def test_what_counts_as_one_operation() -> None:
    assert is_leaf(nn.Conv2d(1, 1, 1))
    assert is_leaf(snn.Leaky(beta=0.5))
    assert not is_leaf(nn.Sequential(nn.ReLU()))
    assert not is_leaf(Dense())


class Inherited(nn.Conv2d):
    """A convolution with a forward of its own: its function is recorded, weights as they are at that moment."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight - self.weight.mean(), self.bias, self.stride, self.padding)


def test_a_layer_with_a_forward_of_its_own_is_what_it_computes() -> None:
    torch.manual_seed(0)
    found = read(nn.Sequential(Inherited(1, 2, 3), nn.Flatten(), nn.Linear(72, 3)), pictures())
    assert "0 of 0 spikes differ" in found.notes[-1]
