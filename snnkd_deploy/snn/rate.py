"""Rate-based backpropagation: one pass that spikes without a gradient, one pass of mean rates that carries it.

Yu, Liu, Wang, Li, Wang, "Advancing training efficiency of deep SNNs through rate-based backpropagation", NeurIPS 2024
(arXiv 2410.11488). Memory and time of the backward pass do not depend on the number of steps T. The authors' factor
1 / T before the gradient is left out: it only lowers the learning rate. At T = 1 the gradient is that of
backpropagation through time.

A pass runs the student's own forward through a twin of it: the same parameters and buffers, with functions in the place
of the modules that know time or keep statistics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn import doors, fused
from snnkd_deploy.snn.fused import Row
from snnkd_deploy.snn.layers import Frames, MeanFrame, Neuron, Repeat, TimeMean
from snnkd_deploy.snn.lif import CACHED, LIF, wide_type
from snnkd_deploy.snn.models import Network, Outputs
from snnkd_deploy.snn.norms import Norm, measured, normalise, of_the_batch
from snnkd_deploy.snn.surrogate import surrogate
from snnkd_deploy.snn.transformer import Attention
from snnkd_deploy.snn.twins import Function, twin

Records = dict[nn.Module, tuple[Tensor, ...]]  # what the spike pass leaves for the rate pass, by module

TOLERANCE = 0.02  # of the largest logit; rounding, bfloat16 included, stays below
DRAWS = "draws another mask in each of the two passes; leave it out"
PRODUCT = "the product of mean rates is not the mean of the products of spikes"
MAXIMUM = "the maximum of mean rates is not the mean of the maxima; use average pooling or a stride"
REFUSED: dict[type[nn.Module], str] = {
    Attention: PRODUCT,
    nn.MaxPool1d: MAXIMUM,
    nn.MaxPool2d: MAXIMUM,
    nn.AdaptiveMaxPool1d: MAXIMUM,
    nn.AdaptiveMaxPool2d: MAXIMUM,
    nn.Dropout: DRAWS,
    nn.Dropout1d: DRAWS,
    nn.Dropout2d: DRAWS,
    nn.AlphaDropout: DRAWS,
    nn.SyncBatchNorm: "its statistics over processes do not reach the rate pass; use BatchNorm2d, which has them too",
}


def check(student: nn.Module) -> None:
    """ConfigError with every module through which mean rates do not give mean logits."""
    problems = [
        f"  - {name} ({type(module).__name__}): {REFUSED[type(module)]}"
        for name, module in student.named_modules()
        if type(module) in REFUSED and getattr(module, "p", 1) > 0  # p: of Dropout
    ]
    if problems:
        raise ConfigError("\n".join(["engine 'rate' cannot train this student; use engine bptt:", *problems]))


def rate(student: Network, images: Tensor) -> Outputs:
    """Outputs in the rate domain: equal in value to the means over time of the spike pass.

    `steps` are the mean logits as one step, (1, B, classes). Running statistics move once, in the spike pass.
    ConfigError if the logits of the passes differ, that is if something between two neurons is not affine.
    """
    check(student)
    records: Records = {}
    with torch.no_grad():
        spiking: Tensor = twin(student, partial(_in_spike_pass, records))(images)
    rated = twin(student, partial(_in_rate_pass, records))
    rated.timesteps = 1
    outputs: Outputs = rated.outputs(images)
    _compare(outputs.logits.detach(), student.worth * spiking)
    return outputs


def sensitivity(current: Tensor, neuron: LIF, decay: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Spikes (T, B, ...) of the current (T, B, ...), and the derivatives of their mean over time, (B, ...) each.

    The first derivative is the eligibility E of the paper: by a constant added to the current at every step. The
    second, not in the paper but found in the same way, is by a learned `decay`. Both are those of the surrogate.
    """
    spikes, by_current = torch.empty_like(current), torch.empty_like(current[0], dtype=wide_type(current))
    by_decay = None if decay is None else torch.empty_like(by_current)
    size = max(1, CACHED * current.shape[1] // max(1, current.numel()))
    for start in range(0, current.shape[1], size):
        rows = slice(start, start + size)
        slopes = _sweep(current[:, rows], neuron, decay, spikes[:, rows])
        by_current[rows] = slopes[0]
        if by_decay is not None:
            by_decay[rows] = slopes[1]
    return spikes, by_current, by_decay


def _sweep(current: Tensor, neuron: LIF, decay: Tensor | None, spikes: Tensor) -> list[Tensor]:
    """Fill `spikes` step by step, the tangents of v beside them; returns the derivatives of the mean.

    h is the membrane ahead of the reset, v behind it, g the surrogate of h - threshold. With f[t] = dh[t]/dc as in the
    paper, f[t + 1] = 1 + decay * f[t] * dv/dh, and E is the mean of f[t] * g[t]. For c the decay, v[t] replaces the 1.
    """
    kept, slope = neuron.decay if decay is None else decay, surrogate(neuron.surrogate)
    v = torch.zeros_like(current[0], dtype=wide_type(current))
    tangents = [torch.zeros_like(v) for _ in range(1 if decay is None else 2)]
    sums = [torch.zeros_like(v) for _ in tangents]
    for x, s in zip(current, spikes, strict=True):
        sources: list[Any] = [1.0] if decay is None else [1.0, v.clone()]
        h = v.mul_(kept).add_(x)
        torch.gt(h, neuron.threshold, out=s)
        g = slope(h - neuron.threshold)
        left = _left(h, s, g, neuron)
        for tangent, source, total in zip(tangents, sources, sums, strict=True):
            total.addcmul_(tangent.mul_(kept).add_(source), g, value=1 / len(current))
            tangent.mul_(left)
        v = h.addcmul_(h, s, value=-1) if neuron.reset == "zero" else h.sub_(s, alpha=neuron.threshold)
    return sums


def _left(h: Tensor, s: Tensor, g: Tensor, neuron: LIF) -> Tensor | float:
    """dv/dh through the reset, where ds/dh is g, or 0 if the reset is detached."""
    if neuron.reset == "zero":
        return 1 - s if neuron.detach_reset else (1 - s).addcmul_(h, g, value=-1)
    return 1.0 if neuron.detach_reset else 1 - neuron.threshold * g


class _Rate(torch.autograd.Function):
    """r + (c E - stopgrad(c E)): the value r of the spike pass, the derivative E by the current c."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, decay: Tensor | None, rates: Tensor, *slopes: Tensor | None) -> Tensor:
        ctx.save_for_backward(*slopes)
        ctx.shape = None if decay is None else decay.shape
        return rates.view_as(current)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        by_current, by_decay = ctx.saved_tensors
        slope = None if by_decay is None else (grad * by_decay).sum_to_size(ctx.shape)
        return grad * by_current, slope, None, None, None


class _FusedRate(torch.autograd.Function):
    """`_Rate` behind `normalise` and a shortcut's current, with a pool behind it, as one; the kernel goes back."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shortcut: Tensor | None, gain: Tensor | None, bias: Tensor | None, *more: Any
    ) -> Tensor:
        mean, invstd, rates, slopes, spec = more
        ctx.save_for_backward(x, gain, bias, mean, invstd, slopes)
        ctx.spec, ctx.shortcut = spec, shortcut is not None
        return cast("Tensor", rates.view_as(rates))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, gain, bias, mean, invstd, slopes = ctx.saved_tensors
        given = fused.job(replace(ctx.spec, timesteps=1, still=False), x, None, gain, bias, mean, invstd)
        by_x, by_shortcut, by_gain, by_bias = fused.descend(given, grad, x if ctx.shortcut else None, slopes)
        affine = None if gain is None else by_gain, None if bias is None else by_bias
        return by_x, by_shortcut, *affine, None, None, None, None, None


