"""What a data set is: training and test samples, and what their numbers mean."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Split:
    """Images (N, C, H, W) or, of event data, frames (N, T, C, H, W), as uint8, and one int64 label for each sample."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def integers(self, rows: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        """These samples as `simulate` takes them: (N, C, H, W), or (T, N, C, H, W) for frames."""
        chosen = self.images[rows].astype(np.int64)
        return chosen.swapaxes(0, 1) if chosen.ndim == 5 else chosen


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
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample: channels, height, width; for frames their number in front."""
        return self.train.images.shape[1:]

    @property
    def frames(self) -> bool:
        """Whether a sample is one picture for each step, instead of one for all."""
        return len(self.input_shape) == 4

    @property
    def high(self) -> int:
        """The largest pixel that can be met; the smallest is 0."""
        return round(1 / self.scale) if self.largest is None else self.largest

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over shapes, pixels and labels of both splits, in hexadecimal."""
        digest = hashlib.sha256()
        for array in (self.train.images, self.train.labels, self.test.images, self.test.labels):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
        return digest.hexdigest()
