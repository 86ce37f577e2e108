"""Two processes are the same training as one; whatever ends one of them ends all, with one error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import safetensors.torch
import torch
from torch import Tensor

from snnkd_deploy import cluster, launch, run
from snnkd_deploy.config import TrainConfig, load_config
from snnkd_deploy.distill import create
from snnkd_deploy.errors import ConfigError, RunError, RuntimeMissingError
from snnkd_deploy.launch import TORCHRUN, placed
from snnkd_deploy.progress import Silent, Watch
from snnkd_deploy.snn.engines import load_engine
from snnkd_deploy.snn.norms import over_processes
from snnkd_deploy.train import train
from tests.distill.setups import batch, pair

ROOT = Path(__file__).parents[1]
LIMIT = 120  # seconds, for a machine on which much else runs
TINY: dict[str, Any] = {
    "width": 4, "teacher_width": 6, "timesteps": 2, "epochs": 2, "teacher_epochs": 1, "batch_size": 256,
    "accumulate": 2, "augment": "shift", "method": "bkd", "optimizer": "sgd", "learning_rate": 0.01, "threads": 1,
}  # fmt: skip


def tiny(**options: Any) -> TrainConfig:
    return load_config(**{**TINY, **options})


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder; processes that are started find this file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    return tmp_path


def weights(made: run.Run) -> dict[str, Tensor]:
    student, teacher = (safetensors.torch.load_file(file) for file in (made.student_file, made.teacher_file))
    return {**student, **{f"teacher.{name}": tensor for name, tensor in teacher.items()}}


def assert_the_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(
            one[name], other[name], rtol=tolerance, atol=tolerance, msg=partial("{}: {}".format, name)
        )


class Case(NamedTuple):
    engine: str
    method: str
    options: dict[str, Any]


CASES = (
    Case("bptt", "none", {}),
    Case("rate", "none", {}),
    Case("bptt", "bkd", {"blur": 0.5}),  # random masks
    Case("rate", "bkd", {"blur": 0.5}),
    Case("bptt", "blockwise", {}),  # BatchNorm of its own
    Case("rate", "blockwise", {"logits": "wsl"}),
    Case("bptt", "feature", {"feature": "membrane"}),
    Case("bptt", "tser", {}),
    Case("bptt", "hta-kl", {}),
    Case("rate", "lasnn", {}),
)


def gradients(case: Case, accumulate: int = 1) -> dict[str, Tensor]:
    """Of all parameters in double precision, with the buffers behind the step and the losses."""
    networks = pair("resnet", depth=1, width=2, teacher_width=2, timesteps=2)
    method = create(case.method, networks.setup, **case.options).double().train()
    student, teacher = networks.student.double(), networks.teacher.double()
    engine = load_engine(case.engine, case.method, method.needs)
    images, labels = batch(8)
    torch.manual_seed(2)
    for part, answers in cluster.parts(images.double(), labels, accumulate):
        found = over_processes(method).losses(engine.outputs(student, part), teacher.outputs(part), part, answers)
        torch.stack(list(found.values())).sum().backward()
    parameters = {**dict(student.named_parameters()), **{f"of.{n}": p for n, p in method.named_parameters()}}
    cluster.average_gradients(parameters.values())
    slopes = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    losses = {name: cluster.total(loss.detach()) / cluster.size() for name, loss in found.items()}
    return {**slopes, **dict(student.named_buffers()), **dict(method.named_buffers()), **losses}


def write_gradients(folder: Path, watch: Watch) -> None:
    for number, case in enumerate(CASES):
        found = gradients(case, accumulate=1 + number % 2)
        safetensors.torch.save_file(found, folder / f"{cluster.here().rank}-{number}")
        watch.note(case.method)


class Recorder(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.stages: list[str] = []
        self.notes: list[str] = []

    def stage(self, name: str, epochs: int, done: int, images: int) -> None:
        self.stages.append(name)

    def step(self, images: int, loss: float) -> None:
        self.losses.append(loss)

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_gradients_losses_and_statistics_are_those_of_one_process(here: Path) -> None:
    """In double precision, in which no spike flips by rounding; both processes end with the same bits."""
    watch = Recorder()
    launch.launch(write_gradients, here, tiny(devices=2), watch)
    assert watch.notes == [case.method for case in CASES]
    for number, case in enumerate(CASES):
        first, second = (safetensors.torch.load_file(here / f"{rank}-{number}") for rank in (0, 1))
        assert_the_same(first, second, 0.0)
        assert_the_same(gradients(case, accumulate=1 + number % 2), first, 1e-9)


def command(*arguments: object) -> list[str]:
    settings = ["--" + f"{key.replace('_', '-')}={value}" for key, value in TINY.items()]
    return ["-m", "snnkd_deploy", "train", *map(str, arguments), *([] if "--resume" in arguments else settings)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path)), "OMP_NUM_THREADS": "1"}


def test_torchrun_starts_them_too(here: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, *command("--out", "two", "--json")],
        env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["devices"] == 2  # one process prints
    assert done.stderr.count("student 2/2") == 1
    assert_the_same(weights(train(tiny(), out="one")), weights(run.open_run("two")), 1e-2)


class Interrupt(Recorder):
    """Raises like Ctrl-C behind the first epoch of the student."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        if row["stage"] == "student":
            raise KeyboardInterrupt


