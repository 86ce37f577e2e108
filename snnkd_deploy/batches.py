"""Images on a device, in batches: drawn by row, augmented, scaled to what a network sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnkd_deploy import cluster
from snnkd_deploy.augment import augmented
from snnkd_deploy.data import Split

# Of an evaluation. Folded with T = 4 it keeps tensors below 32 MiB, which glibc would map afresh at every allocation.
BATCH = 64


@dataclass(frozen=True, eq=False)
class Images:
    """One split on a device: pixels uint8, labels (N,) int64; a network sees `pixels * scale`.

    Pixels are (N, C, H, W), or (N, T, C, H, W) for frames.
    """

    pixels: Tensor
    labels: Tensor
    scale: float

    @classmethod
    def of(cls, split: Split, scale: float, device: torch.device) -> Images:
        """A split, copied to the device as it is."""
        return cls(torch.tensor(split.images, device=device), torch.tensor(split.labels, device=device), scale)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Tensor, augment: str = "none") -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W), float, channels last, and labels (B,) of these rows; random as torch is seeded.

        Frames are (B, T, C, H, W), in memory as `snn.layers.Frames` wants them: time-major, each channels last.
        """
        rows = rows.to(self.pixels.device)
        pixels = self.pixels[rows]
        if pixels.ndim == 4:
            return self._seen(augmented(pixels, augment)), self.labels[rows]
        alike = augmented(pixels.flatten(1, 2), augment).view_as(pixels)  # all frames of a sample move together
        seen = self._seen(alike.transpose(0, 1).flatten(0, 1))
        return seen.unflatten(0, (-1, len(rows))).transpose(0, 1), self.labels[rows]

    def _seen(self, pixels: Tensor) -> Tensor:
        return pixels.to(torch.float32, memory_format=torch.channels_last) * self.scale

    def in_order(self, size: int = BATCH) -> Iterator[tuple[Tensor, Tensor]]:
        """All of them once, `size` at a time; with several processes each gets every so many of these batches."""
        for start in range(cluster.here().rank * size, len(self), cluster.size() * size):
            yield self.batch(torch.arange(start, min(start + size, len(self))))


@torch.no_grad()
def accuracy(network: nn.Module, images: Images) -> float:
    """Share of the images, 0 to 1, whose largest logit is that of their label; the network is left in eval mode."""
    network.eval()
    right = sum(int((network(batch).argmax(1) == labels).sum()) for batch, labels in images.in_order())
    return cluster.summed([right])[0] / len(images)
