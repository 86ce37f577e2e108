"""Files of a data set as bytes, from a folder or an archive; nothing is unpacked to disk."""

from __future__ import annotations

import lzma
import re
import tarfile
import zipfile
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


def contents(folder: Path, wanted: re.Pattern[str]) -> Iterator[tuple[Path, str, bytes]]:
    """Place, name and content of each file below a folder whose name fits; without any, those in its archives."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if any(wanted.search(name) for name in names):
        for name in names:
            if wanted.search(name):
                yield folder, name, read_small(folder / name)
        return
    for name in names:
        if name.endswith((".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz")):
            for member, body in members(folder / name, lambda one: wanted.search(one) is not None):
                yield folder / name, member, body


def members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the wanted files of an archive, which is read in order, in memory, once."""
    try:
        yield from _zipped(path, wanted) if path.suffix == ".zip" else _tarred(path, wanted)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _tarred(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            _check_member(path, member.name, member.size)
            file = archive.extractfile(member) if member.isfile() and wanted(member.name) else None
            if file is not None:
                yield member.name, file.read()


def _zipped(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            _check_member(path, member.filename, member.file_size)
            if wanted(member.filename):
                yield member.filename, archive.read(member)


def _check_member(path: Path, name: str, size: int) -> None:
    if name.startswith("/") or ".." in name.split("/"):
        raise DataError(f"{path}: member {name!r} points outside the archive; this is not the data set")
    if size > LARGEST:
        raise DataError(f"{path}: member {name!r} has {size} bytes; at most 256 MiB is accepted")
