"""The run directory: what a training run was told, what it saw, and what came out. Standard library only.

run.json                    description; `finished` is null until everything below is complete
teacher.safetensors         weights
teacher_graph.safetensors   of a teacher that is the user's own code: its graph, if it could be traced
student.safetensors         weights
integer.safetensors         of a fine-tuned run: the graphs `folded`, real numbers, and `integer`, for `export`
history.csv                 one line per stage and epoch
state/                      checkpoints, removed at the end
.lock                       held by the process that trains
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from snnkd_deploy.config import TrainConfig
from snnkd_deploy.errors import ConfigError, RunError, StorageError
from snnkd_deploy.files import read_json, replacing, sha256, storage_errors, write_json

FORMAT, VERSION = "snnkd-deploy/run", 1
ROOT = Path("runs")
LOCK = ".lock"
ROLES = ("teacher", "student")
FINETUNED = "integer"  # role of the integer network, which only a fine-tuned run has

_KEYS: dict[str, type | tuple[type, ...]] = {
    "format": str,
    "format_version": int,
    "created": str,
    "finished": (str, type(None)),
    "config": dict,
    "versions": dict,
    "data": dict,
    "teacher": (dict, type(None)),
    "student": (dict, type(None)),
}
_DATA_KEYS = ("name", "sha256", "train", "test", "scale", "classes", "input_shape")
_ROLE_KEYS = ("file", "sha256", "accuracy")


@dataclass(frozen=True, eq=False)
class Run:
    """A run directory and its description (the content of run.json)."""

    path: Path
    document: Mapping[str, Any]

    @property
    def config(self) -> TrainConfig:
        """The settings it was trained with, every key."""
        return TrainConfig(**self.document["config"])

    @property
    def data(self) -> Mapping[str, Any]:
        """name, sha256, train, test (number of images), scale, classes, input_shape."""
        data: Mapping[str, Any] = self.document["data"]
        return data

    @property
    def finished(self) -> bool:
        """Whether everything below is complete."""
        return self.document["finished"] is not None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample: channels, height, width; for frames their number in front."""
        return tuple(self.data["input_shape"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return tuple(self.data["classes"])

    @property
    def accuracies(self) -> dict[str, float]:
        """Test accuracy, 0 to 1, of the networks that are complete: teacher, student, integer."""
        return {role: self.document[role]["accuracy"] for role in (*ROLES, FINETUNED) if self.document.get(role)}

    @property
    def finetuning(self) -> Mapping[str, Any] | None:
        """parent, target and the other settings of a run that fine-tunes; None of one that trains."""
        settings: Mapping[str, Any] | None = self.document.get("finetuning")
        return settings

    @property
    def rates(self) -> dict[str, float]:
        """Mean spikes per neuron and step of each neuron layer of the student on the test images."""
        rates: dict[str, float] = (self.document["student"] or {}).get("rates", {})
        return rates

    @property
    def teacher_file(self) -> Path:
        """Weights of the teacher."""
        return self.path / "teacher.safetensors"

    @property
    def teacher_graph_file(self) -> Path:
        """Of a teacher that is code, what it computes, for counting; there only if it could be traced."""
        return self.path / "teacher_graph.safetensors"

    @property
    def student_file(self) -> Path:
        """Weights of the student."""
        return self.path / "student.safetensors"

    @property
    def integer_file(self) -> Path:
        """Graphs of a fine-tuned network."""
        return self.path / f"{FINETUNED}.safetensors"

    @property
    def state(self) -> Path:
        """Folder of the checkpoints of a run that is not finished."""
        return self.path / "state"

    def update(self, **entries: Any) -> Run:
        """The run with these entries of run.json replaced, on disk too."""
        run = Run(self.path, {**self.document, **entries})
        write_json(self.path / "run.json", run.document)
        return run

    def complete(self, role: str, accuracy: float, **more: Any) -> Run:
        """Record that the weights of `role` are final."""
        file = f"{role}.safetensors"
        entry = {"file": file, "sha256": sha256(self.path / file), "accuracy": accuracy, **more}
        return self.update(**{role: entry})

    def finish(self) -> Run:
        """Mark the run as finished, then remove its checkpoints and what a killed process left half-written."""
        run = self.update(finished=now())
        shutil.rmtree(self.state, ignore_errors=True)
        for partial in self.path.glob(".*.partial"):
            partial.unlink()
        return run


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def claim(out: Path | None, dataset: str) -> Path:
    """Make the directory of a new run: `out`, or the first free runs/<dataset>-<n>."""
    if out is not None:
        with storage_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        return out
    with storage_errors(ROOT):
        ROOT.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            path = ROOT / f"{dataset}-{number}"
            try:
                path.mkdir()  # fails if another process was faster
            except FileExistsError:
                continue
            return path
    raise AssertionError("count never ends")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes away from a run; the lock goes with the process, however it ends."""
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"{path} is in use: another process is training there (it holds {path / LOCK})") from None
    except OSError as error:
        raise StorageError(f"cannot lock {path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def create(path: Path, config: TrainConfig, data: Mapping[str, Any], versions: Mapping[str, str]) -> Run:
    """Start a run in a claimed, locked directory; one with anything in it is refused."""
    if (path / "run.json").exists():
        raise RunError(f"{path} holds a run already; resume it, or give another directory")
    if any(not entry.name.startswith(".") for entry in path.iterdir()):
        raise RunError(f"{path} is not empty; a run needs a directory of its own")
    return Run(path, {"format": FORMAT, "format_version": VERSION, "created": now(), "finished": None}).update(
        config=config.as_dict(), versions=dict(versions), data=dict(data), teacher=None, student=None
    )


def open_run(path: Path | str, *, unfinished: bool = False) -> Run:
    """The run in a directory, with every file compared with its hash; one not finished only if `unfinished`."""
    path = Path(path)
    if not path.is_dir():
        raise RunError(f"no run at {path}: no such directory")
    document = read_json(path / "run.json", "run description", RunError)
    _check(path / "run.json", document)
    run = Run(path, document)
    if not run.finished and not unfinished:
        command = "finetune" if run.finetuning else "train"
        raise RunError(f"{path} is not finished; resume it with: snnkd-deploy {command} --out {path} --resume")
    if problems := [problem for role in (*ROLES, FINETUNED) for problem in _damage(run, role)]:
        raise RunError(f"{path} is damaged: {'; '.join(problems)}")
    return run


def latest(root: Path | str = ROOT, *, unfinished: bool = False) -> Run:
    """The run below `root` that finished last; with `unfinished`, the newest of those that did not finish."""
    found = [document for folder in _folders(Path(root)) if (document := _readable(folder)) is not None]
    wanted = [run for run in found if run.finished != unfinished]
    if not wanted:
        kind = "unfinished" if unfinished else "finished"
        raise RunError(f"no {kind} run in {root}; train one with: snnkd-deploy train")
    newest = max(wanted, key=lambda run: str(run.document["created" if unfinished else "finished"]))
    return open_run(newest.path, unfinished=unfinished)


def write_history(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace history.csv; columns are the keys of all rows, in the order in which they first appear."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _folders(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("*/run.json"))


def _readable(folder: Path) -> Run | None:
    """The run in `folder`, its files unchecked, or None if its description cannot be read."""
    try:
        document = read_json(folder / "run.json", "run description", RunError)
        _check(folder / "run.json", document)
    except RunError:
        return None
    return Run(folder, document)


def _check(path: Path, document: Mapping[str, Any]) -> None:
    """Refuse a run.json that is of another kind or version, or lacks something."""
    if document.get("format") != FORMAT:
        raise RunError(f"{path}: format {document.get('format')!r}; {FORMAT!r} is needed")
    if document.get("format_version") != VERSION:
        raise RunError(f"{path}: format_version {document.get('format_version')!r}; this version reads {VERSION}")
    problems = [key for key, kind in _KEYS.items() if not isinstance(document.get(key, ...), kind)]
    if not problems:
        problems += [f"data.{key}" for key in _DATA_KEYS if key not in document["data"]]
        roles = (*ROLES, FINETUNED) if document.get("finetuning") else ROLES
        entries = [(role, document.get(role)) for role in roles if document.get(role) or document["finished"]]
        problems += [f"{role}.{key}" for role, entry in entries for key in _ROLE_KEYS if key not in (entry or {})]
    if problems:
        raise RunError(f"{path}: missing or of the wrong type: {', '.join(problems)}")
    try:
        TrainConfig(**document["config"])
    except (ConfigError, TypeError) as error:
        raise RunError(f"{path}: its config is not one of this version: {error}") from error


def _damage(run: Run, role: str) -> list[str]:
    """What is wrong with the weights of `role`, if the run says that they are complete."""
    entry = run.document.get(role)
    if entry is None:
        return []
    file = run.path / f"{role}.safetensors"
    if not file.is_file():
        return [f"{file.name} is missing"]
    same = sha256(file) == entry["sha256"]
    return [] if same else [f"{file.name} is not the file that was written (SHA-256 differs)"]
