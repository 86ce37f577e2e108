"""A checkpoint brings back the very bits, and anything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from snnkd_deploy import checkpoint
from snnkd_deploy.errors import RunError
from snnkd_deploy.snn.models import channels_last


def network() -> nn.Module:
    torch.manual_seed(0)
    return channels_last(nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 1)))


def optimizer(kind: str, trained: nn.Module) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(trained.parameters(), lr=0.1, momentum=0.9)
    return torch.optim.AdamW(trained.parameters(), lr=0.1)


def step(trained: nn.Module, by: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    by.zero_grad()
    trained(channels_last_batch()).square().mean().backward()
    by.step()


def channels_last_batch() -> torch.Tensor:
    return torch.rand(4, 3, 6, 6).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_step_after_a_restore_gives_the_same_bits(kind: str, tmp_path: Path) -> None:
    one, other = network(), network()
    one_by, other_by = optimizer(kind, one), optimizer(kind, other)
    for seed in range(3):
        step(one, one_by, seed)
    checkpoint.save(tmp_path / "c", one, one_by, [{"epoch": 1, "loss": 0.5}])
    checkpoint.restore(tmp_path / "c", other, other_by)
    for trained, by in ((one, one_by), (other, other_by)):
        step(trained, by, 9)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
        assert tensor.stride() == other.state_dict()[name].stride()
    assert checkpoint.rows(tmp_path / "c") == [{"epoch": 1, "loss": 0.5}]


def test_no_checkpoint_means_no_epoch_done(tmp_path: Path) -> None:
    assert checkpoint.rows(tmp_path / "none") == []


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    path, trained = tmp_path / "c", network()
    path.write_bytes(b"no tensors here")
    with pytest.raises(RunError, match="cannot resume from"):
        checkpoint.rows(path)
    with pytest.raises(RunError, match="cannot resume from"):
        checkpoint.restore(path, trained, optimizer("sgd", trained))
    other = nn.Linear(2, 2)
    checkpoint.save(path, other, optimizer("sgd", other), [])
    with pytest.raises(RunError, match="cannot resume from"):
        checkpoint.restore(path, trained, optimizer("sgd", trained))
    checkpoint.write_weights(path, other)
    with pytest.raises(RunError, match="cannot resume from"):
        checkpoint.rows(path)
