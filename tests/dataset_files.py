"""Files of data sets as they are published, small and made up."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from snnkd_deploy import data
from snnkd_deploy.errors import DataError

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def some_images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def some_labels(count: int) -> NDArray[np.uint8]:
    return (np.arange(count) % 10).astype(np.uint8)


def refused(name: str, folder: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        data.load(name, folder)
    assert all(word in str(caught.value) for word in words), caught.value


def batch(count: int, key: str, classes: int) -> dict[str, Any]:
    pixels = np.random.default_rng(count).integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"data": pixels, key: [n % classes for n in range(count)], "batch_label": "x"}


def cifar100_members() -> dict[str, bytes]:
    names = {"fine_label_names": [f"class {n}" for n in range(100)]}
    members = {"train": batch(7, "fine_labels", 100), "test": batch(3, "fine_labels", 100), "meta": names}
    return {name: old_pickle(value) for name, value in members.items()}


def old_pickle(value: Any) -> bytes:
    """Protocol 2 with byte keys and numpy under its old name, as the published files are."""
    value = {key.encode(): _bytes(entry) for key, entry in value.items()}
    return pickle.dumps(value, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def _bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_bytes(entry) for entry in value]
    return value.encode() if isinstance(value, str) else value


def unpacked(folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in members.items():
        (folder / name).write_bytes(body)
    return folder


def archived(path: Path, members: dict[str, bytes], **sizes: int) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = sizes.get(name, len(body))
            if name not in sizes:
                archive.addfile(info, io.BytesIO(body))
            else:  # a header that promises more than follows; addfile would insist on the content
                assert archive.fileobj is not None
                archive.fileobj.write(info.tobuf(archive.format))
    return path.parent


def tar_of(path: Path, files: dict[str, bytes], mode: Literal["w", "w:gz", "w:xz"]) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return path.parent
