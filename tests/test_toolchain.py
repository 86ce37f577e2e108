"""Libraries that are built once."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from snnkd_deploy.errors import RuntimeMissingError
from snnkd_deploy.toolchain import compiler, shared_library

ANSWER = 'extern "C" int answer() { return 42; }'


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SNNKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def source(folder: Path, text: str = ANSWER) -> Path:
    path = folder / "answer.cpp"
    path.write_text(text)
    return path


def test_a_library_is_built_once_and_can_be_called(tmp_path: Path, cache: Path) -> None:
    library = shared_library([source(tmp_path)], ["-O1"])
    before = library.stat().st_mtime_ns
    assert shared_library([source(tmp_path)], ["-O1"]) == library
    assert library.stat().st_mtime_ns == before
    assert ctypes.CDLL(str(library)).answer() == 42
    assert [one.name for one in cache.iterdir()] == [library.name]


def test_another_source_or_other_flags_make_another_library(tmp_path: Path, cache: Path) -> None:
    first = shared_library([source(tmp_path)], ["-O1"])
    assert shared_library([source(tmp_path)], ["-O2"]) != first
    assert shared_library([source(tmp_path)], ["-O1", "-march=native"]) != first
    other = shared_library([source(tmp_path, ANSWER.replace("42", "43"))], ["-O1"])
    assert ctypes.CDLL(str(other)).answer() == 43


def test_a_source_that_is_included_decides_the_library_too(tmp_path: Path, cache: Path) -> None:
    included = tmp_path / "value.h"
    main = source(tmp_path, '#include "value.h"\nextern "C" int answer() { return VALUE; }')
    answers = []
    for value in (1, 2):
        included.write_text(f"#define VALUE {value}")
        answers.append(ctypes.CDLL(str(shared_library([main, included], ["-O1"]))).answer())
    assert answers == [1, 2]


def test_what_the_compiler_refuses_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(RuntimeMissingError, match=r"refuses answer\.cpp:\n(.|\n)*wrong"):
        shared_library([source(tmp_path, "wrong")], ["-O1"])
    assert not list(cache.iterdir())


def test_a_compiler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        RuntimeMissingError, match="no C\\+\\+ compiler \\(no-such-compiler\\); install one, or let CXX"
    ):
        compiler("C++")


def test_the_cache_lies_where_the_system_keeps_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SNNKD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert shared_library([source(tmp_path)], ["-O1"]).parent == tmp_path / "xdg" / "snnkd-deploy"
