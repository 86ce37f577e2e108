"""N-MNIST: digits seen by an event camera, binned into frames."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snnkd_deploy.datasets.archives import members, read_small
from snnkd_deploy.datasets.samples import DataSet, Split
from snnkd_deploy.errors import DataError
from snnkd_deploy.events import decode, frames

NMNIST = "Train/<label>/<number>.bin and Test/<label>/<number>.bin, or one n-mnist*.tar, .tar.gz or .tar.xz of them"
NMNIST_SIZE = (34, 34)  # pixels of the sensor that are used


def n_mnist(folder: Path, timesteps: int) -> DataSet:
    """Digits seen by a moving event camera, Tx2x34x34; a pixel is 1 if it had an event in the bin: a spike."""
    train, test = _n_mnist(folder, timesteps, highest=1)
    return DataSet("n-mnist", train, test, tuple("0123456789"), 1.0)


def n_mnist_counts(folder: Path, timesteps: int) -> DataSet:
    """The same with the number of events in the bin, at most 255: no spikes, so a first layer multiplies."""
    train, test = _n_mnist(folder, timesteps, highest=255)
    return DataSet("n-mnist-counts", train, test, tuple("0123456789"), 1.0, largest=255)


def _n_mnist(folder: Path, timesteps: int, highest: int) -> tuple[Split, Split]:
    """Training and test recordings, each in the order of their numbers; a recording is binned as soon as it is read."""
    found: dict[str, dict[tuple[str, int], NDArray[np.uint8]]] = {"Train": {}, "Test": {}}
    for place, split, label, number, body in _recordings(folder):
        if (number, label) in found[split]:
            raise DataError(f"{place}: {split}/{label}/{number}.bin is there twice")
        events = decode(body, NMNIST_SIZE, f"{split}/{label}/{number}.bin of {place}")
        found[split][number, label] = frames(events, timesteps, NMNIST_SIZE, highest)
    shape = (timesteps, 2, *NMNIST_SIZE)
    return _stacked(found["Train"], shape), _stacked(found["Test"], shape)


def _stacked(found: dict[tuple[str, int], NDArray[np.uint8]], shape: tuple[int, ...]) -> Split:
    order = sorted(found)
    images = np.array([found[key] for key in order], dtype=np.uint8).reshape(len(order), *shape)
    return Split(images, np.array([label for _, label in order], dtype=np.int64))


def _recordings(folder: Path) -> Iterator[tuple[Path, str, int, str, bytes]]:
    """Place, split, label, number and content of each N-MNIST file, from the folder or the archive in it."""
    place = next((one for one in (folder, *sorted(folder.glob("*"))) if (one / "Train").is_dir()), None)
    if place is None:
        place = _only_archive(folder)
        files = members(place, lambda name: _NMNIST_FILE.search(name) is not None)
    else:
        files = ((path.as_posix(), read_small(path)) for path in place.glob("T*/*/*.bin"))
    for name, body in files:
        if match := _NMNIST_FILE.search(name):
            yield place, match[1], int(match[2]), match[3], body


_NMNIST_FILE = re.compile(r"(?:^|/)(Train|Test)/([0-9])/([^/.]+)\.bin$")


def _only_archive(folder: Path) -> Path:
    archives = sorted(path for path in folder.glob("*.tar*") if path.name.lower().startswith(("n-mnist", "nmnist")))
    if len(archives) != 1:
        met = ", ".join(path.name for path in archives) or "none"
        raise DataError(f"no Train in {folder}; one archive n-mnist*.tar* is needed instead, met {met}")
    return archives[0]