@pytest.mark.parametrize(("before", "behind"), [(1, 2), (2, 1)])
def test_a_run_goes_on_in_another_number_of_processes(before: int, behind: int) -> None:
    first, second, alone = Interrupt(), Recorder(), Recorder()
    with pytest.raises(KeyboardInterrupt):
        train(tiny(devices=before), out="cut", watch=first)
    cut = run.open_run("cut", unfinished=True)
    assert (cut.config.devices, cut.finished) == (before, False)
    resumed = train(tiny(devices=behind), out="cut", resume=True, watch=second)
    assert resumed.config.devices == behind
    whole = train(tiny(), out="whole", watch=alone)
    steps = len(alone.losses) // 3  # of an epoch
    assert first.losses[: 2 * steps] == pytest.approx(alone.losses[: 2 * steps], rel=1e-3)  # single precision
    assert second.losses[-steps:] == pytest.approx(alone.losses[-steps:], rel=1e-3)
    assert resumed.rates == pytest.approx(whole.rates, rel=1e-2)
    assert resumed.accuracies == pytest.approx(whole.accuracies, abs=0.01)
    assert_the_same(weights(whole), weights(resumed), 1e-2)


def test_a_loss_that_is_no_number_ends_all_with_the_message_of_one() -> None:
    with pytest.raises(ConfigError, match=r"the student diverged in epoch 1, step 0: ce [0-9.]+, restored inf"):
        train(tiny(devices=2, method_options={"weight": 1e39}), out="one")
    assert run.open_run("one", unfinished=True).accuracies.keys() == {"teacher"}
    with run.locked(Path("one")):
        pass


def die(task: None, watch: Watch) -> None:
    if cluster.here().rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    cluster.first(lambda: cluster.gathered(torch.zeros(1)))


def test_a_process_that_is_killed_ends_the_others() -> None:
    with pytest.raises(RunError, match="process 1 of 2 was ended by SIGKILL; the run can go on"):
        launch.launch(die, None, tiny(devices=2), Silent())


def test_one_process_imports_no_engine() -> None:
    code = (
        "import sys\nfrom snnkd_deploy.config import load_config\nfrom snnkd_deploy.train import train\n"
        "train(load_config(width=2, depth=1, epochs=1, teacher_epochs=1, threads=1), out='one')\n"
        "print([name for name in sys.modules if 'lightning' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_several_processes_without_the_engine_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    for name in TORCHRUN:
        monkeypatch.setenv(name, "2")
    with pytest.raises(RuntimeMissingError, match="pip install lightning-fabric"), launch.joined(tiny(devices=2)):
        pass


def test_torchrun_decides_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(TORCHRUN, ("3", "8", "3", "4", "id"), strict=True):
        monkeypatch.setenv(name, value)
    config = placed(tiny(devices=2))
    assert (config.devices, config.nodes) == (4, 2)
    assert not launch.speaks()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 2, "devices": 4}, "run on each of them: torchrun --nnodes 2 --nproc-per-node 4"),
        ({"device": "cuda", "devices": 99}, "devices = 99: [0-9]+ CUDA devices are here"),
        ({"device": "cuda:1", "devices": 2}, "device 'cuda:1' with 2 devices; give cpu or cuda, without a number"),
        ({"devices": 3}, "a batch of 256 images cannot be cut into 2 micro-batches of at least 2 images, each in 3"),
        ({"accumulate": 256}, "a batch of 256 images cannot be cut into 256 micro-batches"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_made(
    here: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tiny(**options))
    assert not list(here.iterdir())


def test_only_the_place_may_change_while_a_run_goes_on() -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), out="one", watch=Interrupt())
    with pytest.raises(ConfigError, match="accumulate: 2 there, 4 now; precision: 'fp32' there, 'bf16' now$"):
        train(tiny(accumulate=4, precision="bf16", threads=2), out="one", resume=True)
