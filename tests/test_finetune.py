"""A fine-tuned run is exported as it was trained, on every target that holds its integers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from snnkd_deploy.api import diff
from snnkd_deploy.calibration import FinetuneOptions
from snnkd_deploy.config import load_config
from snnkd_deploy.errors import ConfigError, LegalityError, RunError
from snnkd_deploy.export import ExportOptions, export, read_run
from snnkd_deploy.finetune import block_ends, finetune
from snnkd_deploy.graph_file import load_graphs
from snnkd_deploy.ir import Conv2d, Linear
from snnkd_deploy.progress import Silent
from snnkd_deploy.run import Run, open_run
from snnkd_deploy.train import train

THREE = FinetuneOptions(weight_bits=3, epochs=2)


@pytest.fixture(scope="module")
def tuned(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny run in three bits for Loihi."""
    return finetune(tiny_run, "loihi", THREE, out=tmp_path_factory.mktemp("tuned") / "run")


def test_fine_tuning_wins_back_what_rounding_lost(tuned: Run, tiny_run: Run) -> None:
    settings = tuned.finetuning
    assert settings is not None
    assert settings["bits"] == 3
    assert tuned.accuracies["integer"] > settings["before"] + 0.02
    assert tuned.accuracies["student"] == tiny_run.accuracies["student"]
    assert tuned.student_file.read_bytes() == tiny_run.student_file.read_bytes()


def test_the_export_is_the_network_of_the_last_evaluation(tuned: Run, tmp_path: Path) -> None:
    loihi, onnx = (export(tuned, name, tmp_path / name, ExportOptions(samples=20)) for name in ("loihi", "onnx"))
    assert loihi.digest == onnx.digest == tuned.document["integer"]["digest"]
    assert diff(loihi.path, onnx.path) == []
    assert loihi.manifest["ladder"]["integer"]["accuracy"] == tuned.accuracies["integer"]
    layers = [node for node in loihi.graphs["integer"] if isinstance(node, Linear | Conv2d)]
    assert {int(abs(layer.weight).max()) for layer in layers} == {3}
    assert loihi.manifest["run"]["finetuning"] == tuned.finetuning
    with pytest.raises(ConfigError, match="integers that were trained"):
        export(tuned, "onnx", tmp_path / "other", ExportOptions(weight_bits=4))


class Interrupt(Silent):
    """Raises like Ctrl-C after the first epoch."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        if row["epoch"] == 1:
            raise KeyboardInterrupt


def test_a_killed_fine_tuning_goes_on_to_the_same_integers(tuned: Run, tiny_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        finetune(tiny_run, "loihi", THREE, out=out, watch=Interrupt())
    with pytest.raises(RunError, match=r"resume it with: snnkd-deploy finetune --out .* --resume"):
        open_run(out)
    with pytest.raises(RunError, match="fine-tunes a run; go on with: snnkd-deploy finetune"):
        train(out=out, resume=True)
    resumed = finetune(out=out, resume=True)
    assert resumed.document["integer"] == tuned.document["integer"]
    assert finetune(out=out, resume=True).document == resumed.document


def test_what_cannot_be_fine_tuned_is_refused_before_anything_is_made(
    tuned: Run, tiny_run: Run, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="is fine-tuned already; start from"):
        finetune(tuned, "onnx", out=tmp_path / "a")
    with pytest.raises(RunError, match="is a training, not a fine-tuning"):
        finetune(out=tiny_run.path, resume=True)
    with pytest.raises(ConfigError, match="weight bits 9: onnx takes"):
        finetune(tiny_run, "onnx", FinetuneOptions(weight_bits=9), out=tmp_path / "a")
    config = {**tiny_run.document["config"], "method": "feature", "method_options": {"feature": "membrane"}}
    membranes = Run(tiny_run.path, {**tiny_run.document, "config": config})
    with pytest.raises(ConfigError, match="needs membranes, which an integer network does not give"):
        finetune(membranes, "onnx", out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_integers_that_a_target_cannot_hold_are_refused_there(tiny_run: Run, tmp_path: Path) -> None:
    chosen = FinetuneOptions(weight_bits=4, granularity="channel", epochs=1)
    run = finetune(tiny_run, "onnx", chosen, out=tmp_path / "run")
    with pytest.raises(LegalityError, match="one threshold per channel; this target has one per layer"):
        export(run, "loihi", tmp_path / "loihi")
    assert not (tmp_path / "loihi").exists()


@pytest.mark.parametrize("method", ["lasnn", "tser", "bkd"])
def test_other_methods_guide_integers_too(method: str, tmp_path: Path) -> None:
    config = load_config(width=4, epochs=1, teacher_epochs=1, timesteps=2, threads=1, method=method)
    run = finetune(train(config, out=tmp_path / "run"), "onnx", FinetuneOptions(epochs=1), out=tmp_path / "tuned")
    assert load_graphs(run.integer_file)["integer"].digest == run.document["integer"]["digest"]


def test_the_taps_are_the_ends_of_blocks(tiny_run: Run) -> None:
    student = read_run(tiny_run).student
    assert block_ends(student) == ("blocks.0.pool", "blocks.1.pool")
    assert [student.shapes[name] for name in block_ends(student)] == [(4, 4, 4), (8, 2, 2)]
