"""A run directory is claimed once, locked, described, and never half-believed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snnkd_deploy import run
from snnkd_deploy.config import load_config
from snnkd_deploy.errors import RunError, StorageError
from snnkd_deploy.run import Run

DATA = {
    "name": "digits",
    "sha256": "ab",
    "train": 8,
    "test": 2,
    "scale": 0.0625,
    "classes": ["a", "b"],
    "input_shape": [1, 8, 8],
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started(out: Path | None = None) -> Run:
    return run.create(run.claim(out, "digits"), load_config(), DATA, {"python": "3"})


def test_what_a_killed_process_left_behind_neither_hinders_nor_stays(here: Path) -> None:
    (here / "one").mkdir()
    (here / "one" / ".run.json.abc.partial").touch()
    made = started(here / "one")
    made.finish()
    assert sorted(entry.name for entry in made.path.iterdir()) == ["run.json"]


def finished(out: Path | None = None) -> Run:
    made = started(out)
    for role in run.ROLES:
        (made.path / f"{role}.safetensors").write_bytes(role.encode())
    made.state.mkdir()
    return made.complete("teacher", 0.75).complete("student", 0.5, rates={"one": 0.25}).finish()


def test_a_new_run_takes_the_first_free_number() -> None:
    Path("runs/digits-2").mkdir(parents=True)
    assert [run.claim(None, "digits").as_posix() for _ in range(2)] == ["runs/digits-1", "runs/digits-3"]


def test_a_finished_run_says_what_it_holds() -> None:
    made = finished()
    found = run.open_run(made.path)
    assert found.document == made.document
    assert found.finished
    assert not found.state.exists()
    assert (found.config, found.input_shape, found.classes) == (load_config(), (1, 8, 8), ("a", "b"))
    assert (found.accuracies, found.rates) == ({"teacher": 0.75, "student": 0.5}, {"one": 0.25})
    assert list(found.document) == [*run._KEYS]


def test_a_directory_with_anything_in_it_is_refused(here: Path) -> None:
    started(here / "one")
    with pytest.raises(RunError, match="holds a run already; resume it"):
        started(here / "one")
    (here / "two").mkdir()
    (here / "two" / "thesis.tex").touch()
    with pytest.raises(RunError, match="not empty"):
        started(here / "two")


def test_a_place_that_cannot_be_written_is_a_storage_error(here: Path) -> None:
    (here / "file").touch()
    with pytest.raises(StorageError, match="file"):
        run.claim(here / "file", "digits")
    with pytest.raises(StorageError, match="cannot lock"), run.locked(here / "file"):
        pass
    (here / "runs").touch()
    with pytest.raises(StorageError, match="runs"):
        run.claim(None, "digits")


def test_a_second_process_is_told_that_the_run_is_in_use(here: Path) -> None:
    made = started()
    code = (
        "import pathlib, sys; from snnkd_deploy import run\n"
        "with run.locked(pathlib.Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    )
    path = os.pathsep.join(entry or str(here) for entry in sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(made.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(RunError, match="is in use: another process"), run.locked(made.path):
            pass
        other.kill()  # a crash, as far as the lock is concerned
        other.wait()
    with run.locked(made.path):
        pass


def test_an_unfinished_run_says_how_to_go_on() -> None:
    made = started()
    with pytest.raises(RunError, match=f"not finished; resume it with: snnkd-deploy train --out {made.path} --resume"):
        run.open_run(made.path)
    assert not run.open_run(made.path, unfinished=True).finished


def test_what_is_no_run_is_refused(here: Path) -> None:
    with pytest.raises(RunError, match="no such directory"):
        run.open_run(here / "nowhere")
    with pytest.raises(RunError, match="no run description"):
        run.open_run(here)


def changed(**entries: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(entries)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(format="other"), "format 'other'"),
        (changed(format_version=2), "format_version 2; this version reads 1"),
        (lambda document: document.pop("versions"), "missing or of the wrong type: versions"),
        (changed(config=[], teacher=3), "missing or of the wrong type: config, teacher"),
        (changed(student=None), "student.file, student.sha256, student.accuracy"),
        (changed(data={"name": "digits"}), "data.sha256, data.train"),
        (changed(config={"colour": 3}), "its config is not one of this version: .*colour"),
        (changed(config={"seed": "x"}), "its config is not one of this version: seed"),
    ],
)
def test_a_description_that_lacks_something_is_refused(change: Callable[[dict[str, Any]], None], message: str) -> None:
    path = finished().path
    document = json.loads((path / "run.json").read_text())
    change(document)
    (path / "run.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match=message):
        run.open_run(path)


def test_every_damaged_file_is_named() -> None:
    path = finished().path
    (path / "teacher.safetensors").write_bytes(b"teachex")
    (path / "student.safetensors").unlink()
    with pytest.raises(RunError, match=r"damaged: teacher\.safetensors is not the .*; student\.safetensors is missing"):
        run.open_run(path)


def test_latest_is_the_run_that_finished_last_whatever_lies_beside_it(here: Path) -> None:
    with pytest.raises(RunError, match="no finished run in runs; train one with: snnkd-deploy train"):
        run.latest()
    first, second, third = finished(), finished(), started()
    first.update(finished="2020-01-01T00:00:00.000+00:00")
    second.update(finished="2021-01-01T00:00:00.000+00:00")
    Path("runs/broken").mkdir()
    Path("runs/broken/run.json").write_text("{")
    Path("runs/notes.txt").touch()
    assert run.latest().path == second.path
    assert run.latest(unfinished=True).path == third.path
    shutil.rmtree(third.path)
    with pytest.raises(RunError, match="no unfinished run"):
        run.latest(unfinished=True)


def test_history_has_the_columns_of_all_rows(here: Path) -> None:
    run.write_history(here / "history.csv", [{"stage": "teacher", "loss": 1.5}, {"stage": "student", "loss_kd": 2}])
    assert (here / "history.csv").read_text() == "stage,loss,loss_kd\nteacher,1.5,\nstudent,,2\n"
