"""Data sets by name, pictures or events. A new one is one function, and a line here or `@dataset` above it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from snnkd_deploy.datasets.cifar import cifar10, cifar100
from snnkd_deploy.datasets.digits import digits
from snnkd_deploy.datasets.idx import IDX, fashion_mnist, mnist
from snnkd_deploy.datasets.nmnist import NMNIST, n_mnist, n_mnist_counts
from snnkd_deploy.datasets.samples import DataSet, Split
from snnkd_deploy.errors import ConfigError, DataError, UnknownNameError

__all__ = ["DataSet", "Split", "dataset", "load"]

Reader = Callable[..., DataSet]
"""From a folder to a data set; of event data, from a folder and the number of frames."""


@dataclass(frozen=True)
class Source:
    """How to read a data set; `files` says what has to be in its folder, and is empty if it comes with a package."""

    read: Reader
    files: str = ""
    frames: bool = False


CIFAR = "cifar-{0}-python.tar.gz, or the folder {1} unpacked from it"
SOURCES: dict[str, Source] = {
    "digits": Source(digits),
    "mnist": Source(mnist, IDX),
    "fashion-mnist": Source(fashion_mnist, IDX),
    "cifar10": Source(cifar10, CIFAR.format(10, "cifar-10-batches-py")),
    "cifar100": Source(cifar100, CIFAR.format(100, "cifar-100-python")),
    "n-mnist": Source(n_mnist, NMNIST, frames=True),
    "n-mnist-counts": Source(n_mnist_counts, NMNIST, frames=True),
}


def dataset(name: str, files: str = "", *, frames: bool = False) -> Callable[[Reader], Reader]:
    """Register a function that reads the data set `name` from a folder; with `frames` it bins events."""

    def register(read: Reader) -> Reader:
        SOURCES[name] = Source(read, files, frames)
        return read

    return register


def load(name: str, data_dir: Path | str | None = None, timesteps: int | None = None) -> DataSet:
    """The data set of that name from the folder `data_dir`; nothing is ever downloaded.

    Events are binned into `timesteps` frames; data sets of pictures do without.
    """
    if name not in SOURCES:
        raise UnknownNameError("data set", name, SOURCES)
    source = SOURCES[name]
    if source.files and data_dir is None:
        raise ConfigError(f"data set {name!r} is read from your disk: data_dir must name a folder with {source.files}")
    folder = Path(data_dir or ".")
    if source.files and not folder.exists():
        raise DataError(f"data_dir {folder} does not exist; a folder with {source.files} is needed")
    if source.frames and (timesteps is None or timesteps < 1):
        raise ConfigError(f"data set {name!r} is binned into frames: timesteps = {timesteps}; 1 or more are needed")
    data = source.read(folder, timesteps) if source.frames else source.read(folder)
    _check(data, folder)
    return data


def _check(data: DataSet, folder: Path) -> None:
    """Refuse counts and labels that do not belong together."""
    for kind, split in (("training", data.train), ("test", data.test)):
        where = f"{data.name} in {folder}: {kind} set"
        if len(split.images) != len(split.labels) or not len(split):
            counts = f"{len(split.images)} images but {len(split.labels)} labels"
            raise DataError(f"{where}: {counts}; one label for each image is needed, and at least one image")
        low, high = split.labels.min(), split.labels.max()
        if low < 0 or high >= len(data.classes):
            raise DataError(f"{where}: labels from {low} to {high}; accepted are 0 to {len(data.classes) - 1}")
