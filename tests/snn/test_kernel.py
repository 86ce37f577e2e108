"""The native kernel is built where it can be, and missed nowhere."""

from __future__ import annotations

import ctypes
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from snnkd_deploy.errors import RuntimeMissingError
from snnkd_deploy.snn import kernel
from snnkd_deploy.snn.lif import LIF
from snnkd_deploy.snn.surrogate import SURROGATES


@pytest.fixture
def fresh() -> Iterator[None]:
    kernel._loaded.cache_clear()
    yield
    kernel._loaded.cache_clear()


def test_the_job_has_the_fields_of_the_source() -> None:
    struct = re.search(r"struct Job \{(.*?)\};", kernel.SOURCE.read_text(encoding="utf-8"), re.DOTALL)
    assert struct is not None
    code = re.sub(r"//.*", "", struct[1])
    kinds = {"int64_t": ctypes.c_int64, "int32_t": ctypes.c_int32, "float": ctypes.c_float}
    found = []
    for kind, names in re.findall(r"(?:const )?(\w+) ([^;]+);", code):
        for name in names.split(","):
            found.append((name.strip(" *\n"), ctypes.c_void_p if "*" in name else kinds[kind]))
    assert found == list(kernel.Fields._fields_)


def test_every_surrogate_has_its_number() -> None:
    assert tuple(SURROGATES) == kernel.KINDS
    assert all(kernel.knows(LIF(surrogate=name)) for name in SURROGATES)


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_the_environment_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kernel.SWITCH, raising=False)
    assert kernel.available()
    monkeypatch.setenv(kernel.SWITCH, "0")
    assert not kernel.available()


def test_without_a_compiler_there_is_none(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not kernel.available()
    with pytest.raises(RuntimeMissingError, match="no-such-compiler"):
        kernel.library()


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_a_compiler_that_knows_no_openmp_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec {shutil.which("c++")} "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("SNNKD_CACHE", str(tmp_path / "cache"))
    assert kernel.library().snnkd_forward is not None
    assert len(list((tmp_path / "cache").glob("*.so"))) == 1