@dataclass(frozen=True, eq=False)
class _Measured:
    """BatchNorm in the spike pass; keeps the mean and 1 / deviation, (C,) each."""

    records: Records
    norm: Norm

    def __call__(self, x: Tensor) -> Tensor:
        y, mean, invstd = measured(self.norm, x)
        _keep(self.records, self.norm, mean, invstd)
        return y

    def joined(self, row: Row, x: Tensor, shortcut: Tensor | None) -> Tensor | None:
        """Norm, neurons and pool in one, where the kernel can: then all records are the norm's."""
        if not fused.usable(row, x, shortcut):
            return None
        mean, invstd = fused.measured(self.norm, x)
        spec = row.spec()
        shortcut = None if shortcut is None else shortcut.contiguous(memory_format=fused.order(x))
        given = fused.job(spec, x, shortcut, self.norm.weight, self.norm.bias, mean, invstd)
        once = 1 if spec.still else 1 / spec.timesteps
        spikes, rates = fused.behind(x, spec, spec.timesteps if spec.still else 1), fused.behind(x, spec, once)
        slopes = fused.behind(x, replace(spec, pool=False), once)
        doors.needed(x).forward(given, spikes, rates, slopes)
        _keep(self.records, self.norm, mean, invstd, rates, slopes)
        _keep(self.records, row.neuron)
        return spikes


