"""Every method trains a student with every engine that gives what it needs, and leaves nothing behind in its file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from torch import Tensor

from snnkd_deploy.config import TrainConfig, load_config
from snnkd_deploy.distill import create, methods
from snnkd_deploy.errors import ConfigError
from snnkd_deploy.export import read_run
from snnkd_deploy.progress import Silent
from snnkd_deploy.run import Run
from snnkd_deploy.snn.engines import ENGINES
from snnkd_deploy.train import train
from tests.distill.setups import pair

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in methods()),
    ("feature", {"feature": "membrane"}),
    ("bkd", {"logits": "kd"}),
    ("blockwise", {"logits": "wsl"}),
]


def config(**options: Any) -> TrainConfig:
    quick = {"width": 4, "teacher_width": 6, "timesteps": 2, "epochs": 2, "teacher_epochs": 2, "threads": 1}
    return load_config(**{**quick, **options})


@pytest.fixture(scope="module")
def undistilled(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(config(method="none"), out=tmp_path_factory.mktemp("none"))


def exported(run: Run) -> list[tuple[str, str]]:
    """Nodes of the graph that exporters and operation counts see."""
    return [(node.name, type(node).__name__) for node in read_run(run).student]


def parameters(run: Run) -> dict[str, Tensor]:
    return safetensors.torch.load_file(run.student_file)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_the_student_has_exactly_the_parameters_of_the_undistilled(
    name: str, options: dict[str, Any], engine: str, undistilled: Run, tmp_path: Path
) -> None:
    settings = config(method=name, method_options=options, engine=engine, teacher=str(undistilled.path))
    if missing := create(name, pair().setup, **options).needs - ENGINES[engine].gives:
        with pytest.raises(ConfigError, match=f"needs {', '.join(missing)}, which engine '{engine}' does not give"):
            train(settings, out=tmp_path)
        return
    made = train(settings, out=tmp_path)
    plain, found = parameters(undistilled), parameters(made)
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in plain.items()}
    assert math.isfinite(sum(float(value.double().sum()) for value in found.values()))
    assert made.accuracies["student"] > 0.15  # ten classes, two short epochs: above chance
    assert exported(made) == exported(undistilled)


class Interrupt(Silent):
    """Raises like Ctrl-C behind the first epoch of the student."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        if (row["stage"], row["epoch"]) == ("student", 1):
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["bkd", "blockwise", "feature", "idsnn"])
def test_what_a_method_trains_draws_and_prepares_survives_an_interruption(
    name: str, undistilled: Run, tmp_path: Path
) -> None:
    settings = config(method=name, teacher=str(undistilled.path))
    whole = train(settings, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(settings, out=tmp_path / "halves", watch=Interrupt())
    halves = train(out=tmp_path / "halves", resume=True)
    assert halves.student_file.read_bytes() == whole.student_file.read_bytes()


def test_a_student_starts_from_its_deeper_teacher(undistilled: Run, tmp_path: Path) -> None:
    made = train(config(method="idsnn", depth=1, teacher_depth=2), out=tmp_path)
    assert made.config.teacher_depth == 2


def test_a_start_from_another_kind_of_network_is_refused_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="method 'idsnn': student and teacher must be the same model"):
        train(config(method="idsnn", teacher_model="mlp"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
