"""The kernel of a training step on a GPU, where Triton is there, which comes along with torch's builds for GPUs.

`SNNKD_KERNEL=0` turns it off, as it does `kernel`, its twin on the CPU. What it computes has been compared with plain
torch in Triton's interpreter, which runs on a CPU, and it compiles for GPUs; on a GPU it has not run yet. Hence the
trial at first use, without which it stays off.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from snnkd_deploy.snn import kernel
from snnkd_deploy.snn.job import Gradients, Job
from snnkd_deploy.snn.lif import LIF, lif_loop

LOG = logging.getLogger(__name__)
MOST_STEPS = 16
"""The membranes of all steps stay in registers."""
TILE, BROADEST, KEPT = 1024, 64, 2048
"""Values of one step that a program works on, their channels at most, and values of all steps that it keeps at most."""
CLOSE = 1e-4
"""How far off a trial may be: rounding, not another result."""
OPTIONS = {"enable_fp_fusion": False}
"""The backward pass finds the membranes of the forward pass again, to the last bit, whatever else it computes."""


def available() -> bool:
    """Whether the environment leaves the kernel on, and a small job comes out of it as it does of plain torch."""
    return kernel.wanted() and _works()


def knows(neuron: LIF, timesteps: int) -> bool:
    """Whether the kernel has this neuron's surrogate, and room for so many steps."""
    return kernel.knows(neuron) and timesteps <= MOST_STEPS


@cache
def _works() -> bool:
    """The second of these, asked once; a warning in the log says why not, but for a Triton that is not there."""
    if find_spec("triton") is None:
        return False
    reason: object = "it computes something else"
    try:
        if trial("cuda" if torch.cuda.is_available() else "cpu") < CLOSE:
            return True
    except Exception as error:  # noqa: BLE001  (Triton, its compilers and the driver have no error in common)
        reason = error
    LOG.warning("no Triton kernel here, plain torch computes the same: %s", reason)
    return False


@torch.enable_grad()
def trial(device: str) -> float:
    """The largest difference of a small job from plain torch, in spikes and in their gradient."""
    neuron, grad = LIF(0.5, 1.0, "subtract", "sigmoid", False), torch.arange(24.0, device=device).view(4, 6, 1, 1).sin()
    x = torch.arange(384.0, device=device).mul(7).sin().view(4, 6, 4, 4).contiguous(memory_format=torch.channels_last)
    x = x.mul(2).requires_grad_()
    current = functional.batch_norm(x, None, None, training=True)
    expected = functional.avg_pool2d(lif_loop(current.unflatten(0, (2, 2)), neuron).flatten(0, 1), 2)
    grad = grad.expand_as(expected).contiguous(memory_format=torch.channels_last)
    by_expected = torch.autograd.grad(expected, x, grad)[0]

    x, expected = x.detach(), expected.detach()
    mean, variance = statistics(x)
    job = Job(neuron=neuron, timesteps=2, still=False, pool=True, x=x, mean=mean, invstd=torch.rsqrt(variance + 1e-5))
    spikes, by_x, channels = torch.empty_like(grad), torch.empty_like(x), torch.empty_like(mean)
    forward(job, spikes)
    backward(job, grad, Gradients(by_current=by_x, by_x=by_x, by_gain=channels, by_bias=channels.clone()))
    return float(torch.maximum((spikes - expected).abs().max(), (by_x - by_expected).abs().max()))


@cache
def source() -> Any:
    """The module of kernels, which imports triton."""
    return import_module("snnkd_deploy.snn.kernels.fused_triton")


