"""Who runs a training step's kernel, by the device that its tensors are on."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from snnkd_deploy.snn import kernel, triton_kernel
from snnkd_deploy.snn.job import Gradients, Job
from snnkd_deploy.snn.lif import LIF


class Door(Protocol):
    """What a kernel's module has."""

    def available(self) -> bool:
        """Whether there is a kernel to use."""

    def knows(self, neuron: LIF, timesteps: int) -> bool:
        """Whether it can run this neuron for so many steps."""

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (C,), float32, of each channel of x (N, C) or, channels_last, (N, C, H, W)."""

    def forward(self, job: Job, spikes: Tensor, rates: Tensor | None = None, slopes: Tensor | None = None) -> None:
        """Fill `spikes`, and where given `rates` (their mean over time) and its `slopes` by a constant current."""

    def backward(self, job: Job, grad: Tensor, into: Gradients, slopes: Tensor | None = None) -> None:
        """Fill `into` from dL/d(spikes), or from dL/d(rates) where their `slopes` are given."""


DOORS: dict[str, Door] = {"cpu": kernel, "cuda": triton_kernel}
"""By the device's type."""


def of(x: Tensor) -> Door | None:
    """The door for tensors that are where x is, if there is one."""
    return DOORS.get(x.device.type)


def needed(x: Tensor) -> Door:
    """The same where there is known to be one."""
    return DOORS[x.device.type]
