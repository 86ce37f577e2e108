"""Spikes for still pictures: what a student without direct coding sees, one frame for each step.

Rates and latencies are those of snnTorch's `spikegen.rate` and `spikegen.latency(linear=True, normalize=True,
clip=True)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Kind = Literal["rate", "latency"]


@dataclass(frozen=True)
class Encoding:
    """`timesteps` frames of spikes for pictures whose pixels are 0 to `high`.

    rate: at each step a pixel p spikes with probability p / high, on its own. latency: it spikes once, the brighter the
    earlier, at the step nearest to (timesteps - 1) (1 - p / high); black never does.
    """

    kind: Kind
    timesteps: int
    high: int

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """Latency: the step of the only spike of each pixel value; `timesteps`, which is none, of 0."""
        steps = np.rint((self.timesteps - 1) * (1 - np.arange(self.high + 1) / self.high)).astype(np.int64)
        steps[0] = self.timesteps
        return steps

    def noise(self, rows: Array, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Rate: what decides over samples with these numbers, (N, T, *shape); a spike is a pixel above it.

        Outside of training it follows from the number of the sample in its split alone, so every evaluation, export,
        proof and count sees the same spikes.
        """
        size = (self.timesteps, *shape)
        draws = [np.random.RandomState(row).randint(self.high, size=size, dtype=np.uint8) for row in rows]
        return np.array(draws, dtype=np.uint8).reshape(len(rows), *size)

    def spikes(self, pixels: NDArray[np.uint8], rows: Array) -> NDArray[np.uint8]:
        """Frames (N, T, C, H, W) of 0 and 1 of pictures (N, C, H, W), which are the samples with these numbers."""
        if self.kind == "rate":
            fired = pixels[:, None] > self.noise(rows, pixels.shape[1:])
        else:
            fired = self.first[pixels][:, None] == np.arange(self.timesteps)[:, None, None, None]
        return fired.astype(np.uint8)
