"""Random changes of training images by name, on batches of uint8 tensors, on the device where these are.

Random numbers are drawn on the CPU, from torch's seed alone: a batch is changed alike on every device and in every
process, so a resumed run sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from snnkd_deploy.autoaugment import autoaugment
from snnkd_deploy.errors import ConfigError

PAD = 4  # pixels of `crop`, as for CIFAR in all of the papers
HOLE = 16  # pixels of `cutout`: DeVries, Taylor 2017, arXiv 1708.04552, for CIFAR-10


def augmented(pixels: Tensor, names: str) -> Tensor:
    """Images (N, C, H, W) uint8 after all changes whose names `names` joins by "+", in that order."""
    for name in names.split("+"):
        pixels = CHANGES[name](pixels)
    return pixels


def check(names: str, shape: tuple[int, ...]) -> None:
    """ConfigError if one of the changes makes no sense for samples of `shape`."""
    if "autoaugment" in names.split("+") and (len(shape) != 3 or shape[0] != 3):
        met = "x".join(map(str, shape))
        raise ConfigError(f"augment {names!r}: autoaugment changes colours of 3xHxW images, met samples of {met}")


def shift(pixels: Tensor) -> Tensor:
    """Moved by up to an eighth of their size, zeros moving in."""
    return _moved(pixels, pixels.shape[2] // 8, pixels.shape[3] // 8)


def flip(pixels: Tensor) -> Tensor:
    """Half of them mirrored."""
    return _moved(pixels, mirror=True)


def shift_flip(pixels: Tensor) -> Tensor:
    """`shift` and `flip` at once."""
    return _moved(pixels, pixels.shape[2] // 8, pixels.shape[3] // 8, mirror=True)


def crop(pixels: Tensor) -> Tensor:
    """Moved by up to 4 pixels, zeros moving in: a crop of the padded image."""
    return _moved(pixels, PAD, PAD)


def cutout(pixels: Tensor) -> Tensor:
    """A black square of 16 pixels, at most half of a side, around a random pixel; parts of it may lie outside."""
    holes = [_hole(len(pixels), size) for size in pixels.shape[2:]]
    kept = ~(holes[0][:, None, :, None] & holes[1][:, None, None, :])
    return pixels * kept.to(pixels.device)


def _hole(count: int, size: int) -> Tensor:
    """Which rows, or columns, of each image are cut out: (count, size)."""
    half = min(HOLE, size // 2) // 2
    distance = torch.arange(size) - torch.randint(size, (count, 1))
    return (distance >= -half) & (distance < half)


def _moved(pixels: Tensor, up: int = 0, left: int = 0, *, mirror: bool = False) -> Tensor:
    """Moved by up to `up` rows and `left` columns both ways, zeros moving in, and half of them mirrored."""
    count, channels, height, width = pixels.shape
    rows = torch.arange(height) + torch.randint(2 * up + 1, (count, 1))  # (B, H): which row of the padded image
    columns = torch.arange(width) + torch.randint(2 * left + 1, (count, 1))
    if mirror:
        columns = torch.where(torch.rand(count, 1) < 0.5, columns, columns.flip(1))
    index = [torch.arange(count)[:, None, None, None], torch.arange(channels)[:, None, None]]
    index += [rows[:, None, :, None], columns[:, None, None, :]]
    return functional.pad(pixels, (left, left, up, up))[tuple(part.to(pixels.device) for part in index)]


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda pixels: pixels,
    "flip": flip,
    "shift": shift,
    "shift-flip": shift_flip,
    "crop": crop,
    "cutout": cutout,
    "autoaugment": autoaugment,
}
