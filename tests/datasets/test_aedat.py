"""AEDAT files are what their formats say, and a damaged one is named with the offset."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from snnkd_deploy.datasets.aedat import between, decode2, decode3, smaller
from snnkd_deploy.errors import DataError
from snnkd_deploy.events import Events
from tests.aedat_files import aedat2, aedat3, packet
from tests.recordings import Event

SOME: list[Event] = [(0, 0, 0, 5), (127, 3, 1, 6), (35, 127, 1, 6), (2, 1, 0, 2_000_000_000)]
HEADER2, HEADER3 = len(aedat2([])), len(aedat3())


def rows(events: Events) -> list[Event]:
    return list(zip(*(one.tolist() for one in (events.x, events.y, events.polarity, events.time)), strict=True))


def test_version_2_is_big_endian_addresses_and_times_behind_comments() -> None:
    assert rows(decode2(aedat2(SOME), "file")) == SOME
    assert rows(decode2(aedat2(SOME, external=3), "file")) == SOME
    first = aedat2([(127, 126, 1, 258)])[HEADER2:]
    assert first == bytes([0, 0, 0, 2, 0, 0, 1, 2])  # row in bits 1 to 7, from below; polarity bit 0 is darker


def test_version_3_is_packets_of_little_endian_events() -> None:
    body = aedat3(packet(SOME[:2]), packet([(9, 9, 1, 1)], kind=0), packet(SOME[2:]), packet([]))
    assert rows(decode3(body, "file")) == SOME
    assert packet([(1, 2, 1, 258)])[28:] == bytes([0b1011, 0, 2, 0, 2, 1, 0, 0])


def test_events_that_are_not_valid_are_left_out_and_overflows_make_times_longer() -> None:
    found = rows(decode3(aedat3(packet(SOME, invalid=1), packet([(1, 1, 1, 7)], overflow=1)), "file"))
    assert found == [*SOME[1:], (1, 1, 1, (1 << 31) + 7)]


def test_events_out_of_order_are_sorted_by_time() -> None:
    mixed: list[Event] = [(1, 1, 1, 9), (2, 1, 1, 3), (3, 1, 1, 9), (4, 1, 1, 3)]
    wanted = [mixed[1], mixed[3], mixed[0], mixed[2]]
    assert rows(decode2(aedat2(mixed), "file")) == rows(decode3(aedat3(packet(mixed)), "file")) == wanted


def test_a_part_is_from_its_start_to_before_its_end() -> None:
    events = decode2(aedat2([(0, 0, 0, time) for time in (1, 4, 4, 7, 9)]), "file")
    assert_array_equal(between(events, 4, 9).time, [4, 4, 7])
    assert not len(between(events, 10, 90).time)


def test_a_smaller_sensor_has_squares_as_pixels() -> None:
    events = decode2(aedat2([(x, 127 - x, 0, x) for x in range(128)]), "file")
    assert_array_equal(smaller(events, 32).x, np.repeat(np.arange(32), 4))
    assert_array_equal(smaller(events, 48).y[::-1], np.floor(np.arange(128) * 48 / 128))
    assert rows(smaller(events, 128)) == rows(events)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ["b''", "#!AER-DAT2.0"]),
        (aedat3(packet(SOME)), ["AER-DAT3", "#!AER-DAT2.0"]),
        (aedat2([]), [f"0 bytes from offset {HEADER2}", "at least one"]),
        (aedat2(SOME)[:-3], [f"29 bytes from offset {HEADER2}"]),
        (aedat2([], external=2), ["no event of the sensor"]),
    ],
)
def test_a_damaged_file_of_version_2_is_refused(body: bytes, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        decode2(body, "cat/1.aedat")
    assert all(word in str(caught.value) for word in ["cat/1.aedat", *words]), caught.value


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (aedat2(SOME), ["AER-DAT2", "#!AER-DAT3.1"]),
        (b"#!AER-DAT3.1\r\n#!END-HE", ["no line #!END-HEADER", "22 bytes"]),
        (aedat3(), [f"no valid polarity event behind offset {HEADER3}"]),
        (aedat3(packet(SOME, invalid=4)), ["no valid polarity event"]),
        (aedat3(packet(SOME))[:-1], [f"packet at offset {HEADER3}", "4 of 4 events of 8 bytes", "31 bytes follow"]),
        (aedat3(packet(SOME), packet(SOME)[:20]), ["ends within the header", f"offset {HEADER3 + 60}"]),
        (aedat3(packet([(0, 128, 0, 1)])), ["event 0 at x 0, y 128", "128x128"]),
        (aedat3(packet(SOME).replace(b"\x08", b"\x04", 1)), ["4 bytes", "8 are needed"]),
    ],
)
def test_a_damaged_file_of_version_3_is_refused(body: bytes, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        decode3(body, "user01.aedat")
    assert all(word in str(caught.value) for word in ["user01.aedat", *words]), caught.value
