"""Rows of modules to be run as one, and everything that a training step computes of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor, nn

from snnkd_deploy.snn import fused
from snnkd_deploy.snn.fused import Row
from snnkd_deploy.snn.layers import Neuron, Repeat
from snnkd_deploy.snn.lif import LIF, lif_loop
from snnkd_deploy.snn.surrogate import SURROGATES

EQUATIONS = [
    LIF(0.75, 0.8, reset, surrogate, detach)  # type: ignore[arg-type]
    for reset, surrogate, detach in product(("zero", "subtract"), SURROGATES, (True, False))
]
SHAPES = [(6, 16, 8, 8), (3, 5, 7, 9), (2, 1, 5, 4), (5, 70, 3, 2), (2, 2100, 2, 2), (7, 12), (9, 2500), (4, 32, 1, 1)]


def row(shape: tuple[int, ...], neuron: LIF, timesteps: int, *, still: bool = False, pool: bool = False) -> Row:
    generator = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm1d(shape[1]) if len(shape) == 2 else nn.BatchNorm2d(shape[1])
    with torch.no_grad():
        norm.weight.copy_(torch.rand(shape[1], generator=generator) + 0.5)
        norm.bias.copy_(torch.randn(shape[1], generator=generator))
    n = neuron
    fires = Neuron(timesteps, n.decay, n.threshold, n.reset, n.surrogate, n.detach_reset)
    return Row(norm, fires, Repeat(timesteps) if still else None, nn.AvgPool2d(2) if pool else None)


def inputs(shape: tuple[int, ...], steps: int, dtype: torch.dtype = torch.float32, offset: float = 0.7) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(steps * shape[0], *shape[1:], generator=generator) + offset
    return x.to(dtype).contiguous(memory_format=fused.order(x))


def loop(one: Row, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """The modules, and between them the definition of the neuron."""
    assert isinstance(one.neuron, Neuron)
    current = one.norm(x)
    current = current if one.repeat is None else one.repeat(current)
    current = current if residual is None else current + residual
    spikes = lif_loop(current.unflatten(0, (one.neuron.timesteps, -1)), one.neuron.equation).flatten(0, 1)
    return spikes if one.pool is None else one.pool(spikes)  # type: ignore[no-any-return]


def outcome(
    function: Callable[..., Tensor | None], one: Row, x: Tensor, residual: Tensor | None = None
) -> dict[str, Tensor]:
    """All that a step computes, of copies."""
    one = copy.deepcopy(one)
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    more = () if residual is None else (residual.detach().clone().requires_grad_(),)
    spikes = function(one, x, *more)
    assert spikes is not None
    weights = torch.sin(torch.arange(spikes.numel(), dtype=torch.float32)).view(spikes.shape)
    loss = (spikes * weights).sum()
    slopes = torch.autograd.grad(loss, [x, *one.norm.parameters(), *more])
    names = ("by x", "by gain", "by bias", "by residual")
    named = dict(zip(names, slopes, strict=False))
    return {"spikes": spikes.detach(), **named, **dict(one.norm.named_buffers())}


def exact(one: Row, x: Tensor, residual: Tensor | None = None) -> dict[str, Tensor]:
    """What the loop computes in float64: torch's own sums over a channel are less exact than those of the kernel."""
    one = replace(one, norm=copy.deepcopy(one.norm).double())
    return outcome(loop, one, x.double(), *([] if residual is None else [residual.double()]))


def differences(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """By name, the largest difference as a part of the largest value; of the spikes, how many differ."""
    assert found.keys() == expected.keys()
    return {name: _apart(name, found[name].double(), value.double()) for name, value in expected.items()}


def _apart(name: str, found: Tensor, expected: Tensor) -> float:
    if name == "spikes":
        return float((found != expected).sum())
    return float((found - expected).abs().max()) / (float(expected.abs().max()) or 1.0)
