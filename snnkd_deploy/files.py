"""Write beside, then rename; hash; read JSON: nothing is half-written, nothing half-read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snnkd_deploy.errors import InputError, StorageError


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a StorageError that names the path."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`; it takes that name only if the block ends well."""
    path = Path(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
    partial = Path(name)
    try:
        with storage_errors(path):
            yield partial
            _settle(partial)
            partial.chmod(0o666 & ~_umask())
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes the place of `path` only if the block ends well."""
    path = Path(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial"))
    old = partial.with_suffix(".old")
    try:
        with storage_errors(path):
            yield partial
            partial.chmod(0o777 & ~_umask())
            if path.exists():
                os.replace(path, old)
            os.replace(partial, path)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON with sorted keys untouched, two spaces, a last newline; NaN is refused."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path: Path, what: str, error: type[InputError] = InputError) -> dict[str, Any]:
    """The JSON object in `path`; `what` names it in the error ("run description", "report")."""
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"no {what} at {path}") from None
    except OSError as problem:
        raise error(f"cannot read the {what} {path}: {problem.strerror or problem}") from problem
    except ValueError as problem:
        raise error(f"{path} is not a {what}: not valid JSON ({problem})") from problem
    if not isinstance(value, dict):
        raise error(f"{path} is not a {what}: met a JSON {type(value).__name__}, an object is needed")
    return value


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _settle(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