@dataclass(frozen=True, eq=False)
class _Normalised:
    """BatchNorm in the rate pass."""

    records: Records
    norm: Norm

    def __call__(self, x: Tensor) -> Tensor:
        return normalise(self.norm, x, *self.records.pop(self.norm))

    def joined(self, row: Row, x: Tensor, shortcut: Tensor | None) -> Tensor | None:
        """The same modules in one as in the spike pass."""
        if self.records[row.neuron]:
            return None
        del self.records[row.neuron]
        norm, record = self.norm, self.records.pop(self.norm)
        x = x.contiguous(memory_format=fused.order(x))
        rates: Tensor = _FusedRate.apply(x, shortcut, norm.weight, norm.bias, *record, row.spec())  # type: ignore[no-untyped-call]
        return rates


def _in_spike_pass(records: Records, module: nn.Module) -> Function | None:
    if isinstance(module, Neuron):
        return partial(_spike, records, module)
    return _Measured(records, module) if of_the_batch(module) else None


def _in_rate_pass(records: Records, module: nn.Module) -> Function | None:
    if isinstance(module, Neuron):
        return partial(_rate, records, module)
    if isinstance(module, Frames):
        return MeanFrame(module.timesteps)
    if isinstance(module, Repeat | TimeMean):
        return nn.Identity()
    return _Normalised(records, module) if of_the_batch(module) else None


def _spike(records: Records, neuron: Neuron, current: Tensor) -> Tensor:
    spikes, *slopes = sensitivity(*neuron.folded(current))
    rates = torch.empty_like(spikes[0], dtype=wide_type(spikes))
    torch.mean(spikes, 0, dtype=rates.dtype, out=rates)  # `out` keeps channels_last, mean alone does not
    _keep(records, neuron, rates, *slopes)
    return spikes.flatten(0, 1)


def _rate(records: Records, neuron: Neuron, current: Tensor) -> Tensor:
    decay = neuron.decay_along(current)
    rates: Tensor = _Rate.apply(neuron.taken(current), decay, *records.pop(neuron))  # type: ignore[no-untyped-call]
    return rates


def _keep(records: Records, module: nn.Module, *tensors: Any) -> None:
    if module in records:
        raise ConfigError(f"engine 'rate': {module} is used twice; give each use a module of its own")
    records[module] = tensors


def _compare(rates: Tensor, spikes: Tensor) -> None:
    """ConfigError unless the logits of both passes are equal, but for rounding; NaN is left to the training loop."""
    difference, size = float((rates - spikes).abs().max()), float(spikes.abs().max())
    if difference > TOLERANCE * size:
        raise ConfigError(
            f"engine 'rate': mean rates give other logits than spikes, by {difference:.2g} of {size:.2g}; "
            "only affine operations may stand between neurons; use engine bptt"
        )
