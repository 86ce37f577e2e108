"""BatchNorm over processes is BatchNorm over their batches put together; real processes are in test_launch.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from snnkd_deploy import cluster
from snnkd_deploy.cluster import Process
from snnkd_deploy.snn.norms import over_processes


def test_one_process_has_the_module_itself() -> None:
    norm = nn.BatchNorm2d(3)
    assert over_processes(norm) is norm


@pytest.fixture
def two_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the first of two processes of which the other has the same images."""
    monkeypatch.setattr(cluster, "gathered", lambda tensor: torch.stack([tensor, tensor]))
    monkeypatch.setattr(cluster, "total", lambda tensor: 2 * tensor)


def gradients(module: nn.Module, norm: nn.Module, x: Tensor) -> list[Tensor]:
    """Outputs, and the gradients by x and by the parameters of `norm`, of a loss that is alike in both halves."""
    x = x.clone().requires_grad_()
    y = module(x)
    weights = torch.sin(torch.arange(len(y)) % 5).view(-1, *[1] * (y.ndim - 1))
    return [y.detach(), *torch.autograd.grad((y**2 * weights).sum(), [x, *norm.parameters()])]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2, 4)], ids=str)
@pytest.mark.usefixtures("two_alike")
def test_two_halves_are_one_batch(shape: tuple[int, ...], momentum: float | None, affine: bool) -> None:
    torch.manual_seed(0)
    kind = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    whole, half = (kind(3, momentum=momentum, affine=affine).double() for _ in range(2))
    x = 3 * torch.randn(shape, dtype=torch.float64) + 50
    expected = gradients(whole, whole, torch.cat([x, x]))
    with cluster.taking_part(Process(0, 2)):
        found = gradients(over_processes(half), half, x)
    torch.testing.assert_close(found[:2], [one[:5] for one in expected[:2]])
    torch.testing.assert_close([2 * one for one in found[2:]], expected[2:])
    torch.testing.assert_close(dict(half.named_buffers()), dict(whole.named_buffers()))


@pytest.mark.usefixtures("two_alike")
def test_statistics_of_bfloat16_are_float32() -> None:
    norm, x = nn.BatchNorm2d(2), torch.randn(4, 2, 3, 3).bfloat16().requires_grad_()
    with cluster.taking_part(Process(0, 2)):
        y = over_processes(norm)(x)
        y.float().square().sum().backward()
    assert norm.running_var is not None
    assert (y.dtype, norm.running_var.dtype) == (torch.bfloat16, torch.float32)
    assert x.grad is not None
    torch.testing.assert_close(norm.running_mean, 0.1 * x.detach().float().mean((0, 2, 3)))
