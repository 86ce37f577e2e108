"""Samples are what the simulator takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.testing import assert_array_equal

from snnkd_deploy import data


def test_samples_come_as_the_simulator_takes_them(events: Path, mnist: Path) -> None:
    split = data.load("n-mnist", events, 3).train
    assert_array_equal(split.integers(np.array([4, 1]))[2, 0], split.images[4, 2])
    assert split.integers(slice(7)).shape == (3, 7, 2, 34, 34)
    still = data.load("mnist", mnist).train
    assert_array_equal(still.integers(slice(7)), still.images[:7])
    assert still.integers(slice(7)).dtype == np.int64
