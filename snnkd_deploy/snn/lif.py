"""The leaky integrate-and-fire neuron: the loop that defines it, and one fused function equal to the loop.

Currents may be bfloat16: spikes are too, which hold 0 and 1 exactly; membranes and what flows back are float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn.surrogate import surrogate

Reset = Literal["zero", "subtract"]
CACHED = 1 << 20  # values over all steps that the backward pass works on at once: a few MiB, which stay in the cache


def wide_type(x: Tensor) -> torch.dtype:
    """In which membranes, means and losses of x are computed: its own type, but at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def wide(x: Tensor) -> Tensor:
    """x itself, or in float32 if it is narrower."""
    return x.to(wide_type(x))


@dataclass(frozen=True)
class LIF:
    """v = decay * v + x;  s = v > threshold;  then v = 0 where s ("zero"), or v -= threshold * s ("subtract").

    `surrogate` names what stands for ds/dv; with `detach_reset` no gradient flows through the reset. Both are for
    training only: they never change a spike.
    """

    decay: float = 0.5
    threshold: float = 1.0
    reset: Reset = "zero"
    surrogate: str = "atan"
    detach_reset: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ConfigError(f"decay {self.decay}: a number above 0 and at most 1 is needed")
        if not self.threshold > 0:
            raise ConfigError(f"threshold {self.threshold}: a number above 0 is needed")
        if self.reset not in ("zero", "subtract"):
            raise ConfigError(f"reset {self.reset!r}: accepted are zero, subtract")
        surrogate(self.surrogate)


class _Spike(torch.autograd.Function):
    """1 where x > 0; its derivative is the surrogate, itself an ordinary differentiable function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate(name)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * ctx.surrogate(x), None


def spike(x: Tensor, name: str) -> Tensor:
    """1 where x = v - threshold is above zero, else 0; `name` is the surrogate of the backward pass."""
    spikes: Tensor = _Spike.apply(x, name)  # type: ignore[no-untyped-call]
    return spikes


def lif_loop(current: Tensor, neuron: LIF, decay: Tensor | None = None) -> Tensor:
    """Spikes (T, B, ...) of the input current (T, B, ...), step by step under autograd: the definition.

    A learned `decay` stands in for that of the neuron; its shape is one that broadcasts to a step (B, ...).
    """
    return lif_states(current, neuron, decay)[0]


def lif_states(current: Tensor, neuron: LIF, decay: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Spikes, and the membrane before each reset, both (T, B, ...), of the input current (T, B, ...)."""
    kept = neuron.decay if decay is None else decay
    v, train, membranes = torch.zeros_like(current[0], dtype=wide_type(current)), [], []
    for x in current:
        v = kept * v + x
        membranes.append(v)
        s = spike(v - neuron.threshold, neuron.surrogate)
        train.append(s)
        fired = s.detach() if neuron.detach_reset else s
        v = v - fired * (v if neuron.reset == "zero" else neuron.threshold)
    return torch.stack(train).to(current.dtype), torch.stack(membranes)


def lif(current: Tensor, neuron: LIF, decay: Tensor | None = None) -> Tensor:
    """The same as `lif_loop` as one function: keeps only its inputs for the backward pass, differentiable twice."""
    spikes: Tensor = _Fused.apply(current, decay, neuron)  # type: ignore[no-untyped-call]
    return spikes


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, decay: Tensor | None, neuron: LIF) -> Tensor:
        ctx.save_for_backward(current, decay)
        ctx.neuron = neuron
        return _run(current, neuron, neuron.decay if decay is None else decay)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:  # type: ignore[override]
        current, decay = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return *_gradient(current, grad, ctx.neuron, decay), None
        inputs = [current] if decay is None else [current, decay]  # create_graph: the derivative must have its own
        slopes = torch.autograd.grad(lif_loop(current, ctx.neuron, decay), inputs, grad, create_graph=True)
        return slopes[0], None if decay is None else slopes[1], None


def _run(current: Tensor, neuron: LIF, decay: float | Tensor, before: Tensor | None = None) -> Tensor:
    """Spikes (T, ...) in the memory order of `current`; into `before` (T, ...) goes the membrane before each reset."""
    spikes, v = torch.empty_like(current), torch.zeros_like(current[0], dtype=wide_type(current))
    for t, x in enumerate(current):
        h = v.mul_(decay).add_(x) if before is None else torch.add(v.mul_(decay), x, out=before[t])
        s = torch.gt(h, neuron.threshold, out=spikes[t])
        if neuron.reset == "zero":
            torch.addcmul(h, h, s, value=-1, out=v)
        else:
            torch.sub(h, s, alpha=neuron.threshold, out=v)
    return spikes


def _gradient(current: Tensor, grad: Tensor, neuron: LIF, decay: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """dL/d(current) (T, B, ...) and dL/d(decay) from dL/d(spikes) (T, B, ...), for a part of the batch at a time."""
    result = torch.empty_like(current, dtype=wide_type(current))
    slope = None if decay is None else torch.zeros_like(decay)
    size = max(1, CACHED * current.shape[1] // max(1, current.numel()))
    for part, x, g in zip(result.split(size, 1), current.split(size, 1), grad.split(size, 1), strict=True):
        before, spikes = _sweep_back(x, g, neuron, neuron.decay if decay is None else decay, part)
        if slope is not None:
            left = before - spikes * (before if neuron.reset == "zero" else neuron.threshold)
            slope += (part[1:] * left[:-1]).sum_to_size(slope.shape)  # dh[t]/d(decay) is what step t - 1 left
    return result, slope


def _sweep_back(
    current: Tensor, grad: Tensor, neuron: LIF, decay: float | Tensor, result: Tensor
) -> tuple[Tensor, Tensor]:
    """Fill `result` with dL/d(current) from dL/d(spikes), last step first; returns h and s. All are (T, B, ...).

    `after` is dL/dv behind the reset of step t. With h the membrane ahead of it and f the surrogate of h - threshold:
    dL/dh = (dL/ds + after * dv/ds) * f + after * dv/dh, where dv/ds is -h ("zero"), -threshold ("subtract") or 0
    (detached), and dv/dh is 1 - s ("zero") or 1.
    """
    slope, zero = surrogate(neuron.surrogate), neuron.reset == "zero"
    before = torch.empty_like(result)
    spikes = _run(current, neuron, decay, before)
    after = torch.zeros_like(result[0])
    for t in reversed(range(len(current))):
        h, g = before[t], grad[t]
        if not neuron.detach_reset:
            g = torch.addcmul(g, after, h, value=-1) if zero else g - neuron.threshold * after
        if zero:
            after.addcmul_(after, spikes[t], value=-1)
        torch.addcmul(after, g, slope(h - neuron.threshold), out=result[t])
        torch.mul(result[t], decay, out=after)
    return before, spikes
