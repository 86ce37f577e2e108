"""Events are what their five bytes say, and frames are counts of them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from snnkd_deploy.errors import DataError
from snnkd_deploy.events import Events, decode, frames
from tests.recordings import Event, encoded

SIZE = (34, 34)


def events(*given: Event) -> Events:
    return decode(encoded(given), SIZE, "file")


def test_an_event_is_x_y_polarity_and_23_bits_of_time() -> None:
    found = decode(bytes([3, 33, 0x00, 0x01, 0x02, 33, 0, 0xFF, 0xFF, 0xFF]), SIZE, "file")
    assert_array_equal(found.x, [3, 33])
    assert_array_equal(found.y, [33, 0])
    assert_array_equal(found.polarity, [0, 1])
    assert_array_equal(found.time, [258, (1 << 23) - 1])


def test_bins_are_equally_long_from_the_first_event_to_the_last() -> None:
    seen = frames(events((0, 0, 0, 100), (1, 0, 0, 104), (2, 0, 0, 105), (3, 0, 0, 109)), 2, SIZE, 1)
    assert_array_equal(seen[0, 0, 0, :4], [1, 1, 0, 0])  # 100 to 104 us
    assert_array_equal(seen[1, 0, 0, :4], [0, 0, 1, 1])  # 105 to 109 us
    assert seen.sum() == 4


def test_frames_hold_counts_by_polarity_row_and_column_up_to_the_highest() -> None:
    recording = events(*[(5, 2, 1, 0)] * 300, (5, 2, 0, 0), (5, 2, 0, 1))
    counted, capped, binary = (frames(recording, 1, SIZE, highest) for highest in (255, 7, 1))
    assert counted.shape == (1, 2, 34, 34)
    assert counted.dtype == np.uint8
    assert (counted[0, 1, 2, 5], counted[0, 0, 2, 5], counted.astype(int).sum()) == (255, 2, 257)
    assert (capped[0, 1, 2, 5], capped[0, 0, 2, 5]) == (7, 2)
    assert (binary[0, 1, 2, 5], binary[0, 0, 2, 5], binary.sum()) == (1, 1, 2)


def test_one_event_and_simultaneous_events_lie_in_the_first_frame() -> None:
    assert_array_equal(frames(events((1, 1, 0, 9)), 3, SIZE, 1).sum(axis=(1, 2, 3)), [1, 0, 0])
    assert_array_equal(frames(events((1, 1, 0, 9), (2, 1, 0, 9)), 3, SIZE, 1).sum(axis=(1, 2, 3)), [2, 0, 0])


def test_counts_of_finer_bins_add_up_to_those_of_coarser_ones() -> None:
    random = np.random.default_rng(0)
    time = np.sort(random.integers(0, 1 << 23, 500)).tolist()
    recording = events(*((*random.integers(0, 34, 2).tolist(), int(random.integers(2)), t) for t in time))
    fine, coarse = (frames(recording, bins, SIZE, 255) for bins in (12, 3))
    assert_array_equal(fine.reshape(3, 4, 2, 34, 34).sum(axis=1), coarse)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ["0 bytes", "5 bytes each"]),
        (b"\0" * 7, ["7 bytes", "5 bytes each"]),
        (encoded([(0, 0, 0, 1), (34, 7, 0, 2)]), ["event 1", "x 34, y 7", "34x34"]),
        (encoded([(0, 240, 1, 1)]), ["event 0", "x 0, y 240"]),
        (encoded([(0, 0, 0, 1), (0, 0, 0, 9), (0, 0, 0, 8)]), ["after event 1", "from 9 to 8 us"]),
    ],
)
def test_a_damaged_recording_is_one_error_that_names_the_file(body: bytes, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        decode(body, SIZE, "Train/3/00001.bin")
    assert all(word in str(caught.value) for word in ["Train/3/00001.bin", *words]), caught.value
