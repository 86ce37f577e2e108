"""CIFAR-10 and -100 in the python version, read without running what a pickle asks for."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snnkd_deploy.datasets.archives import read_small, read_tar
from snnkd_deploy.datasets.samples import DataSet, Split
from snnkd_deploy.errors import DataError


def cifar10(folder: Path) -> DataSet:
    """Colour images, 3x32x32: Krizhevsky 2009, python version."""
    train = [f"data_batch_{number}" for number in range(1, 6)]
    found = _Cifar(folder, "cifar-10-python.tar.gz", "cifar-10-batches-py", (*train, "test_batch", "batches.meta"))
    splits = found.split(train, b"labels"), found.split(["test_batch"], b"labels")
    return DataSet("cifar10", *splits, found.names("batches.meta", b"label_names"), 1 / 255)


def cifar100(folder: Path) -> DataSet:
    """Colour images, 3x32x32, with the fine labels: Krizhevsky 2009, python version."""
    found = _Cifar(folder, "cifar-100-python.tar.gz", "cifar-100-python", ("train", "test", "meta"))
    splits = found.split(["train"], b"fine_labels"), found.split(["test"], b"fine_labels")
    return DataSet("cifar100", *splits, found.names("meta", b"fine_label_names"), 1 / 255)


class _Cifar:
    """The pickled members of a CIFAR data set, from its archive or its folder; nothing is unpacked to disk."""

    def __init__(self, folder: Path, archive: str, inside: str, members: tuple[str, ...]) -> None:
        places = [place for place in (folder / inside, folder) if (place / members[0]).is_file()]
        if places:
            self.where = places[0]
            raw = {name: read_small(self.where / name) for name in members}
        elif (folder / archive).is_file():
            self.where = folder / archive
            raw = read_tar(self.where, members)
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
