"""The system's C and C++ compilers: which one, and shared libraries that are built on first use and then kept.

A library is kept under the hash of everything that decides it (sources, flags, compiler, and the processor where the
flags say -march=native), below `$SNNKD_CACHE`, or `snnkd-deploy` in `$XDG_CACHE_HOME` or in `~/.cache`.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from snnkd_deploy.errors import RuntimeMissingError

Language = Literal["C", "C++"]
COMPILERS: dict[Language, tuple[str, tuple[str, ...]]] = {
    "C": ("CC", ("cc", "gcc", "clang")),
    "C++": ("CXX", ("c++", "g++", "clang++")),
}
"""The environment variable that names one, and what is looked for where it is not set."""
SHARED = ("-shared", "-fPIC")


def compiler(language: Language = "C") -> str:
    """The path of the compiler: what CC or CXX names, or the first that is found. RuntimeMissingError if none is."""
    variable, usual = COMPILERS[language]
    names = (os.environ[variable],) if os.environ.get(variable) else usual
    for name in names:
        if found := shutil.which(name):
            return found
    raise RuntimeMissingError(f"no {language} compiler ({', '.join(names)}); install one, or let {variable} name it")


def shared_library(sources: Sequence[Path], flags: Sequence[str], language: Language = "C++") -> Path:
    """The library made of `sources`, the first of which is compiled and includes the others; built if not kept.

    Several processes may ask at once: each builds beside and renames. RuntimeMissingError without a compiler, or with
    what it says where it refuses the source.
    """
    program, path = compiler(language), library_path(sources, flags, language)
    if path.is_file():
        return path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as folder:
        partial = Path(folder, path.name)
        command = [program, *flags, *SHARED, str(sources[0]), "-o", str(partial)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if made.returncode:
            raise RuntimeMissingError(f"{program} refuses {sources[0].name}:\n{made.stderr.strip()}")
        os.replace(partial, path)
    return path


def library_path(sources: Sequence[Path], flags: Sequence[str], language: Language = "C++") -> Path:
    """Where the library of these sources lies, or will. RuntimeMissingError without a compiler."""
    return _folder() / f"{sources[0].stem}-{_key(compiler(language), sources, tuple(flags))}.so"


def _folder() -> Path:
    """Where libraries are kept; a temporary folder of this user where the usual place cannot be written."""
    if given := os.environ.get("SNNKD_CACHE"):
        return Path(given)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    nearest = next(one for one in (base, *base.parents) if one.exists())
    if os.access(nearest, os.W_OK):
        return base / "snnkd-deploy"
    return Path(tempfile.gettempdir()) / f"snnkd-deploy-{os.getuid()}"


def _key(program: str, sources: Sequence[Path], flags: tuple[str, ...]) -> str:
    state = hashlib.sha256(repr((_version(program), flags, platform.machine())).encode())
    if "-march=native" in flags:
        state.update(_processor())
    for source in sources:
        state.update(hashlib.sha256(source.read_bytes()).digest())
    return state.hexdigest()[:16]


@cache
def _version(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603


@cache
def _processor() -> bytes:
    """What the processor has, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().split(b"\n\n")[0].splitlines()
    except OSError:
        return platform.processor().encode()
    return b"\n".join(sorted(line for line in lines if line.startswith((b"flags", b"Features", b"model name"))))
