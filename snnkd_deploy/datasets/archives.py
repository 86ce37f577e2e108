"""Files of a data set as bytes, from a folder or an archive; nothing is unpacked to disk."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from snnkd_deploy.errors import DataError

LARGEST = 1 << 28  # bytes: no file of a known data set is longer once unpacked


def read_small(path: Path) -> bytes:
    """The content of a file, at most `LARGEST` bytes of it."""
    try:
        with path.open("rb") as file:
            body = file.read(LARGEST + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if len(body) > LARGEST:
        raise DataError(f"{path}: longer than 256 MiB, no member of this data set is")
    return body


def read_tar(path: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """The wanted members by their last name."""
    read = members(path, lambda name: name.rpartition("/")[2] in wanted)
    found = {name.rpartition("/")[2]: body for name, body in read}
    if missing := [name for name in wanted if name not in found]:
        raise DataError(f"{path}: no {', '.join(missing)} in it")
    return found


def members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
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
