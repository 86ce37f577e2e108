"""N-MNIST files for tests: few events, written as the camera's software writes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

Event = tuple[int, int, int, int]  # x, y, polarity, microseconds


def encoded(events: Iterable[Event]) -> bytes:
    """5 bytes each: x, y, then polarity as the highest bit and 23 bits of time."""
    return b"".join(bytes([x, y]) + ((polarity << 23) | time).to_bytes(3, "big") for x, y, polarity, time in events)


def some_recording(label: int, seed: int, events: int = 300) -> bytes:
    """A bar at a height that tells the label, seen over 100 ms."""
    random = np.random.default_rng([label, seed])
    x, polarity = random.integers(0, 34, events), random.integers(0, 2, events)
    y = 3 * label + random.integers(0, 3, events)
    time = np.sort(random.integers(0, 100_000, events))
    return encoded(zip(x.tolist(), y.tolist(), polarity.tolist(), time.tolist(), strict=True))


def write_recordings(folder: Path, train: int, test: int) -> Path:
    """So many recordings of each digit in Train and Test, numbered from 1 in turns of the digits."""
    for split, each in (("Train", train), ("Test", test)):
        for number in range(10 * each):
            path = folder / split / str(number % 10) / f"{number + 1:05}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(some_recording(number % 10, number))
    return folder
