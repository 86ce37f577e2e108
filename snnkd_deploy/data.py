"""Data sets by name, pictures or events. A new one is one function, and a line here or `@dataset` above it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snnkd_deploy.config import TrainConfig
from snnkd_deploy.datasets.cifar import cifar10, cifar100
from snnkd_deploy.datasets.digits import digits
from snnkd_deploy.datasets.dvs import CIFAR10_DVS, GESTURE, cifar10_dvs, cifar10_dvs_counts, gesture, gesture_counts
from snnkd_deploy.datasets.folders import FOLDER, IMAGENET, TINY, folder, imagenet, tiny_imagenet
from snnkd_deploy.datasets.idx import IDX, fashion_mnist, mnist
from snnkd_deploy.datasets.nmnist import NMNIST, n_mnist, n_mnist_counts
from snnkd_deploy.datasets.pictures import Pictures
from snnkd_deploy.datasets.samples import DataSet, Split
from snnkd_deploy.errors import ConfigError, DataError, UnknownNameError

__all__ = ["DataSet", "Pictures", "Split", "configured", "dataset", "load"]

Reader = Callable[..., DataSet]
"""From a folder to a data set; of event data with the number of frames, then, if sizes can be chosen, with the size."""


@dataclass(frozen=True)
class Source:
    """How to read a data set; `files` says what has to be in its folder, and is empty if it comes with a package."""

    read: Reader
    files: str = ""
    frames: bool = False
    sized: bool = False


CIFAR = "cifar-{0}-python.tar.gz, or the folder {1} unpacked from it"
SOURCES: dict[str, Source] = {
    "digits": Source(digits),
    "mnist": Source(mnist, IDX),
    "fashion-mnist": Source(fashion_mnist, IDX),
    "cifar10": Source(cifar10, CIFAR.format(10, "cifar-10-batches-py")),
    "cifar100": Source(cifar100, CIFAR.format(100, "cifar-100-python")),
    "n-mnist": Source(n_mnist, NMNIST, frames=True),
    "n-mnist-counts": Source(n_mnist_counts, NMNIST, frames=True),
    "cifar10-dvs": Source(cifar10_dvs, CIFAR10_DVS, frames=True, sized=True),
    "cifar10-dvs-counts": Source(cifar10_dvs_counts, CIFAR10_DVS, frames=True, sized=True),
    "dvs128-gesture": Source(gesture, GESTURE, frames=True, sized=True),
    "dvs128-gesture-counts": Source(gesture_counts, GESTURE, frames=True, sized=True),
    "imagenet": Source(imagenet, IMAGENET, sized=True),
    "tiny-imagenet": Source(tiny_imagenet, TINY, sized=True),
    "folder": Source(folder, FOLDER, sized=True),
}


def dataset(name: str, files: str = "", *, frames: bool = False, sized: bool = False) -> Callable[[Reader], Reader]:
    """Register a function that reads the data set `name` from a folder; with `frames` it bins events."""

    def register(read: Reader) -> Reader:
        SOURCES[name] = Source(read, files, frames, sized)
        return read

    return register


def configured(config: TrainConfig) -> DataSet:
    """The data set of a configuration."""
    if config.encoding == "neuron" and SOURCES.get(config.dataset, Source(digits)).frames:
        raise ConfigError(f"data set {config.dataset!r} is frames already; encoding 'neuron' is for still pictures")
    return load(config.dataset, config.data_dir, config.timesteps, config.image_size, config.data_encoding)


def load(
    name: str,
    data_dir: Path | str | None = None,
    timesteps: int | None = None,
    image_size: int | None = None,
    encoding: Literal["direct", "rate", "latency"] = "direct",
) -> DataSet:
    """The data set of that name from the folder `data_dir`; nothing is ever downloaded.

    Events are binned into `timesteps` frames, and pictures are encoded as so many unless the encoding is direct. Where
    the size of the samples can be chosen, None is the data set's own.
    """
    if name not in SOURCES:
        raise UnknownNameError("data set", name, SOURCES)
    source = SOURCES[name]
    if source.files and data_dir is None:
        raise ConfigError(f"data set {name!r} is read from your disk: data_dir must name a folder with {source.files}")
    place = Path(data_dir or ".")
    if source.files and not place.exists():
        raise DataError(f"data_dir {place} does not exist; a folder with {source.files} is needed")
    if (source.frames or encoding != "direct") and (timesteps is None or timesteps < 1):
        raise ConfigError(f"data set {name!r} is made into frames: timesteps = {timesteps}; 1 or more are needed")
    if image_size is not None and not source.sized:
        raise ConfigError(f"data set {name!r} has one size only; image_size = {image_size} cannot be met")
    if source.frames and encoding != "direct":
        raise ConfigError(f"data set {name!r} is frames already; encoding {encoding!r} is for still pictures")
    data = source.read(place, *[timesteps] * source.frames, *[image_size] * source.sized)
    _check(data, place)
    return data if encoding == "direct" else data.encoded(encoding, timesteps or 1)


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
