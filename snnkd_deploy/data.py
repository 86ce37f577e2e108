"""Data sets by name, pictures or events, read into plain arrays. A new one is one function under `@dataset`."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import pickle
import re
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from snnkd_deploy.errors import ConfigError, DataError, UnknownNameError
from snnkd_deploy.events import decode, frames

LARGEST = 1 << 28  # bytes: no file of a known data set is longer once unpacked


@dataclass(frozen=True, eq=False)
class Split:
    """Images (N, C, H, W) or, of event data, frames (N, T, C, H, W), as uint8, and one int64 label for each sample."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def integers(self, rows: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        """These samples as `simulate` takes them: (N, C, H, W), or (T, N, C, H, W) for frames."""
        chosen = self.images[rows].astype(np.int64)
        return chosen.swapaxes(0, 1) if chosen.ndim == 5 else chosen


@dataclass(frozen=True, eq=False)
class DataSet:
    """Training and test images; networks see `images * scale`, so the integer input of a chip is the pixel itself."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    scale: float  # the real value of pixel 1
    largest: int | None = None  # pixel that can be met; None: the one whose real value is 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample: channels, height, width; for frames their number in front."""
        return self.train.images.shape[1:]

    @property
    def frames(self) -> bool:
        """Whether a sample is one picture for each step, instead of one for all."""
        return len(self.input_shape) == 4

    @property
    def high(self) -> int:
        """The largest pixel that can be met; the smallest is 0."""
        return round(1 / self.scale) if self.largest is None else self.largest

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over shapes, pixels and labels of both splits, in hexadecimal."""
        digest = hashlib.sha256()
        for array in (self.train.images, self.train.labels, self.test.images, self.test.labels):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
        return digest.hexdigest()


Reader = Callable[..., DataSet]
"""From a folder to a data set; of event data, from a folder and the number of frames."""


@dataclass(frozen=True)
class Source:
    """How to read a data set; `files` says what has to be in its folder, and is empty if it comes with a package."""

    read: Reader
    files: str = ""
    frames: bool = False


SOURCES: dict[str, Source] = {}


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


@dataset("digits")
def digits(folder: Path) -> DataSet:
    """scikit-learn's 1,797 handwritten digits, 1x8x8, pixels 0 to 16; a fixed fifth of each class is for test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = bunch.images.astype(np.uint8)[:, None], bunch.target.astype(np.int64)
    test = np.zeros(len(labels), dtype=bool)
    shuffle = np.random.RandomState(0)  # frozen by numpy: the same split in every version
    for label in range(10):
        rows = shuffle.permutation(np.flatnonzero(labels == label))
        test[rows[: round(len(rows) / 5)]] = True
    train, held_out = (Split(images[rows], labels[rows]) for rows in (~test, test))
    return DataSet("digits", train, held_out, tuple("0123456789"), 1 / 16)


IDX = "{train,t10k}-images-idx3-ubyte and {train,t10k}-labels-idx1-ubyte, plain or .gz"
FASHION = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"


@dataset("mnist", files=IDX)
def mnist(folder: Path) -> DataSet:
    """Handwritten digits, 1x28x28: LeCun et al., Proceedings of the IEEE 1998."""
    return DataSet("mnist", _idx(folder, "train"), _idx(folder, "t10k"), tuple("0123456789"), 1 / 255)


@dataset("fashion-mnist", files=IDX)
def fashion_mnist(folder: Path) -> DataSet:
    """Clothes, 1x28x28: Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747."""
    return DataSet("fashion-mnist", _idx(folder, "train"), _idx(folder, "t10k"), tuple(FASHION.split(",")), 1 / 255)


@dataset("cifar10", files="cifar-10-python.tar.gz, or the folder cifar-10-batches-py unpacked from it")
def cifar10(folder: Path) -> DataSet:
    """Colour images, 3x32x32: Krizhevsky 2009, python version."""
    train = [f"data_batch_{number}" for number in range(1, 6)]
    found = _Cifar(folder, "cifar-10-python.tar.gz", "cifar-10-batches-py", (*train, "test_batch", "batches.meta"))
    splits = found.split(train, b"labels"), found.split(["test_batch"], b"labels")
    return DataSet("cifar10", *splits, found.names("batches.meta", b"label_names"), 1 / 255)


@dataset("cifar100", files="cifar-100-python.tar.gz, or the folder cifar-100-python unpacked from it")
def cifar100(folder: Path) -> DataSet:
    """Colour images, 3x32x32, with the fine labels: Krizhevsky 2009, python version."""
    found = _Cifar(folder, "cifar-100-python.tar.gz", "cifar-100-python", ("train", "test", "meta"))
    splits = found.split(["train"], b"fine_labels"), found.split(["test"], b"fine_labels")
    return DataSet("cifar100", *splits, found.names("meta", b"fine_label_names"), 1 / 255)


NMNIST = "Train/<label>/<number>.bin and Test/<label>/<number>.bin, or one n-mnist*.tar, .tar.gz or .tar.xz of them"
NMNIST_SIZE = (34, 34)  # pixels of the sensor that are used


@dataset("n-mnist", files=NMNIST, frames=True)
def n_mnist(folder: Path, timesteps: int) -> DataSet:
    """Digits seen by a moving event camera, Tx2x34x34; a pixel is 1 if it had an event in the bin: a spike."""
    train, test = _n_mnist(folder, timesteps, highest=1)
    return DataSet("n-mnist", train, test, tuple("0123456789"), 1.0)


