"""The native kernel of a training step: built by the system's C++ compiler at first use, called through ctypes.

`SNNKD_KERNEL=0` turns it off; without a compiler it is off too. Everything then takes the way of plain torch, which
computes the same. Tensors are handed over as they lie in memory: see kernels/fused.cpp.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from snnkd_deploy.errors import RuntimeMissingError
from snnkd_deploy.snn.job import Gradients, Job
from snnkd_deploy.snn.lif import LIF
from snnkd_deploy.snn.surrogate import SURROGATES
from snnkd_deploy.toolchain import shared_library

SWITCH = "SNNKD_KERNEL"
SOURCE = Path(__file__).parent / "kernels" / "fused.cpp"
FLAGS = ("-std=gnu++17", "-O3", "-fno-math-errno")
BEST = ("-march=native", "-fopenmp")
"""For this processor, and several threads; a compiler that refuses this is asked again without."""
KINDS = ("atan", "sigmoid", "triangle", "rectangle")
"""The surrogates that the kernel has, in the order in which it numbers them."""
GIVEN = ("x", "residual", "mean", "invstd", "gain", "bias")
"""The tensors of a job."""


class Fields(ctypes.Structure):
    """A job, field by field as in fused.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "samples", "height", "width", "channels")),
        *((name, ctypes.c_int32) for name in ("still", "pool", "narrow", "threads", "zero", "detached", "surrogate")),
        *((name, ctypes.c_float) for name in ("decay", "threshold")),
        *((name, ctypes.c_void_p) for name in GIVEN),
        *((name, ctypes.c_void_p) for name in ("spikes", "rates", "slopes", "grad")),
        *((name, ctypes.c_void_p) for name in ("by_current", "by_x", "by_gain", "by_bias")),
    )


def wanted() -> bool:
    """Whether the environment leaves the kernel on."""
    return os.environ.get(SWITCH, "1") != "0"


def available() -> bool:
    """Whether there is a kernel to use: it is wanted, and could be built."""
    return wanted() and _loaded() is not None


def knows(neuron: LIF, timesteps: int = 1) -> bool:
    """Whether the kernel has this neuron's surrogate; it runs for any number of steps."""
    return neuron.surrogate in KINDS and neuron.surrogate in SURROGATES


def library() -> ctypes.CDLL:
    """The kernel, loaded. RuntimeMissingError where it cannot be built."""
    try:
        path = shared_library((SOURCE,), (*FLAGS, *BEST))
    except RuntimeMissingError:
        path = shared_library((SOURCE,), FLAGS)
    built = ctypes.CDLL(str(path))
    whole, pointer, count = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32
    built.snnkd_statistics.argtypes = (pointer, whole, whole, count, count, pointer, pointer)
    for function in (built.snnkd_statistics, built.snnkd_forward, built.snnkd_backward):
        function.restype = None
    for function in (built.snnkd_forward, built.snnkd_backward):
        function.argtypes = (ctypes.POINTER(Fields),)
    return built


@cache
def _loaded() -> ctypes.CDLL | None:
    try:
        return library()
    except (RuntimeMissingError, OSError):
        return None


def _needed() -> ctypes.CDLL:
    built = _loaded()
    assert built is not None, "asked only where it is available"
    return built


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,), float32, of each channel of x (N, C) or, channels_last, (N, C, H, W)."""
    mean, variance = torch.empty(2, x.shape[1]).unbind()
    rows, threads = x.numel() // x.shape[1], torch.get_num_threads()
    narrow = x.dtype == torch.bfloat16
    place = (x.data_ptr(), rows, x.shape[1], narrow, threads, mean.data_ptr(), variance.data_ptr())
    _needed().snnkd_statistics(*place)
    return mean, variance


def forward(job: Job, spikes: Tensor, rates: Tensor | None = None, slopes: Tensor | None = None) -> None:
    """Fill `spikes`, and where they are given `rates` (their mean over time) and its `slopes` by a constant current."""
    _needed().snnkd_forward(ctypes.byref(_fields(job, spikes=spikes, rates=rates, slopes=slopes)))


def backward(job: Job, grad: Tensor, into: Gradients, slopes: Tensor | None = None) -> None:
    """Fill `into` from dL/d(spikes), or from dL/d(rates) where their `slopes` are given."""
    _needed().snnkd_backward(ctypes.byref(_fields(job, grad=grad, slopes=slopes, **vars(into))))


def _fields(job: Job, **tensors: Tensor | None) -> Fields:
    """The job and further tensors, which the caller keeps alive, as the kernel reads them."""
    neuron, tensors = job.neuron, {**tensors, **{name: getattr(job, name) for name in GIVEN}}
    told = Fields(job.timesteps, *job.step)
    told.still, told.pool = job.still, job.pool
    told.narrow, told.threads = job.x.dtype == torch.bfloat16, torch.get_num_threads()
    told.zero, told.detached = neuron.reset == "zero", neuron.detach_reset
    told.surrogate = KINDS.index(neuron.surrogate)
    told.decay, told.threshold = neuron.decay, neuron.threshold
    for name, tensor in tensors.items():
        setattr(told, name, None if tensor is None else tensor.data_ptr())
    return told
