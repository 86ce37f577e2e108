"""Each operation equals its definition written out for one pixel after the other, and the policy draws what it says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from torch import Tensor

from snnkd_deploy import autoaugment as policy
from snnkd_deploy.autoaugment import OPERATIONS, POLICY, Apply, autoaugment

Image = NDArray[np.uint8]  # (3, height, width)


def some_images(count: int = 6, height: int = 12, width: int = 10) -> Tensor:
    """Noise, gradients, a flat image and one with few values."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (6, 3, height, width), generator=random).to(torch.uint8)
    pixels[1] = torch.arange(width, dtype=torch.uint8) * 7 + 20
    pixels[2] = 77
    pixels[3] = pixels[3] // 100 + 100
    return pixels[:count]


def grey(image: Image) -> NDArray[np.int64]:
    red, green, blue = image.astype(np.int64)
    return np.asarray((red * 19595 + green * 38470 + blue * 7471 + 32768) // 65536)


def blended(image: Image, dull: NDArray[np.int64], change: float) -> Image:
    values = dull.astype(np.float32) + np.float32(1 + change) * (image - dull).astype(np.float32)
    return np.asarray(np.floor(np.clip(values, 0, 255)), dtype=np.uint8)


def smoothed(image: Image) -> NDArray[np.int64]:
    found = image.astype(np.int64)
    for channel, row, column in np.ndindex(*image.shape):
        if 0 < row < image.shape[1] - 1 and 0 < column < image.shape[2] - 1:
            around = image[channel, row - 1 : row + 2, column - 1 : column + 2].astype(int).sum()
            found[channel, row, column] = (2 * (around + 4 * int(image[channel, row, column])) + 13) // 26
    return found


def mean_grey(image: Image) -> NDArray[np.int64]:
    return np.full((1, 1, 1), math.floor(grey(image).mean() + 0.5))


def warped(image: Image, source: Callable[[float, float], tuple[float, float]]) -> Image:
    """`source` gives the point (x, y) that the centre (x, y) of a pixel shows."""
    found = np.zeros_like(image)
    _, height, width = image.shape
    for row, column in np.ndindex(height, width):
        x, y = (math.floor(one) for one in source(column + 0.5, row + 0.5))
        if 0 <= x < width and 0 <= y < height:
            found[:, row, column] = image[:, y, x]
    return found


def rotated(image: Image, degrees: float) -> Image:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    my, mx = image.shape[1] / 2, image.shape[2] / 2
    return warped(image, lambda x, y: (cos * (x - mx) - sin * (y - my) + mx, sin * (x - mx) + cos * (y - my) + my))


def autocontrasted(image: Image) -> Image:
    found = image.copy()
    for channel in range(3):
        low, high = int(image[channel].min()), int(image[channel].max())
        if high > low:
            found[channel] = [[(int(value) - low) * 255 // (high - low) for value in row] for row in image[channel]]
    return found


def equalized(image: Image) -> Image:
    found = image.copy()
    for channel in range(3):
        histogram = Counter(image[channel].flatten().tolist())
        step = (image[channel].size - histogram[max(histogram)]) // 255
        if step:
            below = {value: sum(n for v, n in histogram.items() if v < value) for value in histogram}
            table = {value: min(255, (step // 2 + below[value]) // step) for value in histogram}
            found[channel] = np.vectorize(table.__getitem__)(image[channel])
    return found


DEFINITIONS: dict[str, Callable[[Image, float], Image]] = {
    "ShearX": lambda image, m: warped(image, lambda x, y: (x + m * y, y)),
    "ShearY": lambda image, m: warped(image, lambda x, y: (x, y + m * x)),
    "TranslateX": lambda image, m: warped(image, lambda x, y: (x + int(m * image.shape[2]), y)),
    "TranslateY": lambda image, m: warped(image, lambda x, y: (x, y + int(m * image.shape[1]))),
    "Rotate": rotated,
    "Brightness": lambda image, m: blended(image, np.zeros((1, 1, 1), np.int64), m),
    "Color": lambda image, m: blended(image, grey(image)[None], m),
    "Contrast": lambda image, m: blended(image, mean_grey(image), m),
    "Sharpness": lambda image, m: blended(image, smoothed(image), m),
    "Posterize": lambda image, m: (image.astype(int) >> (8 - int(m)) << (8 - int(m))).astype(np.uint8),
    "Solarize": lambda image, m: np.where(image >= m, 255 - image, image).astype(np.uint8),
    "AutoContrast": lambda image, m: autocontrasted(image),
    "Equalize": lambda image, m: equalized(image),
    "Invert": lambda image, m: (255 - image).astype(np.uint8),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_its_definition_at_every_level_and_sign(name: str) -> None:
    operation = OPERATIONS[name]
    images = some_images(6, 24, 20)  # 480 pixels: enough for Equalize to do something
    for level in (0, 3, 7, 9):
        for sign in (1, -1) if operation.signed else (1,):
            strength = sign * operation.strength(level)
            found = operation.apply(images, torch.full((len(images),), strength, dtype=torch.float64))
            assert found.dtype == torch.uint8
            for image, one in zip(images.numpy(), found.numpy(), strict=True):
                assert_array_equal(one, DEFINITIONS[name](image, strength))


def of(*rows: list[int]) -> Tensor:
    """One image with the same three channels."""
    return torch.tensor([[rows] * 3], dtype=torch.uint8)


def strength(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


@pytest.mark.parametrize(
    ("apply", "value", "expected"),
    [
        (policy.invert, 0, [[245, 235, 155], [55, 0, 255]]),
        (policy.posterize, 4, [[0, 16, 96], [192, 240, 0]]),  # multiples of 16
        (policy.solarize, 100, [[10, 20, 155], [55, 0, 0]]),
        (policy.brightness, 0.5, [[15, 30, 150], [255, 255, 0]]),
        (policy.brightness, -0.9, [[1, 2, 10], [20, 25, 0]]),  # 25.5 rounds down
        (policy.color, 0.9, [[10, 20, 100], [200, 255, 0]]),  # grey stays
        (policy.contrast, -0.5, [[54, 59, 99], [149, 176, 49]]),  # mean 97.5, so 98
        (policy.translate_x, 0.34, [[20, 100, 0], [255, 0, 0]]),  # 1.02 pixels
        (policy.translate_y, -0.5, [[0, 0, 0], [10, 20, 100]]),
        (policy.rotate, 180, [[0, 255, 200], [100, 20, 10]]),
        (policy.autocontrast, 0, [[10, 20, 100], [200, 255, 0]]),  # uses 0..255 already
        (policy.equalize, 0, [[10, 20, 100], [200, 255, 0]]),  # fewer than 255 pixels
    ],
)
def test_numbers_worked_by_hand(apply: Apply, value: float, expected: list[list[int]]) -> None:
    assert apply(of([10, 20, 100], [200, 255, 0]), strength(value))[0, 2].tolist() == expected


def test_shears_worked_by_hand() -> None:
    image = of([1, 2, 3], [4, 5, 6], [7, 8, 9])
    assert policy.shear_x(image, strength(0.4))[0, 0].tolist() == [[1, 2, 3], [5, 6, 0], [8, 9, 0]]  # 0.2, 0.6, 1.0
    assert policy.shear_y(image, strength(-0.4))[0, 0].tolist() == [[1, 0, 0], [4, 2, 3], [7, 5, 6]]


def test_the_middle_of_a_sharpened_square_worked_by_hand() -> None:
    image = of([0, 0, 0], [0, 130, 0], [0, 0, 0])
    assert policy.sharpness(image, strength(0.9))[0, 0, 1, 1] == 202  # smooth 50, 50 + 1.9 * 80
    assert policy.sharpness(image, strength(-0.9))[0, 0, 1, 1] == 58


def test_a_full_range_is_equalized_to_itself_and_two_values_to_the_ends() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    assert torch.equal(policy.equalize(every, strength(0)), every)
    two = torch.tensor([5, 6], dtype=torch.uint8).repeat_interleave(512).view(1, 1, 32, 32).repeat(1, 3, 1, 1)
    assert policy.equalize(two, strength(0)).unique().tolist() == [
        0,
        255,
    ]  # 1 // 2 = 0 and (1 + 512) // 2 = 256, capped


def test_strengths_differ_within_a_batch() -> None:
    pixels = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    found = policy.brightness(pixels, torch.tensor([0.5, -0.5], dtype=torch.float64))
    assert found[:, 0, 0, 0].tolist() == [150, 50]


def test_the_policy_is_25_pairs_with_the_strengths_of_the_paper() -> None:
    assert len(POLICY) == 25
    assert {name for pair in POLICY for name, _, _ in pair} <= OPERATIONS.keys()
    assert OPERATIONS["TranslateX"].strength(9) * 331 == pytest.approx(150)
    assert [OPERATIONS["Posterize"].strength(level) for level in range(10)] == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]
    assert [OPERATIONS["Solarize"].strength(level) for level in (0, 3, 9)] == [255, 170, 0]


@pytest.mark.parametrize("pair", range(25))
def test_each_pair_is_done_in_its_order_as_often_as_it_says(pair: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = some_images(1, 24, 20)
    monkeypatch.setattr(torch, "randint", _always(torch.randint, 25, pair))
    torch.manual_seed(pair)
    found = autoaugment(image.repeat(300, 1, 1, 1))
    (first, p, m), (second, q, n) = POLICY[pair]
    expected = Counter[bytes]()
    for do, share in ((1, p), (0, 1 - p)):
        for do_next, share_next in ((1, q), (0, 1 - q)):
            for sign in (1, -1):
                for sign_next in (1, -1):
                    one = image[0].numpy()
                    for name, level, done, signed in ((first, m, do, sign), (second, n, do_next, sign_next)):
                        operation = OPERATIONS[name]
                        size = operation.strength(level) * (signed if operation.signed else 1)
                        one = DEFINITIONS[name](one, size) if done else one
                    expected[one.tobytes()] += share * share_next / 4  # type: ignore[assignment]
    met = Counter(one.numpy().tobytes() for one in found)
    assert met.keys() <= {key for key, share in expected.items() if share > 0}
    for key, share in expected.items():
        assert met[key] / 300 == pytest.approx(share, abs=0.13)  # over four deviations


def _always(draw: Callable[..., Tensor], high: int, value: int) -> Callable[..., Tensor]:
    """`draw`, but `value` wherever a number below `high` is asked for."""

    def drawn(below: int, size: tuple[int, ...]) -> Tensor:
        return torch.full(size, value) if below == high else draw(below, size)

    return drawn


def test_the_seed_decides_and_the_images_given_stay_as_they_are() -> None:
    images = some_images(6)
    before, found = images.clone(), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(autoaugment(images.repeat(20, 1, 1, 1)))
    assert torch.equal(images, before)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
