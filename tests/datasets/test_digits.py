"""The digits are always alike."""

from __future__ import annotations

import numpy as np

from snnkd_deploy import data


def test_digits_are_split_by_class_and_always_alike() -> None:
    first, second = data.load("digits"), data.load("digits")
    assert (len(first.train), len(first.test), first.input_shape) == (1438, 359, (1, 8, 8))
    assert first.train.images.dtype == np.uint8
    assert first.train.images.max() == 16
    assert first.scale == 1 / 16
    share = np.bincount(first.test.labels) / np.bincount(np.concatenate([first.train.labels, first.test.labels]))
    assert abs(share - 0.2).max() < 0.01
    assert first.sha256 == second.sha256 == "e552bb6f151332e4e1dd30926579df7d35bc8f492b5bafc3b00a8acfb3213f9b"
