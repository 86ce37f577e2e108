"""MNIST and its kin, in IDX files."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from snnkd_deploy.datasets.archives import LARGEST
from snnkd_deploy.datasets.samples import DataSet, Split
from snnkd_deploy.errors import DataError

IDX = "{train,t10k}-images-idx3-ubyte and {train,t10k}-labels-idx1-ubyte, plain or .gz"
FASHION = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"


def mnist(folder: Path) -> DataSet:
    """Handwritten digits, 1x28x28: LeCun et al., Proceedings of the IEEE 1998."""
    return DataSet("mnist", _idx(folder, "train"), _idx(folder, "t10k"), tuple("0123456789"), 1 / 255)


def fashion_mnist(folder: Path) -> DataSet:
    """Clothes, 1x28x28: Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747."""
    return DataSet("fashion-mnist", _idx(folder, "train"), _idx(folder, "t10k"), tuple(FASHION.split(",")), 1 / 255)


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
