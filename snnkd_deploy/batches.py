"""Images on a device, in batches: drawn by row, augmented, scaled to what a network sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.data import Split

# Of an evaluation. Folded with T = 4 it keeps tensors below 32 MiB, which glibc would map afresh at every allocation.
BATCH = 64


@dataclass(frozen=True, eq=False)
class Images:
    """One split on a device: pixels (N, C, H, W) uint8, labels (N,) int64; a network sees `pixels * scale`."""

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
        """Images (B, C, H, W), float, channels last, and labels (B,) of these rows; random as torch is seeded."""
        rows = rows.to(self.pixels.device)
        pixels = augmented(self.pixels[rows], augment)
        return pixels.to(torch.float32, memory_format=torch.channels_last) * self.scale, self.labels[rows]

    def in_order(self, size: int = BATCH) -> Iterator[tuple[Tensor, Tensor]]:
        """All of them once, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(torch.arange(start, min(start + size, len(self))))


def augmented(pixels: Tensor, augment: str) -> Tensor:
    """Images moved by up to an eighth of their size, zeros moving in ("shift"), and half of them mirrored ("flip")."""
    if augment == "none":
        return pixels
    count, channels, height, width = pixels.shape
    up, left = (height // 8, width // 8) if "shift" in augment else (0, 0)
    rows = torch.arange(height) + torch.randint(2 * up + 1, (count, 1))  # (B, H): which row of the padded image
    columns = torch.arange(width) + torch.randint(2 * left + 1, (count, 1))
    if "flip" in augment:
        columns = torch.where(torch.rand(count, 1) < 0.5, columns, columns.flip(1))
    index = [torch.arange(count)[:, None, None, None], torch.arange(channels)[:, None, None]]
    index += [rows[:, None, :, None], columns[:, None, None, :]]
    return functional.pad(pixels, (left, left, up, up))[tuple(part.to(pixels.device) for part in index)]


@torch.no_grad()
def accuracy(network: nn.Module, images: Images) -> float:
    """Share of the images, 0 to 1, whose largest logit is that of their label; the network is left in eval mode."""
    network.eval()
    right = sum(int((network(batch).argmax(1) == labels).sum()) for batch, labels in images.in_order())
    return right / len(images)
