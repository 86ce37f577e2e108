"""Pictures in files of many sizes, decoded by Pillow when they are looked at."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snnkd_deploy.errors import DataError

READ_WHOLE = 1024  # files of which the hash sees the content
FORMATS = ("JPEG", "PNG")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # of 8 bits and less; Pillow's names


class Pictures:
    """Files as if they were one array (N, 3, size, size) of uint8, decoded by threads row by row as it is indexed.

    A picture is resized until its shorter side is `shorter` pixels long, then its middle is cut out.
    """

    def __init__(self, root: Path, names: Sequence[str], size: int, shorter: int) -> None:
        self.root, self.names, self.size, self.shorter = root, names, size, shorter
        self.shape = (len(names), 3, size, size)
        self._expected: dict[int, Future[NDArray[np.uint8]]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Those rows, (N, 3, size, size). DataError names a file that cannot be decoded."""
        numbers = np.arange(len(self))[rows].tolist()
        self.expect(numbers)
        found = [self._expected[number].result() for number in numbers]
        for number in numbers:
            self._expected.pop(number, None)
        return np.array(found, dtype=np.uint8).reshape(len(found), *self.shape[1:])

    def expect(self, numbers: Sequence[int]) -> None:
        """Start decoding rows that will be asked for next."""
        for number in numbers:
            if number not in self._expected:
                self._expected[number] = self._pool.submit(decoded, self.root / self.names[number], self)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        """As many threads as cores: Pillow decodes without holding Python's lock."""
        return ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="pictures")

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over the size of the pictures, name and length of each file, and the content of some.

        Those are up to 1,024 files, evenly spread: a set of many gigabytes is not read to be named. All of a small one
        are read.
        """
        digest = hashlib.sha256(repr((self.size, self.shorter)).encode())
        for name in self.names:
            digest.update(f"{name} {(self.root / name).stat().st_size}\n".encode())
        for place in np.unique(np.linspace(0, len(self) - 1, READ_WHOLE).round().astype(int)):
            digest.update((self.root / self.names[place]).read_bytes())
        return digest.hexdigest()


def decoded(path: Path, like: Pictures) -> NDArray[np.uint8]:
    """One picture (3, size, size); grey, palette and CMYK become RGB, transparency is dropped."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.mode not in MODES:
                raise DataError(f"{path}: a picture of mode {image.mode}; 8 bits per channel are needed")
            picture = image.convert("RGBA").convert("RGB") if image.mode in ("P", "PA") else image.convert("RGB")
            picture = picture.resize(*_fitting(picture.size, like.size, like.shorter))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot decode {path}: {error}") from error
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1)


def _fitting(size: tuple[int, int], wanted: int, shorter: int) -> tuple[Any, ...]:
    """Arguments of Pillow's `resize`: the size, bilinear, and the middle (left, top, right, bottom) that fills it."""
    from PIL.Image import Resampling

    side = wanted / shorter * min(size)
    left, top = ((length - side) / 2 for length in size)
    return (wanted, wanted), Resampling.BILINEAR, (left, top, left + side, top + side)
