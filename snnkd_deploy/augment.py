"""Random changes of training images by name, on batches of uint8 tensors, on the device where these are.

Random numbers are drawn on the CPU, from torch's seed alone: a batch is changed alike on every device and in every
process, so a resumed run sees what it would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from snnkd_deploy.autoaugment import autoaugment
from snnkd_deploy.errors import ConfigError

PAD = 4  # pixels of `crop`, as for CIFAR in all of the papers
TRIES, AREAS, SIDES = 10, (0.08, 1.0), 4 / 3  # of `resized-crop`
HOLE = 16  # pixels of `cutout`: DeVries, Taylor 2017, arXiv 1708.04552, for CIFAR-10


def augmented(pixels: Tensor, names: str) -> Tensor:
    """Images (N, C, H, W) uint8 after all changes whose names `names` joins by "+", in that order."""
    for name in names.split("+"):
        pixels = CHANGES[name](pixels)
    return pixels


def check(names: str, shape: tuple[int, ...]) -> None:
    """ConfigError if one of the changes makes no sense for samples of `shape`, or stands at a place where it cannot."""
    changes, met = names.split("+"), "x".join(map(str, shape))
    problems = []
    if "autoaugment" in changes and (len(shape) != 3 or shape[0] != 3):
        problems.append(f"autoaugment changes colours of 3xHxW images, met samples of {met}")
    if "resized-crop" in changes and len(shape) != 3:
        problems.append(f"resized-crop interpolates pictures, met samples of {met}")
    if "mixup" in changes[:-1]:
        problems.append("mixup mixes labels too and must be last")
    if problems:
        raise ConfigError("\n".join(f"augment {names!r}: {problem}" for problem in problems))


def mixed(pixels: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """mixup: share * one + (1 - share) * another of the batch, of images (B, ...) and of labels, then (B, classes).

    Zhang, Cisse, Dauphin, Lopez-Paz, ICLR 2018, arXiv 1710.09412; one share for the batch as in their code, from the
    Beta(1, 1) of their CIFAR experiments, which is uniform.
    """
    share, order = torch.rand(()).item(), torch.randperm(len(pixels)).to(pixels.device)
    shares = functional.one_hot(labels, classes).to(torch.float32)
    one, other = pixels.to(torch.float32), shares[order]
    return share * one + (1 - share) * one[order], share * shares + (1 - share) * other


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


def resized_crop(pixels: Tensor) -> Tensor:
    """A random part of 8 to 100 % of the area, with sides from 3:4 to 4:3, stretched over the whole image.

    As in the training of Inception (Szegedy et al., CVPR 2015) and torchvision's RandomResizedCrop; bilinear.
    """
    height, width = pixels.shape[2:]
    top, left, tall, wide = (part.to(pixels.device) for part in _parts(len(pixels), height, width))
    rows, columns = _stretching(top, tall, height), _stretching(left, wide, width)
    stretched = rows[:, None] @ pixels.to(torch.float32) @ columns[:, None].transpose(2, 3)
    return stretched.round().to(torch.uint8)


def _parts(count: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width of a part for each image, (count,) each: of ten draws the first that fits, or all."""
    area = torch.empty(count, TRIES).uniform_(*AREAS) * height * width
    ratio = torch.empty(count, TRIES).uniform_(-math.log(SIDES), math.log(SIDES)).exp()
    tall, wide = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (tall >= 1) & (tall <= height) & (wide >= 1) & (wide <= width)
    first = fits.int().argmax(1, keepdim=True)
    found = fits.gather(1, first)[:, 0]
    tall = torch.where(found, tall.gather(1, first)[:, 0], height)
    wide = torch.where(found, wide.gather(1, first)[:, 0], width)
    top, left = (torch.rand(count) * (height - tall + 1)).floor(), (torch.rand(count) * (width - wide + 1)).floor()
    return top, left, tall, wide


def _stretching(start: Tensor, length: Tensor, size: int) -> Tensor:
    """The matrix (B, size, size) that stretches `length` pixels from `start` (B,) over all `size` of an axis."""
    places = torch.arange(size, device=start.device, dtype=torch.float32)
    wanted = start[:, None] + (places + 0.5) * (length / size)[:, None] - 0.5
    inside = torch.minimum(torch.maximum(wanted, start[:, None]), (start + length - 1)[:, None])
    return (1 - (inside[:, :, None] - places).abs()).clamp(min=0)


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
    "resized-crop": resized_crop,
    "mixup": lambda pixels: pixels,  # `mixed` follows, which needs the labels too
}