@dataset("n-mnist-counts", files=NMNIST, frames=True)
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
        files = _members(place, lambda name: _NMNIST_FILE.search(name) is not None)
    else:
        files = ((path.as_posix(), _read_small(path)) for path in place.glob("T*/*/*.bin"))
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


def _idx(folder: Path, split: str) -> Split:
    images = read_idx(_find(folder, f"{split}-images-idx3-ubyte"), (28, 28))
    return Split(images[:, None], read_idx(_find(folder, f"{split}-labels-idx1-ubyte"), ()).astype(np.int64))


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"no {name} in {folder}, neither plain nor as .gz")


def read_idx(path: Path, item: tuple[int, ...]) -> NDArray[np.uint8]:
    """The array (N, *item) of unsigned bytes in an IDX file, plain or .gz."""
    try:
        with cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            shape = _idx_shape(path, file.read(8 + 4 * len(item)), item)
            size = int(np.prod(shape))
            body = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if len(body) != size:
        met = f"only {len(body)}" if len(body) < size else "more"
        raise DataError(f"{path}: its header promises {size} bytes {shape}, {met} follow")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def _idx_shape(path: Path, header: bytes, item: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in the header: a magic number of 8 (unsigned byte) and the axes, then one big-endian size per axis."""
    magic = 0x0800 + 1 + len(item)
    if len(header) < 8 + 4 * len(item) or int.from_bytes(header[:4], "big") != magic:
        raise DataError(f"{path}: starts with {header[:4].hex() or 'nothing'}; an IDX file with {magic:08x} is needed")
    shape = struct.unpack(f">{1 + len(item)}I", header[4:])
    if shape[1:] != item or np.prod([float(n) for n in shape]) > LARGEST:
        raise DataError(f"{path}: its header says {shape}; (N, {', '.join(map(str, item))}) up to 256 MiB is accepted")
    return shape


class _Cifar:
    """The pickled members of a CIFAR data set, from its archive or its folder; nothing is unpacked to disk."""

    def __init__(self, folder: Path, archive: str, inside: str, members: tuple[str, ...]) -> None:
        places = [place for place in (folder / inside, folder) if (place / members[0]).is_file()]
        if places:
            self.where = places[0]
            raw = {name: _read_small(self.where / name) for name in members}
        elif (folder / archive).is_file():
            self.where = folder / archive
            raw = _read_tar(self.where, members)
        else:
            raise DataError(f"neither {inside}/{members[0]} nor {archive} in {folder}")
        self.members = {name: unpickle(body, f"{name} of {self.where}") for name, body in raw.items()}

    def split(self, members: list[str], key: bytes) -> Split:
        images = [self._field(name, b"data") for name in members]
        labels = [self._field(name, key) for name in members]
        for name, image in zip(members, images, strict=True):
            if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[1:] != (3072,):
                raise DataError(f"{name} of {self.where}: its data are not rows of 3072 unsigned bytes")
        for name, label in zip(members, labels, strict=True):
            if not isinstance(label, list) or not all(type(n) is int for n in label):
                raise DataError(f"{name} of {self.where}: its {key.decode()} are not a list of integers")
        numbers = np.array([n for label in labels for n in label], dtype=np.int64)
        return Split(np.concatenate(images).reshape(-1, 3, 32, 32), numbers)

    def names(self, member: str, key: bytes) -> tuple[str, ...]:
        names = self._field(member, key)
        if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
            raise DataError(f"{member} of {self.where}: its {key.decode()} are not a list of names")
        return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names)

    def _field(self, member: str, key: bytes) -> Any:
        value = self.members[member]
        if not isinstance(value, dict):
            raise DataError(f"{member} of {self.where}: holds a {type(value).__name__}; a dictionary is needed")
        if key not in value and key.decode() not in value:
            raise DataError(f"{member} of {self.where}: no {key.decode()} in it")
        return value.get(key, value.get(key.decode()))


def _read_small(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            body = file.read(LARGEST + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if len(body) > LARGEST:
        raise DataError(f"{path}: longer than 256 MiB, no member of this data set is")
    return body


def _read_tar(path: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """The wanted members by their last name."""
    members = _members(path, lambda name: name.rpartition("/")[2] in wanted)
    found = {name.rpartition("/")[2]: body for name, body in members}
    if missing := [name for name in wanted if name not in found]:
        raise DataError(f"{path}: no {', '.join(missing)} in it")
    return found


def _members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the wanted files of an archive, which is read in order, in memory, once."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                _check_member(path, member)
                file = archive.extractfile(member) if member.isfile() and wanted(member.name) else None
                if file is not None:
                    yield member.name, file.read()
    except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _check_member(path: Path, member: tarfile.TarInfo) -> None:
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise DataError(f"{path}: member {member.name!r} points outside the archive; this is not the data set")
    if member.size > LARGEST:
        raise DataError(f"{path}: member {member.name!r} has {member.size} bytes; at most 256 MiB is accepted")


def unpickle(body: bytes, where: str) -> Any:
    """The value in a pickle of plain containers and arrays; anything that would call other code is refused."""
    try:
        return _PlainUnpickler(io.BytesIO(body), encoding="bytes").load()
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise DataError(f"{where} is not a pickle of plain arrays: {error}") from error


def _array(kind: object, shape: tuple[int, ...], code: bytes) -> NDArray[Any]:
    """numpy's `_reconstruct`: an empty array that the pickle fills afterwards."""
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError(f"an array of kind {kind} and shape {shape} is not allowed")
    return np.empty(0, dtype=np.uint8)


def _latin1(text: str, encoding: str) -> bytes:
    """`_codecs.encode`, which is how Python 3 writes bytes under protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding} is not allowed")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]
