"""AutoAugment's policy for CIFAR-10 on batches of images: Cubuk et al., CVPR 2019, arXiv 1805.09501, Table 7.

Each operation takes images (B, 3, H, W) uint8 and a strength (B,) float64, and gives images of that kind. Arithmetic is
Pillow's, in which the policy was found: enhancements round down, the smoothing filter rounds to nearest, geometry takes
the nearest pixel and fills with black.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Apply = Callable[[Tensor, Tensor], Tensor]


class Operation(NamedTuple):
    """What it does, its strength at a level of 0 to 9, and whether the strength gets a random sign."""

    apply: Apply
    strength: Callable[[int], float] = float
    signed: bool = False


def autoaugment(pixels: Tensor) -> Tensor:
    """Two operations for each image (B, 3, H, W) uint8, from a pair drawn for it; random as torch is seeded."""
    pair, chance = torch.randint(len(POLICY), (len(pixels),)), torch.rand(len(pixels), 2, dtype=torch.float64)
    signs = 2.0 * torch.randint(2, (len(pixels), 2)) - 1
    changed = pixels.clone()
    for turn in range(2):
        done = chance[:, turn] < CHANCES[pair, turn]
        strengths = STRENGTHS[pair, turn] * torch.where(SIGNED[pair, turn], signs[:, turn], 1)
        for kind, operation in enumerate(OPERATIONS.values()):
            rows = (done & (KINDS[pair, turn] == kind)).nonzero().flatten()
            if len(rows):
                where, strength = rows.to(pixels.device), strengths[rows].to(pixels.device)
                changed[where] = operation.apply(changed[where], strength)
    return changed


def shear_x(pixels: Tensor, slope: Tensor) -> Tensor:
    """Row y shows what is `slope * y` further right."""
    return _warped(pixels, slope, 0 * slope, 0 * slope, 0 * slope)


def shear_y(pixels: Tensor, slope: Tensor) -> Tensor:
    """Column x shows what is `slope * x` further down."""
    return _warped(pixels, 0 * slope, slope, 0 * slope, 0 * slope)


def translate_x(pixels: Tensor, share: Tensor) -> Tensor:
    """Shows what is `share` of the width further right, in whole pixels."""
    return _warped(pixels, 0 * share, 0 * share, (share * pixels.shape[3]).trunc(), 0 * share)


def translate_y(pixels: Tensor, share: Tensor) -> Tensor:
    """Shows what is `share` of the height further down, in whole pixels."""
    return _warped(pixels, 0 * share, 0 * share, 0 * share, (share * pixels.shape[2]).trunc())


def _warped(pixels: Tensor, x_by_y: Tensor, y_by_x: Tensor, x_offset: Tensor, y_offset: Tensor) -> Tensor:
    """The pixel at (x, y) is the one at (x + x_by_y * y + x_offset, y + y_by_x * x + y_offset), centres at halves."""
    y, x = _centres(pixels)
    by_y, by_x, right, down = (each[:, None, None] for each in (x_by_y, y_by_x, x_offset, y_offset))
    return _sampled(pixels, x + by_y * y + right, y + by_x * x + down)


def rotate(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Counterclockwise around the middle of the image."""
    y, x = _centres(pixels)
    middle_y, middle_x = pixels.shape[2] / 2, pixels.shape[3] / 2
    angle = degrees.deg2rad()[:, None, None]
    cos, sin, y, x = angle.cos(), angle.sin(), y - middle_y, x - middle_x
    return _sampled(pixels, cos * x - sin * y + middle_x, sin * x + cos * y + middle_y)


