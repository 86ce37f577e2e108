"""Recordings of event cameras: bytes to events, events to frames. The result fits networks that take a frame per step.

N-MNIST: Orchard, Jayawant, Cohen, Thakor, "Converting Static Image Datasets to Spiking Neuromorphic Datasets Using
Saccades", Frontiers in Neuroscience 9:437, 2015.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snnkd_deploy.errors import DataError

BYTES = 5  # of one event


@dataclass(frozen=True, eq=False)
class Events:
    """One recording in order of time, int64 `(events,)` each: pixels, 0 (darker) or 1 (brighter), microseconds."""

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    polarity: NDArray[np.int64]
    time: NDArray[np.int64]


def decode(body: bytes, size: tuple[int, int], where: str) -> Events:
    """The events in an N-MNIST file of a sensor of `size` (height, width); DataError names the file as `where`.

    An event is 5 bytes: x, y, one bit of polarity and 23 bits of time, most significant first.
    """
    if not body or len(body) % BYTES:
        raise DataError(f"{where} has {len(body)} bytes; events of {BYTES} bytes each are needed, at least one")
    b = np.frombuffer(body, dtype=np.uint8).reshape(-1, BYTES).astype(np.int64)
    events = Events(b[:, 0], b[:, 1], b[:, 2] >> 7, (b[:, 2] & 0x7F) << 16 | b[:, 3] << 8 | b[:, 4])
    _check(events, size, where)
    return events


def _check(events: Events, size: tuple[int, int], where: str) -> None:
    outside = (events.y >= size[0]) | (events.x >= size[1])
    if outside.any():
        first = int(outside.argmax())
        met = f"x {events.x[first]}, y {events.y[first]}"
        raise DataError(f"{where}: event {first} lies at {met}; the sensor has {size[1]}x{size[0]} pixels")
    back = np.diff(events.time) < 0
    if back.any():
        first = int(back.argmax())
        met = f"from {events.time[first]} to {events.time[first + 1]} us"
        raise DataError(f"{where}: time runs backwards after event {first}, {met}; events must be in order of time")


def frames(events: Events, timesteps: int, size: tuple[int, int], highest: int) -> NDArray[np.uint8]:
    """Events per bin, polarity and pixel, at most `highest`: (timesteps, 2, height, width).

    The bins are equally long, the first starts with the first event and the last ends with the last one.
    """
    since = events.time - events.time[0]
    step = since * timesteps // (since[-1] + 1)
    shape = (timesteps, 2, *size)
    places = np.ravel_multi_index((step, events.polarity, events.y, events.x), shape)
    counts = np.bincount(places, minlength=int(np.prod(shape)))
    return np.minimum(counts, highest).astype(np.uint8).reshape(shape)
