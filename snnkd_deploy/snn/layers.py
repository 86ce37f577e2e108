"""The modules that know time; everything else in a network sees one large batch.

Time is folded into the batch, time-major: a tensor (T * B, ...) holds step 0 of all samples, then step 1, and so on.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn.lif import LIF, Reset, lif, lif_states, wide_type


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
        self.decay_logit: nn.Parameter | None = None
        self.equation  # noqa: B018  (refuses values out of range now, not at the first batch)

    @property
    def equation(self) -> LIF:
        """The neuron as its equation; a learned decay is not in it, only where that started."""
        return LIF(self.decay, self.threshold, self.reset, self.surrogate, self.detach_reset)

    @property
    def decays(self) -> Tensor | None:
        """What is learned: the decay of the layer (1,) or of each channel (C,); None where the decay is fixed."""
        return None if self.decay_logit is None else self.decay_logit.sigmoid()

    def learn_decay(self, count: int = 1) -> None:
        """From now on learn one decay for the layer, or `count`, one per channel; all start from `decay`.

        A decay is the sigmoid of its parameter, which keeps it between 0 and 1; PLIF (Fang et al., ICCV 2021) has one
        per layer, written 1 - 1 / tau.
        """
        if self.decay >= 1:
            raise ConfigError(f"decay {self.decay}: a learned decay starts above 0 and below 1; IF is not learned")
        logit = math.log(self.decay / (1 - self.decay))
        self.decay_logit = nn.Parameter(torch.full((count,), logit))

    def decay_along(self, x: Tensor) -> Tensor | None:
        """The learned decay, if there is one, in a shape that broadcasts to x (B, C, ...)."""
        decays = self.decays
        return decays if decays is None else decays.view(-1, *[1] * (x.ndim - 2))

    def taken(self, current: Tensor) -> Tensor:
        """What of the current reaches the membrane: all of it."""
        return current

    def folded(self, current: Tensor) -> tuple[Tensor, LIF, Tensor | None]:
        """What the functions of `lif` take: the current as (T, B, ...), the equation, and the learned decay."""
        return _steps(self.taken(current), self.timesteps), self.equation, self.decay_along(current)

    def forward(self, current: Tensor) -> Tensor:
        """Spikes of the current."""
        return lif(*self.folded(current)).flatten(0, 1)

    def membrane(self, current: Tensor) -> Tensor:
        """The membrane (B, ...) before each reset, mean over time, of the current (T * B, ...)."""
        return lif_states(*self.folded(current))[1].mean(0)

    def extra_repr(self) -> str:
        """What `repr` shows."""
        learned = "" if self.decay_logit is None else f", learned_decays={len(self.decay_logit)}"
        return (
            f"timesteps={self.timesteps}, decay={self.decay}, threshold={self.threshold}, reset={self.reset!r}{learned}"
        )


class InputNeuron(Neuron):
    """Neurons without leak, one for each pixel, that turn a still picture (T * B, C, H, W) into spikes.

    A gain in front of them is learned, one for the layer: to divide it by the threshold is what the chip does, so it is
    the number of steps that a pixel of each brightness needs to fire that is learned. Starts where half a white pixel
    is the threshold: what is brighter fires at each step.
    """

    def __init__(
        self,
        timesteps: int,
        threshold: float = 1.0,
        reset: Reset = "zero",
        surrogate: str = "atan",
        detach_reset: bool = True,
    ) -> None:
        super().__init__(timesteps, 1.0, threshold, reset, surrogate, detach_reset)
        self.log_gain = nn.Parameter(torch.tensor(math.log(2 * threshold)))

    @property
    def gain(self) -> Tensor:
        """What a pixel is multiplied with."""
        return self.log_gain.exp()

    def taken(self, current: Tensor) -> Tensor:
        """The pixels times the gain."""
        return current * self.gain


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


class Frames(nn.Module):
    """(B, T, ...) to (T * B, ...): a frame for each step, instead of `Repeat`. No copy if memory is time-major.

    What stands ahead of the last T frames, the picture that they encode, is left to `Picture`.
    """

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        self.timesteps = timesteps

    def forward(self, x: Tensor) -> Tensor:
        """The frames as one batch."""
        return x[:, -self.timesteps :].transpose(0, 1).flatten(0, 1)

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"timesteps={self.timesteps}"


class MeanFrame(nn.Module):
    """(B, T, ...) to (B, ...): the mean of the frames, which is what a network without time sees of them.

    With `frames` that of the last ones alone.
    """

    def __init__(self, frames: int = 0) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, x: Tensor) -> Tensor:
        """The mean."""
        return x[:, -self.frames :].mean(1)


class Picture(nn.Module):
    """(B, 1 + T, ...) to (B, ...): the picture in front of the frames that encode it, which is what a teacher sees."""

    def forward(self, x: Tensor) -> Tensor:
        """The first."""
        return x[:, 0]


class RowMajor(nn.Module):
    """The same values in torch's usual order of memory, for code that reads (B, C, H, W) by `view`."""

    def forward(self, x: Tensor) -> Tensor:
        """The same values."""
        return x.clone(memory_format=torch.contiguous_format)  # contiguous() leaves the strides of a single channel


class TimeMean(nn.Module):
    """(T * B, ...) to (B, ...): the mean over time."""

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        self.timesteps = timesteps

    def forward(self, x: Tensor) -> Tensor:
        """The mean."""
        return x if self.timesteps == 1 else _steps(x, self.timesteps).mean(0, dtype=wide_type(x))

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"timesteps={self.timesteps}"


class Pointwise(nn.Conv2d):
    """A 1x1 convolution without bias that, where it has a stride, is shown only the pixels that it reads.

    Not only to save work: with channels_last, 6 channels or fewer and no AVX-512 the weight gradient of torch's own
    strided 1x1 convolution (2.13, oneDNN) writes past its memory, which ends the process sooner or later.
    """

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__(channels, width, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, height, width) to (N, width, height / stride, width / stride), rounded up."""
        down, right = self.stride
        return functional.conv2d(x[:, :, ::down, ::right], self.weight, self.bias)


def _steps(x: Tensor, timesteps: int) -> Tensor:
    """(T * B, ...) to (T, B, ...), without a copy."""
    return x.view(timesteps, -1, *x.shape[1:])
