"""Blocks in a row: what runs once, what a method gets to see."""

from __future__ import annotations

import pytest
import torch

from snnkd_deploy.snn.models import MODELS
from tests.snn.test_models import small


def test_the_first_convolution_runs_once_for_all_steps() -> None:
    network, seen = small("cnn"), []
    conv = network.get_submodule("blocks.0.conv")
    conv.register_forward_hook(lambda *called: seen.append(len(called[-1])))
    network(torch.rand(3, 1, 8, 8))
    assert seen == [3]


@pytest.mark.parametrize("model", MODELS)
def test_membranes_are_those_of_each_block_s_last_neurons(model: str) -> None:
    network, images = small(model).train(), torch.rand(3, 1, 8, 8)
    found, plain = network.outputs(images, membranes=True), network.outputs(images)
    assert torch.equal(found.steps, plain.steps)
    assert len(found.membranes) == len(network.blocks)
    assert [one.shape[:2] for one in found.membranes] == [tap.shape[:2] for tap in plain.taps]
    assert not any(module._forward_hooks for module in network.modules())
    parameters = list(network.blocks.parameters())
    slopes = torch.autograd.grad(sum(one.square().mean() for one in found.membranes), parameters)  # type: ignore[arg-type]
    assert all(slope.abs().max() > 0 for slope in slopes)
