"""Numbers drawn one by one are noise; data are not, not even shuffled ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from snnkd_deploy.data import load
from snnkd_deploy.energy.noise import is_noise
from snnkd_deploy.ir import Array

KINDS: dict[str, Callable[[np.random.Generator], Array]] = {
    "pixels": lambda random: random.integers(0, 256, (40, 3, 16, 16)),
    "normal": lambda random: random.normal(size=(40, 1, 28, 28)),
    "features": lambda random: random.random((100, 64)),
    "rare": lambda random: random.random((40, 2, 20, 20)) < 0.02,
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_random_numbers_are_noise(kind: str, seed: int) -> None:
    assert is_noise(KINDS[kind](np.random.default_rng(seed)), static=True)


@pytest.mark.parametrize("seed", range(5))
def test_random_frames_are_noise(seed: int) -> None:
    assert is_noise(np.random.default_rng(seed).random((5, 30, 2, 10, 10)) < 0.3, static=False)


def digits(count: int) -> Array:
    return load("digits").test.integers(slice(count))


@pytest.mark.parametrize("count", [20, 100, 359])
def test_pictures_are_no_noise(count: int) -> None:
    assert not is_noise(digits(count), static=True)


def test_shuffled_places_are_no_noise() -> None:
    order = np.random.default_rng(0).permutation(64)
    assert not is_noise(digits(100).reshape(100, 64)[:, order], static=True)


def test_pictures_drawn_as_spikes_are_no_noise() -> None:
    pictures = digits(50)
    assert not is_noise(np.random.default_rng(0).random((4, *pictures.shape)) < pictures / 16, static=False)


@pytest.mark.parametrize("inputs", [np.ones((50, 64)), np.arange(30).reshape(5, 6), np.zeros((2000, 1))])
def test_nothing_is_said_of_too_little(inputs: Array) -> None:
    assert not is_noise(inputs, static=True)


def test_features_without_any_correlation_are_no_noise() -> None:
    """Principal components of digits, each of mean 0 and variance 1."""
    pixels = load("digits").test.integers(slice(None)).reshape(359, 64).astype(np.float64)
    left, _, _ = np.linalg.svd(pixels - pixels.mean(axis=0), full_matrices=False)
    components = left[:, :30] * np.sqrt(len(left))
    assert abs(np.corrcoef(components.T) - np.eye(30)).max() < 1e-9
    assert not is_noise(components, static=True)
