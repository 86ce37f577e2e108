"""BatchNorm, a shortcut's current, neurons and a 2x2 average pool as one function, where the native kernel can do it.

It keeps its input, and means and deviations of the channels; plain torch keeps that and every value in between. Where
the kernel cannot (in evaluation, with a learned decay, with hooks on one of the modules, with more than one process, in
another order of memory, without a compiler) the modules run one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import _has_any_global_hook

from snnkd_deploy import cluster
from snnkd_deploy.snn import doors
from snnkd_deploy.snn.job import TYPES, Gradients, Job
from snnkd_deploy.snn.layers import Neuron, Repeat
from snnkd_deploy.snn.lif import LIF, lif_loop
from snnkd_deploy.snn.norms import Norm, counted, of_the_batch
from snnkd_deploy.snn.twins import As, original

RANKS: dict[type[nn.Module], int] = {nn.BatchNorm1d: 2, nn.BatchNorm2d: 4}


@dataclass(frozen=True)
class Row:
    """Modules that stand in a row, to be run as one."""

    norm: nn.Module
    neuron: nn.Module
    repeat: nn.Module | None = None  # between the two: what the norm sees is the same at every step
    pool: nn.Module | None = None

    def __iter__(self) -> Iterator[nn.Module]:
        return (one for one in (self.norm, self.repeat, self.neuron, self.pool) if one is not None)

    def originals(self) -> Row:
        """The same of the modules that functions stand for."""
        norm, neuron, repeat, pool = (one and original(one) for one in (self.norm, self.neuron, self.repeat, self.pool))
        assert norm is not None
        assert neuron is not None
        return Row(norm, neuron, repeat, pool)

    def spec(self) -> Spec:
        """What the modules compute."""
        assert isinstance(self.neuron, Neuron)
        eps = float(self.norm.eps)  # type: ignore[arg-type]
        steps = self.neuron.timesteps
        return Spec(self.neuron.equation, steps, eps, self.repeat is not None, self.pool is not None)


@dataclass(frozen=True)
class Spec:
    """What is computed, without the tensors."""

    neuron: LIF
    timesteps: int
    eps: float
    still: bool
    pool: bool

    def plain(self, x: Tensor, residual: Tensor | None, gain: Tensor | None, bias: Tensor | None) -> Tensor:
        """The definition: the same in plain torch, under autograd."""
        current = functional.batch_norm(x, None, None, gain, bias, True, 0.0, self.eps)
        current = torch.cat([current] * self.timesteps) if self.still else current
        current = current if residual is None else current + residual
        spikes = lif_loop(current.unflatten(0, (self.timesteps, -1)), self.neuron).flatten(0, 1)
        return functional.avg_pool2d(spikes, 2) if self.pool else spikes


def in_a_row(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """What the layers make of x, one after the other, but for rows that can be run as one."""
    place = 0
    while place < len(layers):
        row = _row(layers, place)
        done = None if row is None else as_one(row, x)
        if row is not None and done is not None:
            x, place = done, place + len(list(row))
        else:
            x, place = layers[place](x), place + 1
    return x


def spiking(norm: nn.Module, neuron: nn.Module, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """Spikes of norm(x), or of norm(x) + shortcut."""
    done = as_one(Row(norm, neuron), x, shortcut)
    if done is None:
        current = norm(x)
        done = neuron(current if shortcut is None else current + shortcut)
    return done


def as_one(row: Row, x: Tensor, residual: Tensor | None = None) -> Tensor | None:
    """Spikes, pooled where there is a pool, of norm(x) + residual; None where the modules must be called themselves.

    In a twin the functions that stand for the modules decide: the first has a method `joined`, or it is None.
    """
    if isinstance(row.norm, As):
        joined = getattr(row.norm.function, "joined", None)
        done: Tensor | None = joined and joined(row.originals(), x, residual)
        return done
    if not usable(row, x, residual):
        return None
    norm = row.norm
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    mean, invstd = measured(norm, x)
    spikes: Tensor = _FusedRow.apply(x, residual, norm.weight, norm.bias, mean, invstd, row.spec())  # type: ignore[no-untyped-call]
    return spikes


def usable(row: Row, x: Tensor, residual: Tensor | None = None) -> bool:
    """Whether the kernel can run these modules on this tensor, and nobody would miss what is between them."""
    norm, neuron = row.norm, row.neuron
    if not (type(neuron) is Neuron and RANKS.get(type(norm)) and of_the_batch(norm) and fits(norm, x, residual)):
        return False
    door = doors.of(x)
    if neuron.decay_logit is not None or door is None or not door.knows(neuron.equation, neuron.timesteps):
        return False
    if x.shape[0] % neuron.timesteps if row.repeat is None else row.repeat.timesteps != neuron.timesteps:
        return False
    return _unwatched(row) and _poolable(row.pool, x) and cluster.size() == 1 and door.available()


def fits(norm: Norm, x: Tensor, residual: Tensor | None = None) -> bool:
    """Whether the tensors lie in memory as the kernel reads them."""
    if type(x) is not Tensor or x.dtype not in TYPES or torch.compiler.is_compiling():
        return False
    if x.ndim != RANKS[type(norm)] or x.numel() <= x.shape[1] or x.shape[1] != norm.num_features or not ordered(x):
        return False
    own = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    if any(one is not None and (one.dtype, one.device) != (torch.float32, x.device) for one in own):
        return False
    if residual is None:
        return True
    return type(residual) is Tensor and (residual.dtype, residual.device) == (x.dtype, x.device)


def ordered(x: Tensor) -> bool:
    """Whether the channels of a position stand side by side."""
    return x.is_contiguous(memory_format=order(x))


def order(x: Tensor) -> torch.memory_format:
    """The order of memory that the kernel reads, for a tensor of this rank."""
    return torch.channels_last if x.ndim == 4 else torch.contiguous_format


@torch.no_grad()
def measured(norm: Norm, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and 1 / deviation (C,) of x over the batch; running statistics move as torch moves them."""
    momentum, count = counted(norm), x.numel() // x.shape[1]
    mean, variance = doors.needed(x).statistics(x)
    if norm.running_mean is not None and norm.running_var is not None:
        # by `data`, since torch's BatchNorm, too, moves them unseen: another pass may have kept them for its backward
        norm.running_mean.data.lerp_(mean, momentum)
        norm.running_var.data.lerp_(variance * (count / (count - 1)), momentum)
    return mean, torch.rsqrt(variance + norm.eps)


