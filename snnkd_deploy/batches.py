"""Images on a device, in batches: drawn by row, augmented, mixed, encoded, scaled to what a network sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from snnkd_deploy import cluster
from snnkd_deploy.augment import augmented, mixed
from snnkd_deploy.data import Pictures, Split
from snnkd_deploy.encoding import Encoding

# Of an evaluation. Folded with T = 4 it keeps tensors below 32 MiB, which glibc would map afresh at every allocation.
BATCH = 64


@dataclass(frozen=True, eq=False)
class Images:
    """One split on a device: pixels uint8, labels (N,) int64; a network sees `pixels * scale`.

    Pixels are (N, C, H, W), or (N, T, C, H, W) for frames. `classes` is what `mixup` needs to know.
    """

    pixels: Any  # a tensor on the device, or Pictures, of which each batch is decoded and moved there
    labels: Tensor
    scale: float
    classes: int = 0
    encoding: Encoding | None = None

    @classmethod
    def of(cls, split: Split, scale: float, device: torch.device, classes: int = 0) -> Images:
        """A split, copied to the device as it is."""
        pixels = split.images if isinstance(split.images, Pictures) else torch.tensor(split.images, device=device)
        return cls(pixels, torch.tensor(split.labels, device=device), scale, classes, split.encoding)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where batches come out."""
        return self.labels.device

    def batch(self, rows: Tensor, augment: str | None = None) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W), float, channels last, and labels (B,) of these rows; random as torch is seeded.

        Frames are (B, T, C, H, W), in memory as `snn.layers.Frames` wants them: time-major, each channels last. Encoded
        pictures are (B, 1 + T, C, H, W): the picture, then its spikes. After `mixup` labels are shares (B, classes).
        Nothing is random where `augment` is None, as for an evaluation.
        """
        pixels, labels = self._chosen(rows), self.labels[rows.to(self.device)]
        if pixels.ndim == 4:
            pixels = augmented(pixels, augment or "none")
        else:  # all frames of a sample move together
            pixels = augmented(pixels.flatten(1, 2), augment or "none").view_as(pixels)
        if augment is not None and "mixup" in augment.split("+"):
            pixels, labels = mixed(pixels, labels, self.classes)
        if self.encoding is not None:
            pixels = pixels.round().to(torch.uint8)
            spikes = encoded(self.encoding, pixels, rows if augment is None else None)
            return _time_major(torch.cat([pixels[:, None] * self.scale, spikes], dim=1)), labels
        return (_channels_last(pixels) if pixels.ndim == 4 else _time_major(pixels)) * self.scale, labels

    def expect(self, rows: Tensor) -> None:
        """Let pictures that stay in files be decoded while something else goes on; these rows come next."""
        if not isinstance(self.pixels, Tensor):
            self.pixels.expect(rows.tolist())

    def spread(self, count: int) -> Tensor:
        """So many images (fewer if there are not as many) at even distances, unchanged, as a network sees them."""
        rows = torch.linspace(0, len(self) - 1, min(count, len(self))).round().long()
        return self.batch(rows)[0]

    def in_order(self, size: int = BATCH) -> Iterator[tuple[Tensor, Tensor]]:
        """All of them once, `size` at a time, as an evaluation sees them; of several processes each gets its share."""
        parts = torch.arange(len(self)).split(size)[cluster.here().rank :: cluster.size()]
        for part, following in zip_longest(parts, parts[1:], fillvalue=torch.arange(0)):
            batch = self.batch(part)
            self.expect(following)
            yield batch

    def _chosen(self, rows: Tensor) -> Tensor:
        if isinstance(self.pixels, Tensor):
            return self.pixels[rows.to(self.device)]
        return torch.from_numpy(self.pixels[rows.cpu().numpy()]).to(self.device)


def encoded(encoding: Encoding, pixels: Tensor, rows: Tensor | None) -> Tensor:
    """Spikes (B, T, C, H, W), bool, of pictures (B, C, H, W) uint8: those of the samples `rows`, or newly drawn."""
    if encoding.kind == "latency":
        first = torch.tensor(encoding.first, device=pixels.device)[pixels.int()]
        steps = torch.arange(encoding.timesteps, device=pixels.device)
        return torch.eq(first[:, None], steps[:, None, None, None])
    if rows is None:
        shape = (len(pixels), encoding.timesteps, *pixels.shape[1:])
        noise = torch.randint(encoding.high, shape, dtype=torch.uint8)
    else:
        noise = torch.from_numpy(encoding.noise(rows.cpu().numpy(), pixels.shape[1:]))
    return torch.gt(pixels[:, None], noise.to(pixels.device))


def _time_major(frames: Tensor) -> Tensor:
    folded = _channels_last(frames.transpose(0, 1).flatten(0, 1))
    unfolded: Tensor = folded.unflatten(0, (-1, len(frames)))
    return unfolded.transpose(0, 1)


def _channels_last(pixels: Tensor) -> Tensor:
    return pixels.to(torch.float32, memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(network: nn.Module, images: Images) -> float:
    """Share of the images, 0 to 1, whose largest logit is that of their label; the network is left in eval mode."""
    network.eval()
    right = sum(int((network(batch).argmax(1) == labels).sum()) for batch, labels in images.in_order())
    return cluster.summed([right])[0] / len(images)
