"""Arrays become integers that the network sees as it did; what cannot is one error with every reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from snnkd_deploy.data import load
from snnkd_deploy.errors import InputError
from snnkd_deploy.samples import load_samples, of_data_set, open_saved, samples_of, save

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, size=(6, 1, 4, 4), dtype=np.uint8)
PIXELS[0, 0, 0, 0] = 255


@pytest.mark.parametrize(
    ("x", "scale", "low", "high", "note"),
    [
        (PIXELS, 1 / 255, 0, 255, "the network sees x / 255"),
        ((PIXELS / 255).astype(np.float32), 1 / 255, 0, 255, "exactly"),
        (torch.from_numpy(PIXELS / 255), 1 / 255, 0, 255, "exactly"),
        ((PIXELS > 99).astype(np.float32), 1.0, 0, 1, "spikes"),
        (PIXELS / 255 * 2 - 1, 1 / 127, -127, 127, "largest change"),
        (PIXELS * 3.0, 3.0, 0, 255, "exactly"),
        (PIXELS.astype(np.int64) * 2, 1.0, 0, 510, "as they are"),
    ],
)
def test_numbers_keep_their_worth(x: object, scale: float, low: int, high: int, note: str) -> None:
    samples = samples_of(x)
    source = samples.source
    assert samples.scale == pytest.approx(scale, rel=0.01)
    assert source.low == low
    assert 0.9 * high <= source.high <= high
    assert note in samples.note
    step = samples.scale * (1 if "exactly" not in note else 1e-3)
    shown = PIXELS / 255 if "x / 255" in note else np.asarray(x, dtype=np.float64)
    np.testing.assert_allclose(samples.integers(slice(None)) * samples.scale, shown, atol=step / 2)


def test_frames_are_turned_time_first() -> None:
    x = (RANDOM.random((6, 3, 2, 4, 4)) < 0.5).astype(np.uint8)
    samples = samples_of(x, shape=(2, 4, 4))
    assert not samples.static
    assert (len(samples), samples.shape) == (6, (2, 4, 4))
    np.testing.assert_array_equal(samples.integers(slice(2)), x[:2].swapaxes(0, 1))
    assert samples.spread(3).shape == (3, 3, 2, 4, 4)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 3)), None, "every value of x is 0: nothing can be calibrated"),
        (np.array([[np.nan, 1.0]]), None, "not finite"),
        (np.zeros(5), None, r"x has shape \(5,\); accepted is \(samples, \*shape\)"),
        (np.array([["a", "b"]]), None, "numbers are needed"),
        (PIXELS, np.zeros(3, dtype=int), r"y has type int64 and shape \(3,\); accepted are 6 integers"),
        (PIXELS, np.full(6, 0.5), "y has type float64"),
    ],
)
def test_what_cannot_be_used_says_why(x: object, y: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        samples_of(x, y)


def test_a_shape_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"accepted is \(samples, 1, 5, 5\) or \(samples, time, 1, 5, 5\)"):
        samples_of(PIXELS, shape=(1, 5, 5))


def test_files_hold_x_and_perhaps_y(tmp_path: Path) -> None:
    np.savez(tmp_path / "both.npz", x=PIXELS, y=np.arange(6))
    np.save(tmp_path / "alone.npy", PIXELS)
    np.savez(tmp_path / "other.npz", images=PIXELS)
    (tmp_path / "noise.npz").write_bytes(b"noise")
    assert load_samples(tmp_path / "both.npz").labels is not None
    assert load_samples(tmp_path / "alone.npy").labels is None
    for name, message in (
        ("other", "has no array 'x'; it has images"),
        ("noise", "is not a .npz or .npy"),
        ("none", "no file of"),
    ):
        with pytest.raises(InputError, match=message):
            load_samples(tmp_path / f"{name}.npz")


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    samples = samples_of(PIXELS, np.arange(6))
    save(tmp_path / "s.npz", samples)
    found = open_saved(tmp_path / "s.npz", "samples")
    assert (found.sha256, found.static) == (samples.sha256, True)
    (tmp_path / "s.npz").write_bytes(b"noise")
    with pytest.raises(InputError, match="holds no samples"):
        open_saved(tmp_path / "s.npz", "samples")


def test_a_data_set_is_proven_on_its_test_set_and_calibrated_on_the_other() -> None:
    data = load("digits")
    samples, calibration = of_data_set(data)
    np.testing.assert_array_equal(samples.integers(slice(9)), data.test.integers(slice(9)))
    assert samples.source.high == data.high
    assert len(calibration) == 64
