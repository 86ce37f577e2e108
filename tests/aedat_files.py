"""AEDAT files for tests, written bit by bit as jAER and cAER do."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from tests.recordings import Event


def aedat2(events: Iterable[Event], external: int = 0) -> bytes:
    """Version 2.0 of events (column, row, brighter, microseconds), with so many external ones in between."""
    header = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# 123 created Mon\r\n"
    body = [struct.pack(">II", (127 - x) << 8 | (127 - y) << 1 | (1 - p), t) for x, y, p, t in events]
    return header + struct.pack(">II", 0x8000, 0) * external + b"".join(body)


def packet(events: Iterable[Event], overflow: int = 0, kind: int = 1, invalid: int = 0) -> bytes:
    """A packet of version 3.1 of events (x, y, polarity, microseconds); the first so many are marked as not valid."""
    words = [
        struct.pack("<II", x << 17 | y << 2 | p << 1 | (number >= invalid), t)
        for number, (x, y, p, t) in enumerate(events)
    ]
    count = len(words)
    return struct.pack("<hhiiiiii", kind, 1, 8, 4, overflow, count, count, count - invalid) + b"".join(words)


def aedat3(*packets: bytes) -> bytes:
    """Version 3.1 of these packets."""
    return b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n" + b"".join(packets)
