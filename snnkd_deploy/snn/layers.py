"""The three modules that know time; everything else in a network sees one large batch.

Time is folded into the batch, time-major: a tensor (T * B, ...) holds step 0 of all samples, then step 1, and so on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnkd_deploy.snn.lif import LIF, Reset, lif


class Neuron(nn.Module):
    """One LIF neuron per feature: current (T * B, ...) to spikes (T * B, ...); the state is zero at step 0."""

    def __init__(
        self,
        timesteps: int,
        decay: float = 0.5,
        threshold: float = 1.0,
        reset: Reset = "zero",
        surrogate: str = "atan",
        detach_reset: bool = True,
    ) -> None:
        super().__init__()
        self.timesteps, self.decay, self.threshold, self.reset = timesteps, decay, threshold, reset
        self.surrogate, self.detach_reset = surrogate, detach_reset
        self.equation  # noqa: B018  (refuses values out of range now, not at the first batch)

    @property
    def equation(self) -> LIF:
        """The neuron as its equation."""
        return LIF(self.decay, self.threshold, self.reset, self.surrogate, self.detach_reset)

    def forward(self, current: Tensor) -> Tensor:
        """Spikes of the current."""
        return lif(_steps(current, self.timesteps), self.equation).flatten(0, 1)

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"timesteps={self.timesteps}, decay={self.decay}, threshold={self.threshold}, reset={self.reset!r}"


class Repeat(nn.Module):
    """(B, ...) to (T * B, ...): the same values at every step (direct coding), so that what comes before runs once."""

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        self.timesteps = timesteps

    def forward(self, x: Tensor) -> Tensor:
        """The same values `timesteps` times."""
        return x if self.timesteps == 1 else torch.cat([x] * self.timesteps)  # cat keeps channels_last, repeat does not

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"timesteps={self.timesteps}"


class TimeMean(nn.Module):
    """(T * B, ...) to (B, ...): the mean over time."""

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        self.timesteps = timesteps

    def forward(self, x: Tensor) -> Tensor:
        """The mean."""
        return x if self.timesteps == 1 else _steps(x, self.timesteps).mean(0)

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"timesteps={self.timesteps}"


def _steps(x: Tensor, timesteps: int) -> Tensor:
    """(T * B, ...) to (T, B, ...), without a copy."""
    return x.view(timesteps, -1, *x.shape[1:])
