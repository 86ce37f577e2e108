"""AEDAT files of the DVS128 camera, 128x128 pixels: version 2.0 as jAER writes it, version 3.1 as cAER does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from snnkd_deploy.errors import DataError
from snnkd_deploy.events import Events

SIDE = 128  # pixels of the sensor, both ways
HEADER = np.dtype("<i2, <i2, <i4, <i4, <i4, <i4, <i4, <i4")
"""Of a packet: type, source, bytes of an event, offset of its time, overflows of time, capacity, number, valid ones."""
POLARITY = 1  # type of a packet of polarity events
EVENT = 8  # bytes of one
END = b"#!END-HEADER\r\n"

Words = NDArray[np.int64]


def decode2(body: bytes, where: str) -> Events:
    """The events in a file of AEDAT 2.0, in order of time; DataError names it as `where`, and the offset.

    Behind lines that start with # an event is an address and a time, 32 bits each, big-endian. An address has its
    polarity in bit 0 (1 is darker), the row in bits 1 to 7 and the column in bits 8 to 14, both counted from the lower
    right; bit 15 marks what comes from outside of the sensor.
    """
    if not body.startswith(b"#!AER-DAT2"):
        raise DataError(f"{where}: starts with {body[:12]!r}; #!AER-DAT2.0 is needed")
    start = _behind_comments(body)
    if (len(body) - start) % 8 or start == len(body):
        met = f"{len(body) - start} bytes from offset {start} to the end"
        raise DataError(f"{where}: {met}; events of 8 bytes each are needed, at least one")
    address, time = np.frombuffer(body, ">u4", offset=start).astype(np.int64).reshape(-1, 2).T
    inside = (address >> 15) & 1 == 0
    address, time = address[inside], time[inside]
    if not len(time):
        raise DataError(f"{where}: no event of the sensor behind offset {start}")
    row, column = (address >> 1) & 0x7F, (address >> 8) & 0x7F
    return _ordered(Events(SIDE - 1 - column, SIDE - 1 - row, 1 - (address & 1), time))


def decode3(body: bytes, where: str) -> Events:
    """The events in a file of AEDAT 3.1, in order of time; DataError names it as `where`, and the offset.

    Packets follow the header, all little-endian. A polarity event is 32 bits of data, valid in bit 0, polarity in bit
    1, y in bits 2 to 16, x in bits 17 to 31, then 31 bits of time, to which the packet adds its overflows.
    """
    if not body.startswith(b"#!AER-DAT3"):
        raise DataError(f"{where}: starts with {body[:12]!r}; #!AER-DAT3.1 is needed")
    start = body.find(END) + len(END)
    if start < len(END):
        raise DataError(f"{where}: no line #!END-HEADER in its {len(body)} bytes")
    parts = list(_polarity_packets(body, start, where))
    data, time = np.concatenate(parts, axis=1) if parts else np.empty((2, 0), dtype=np.int64)
    valid = data & 1 == 1
    data, time = data[valid], time[valid]
    if not len(data):
        raise DataError(f"{where}: no valid polarity event behind offset {start}")
    events = Events((data >> 17) & 0x7FFF, (data >> 2) & 0x7FFF, (data >> 1) & 1, time)
    outside = (events.x >= SIDE) | (events.y >= SIDE)
    if outside.any():
        first = int(outside.argmax())
        met = f"event {first} at x {events.x[first]}, y {events.y[first]}"
        raise DataError(f"{where}: {met}; the sensor has {SIDE}x{SIDE} pixels")
    return _ordered(events)


def smaller(events: Events, side: int) -> Events:
    """The same events on a sensor of `side` x `side` pixels, each of which stands for a square of the 128x128."""
    return replace(events, x=events.x * side // SIDE, y=events.y * side // SIDE)


def between(events: Events, start: int, end: int) -> Events:
    """Those from `start` to before `end`, in microseconds."""
    low, high = np.searchsorted(events.time, [start, end])
    part = slice(int(low), int(high))
    return Events(events.x[part], events.y[part], events.polarity[part], events.time[part])


def _behind_comments(body: bytes) -> int:
    """Offset of the first line that does not start with #."""
    start = 0
    while body[start : start + 1] == b"#":
        end = body.find(b"\n", start)
        start = len(body) if end < 0 else end + 1
    return start


def _polarity_packets(body: bytes, start: int, where: str) -> Iterator[Words]:
    """Data and time of each packet of polarity events: (2, events)."""
    while start < len(body):
        if len(body) - start < HEADER.itemsize:
            raise DataError(f"{where}: ends within the header of the packet at offset {start}")
        kind, _, size, _, overflow, capacity, number, _ = np.frombuffer(body, HEADER, 1, start)[0].tolist()
        first, length = start + HEADER.itemsize, size * capacity
        if size < 0 or not 0 <= number <= capacity or first + length > len(body):
            met = f"{number} of {capacity} events of {size} bytes, and {len(body) - first} bytes follow"
            raise DataError(f"{where}: the packet at offset {start} promises {met}")
        if kind == POLARITY and size != EVENT:
            raise DataError(f"{where}: polarity events of {size} bytes at offset {start}; {EVENT} are needed")
        if kind == POLARITY and number:
            words = np.frombuffer(body, "<u4", 2 * number, first).astype(np.int64).reshape(-1, 2).T
            yield np.stack([words[0], words[1] + (overflow << 31)])
        start = first + length


def _ordered(events: Events) -> Events:
    """In order of time; events of one time stay in the order of the file."""
    if not (np.diff(events.time) < 0).any():
        return events
    order = np.argsort(events.time, kind="stable")
    return Events(events.x[order], events.y[order], events.polarity[order], events.time[order])
