"""Training ends in a run that can be trusted: learned, complete, and the same bits after any interruption."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import snnkd_deploy.train as training
from snnkd_deploy import cluster, distill, run
from snnkd_deploy.config import TrainConfig, load_config
from snnkd_deploy.data import load
from snnkd_deploy.distill import Method, Setup
from snnkd_deploy.errors import ConfigError, DataError, RunError, UnknownNameError
from snnkd_deploy.progress import Silent
from snnkd_deploy.snn import models
from snnkd_deploy.snn.models import Outputs
from snnkd_deploy.train import Stage, train

TINY = load_config(model="mlp", width=16, depth=1, teacher_model="mlp", teacher_width=16, teacher_depth=1).as_dict() | {
    "epochs": 3,
    "teacher_epochs": 2,
    "timesteps": 2,
    "batch_size": 256,
    "augment": "shift",
    "threads": 1,
}


def tiny(**options: Any) -> TrainConfig:
    return TrainConfig(**{**TINY, **options})


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(made: run.Run) -> tuple[bytes, bytes]:
    return made.teacher_file.read_bytes(), made.student_file.read_bytes()


def history(made: run.Run) -> list[dict[str, str]]:
    with (made.path / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Interrupt(Silent):
    """Raises like Ctrl-C when a line of history of this stage and epoch has been written."""

    def __init__(self, stage: str, epoch: int) -> None:
        self.place = stage, epoch

    def epoch(self, row: Mapping[str, Any]) -> None:
        if (row["stage"], row["epoch"]) == self.place:
            raise KeyboardInterrupt


def interrupted(config: TrainConfig, stage: str, epoch: int) -> Path:
    out = Path(f"interrupted-{stage}-{epoch}")
    with pytest.raises(KeyboardInterrupt):
        train(config, out=out, watch=Interrupt(stage, epoch))
    return out


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> run.Run:
    """A small but serious run on the digits."""
    config = load_config(width=8, teacher_width=16, epochs=25, teacher_epochs=12, threads=1)
    return train(config, out=tmp_path_factory.mktemp("runs") / "digits")


def test_a_student_learns_the_digits(learned: run.Run) -> None:
    assert learned.accuracies["teacher"] > 0.95
    assert learned.accuracies["student"] > 0.9


def test_the_run_says_what_happened(learned: run.Run) -> None:
    found = run.open_run(learned.path)
    assert found.document == learned.document
    assert found.finished
    assert not found.state.exists()
    assert found.data["sha256"] == load("digits").sha256
    assert found.document["versions"].keys() == {"python", "torch", "numpy", "snnkd-deploy"}
    assert list(found.rates) == ["blocks.0.neuron", "blocks.1.neuron"]
    assert all(0 < rate < 1 for rate in found.rates.values())


def test_the_files_hold_the_networks_whose_accuracy_is_claimed(learned: run.Run) -> None:
    test = load("digits").test
    images, labels = torch.tensor(test.images) / 16, torch.tensor(test.labels)
    for role, network in zip(("student", "teacher"), models.load(learned), strict=True):
        share = (network(images).argmax(1) == labels).double().mean().item()
        assert share == pytest.approx(learned.accuracies[role], abs=1e-12)


def test_history_has_a_line_for_each_epoch_with_each_loss(learned: run.Run) -> None:
    rows = history(learned)
    assert [(row["stage"], int(row["epoch"])) for row in rows] == [
        *(("teacher", epoch) for epoch in range(1, 13)),
        *(("student", epoch) for epoch in range(1, 26)),
    ]
    last = rows[-1]
    assert float(last["loss"]) == pytest.approx(float(last["loss_ce"]) + float(last["loss_kd"]))
    assert float(last["accuracy"]) == learned.accuracies["student"]
    assert float(rows[0]["loss"]) > float(rows[11]["loss"])
    assert float(rows[12]["learning_rate"]) > float(last["learning_rate"]) > 0


def test_the_same_settings_give_the_same_bits_and_another_seed_gives_others() -> None:
    first, second, third = train(tiny()), train(tiny()), train(tiny(seed=1))
    assert [one.path.as_posix() for one in (first, second, third)] == [f"runs/digits-{n}" for n in (1, 2, 3)]
    assert weights(first) == weights(second) != weights(third)


def test_the_random_numbers_and_threads_of_the_caller_are_left_alone() -> None:
    torch.manual_seed(5)
    expected, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(5)
    train(tiny())
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("stage", "epoch", "config"),
    [
        ("teacher", 1, tiny()),
        ("teacher", 2, tiny()),
        ("student", 1, tiny(optimizer="sgd")),
        ("student", 3, tiny()),
        ("student", 2, tiny(model="resnet", width=2, depth=1, epochs=3, reset="subtract")),
        ("student", 2, tiny(model="cnn", width=2, engine="rate", learn_decay="channel")),
    ],
    ids=lambda value: "" if isinstance(value, TrainConfig) else str(value),
)
def test_a_run_interrupted_anywhere_resumes_to_the_same_bits(stage: str, epoch: int, config: TrainConfig) -> None:
    whole = train(config)
    out = interrupted(config, stage, epoch)
    resumed = train(resume=True, out=out)
    assert weights(resumed) == weights(whole)
    assert len(history(resumed)) == 5
    assert not resumed.state.exists()


CHILD = """
import sys
from snnkd_deploy.config import TrainConfig
from snnkd_deploy.run import open_run
from snnkd_deploy.train import Stage, train
config = open_run(sys.argv[1], unfinished=True).config
train(config, out=sys.argv[2])
"""


def test_a_run_killed_in_the_middle_of_an_epoch_resumes_to_the_same_bits(here: Path) -> None:
    config = tiny(model="cnn", width=8, depth=2, epochs=15, batch_size=64)
    whole, out = train(config, out=here / "whole"), here / "killed"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or str(here) for entry in sys.path)}
    with subprocess.Popen([sys.executable, "-c", CHILD, str(whole.path), str(out)], env=environment) as child:
        wait_for(out / "state" / "student.safetensors", child)
        child.send_signal(signal.SIGKILL)
    killed = run.open_run(out, unfinished=True)
    assert child.returncode == -signal.SIGKILL
    assert not killed.finished
    assert killed.accuracies.keys() == {"teacher"}
    resumed = train(out=out, resume=True)
    assert weights(resumed) == weights(whole)
    assert [row["loss"] for row in history(resumed)] == [row["loss"] for row in history(whole)]


def wait_for(path: Path, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_resuming_needs_no_name_takes_the_newest_and_leaves_finished_runs_alone() -> None:
    with pytest.raises(RunError, match="no unfinished run in runs"):
        train(resume=True)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), watch=Interrupt("student", 1))
    resumed = train(resume=True)
    assert resumed.path == Path("runs/digits-1")
    assert resumed.finished
    before = weights(resumed)
    assert train(resume=True, out=resumed.path).document == resumed.document
    assert weights(resumed) == before


def test_resuming_with_other_settings_is_refused() -> None:
    out = interrupted(tiny(), "teacher", 1)
    with pytest.raises(ConfigError, match="cannot go on: epochs: 3 there, 4 now; seed: 0 there, 1 now"):
        train(tiny(epochs=4, seed=1), out=out, resume=True)
    assert train(tiny(), out=out, resume=True).finished


def test_resuming_on_other_data_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    out = interrupted(tiny(), "teacher", 1)
    description = run.open_run(out, unfinished=True)
    description.update(data={**description.data, "sha256": "other"})
    with pytest.raises(RunError, match="digits has changed since"):
        train(out=out, resume=True)


def test_a_damaged_checkpoint_is_refused() -> None:
    out = interrupted(tiny(), "teacher", 1)
    (out / "state" / "teacher.safetensors").write_bytes(b"half a file")
    with pytest.raises(RunError, match="cannot resume from"):
        train(out=out, resume=True)


def test_a_directory_with_a_run_in_it_is_not_overwritten() -> None:
    made = train(tiny(), out="one")
    before = weights(made)
    with pytest.raises(RunError, match="holds a run already"):
        train(tiny(seed=1), out="one")
    assert weights(made) == before


def test_a_process_that_does_not_lead_marks_no_run_as_finished(
    learned: run.Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "first", lambda action: learned)
    open_still = run.Run(here / "still", {**learned.document, "finished": None})
    assert training._stages(open_still, load("digits"), Silent()).finished
    assert not open_still.path.exists()


def test_a_run_in_use_is_refused() -> None:
    made = run.claim(Path("one"), "digits")
    with run.locked(made), pytest.raises(RunError, match="in use"):
        train(tiny(), out="one")


def test_the_teacher_of_another_run_is_used_again() -> None:
    first = train(tiny(teacher_width=20), out="first")
    second = train(tiny(teacher="first", seed=3), out="second")
    assert second.teacher_file.read_bytes() == first.teacher_file.read_bytes()
    assert second.config.teacher_width == 20
    assert second.accuracies["teacher"] == first.accuracies["teacher"]
    assert {row["stage"] for row in history(second)} == {"student"}
    models.load(second)


def test_the_teacher_of_a_run_on_other_data_is_refused() -> None:
    first = train(tiny(), out="first")
    first.update(data={**first.data, "sha256": "other"})
    with pytest.raises(ConfigError, match="was trained on other data than digits"):
        train(tiny(teacher="first"))


def test_a_loss_that_is_no_number_says_what_to_change_and_the_last_checkpoint_is_kept() -> None:
    with pytest.raises(
        ConfigError, match=r"the student diverged in epoch 2, step 0: ce nan.*smaller learning_rate than"
    ):
        train(tiny(method="spoilt"), out="one")
    assert run.open_run("one", unfinished=True).accuracies.keys() == {"teacher"}
    assert Path("one/state/student.safetensors").exists()


class Spoilt(Method):
    """A loss that turns into no number in the second epoch."""

    name, paper = "spoilt", ""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.calls = 0

    def losses(self, student: Outputs, teacher: Outputs, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        return {"ce": student.logits.sum() * (torch.nan if self.calls > 5 else 1)}


class Projected(Method):
    """Has a layer of its own and random numbers of its own."""

    name, paper = "projected", ""

    def __init__(self, setup: Setup, *, weight: float = 1.0) -> None:
        super().__init__(setup)
        (student,), (teacher,) = setup.student_taps[-1], setup.teacher_taps[-1]
        self.weight, self.layer = weight, torch.nn.Linear(student, teacher)

    def losses(self, student: Outputs, teacher: Outputs, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        found = self.layer(student.taps[-1]) - teacher.taps[-1] + 0.1 * torch.randn(teacher.taps[-1].shape)
        return {"feature": self.weight * found.square().mean()}


@pytest.fixture(autouse=True)
def two_more_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {**distill.methods(), "spoilt": Spoilt, "projected": Projected}
    monkeypatch.setattr(distill, "methods", lambda: known)


def test_layers_and_random_numbers_of_a_method_resume_too_and_stay_out_of_the_student() -> None:
    config = tiny(method="projected", method_options={"weight": 0.5}, teacher_width=9)
    whole = train(config)
    resumed = train(resume=True, out=interrupted(config, "student", 2))
    assert weights(resumed) == weights(whole)
    models.load(whole)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dataset": "digit"}, UnknownNameError, "no data set 'digit'"),
        ({"dataset": "mnist"}, ConfigError, "data_dir must name a folder"),
        ({"dataset": "mnist", "data_dir": "nowhere"}, DataError, "does not exist"),
        ({"model": "vit"}, UnknownNameError, "no model 'vit'"),
        ({"teacher_model": "vit"}, UnknownNameError, "no model 'vit'"),
        ({"surrogate": "relu"}, UnknownNameError, "no surrogate 'relu'"),
        ({"method": "magic"}, UnknownNameError, "no method 'magic'"),
        ({"method_options": {"temprature": 1.0}}, ConfigError, "no option 'temprature'"),
        ({"method_options": {"temperature": -1.0}}, ConfigError, "temperature -1.0 must be above 0"),
        ({"device": "gpu"}, ConfigError, "device 'gpu' cannot be used here"),
        ({"device": "meta"}, ConfigError, "device 'meta' cannot be used here"),
        ({"device": "cuda:99"}, ConfigError, "device 'cuda:99' cannot be used here"),
        ({"teacher": "nowhere"}, RunError, "no run at nowhere"),
        ({"model": "cnn", "depth": 4}, ConfigError, "halves 8x8 images to nothing"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(
    here: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(tiny(**options))
    assert not list(here.iterdir())


def test_micro_batches_add_up_to_the_gradient_and_the_losses_of_the_batch() -> None:
    torch.manual_seed(0)
    images, labels, found = torch.rand(12, 3), torch.randint(5, (12,)), []
    for accumulate in (1, 3):
        network = torch.nn.Linear(3, 5)
        torch.nn.init.eye_(network.weight)
        torch.nn.init.zeros_(network.bias)

        def losses(batch: Tensor, labels: Tensor, network: torch.nn.Module = network) -> dict[str, Tensor]:
            return {"ce": torch.nn.functional.cross_entropy(network(batch), labels)}

        current = run.Run(Path("none"), {"config": tiny(accumulate=accumulate).as_dict()})
        stage = Stage("teacher", current, network, torch.nn.Module(), losses, 1, 0.1)  # type: ignore[arg-type]
        told = stage._step(torch.optim.SGD(network.parameters()), images, labels)
        found.append((told["ce"], network.weight.grad, network.weight))
    torch.testing.assert_close(found[1], found[0])


def test_bfloat16_learns_resumes_to_the_same_bits_and_leaves_float32_files() -> None:
    config = tiny(precision="bf16", model="cnn", width=4, engine="rate", accumulate=2, epochs=6, teacher_epochs=6)
    whole = train(config)
    resumed = train(resume=True, out=interrupted(config, "student", 2))
    assert weights(resumed) == weights(whole) != weights(train(replace(config, precision="fp32")))
    kinds = {tensor.dtype for tensor in models.load(whole)[0].state_dict().values()}
    assert kinds == {torch.float32, torch.int64}  # batches are counted in whole numbers
    assert whole.accuracies["student"] > 0.3


def test_a_loss_that_is_no_number_is_found_in_bfloat16_too() -> None:
    with pytest.raises(ConfigError, match="the student diverged in epoch 2, step 0: ce nan"):
        train(tiny(method="spoilt", precision="bf16"), out="one")


def test_a_device_that_cannot_compute_in_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from snnkd_deploy import train as module

    monkeypatch.setattr(module, "_device", lambda config: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(ConfigError, match="precision 'bf16': device 'cuda' cannot compute in it; use fp32"):
        train(tiny(precision="bf16", device="cuda"))


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    assert train(replace(tiny(), batch_size=5000, epochs=1, teacher_epochs=1)).finished