class _FusedRow(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor | None, gain: Tensor | None, bias: Tensor | None, *more: Any
    ) -> Tensor:
        mean, invstd, spec = more
        residual = None if residual is None else residual.contiguous(memory_format=order(x))
        ctx.save_for_backward(x, residual, gain, bias, mean, invstd)
        ctx.spec = spec
        spikes = behind(x, spec, spec.timesteps if spec.still else 1)
        doors.needed(x).forward(job(spec, x, residual, gain, bias, mean, invstd), spikes)
        return spikes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, residual, gain, bias, mean, invstd = ctx.saved_tensors
        spec: Spec = ctx.spec
        if torch.is_grad_enabled():  # create_graph: the derivative must have its own
            return *_differentiable(spec, (x, residual, gain, bias), grad, ctx.needs_input_grad), None, None, None
        given = job(spec, x, residual, gain, bias, mean, invstd)
        by_x, by_residual, by_gain, by_bias = descend(given, grad, residual)
        affine = None if gain is None else by_gain, None if bias is None else by_bias
        return by_x, by_residual, *affine, None, None, None


def job(
    spec: Spec,
    x: Tensor,
    residual: Tensor | None,
    gain: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    invstd: Tensor,
) -> Job:
    """This computation as a kernel is told it, but for its results."""
    tensors = {"x": x, "residual": residual, "gain": gain, "bias": bias, "mean": mean, "invstd": invstd}
    return Job(neuron=spec.neuron, timesteps=spec.timesteps, still=spec.still, pool=spec.pool, **tensors)  # type: ignore[arg-type]


def behind(x: Tensor, spec: Spec, times: float = 1) -> Tensor:
    """Memory for what comes out, `times` as many samples as x has."""
    height_width = [size // 2 for size in x.shape[2:]] if spec.pool else x.shape[2:]
    shape = (round(x.shape[0] * times), x.shape[1], *height_width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=order(x))


def descend(
    given: Job, grad: Tensor, residual: Tensor | None, slopes: Tensor | None = None
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Gradients by x, the residual current (if there is one), gain and bias, from that by the result."""
    x = given.x
    grad = grad.to(x.dtype).contiguous(memory_format=order(x))
    by_x = torch.empty_like(x, memory_format=order(x))
    by_residual = None if residual is None else torch.empty_like(residual, memory_format=order(x))
    by_gain, by_bias = torch.empty(2, x.shape[1], device=x.device).unbind()
    by_current = by_x if by_residual is None else by_residual
    into = Gradients(by_current=by_current, by_x=by_x, by_gain=by_gain, by_bias=by_bias)
    doors.needed(x).backward(given, grad, into, slopes)
    return by_x, by_residual, by_gain, by_bias


def _differentiable(
    spec: Spec, inputs: tuple[Tensor | None, ...], grad: Tensor, needed: Sequence[bool]
) -> list[Tensor | None]:
    asked = [one for one, need in zip(inputs, needed, strict=False) if need and one is not None]
    found = iter(torch.autograd.grad(spec.plain(*inputs), asked, grad, create_graph=True))  # type: ignore[arg-type]
    return [next(found) if need and one is not None else None for one, need in zip(inputs, needed, strict=False)]


def _row(layers: Sequence[nn.Module], place: int) -> Row | None:
    """The row that begins here, if one does."""
    norm, *rest = layers[place : place + 4]
    if type(original(norm)) not in RANKS:
        return None
    repeat = rest.pop(0) if rest and isinstance(original(rest[0]), Repeat) else None
    if not rest or not isinstance(original(rest[0]), Neuron):
        return None
    neuron = rest.pop(0)
    pool = rest[0] if rest and isinstance(rest[0], nn.AvgPool2d) and _halves(rest[0]) else None
    return Row(norm, neuron, repeat, pool)


def _halves(pool: nn.AvgPool2d) -> bool:
    """Whether it is a 2x2 pool as the networks here have it."""
    sizes = [
        (one, one) if isinstance(one, int) else tuple(one) for one in (pool.kernel_size, pool.stride, pool.padding)
    ]
    return sizes == [(2, 2), (2, 2), (0, 0)] and not pool.ceil_mode and pool.divisor_override is None


def _poolable(pool: nn.Module | None, x: Tensor) -> bool:
    return pool is None or (x.ndim == 4 and min(x.shape[2:]) >= 2)


def _unwatched(row: Row) -> bool:
    """Whether nothing looks at what the modules are given or give."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return not _has_any_global_hook() and not any(getattr(one, kind) for one in row for kind in kinds)
