"""What a data set is: training and test samples, and what their numbers mean."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snnkd_deploy.datasets.pictures import Pictures
from snnkd_deploy.encoding import Encoding, Kind


@dataclass(frozen=True, eq=False)
class Split:
    """Images (N, C, H, W) or, of event data, frames (N, T, C, H, W), as uint8, and one int64 label for each sample.

    With an encoding a student sees spikes in place of the images.
    """

    images: Any  # an array, or Pictures, which decodes from files what it is indexed with
    labels: NDArray[np.int64]
    encoding: Encoding | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def integers(self, rows: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        """These samples as `simulate` takes them: (N, C, H, W), or (T, N, C, H, W) for frames."""
        pixels = self.images[rows]
        if self.encoding is not None:
            pixels = self.encoding.spikes(pixels, np.arange(len(self))[rows])
        chosen: NDArray[np.int64] = pixels.astype(np.int64)
        return chosen.swapaxes(0, 1) if chosen.ndim == 5 else chosen

    def pictures(self, rows: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        """What a teacher sees of them: (N, C, H, W), of frames their sum."""
        chosen: NDArray[np.int64] = self.images[rows].astype(np.int64)
        return chosen.sum(axis=1) if chosen.ndim == 5 else chosen


@dataclass(frozen=True, eq=False)
class DataSet:
    """Training and test images; networks see `images * scale`, so the integer input of a chip is the pixel itself."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    scale: float  # the real value of pixel 1
    largest: int | None = None  # pixel that can be met; None: the one whose real value is 1

    @property
    def encoding(self) -> Encoding | None:
        """How a student sees still pictures as spikes; None: it sees the samples as they are."""
        return self.train.encoding

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Of one sample as it is stored: channels, height, width; for frames their number in front."""
        return tuple(self.train.images.shape[1:])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of what a student sees of a sample: channels, height, width; for frames their number in front."""
        return (self.encoding.timesteps, *self.sample_shape) if self.encoding else self.sample_shape

    @property
    def frames(self) -> bool:
        """Whether a student sees one picture for each step, instead of one for all."""
        return len(self.input_shape) == 4

    @property
    def high(self) -> int:
        """The largest pixel that can be met; the smallest is 0."""
        return round(1 / self.scale) if self.largest is None else self.largest

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over shapes, pixels and labels of both splits, in hexadecimal; an encoding does not change it.

        Of pictures that stay in their files, `Pictures.sha256` stands for the pixels.
        """
        digest = hashlib.sha256()
        for array in (self.train.images, self.train.labels, self.test.images, self.test.labels):
            digest.update(repr(tuple(array.shape)).encode())
            if isinstance(array, Pictures):
                digest.update(array.sha256.encode())
            else:
                digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
        return digest.hexdigest()

    def encoded(self, kind: Kind, timesteps: int) -> DataSet:
        """The same still pictures, seen by a student as so many frames of spikes."""
        encoding = Encoding(kind, timesteps, self.high)
        return replace(self, train=replace(self.train, encoding=encoding), test=replace(self.test, encoding=encoding))