def _centres(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (H, 1) and columns (1, W) of the pixels' centres."""
    rows, columns = (torch.arange(size, device=pixels.device, dtype=torch.float64) + 0.5 for size in pixels.shape[2:])
    return rows[:, None], columns[None]


def _sampled(pixels: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The pixels (B, 3, H, W) that hold the points x, y, (B, H, W) each; black outside."""
    height, width = pixels.shape[2:]
    column, row = x.floor().long(), y.floor().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    places = torch.where(inside, row * width + column, 0).flatten(1)[:, None].expand(-1, pixels.shape[1], -1)
    return pixels.flatten(2).gather(2, places).view_as(pixels) * inside[:, None]


def brightness(pixels: Tensor, change: Tensor) -> Tensor:
    """Away from black by the factor 1 + `change`."""
    return _enhanced(pixels, torch.zeros_like(pixels), change)


def contrast(pixels: Tensor, change: Tensor) -> Tensor:
    """Away from the image's mean grey."""
    mean = (_grey(pixels).double().mean((1, 2, 3), keepdim=True) + 0.5).floor()
    return _enhanced(pixels, mean, change)


def color(pixels: Tensor, change: Tensor) -> Tensor:
    """Away from the grey image."""
    return _enhanced(pixels, _grey(pixels), change)


def sharpness(pixels: Tensor, change: Tensor) -> Tensor:
    """Away from the smoothed image, whose border is the image's own."""
    kernel = torch.ones(3, 3, dtype=torch.float64, device=pixels.device)
    kernel[1, 1] = 5
    sums = functional.conv2d(pixels.flatten(0, 1)[:, None].double(), kernel[None, None]).unflatten(0, pixels.shape[:2])
    smooth = pixels.double()
    smooth[:, :, 1:-1, 1:-1] = (sums[:, :, 0] / 13 + 0.5).floor()
    return _enhanced(pixels, smooth, change)


def _grey(pixels: Tensor) -> Tensor:
    """(B, 1, H, W): ITU-R 601 luma in 16-bit fixed point, rounded."""
    red, green, blue = pixels.int().unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16)[:, None]


def _enhanced(pixels: Tensor, dull: Tensor, change: Tensor) -> Tensor:
    """`dull` + (1 + change) * (pixels - dull) in single precision, rounded down, within a byte."""
    factor, dull = (1 + change).float()[:, None, None, None], dull.float()
    return (dull + factor * (pixels.float() - dull)).clamp(0, 255).to(torch.uint8)


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Only the highest `bits` of each value."""
    step = (2 ** (8 - bits)).to(torch.uint8)[:, None, None, None]
    return pixels - pixels % step


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Values from `threshold` on are inverted."""
    return torch.where(pixels >= threshold[:, None, None, None], 255 - pixels, pixels)


def invert(pixels: Tensor, unused: Tensor) -> Tensor:
    """255 less each value."""
    return 255 - pixels


def autocontrast(pixels: Tensor, unused: Tensor) -> Tensor:
    """Each channel stretched to 0..255, rounded down; a channel of one value stays."""
    low, high = (extreme(pixels, (2, 3), keepdim=True).int() for extreme in (torch.amin, torch.amax))
    stretched = (pixels.int() - low) * 255 // (high - low).clamp(min=1)
    return torch.where(high > low, stretched, pixels).to(torch.uint8)


def equalize(pixels: Tensor, unused: Tensor) -> Tensor:
    """Each channel mapped by its cumulative histogram, so that all values are about equally frequent."""
    flat = pixels.flatten(2).long()
    counts = torch.zeros(*flat.shape[:2], 256, dtype=torch.long, device=flat.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat))
    last = counts.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - last) // 255
    table = (counts.cumsum(2) - counts + step // 2) // step.clamp(min=1)
    mapped = table.clamp(max=255).gather(2, flat)
    return torch.where(step > 0, mapped, flat).to(torch.uint8).view_as(pixels)


OPERATIONS = {
    "ShearX": Operation(shear_x, lambda level: 0.3 * level / 9, signed=True),
    "ShearY": Operation(shear_y, lambda level: 0.3 * level / 9, signed=True),
    "TranslateX": Operation(translate_x, lambda level: 150 / 331 * level / 9, signed=True),
    "TranslateY": Operation(translate_y, lambda level: 150 / 331 * level / 9, signed=True),
    "Rotate": Operation(rotate, lambda level: 30 * level / 9, signed=True),
    "Brightness": Operation(brightness, lambda level: 0.9 * level / 9, signed=True),
    "Color": Operation(color, lambda level: 0.9 * level / 9, signed=True),
    "Contrast": Operation(contrast, lambda level: 0.9 * level / 9, signed=True),
    "Sharpness": Operation(sharpness, lambda level: 0.9 * level / 9, signed=True),
    "Posterize": Operation(posterize, lambda level: 8 - round(4 * level / 9)),
    "Solarize": Operation(solarize, lambda level: 255 * (9 - level) / 9),
    "AutoContrast": Operation(autocontrast),
    "Equalize": Operation(equalize),
    "Invert": Operation(invert),
}

Step = tuple[str, float, int]  # operation, probability, level (0 where there is none)
POLICY: tuple[tuple[Step, Step], ...] = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)

# The policy as tensors (pairs, 2), to be looked up for a whole batch.
KINDS = torch.tensor([[list(OPERATIONS).index(name) for name, _, _ in pair] for pair in POLICY])
CHANCES = torch.tensor([[chance for _, chance, _ in pair] for pair in POLICY], dtype=torch.float64)
STRENGTHS = torch.tensor(
    [[OPERATIONS[name].strength(level) for name, _, level in pair] for pair in POLICY], dtype=torch.float64
)
SIGNED = torch.tensor([[OPERATIONS[name].signed for name, _, _ in pair] for pair in POLICY])