@dataclass(frozen=True)
class Cut:
    """How positions, each with so many corners, and channels fall into tiles, if so many steps of a tile are kept."""

    positions: int
    channels: int
    corners: int = 1
    kept: int = 1

    @property
    def tile(self) -> int:
        """Values of a tile: a power of two, as everything that Triton counts."""
        return min(TILE, KEPT >> (self.kept - 1).bit_length())

    @property
    def columns(self) -> int:
        """Channels of a tile."""
        return min(1 << (self.channels - 1).bit_length(), BROADEST, self.tile // self.corners)

    @property
    def rows(self) -> int:
        """Positions of a tile."""
        return self.tile // self.columns // self.corners

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles, by positions and by channels."""
        return -(-self.positions // self.rows), -(-self.channels // self.columns)

    @property
    def sizes(self) -> dict[str, int]:
        """What a kernel must know when it is compiled."""
        return {"ROWS": self.rows, "COLUMNS": self.columns}


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,), float32, of each channel of x (N, C) or (N, C, H, W): torch's own."""
    variance, mean = torch.var_mean(x.float(), [axis for axis in range(x.ndim) if axis != 1], correction=0)
    return mean, variance


def forward(job: Job, spikes: Tensor, rates: Tensor | None = None, slopes: Tensor | None = None) -> None:
    """Fill `spikes`, and where they are given `rates` (their mean over time) and its `slopes` by a constant current."""
    cut, x, rated = _cut(job), job.x, rates is not None
    given = (x, x if job.residual is None else job.residual, *_affine(job), spikes, rates if rated else x)
    with torch.cuda.device_of(x):
        source().forward[cut.grid](
            *given, slopes if rated else x, *_numbers(job, cut), RATED=rated, **_flags(job), **cut.sizes, **OPTIONS
        )


def backward(job: Job, grad: Tensor, into: Gradients, slopes: Tensor | None = None) -> None:
    """Fill `into` from dL/d(spikes), or from dL/d(rates) where their `slopes` are given."""
    with torch.cuda.device_of(job.x):
        _clear(job, into)
        sums = _rescale(job, grad, into, slopes) if slopes is not None else _sweep(job, grad, into)
        _renormalise(job, into, *sums.sum(1, dtype=torch.float64))


def _clear(job: Job, into: Gradients) -> None:
    """No gradient for neurons that no pool reads, at the end of an odd row or column."""
    _, height, width, _ = job.step
    if job.pool and (height % 2 or width % 2):
        into.by_current.zero_()
        into.by_x.zero_()


def _sweep(job: Job, grad: Tensor, into: Gradients) -> Tensor:
    """dL/d(current); returns its sums and those of its product with x - mean, (2, parts, C)."""
    cut, x = _cut(job, job.timesteps), job.x
    sums = x.new_empty((2, cut.grid[0], cut.channels), dtype=torch.float32)
    residual = x if job.residual is None else job.residual
    given = (x, residual, *_affine(job), job.mean, grad, into.by_current, into.by_x, *sums)
    source().sweep[cut.grid](*given, *_numbers(job, cut), **_flags(job), **cut.sizes, **OPTIONS)
    return sums


def _rescale(job: Job, grad: Tensor, into: Gradients, slopes: Tensor) -> Tensor:
    """The same behind mean rates."""
    cut, (_, height, width, _) = _cut(job), job.step
    sums = job.x.new_empty((2, cut.grid[0], cut.channels), dtype=torch.float32)
    given = (job.x, job.mean, grad, slopes, into.by_current, *sums, cut.positions, cut.channels, height, width)
    source().rescale[cut.grid](*given, POOL=job.pool, **cut.sizes, **OPTIONS)
    return sums


def _renormalise(job: Job, into: Gradients, sums: Tensor, products: Tensor) -> None:
    """Fill all but `by_current` of `into`: by float64 sums (C,) of dL/d(current) and of its product with x - mean."""
    cut = Cut(job.x.numel() // job.x.shape[1], job.x.shape[1])
    invstd = job.invstd.double()
    into.by_bias.copy_(sums)
    into.by_gain.copy_(products * invstd)
    scale = invstd if job.gain is None else invstd * job.gain
    level, along = scale * sums / cut.positions, scale * invstd**2 * products / cut.positions
    channels = (one.float() for one in (scale, level, along))
    d = into.by_x if job.still else into.by_current
    given = (job.x, job.mean, *channels, d, into.by_x, cut.positions, cut.channels)
    source().renormalise[cut.grid](*given, **cut.sizes, **OPTIONS)


def _cut(job: Job, kept: int = 1) -> Cut:
    """The tiles of one step; where there is a pool, a position is one of what comes out."""
    samples, height, width, channels = job.step
    half = 2 if job.pool else 1
    return Cut(samples * (height // half) * (width // half), channels, half * half, kept)


def _affine(job: Job) -> tuple[Tensor, Tensor]:
    """What the BatchNorm multiplies by, and then adds, (C,) each."""
    scale = job.invstd if job.gain is None else job.invstd * job.gain
    shift = -job.mean * scale
    return scale, shift if job.bias is None else shift + job.bias


def _numbers(job: Job, cut: Cut) -> tuple[float, ...]:
    samples, height, width, channels = job.step
    sizes = (samples * height * width * channels, cut.positions * channels)
    return *sizes, cut.positions, channels, height, width, job.neuron.decay, job.neuron.threshold


def _flags(job: Job) -> dict[str, Any]:
    neuron = job.neuron
    resets = {"ZERO": neuron.reset == "zero", "DETACHED": neuron.detach_reset, "KIND": neuron.surrogate}
    return {"STEPS": job.timesteps, "STILL": job.still, "ADD": job.residual is not None, "POOL": job.pool, **resets}
