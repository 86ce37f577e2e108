"""Nothing is half-written."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from snnkd_deploy.errors import InputError, StorageError
from snnkd_deploy.files import read_json, replacing, replacing_folder, sha256, write_json


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    for content in ("one", "two"):
        with replacing_folder(path) as partial:
            (partial / content).write_text(content)
    assert [one.name for one in path.iterdir()] == ["two"]
    with pytest.raises(KeyboardInterrupt), replacing_folder(path) as partial:
        (partial / "three").write_text("")
        raise KeyboardInterrupt
    assert [one.name for one in path.iterdir()] == ["two"]
    assert [one.name for one in tmp_path.iterdir()] == ["bundle"]


def test_a_full_disk_is_one_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(StorageError, match=r"report\.json: No space left on device"), replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_json(tmp_path / "file" / "report.json", {})


def test_json_comes_back_and_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_json(path, {"x": [1, None]})
    assert read_json(path, "thing") == {"x": [1, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text()) == {"x": [1, None]}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no thing at"), (b"{", "not valid JSON"), (b"[1]", "met a JSON list"), (b"\xff\xfe", "not valid JSON")],
)
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_json(path, "thing")


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
