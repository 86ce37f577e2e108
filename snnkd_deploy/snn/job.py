"""What a kernel of a training step is told, on whichever processor it runs; see `doors` for who runs it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnkd_deploy.snn.lif import LIF

TYPES = (torch.float32, torch.bfloat16)
"""What currents and spikes may be; values of channels are float32."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """BatchNorm of x, a residual current, neurons over all steps and a pool, as tensors.

    They lie in memory as (step, sample, row, column, channel), whatever their shape says: (N, C), or channels_last.
    """

    neuron: LIF
    timesteps: int
    still: bool  # x is the same at every step, and is there once
    pool: bool  # 2x2 average pool behind the neurons
    x: Tensor  # of the BatchNorm
    mean: Tensor  # of each channel, as are the next three
    invstd: Tensor
    gain: Tensor | None = None
    bias: Tensor | None = None
    residual: Tensor | None = None  # current that is added to the BatchNorm's output

    @property
    def step(self) -> tuple[int, int, int, int]:
        """Samples, rows, columns and channels of one step of the current."""
        height, width = self.x.shape[2:] or (1, 1)
        return self.x.shape[0] // (1 if self.still else self.timesteps), height, width, self.x.shape[1]


@dataclass(frozen=True, eq=False, kw_only=True)
class Gradients:
    """Memory for what goes back: by the current of every step, by x, and by the gain and bias (C,) of the BatchNorm.

    `by_current` is the memory of `by_x` where nobody asks for it: that is where there is no residual current.
    """

    by_current: Tensor
    by_x: Tensor
    by_gain: Tensor
    by_bias: Tensor
