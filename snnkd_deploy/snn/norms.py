"""BatchNorm over the batch of all processes, for both engines; torch's SyncBatchNorm needs a GPU.

With L the sum of the losses of all processes, y = weight * z + bias and z = (x - mean) * invstd over n values:
dL/dx = weight * invstd * (dL/dy - sum(dL/dy) / n - z * sum(dL/dy * z) / n), the sums over all processes
(Ioffe, Szegedy, ICML 2015).
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from snnkd_deploy import cluster
from snnkd_deploy.snn.twins import Function, twin

Norm = nn.BatchNorm1d | nn.BatchNorm2d
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def over_processes(module: ModuleT) -> ModuleT:
    """The module itself, or one whose BatchNorms see the batch of all processes, around the same parameters."""
    same: ModuleT = module if cluster.size() == 1 else twin(module, _global)
    return same


def of_the_batch(module: nn.Module) -> TypeGuard[Norm]:
    """Whether it normalises with the statistics of the batch; with running ones it is affine."""
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and (module.training or module.running_mean is None)


def _global(module: nn.Module) -> Function | None:
    return partial(_normalised, module) if of_the_batch(module) else None


def _normalised(norm: Norm, x: Tensor) -> Tensor:
    _, mean, invstd = measured(norm, x.detach())
    return normalise(norm, x, mean, invstd)


@torch.no_grad()
def measured(norm: Norm, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x (B, C, ...) normalised, its mean and 1 / deviation, (C,) each, over all processes; running statistics move."""
    momentum = counted(norm)
    if cluster.size() == 1:
        return torch.native_batch_norm(
            x, norm.weight, norm.bias, norm.running_mean, norm.running_var, True, momentum, norm.eps
        )
    mean, variance, count = _statistics(x)
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), momentum)
    y = functional.batch_norm(x, mean, variance, norm.weight, norm.bias, eps=norm.eps)
    return y, mean, torch.rsqrt(variance + norm.eps)


def counted(norm: Norm) -> float:
    """Count the batch; returns its share in the running statistics."""
    if norm.num_batches_tracked is None:
        return norm.momentum or 0.0
    norm.num_batches_tracked.add_(1)
    return 1 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and variance (C,) of each channel over all processes, at least in float32, and the number of values."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, axes, correction=0)
    means, variances = cluster.gathered(torch.stack([mean, variance])).unbind(1)
    count = x.numel() // x.shape[1] * cluster.size()
    return means.mean(0), variances.mean(0) + means.var(0, correction=0), count


def normalise(norm: Norm, x: Tensor, mean: Tensor, invstd: Tensor) -> Tensor:
    """BatchNorm of x with these statistics; its gradient is that of BatchNorm over the batch of all processes."""
    y: Tensor = _Normalise.apply(x, norm.weight, norm.bias, mean, invstd, norm.eps)  # type: ignore[no-untyped-call]
    return y


class _Normalise(torch.autograd.Function):
    """In the rate pass the statistics are those of the spike pass, their gradient goes by way of the rates' own.

    Both passes have one mean, as a mean of means is the mean; so the derivative of m + (mean(c) - stopgrad(mean(c)))
    and of the variance likewise is the ordinary one of BatchNorm with the spike pass' statistics put in.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, *statistics: Any) -> Tensor:
        mean, invstd, ctx.eps = statistics
        ctx.save_for_backward(x, weight, mean, invstd)
        return functional.batch_norm(x, mean, invstd**-2 - ctx.eps, weight, bias, eps=ctx.eps)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, mean, invstd = ctx.saved_tensors
        if cluster.size() > 1:
            return *_global_slopes(grad, x, weight, mean, invstd, ctx.eps), None, None, None
        slopes = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, mean, invstd, True, ctx.eps, ctx.needs_input_grad[:3]
        )
        return *slopes, None, None, None


def _global_slopes(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, invstd: Tensor, eps: float
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients by x, and by weight and bias over the values of this process: gradients are averaged later."""
    gain = torch.ones_like(mean) if weight is None else weight
    slope, by_gain, by_bias = torch.ops.aten.native_batch_norm_backward(
        grad, x, gain, mean, invstd**-2 - eps, None, None, False, eps, (True, True, True)
    )
    count = x.numel() // x.shape[1] * cluster.size()
    sums = cluster.total(torch.stack([by_gain, by_bias])) / count
    along = gain * invstd**2 * sums[0]
    level = gain * invstd * sums[1] - along * mean
    along, level = (value.view(-1, *[1] * (x.ndim - 2)) for value in (along, level))
    slope = (slope - torch.addcmul(level, x, along)).to(x.dtype)
    return slope, None if weight is None else by_gain, None if weight is None else by_bias
