"""Recordings become frames, in the order of their numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from snnkd_deploy import data
from snnkd_deploy.errors import ConfigError, DataError
from snnkd_deploy.events import decode, frames
from tests.dataset_files import tar_of


def test_recordings_are_frames_in_the_order_of_their_numbers(events: Path) -> None:
    found = data.load("n-mnist", events, 5)
    assert (found.frames, found.input_shape, found.scale, found.high) == (True, (5, 2, 34, 34), 1.0, 1)
    assert_array_equal(found.train.labels, [*range(10), *range(10)])
    assert_array_equal(found.test.labels, range(10))
    for row in (0, 13, 19):
        body = (events / "Train" / str(row % 10) / f"{row + 1:05}.bin").read_bytes()
        assert_array_equal(found.train.images[row], frames(decode(body, (34, 34), ""), 5, (34, 34), 1))


def test_counts_are_the_same_recordings_with_numbers_of_events(events: Path) -> None:
    counts, bits = data.load("n-mnist-counts", events, 2), data.load("n-mnist", events, 2)
    assert (counts.high, counts.scale, counts.train.images.max() > 1) == (255, 1.0, True)
    assert_array_equal(counts.test.images > 0, bits.test.images)
    assert_array_equal(counts.train.images.sum(axis=(1, 2, 3, 4), dtype=np.int64), [300] * 20)
    assert counts.sha256 != bits.sha256 != data.load("n-mnist", events, 3).sha256


@pytest.mark.parametrize(
    ("name", "mode"), [("n-mnist.tar", "w"), ("nmnist.tar.gz", "w:gz"), ("N-MNIST.tar.xz", "w:xz")]
)
def test_recordings_are_the_same_from_a_folder_below_and_from_an_archive_in_any_order(
    events: Path, tmp_path: Path, name: str, mode: Literal["w", "w:gz", "w:xz"]
) -> None:
    paths = sorted(events.rglob("*.bin"), reverse=True)
    files = {"some/prefix/labels.csv": b"x", "some/Train/._x": b"junk"}
    files |= {f"some/prefix/{path.relative_to(events)}": path.read_bytes() for path in paths}
    (tmp_path / "packed").mkdir()
    packed = tar_of(tmp_path / "packed" / name, files, mode)
    expected = data.load("n-mnist", events, 4).sha256
    assert [data.load("n-mnist", folder, 4).sha256 for folder in (events.parent, packed)] == [expected] * 2


def test_frames_need_a_number_of_timesteps(events: Path) -> None:
    for timesteps in (None, 0):
        with pytest.raises(ConfigError, match="timesteps"):
            data.load("n-mnist", events, timesteps)


def test_damaged_recordings_are_refused_by_name(events: Path) -> None:
    path = events / "Test" / "3" / "00004.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"Test/3/00004.bin of .*1499 bytes"):
        data.load("n-mnist", events, 4)


def test_places_without_recordings_are_refused(tmp_path: Path) -> None:
    def message(folder: Path) -> str:
        with pytest.raises(DataError) as caught:
            data.load("n-mnist", folder, 1)
        return str(caught.value)

    (tmp_path / "file").touch()
    assert "met none" in message(tmp_path / "file")
    assert "met none" in message(tmp_path)
    tar_of(tmp_path / "n-mnist-a.tar", {"Train/1/1.bin": b"\0" * 5, "b/Train/1/1.bin": b"\0" * 5}, "w")
    assert "Train/1/1.bin is there twice" in message(tmp_path)
    tar_of(tmp_path / "n-mnist-b.tar.xz", {}, "w:xz")
    assert "met n-mnist-a.tar, n-mnist-b.tar.xz" in message(tmp_path)
    (tmp_path / "n-mnist-a.tar").unlink()
    assert "training set: 0 images" in message(tmp_path)
    (tmp_path / "n-mnist-b.tar.xz").write_bytes(b"\xfd7zXZ\0" + b"\0" * 50)
    assert "cannot read" in message(tmp_path)
