"""Folders with small data sets."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.dataset_files import IMAGES, LABELS, idx, some_images, some_labels
from tests.recordings import write_recordings


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A folder with 12 training images as .gz and 5 test images as plain files."""
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(idx(some_images(12))))
    (tmp_path / f"{LABELS}.gz").write_bytes(gzip.compress(idx(some_labels(12))))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(some_images(5)))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(some_labels(5)))
    return tmp_path


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """A folder with two training recordings and one test recording of each digit."""
    return write_recordings(tmp_path / "events", train=2, test=1)
