"""Train the teacher, then the student that learns from it, into a run directory; a killed run resumes to the same bits.

Every random number comes from (seed, stage, epoch, step) alone, so nothing but weights, optimizer state and the number
of epochs done has to be kept.
"""

from __future__ import annotations

import hashlib
import math
import platform
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy import __version__, augment, checkpoint, cluster, data, distill, foreign, launch, run
from snnkd_deploy.batches import Images, accuracy
from snnkd_deploy.config import PLACE, TrainConfig, load_config
from snnkd_deploy.data import DataSet
from snnkd_deploy.errors import ConfigError, RunError
from snnkd_deploy.files import replacing
from snnkd_deploy.progress import Silent, Watch
from snnkd_deploy.run import Run
from snnkd_deploy.snn import models
from snnkd_deploy.snn.allocator import keep_memory
from snnkd_deploy.snn.engines import load_engine
from snnkd_deploy.snn.lif import wide
from snnkd_deploy.snn.models import Network
from snnkd_deploy.snn.norms import over_processes
from snnkd_deploy.teacher_cache import Remembered, check_again, check_room

CALIBRATED = 256  # training images that a method may calibrate a start on
Losses = Callable[[Tensor, Tensor], dict[str, Tensor]]


def train(
    config: TrainConfig | None = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Train into `out` (default: a new runs/<dataset>-<n>) and return the finished run.

    With `resume` the unfinished run in `out` (default: the newest below runs/) goes on; it has its own settings, so
    `config` may be left out. Weights are those of the last epoch: nothing is selected on the test images.
    """
    out, watch = Path(out) if out is not None else None, watch or Silent()
    path = (out or run.latest(unfinished=True).path) if resume else None
    if path is not None:
        config = config or run.open_run(path, unfinished=True).config
    config = launch.placed(_settled(config or load_config()))
    with launch.joined(config):
        watch = watch if cluster.leads() else Silent()
        return _begin(out, config, watch) if path is None else _resume(path, config, watch)


def _begin(out: Path | None, config: TrainConfig, watch: Watch) -> Run:
    dataset = _prepare(config)
    path = cluster.first(lambda: run.claim(out, config.dataset))
    with _held(path):
        current = cluster.first(lambda: run.create(path, config, _described(dataset), versions()))
        return _trained(current, dataset, watch)


def _resume(path: Path, config: TrainConfig, watch: Watch) -> Run:
    with _held(run.open_run(path, unfinished=True).path):
        found = cluster.first(lambda: _moved(run.open_run(path, unfinished=True), config))
        if found.finetuning:
            raise RunError(f"{path} fine-tunes a run; go on with: snnkd-deploy finetune --out {path} --resume")
        if found.finished:
            watch.note(f"{path} is finished already")
            return found
        if found.config.foreign and found.document["teacher"]:
            foreign.check_source(found)
        return _trained(found, _same_data(found), watch)


def _held(path: Path) -> AbstractContextManager[None]:
    """The lock of a run, which one process of those that train has."""
    return run.locked(path) if cluster.leads() else nullcontext()


def _moved(found: Run, config: TrainConfig) -> Run:
    """The run to go on with, in the place that `config` says; ConfigError if that differs in anything else."""
    old, new = found.config.as_dict(), config.as_dict()
    differing = [key for key in old if old[key] != new[key]]
    if changed := [f"{key}: {old[key]!r} there, {new[key]!r} now" for key in differing if key not in PLACE]:
        raise ConfigError(f"{found.path} was started with other settings and cannot go on: {'; '.join(changed)}")
    return found if found.finished or not differing else found.update(config=new)


def _same_data(found: Run) -> DataSet:
    dataset = data.configured(found.config)
    if dataset.sha256 != found.data["sha256"]:
        raise RunError(f"{found.path} was started with other data: {dataset.name} has changed since (SHA-256 differs)")
    _check_place(found.config, dataset)
    return dataset


def _trained(current: Run, dataset: DataSet, watch: Watch) -> Run:
    """Train in this process, or in as many as the settings ask for."""
    if launch.alone(current.config):
        return _stages(current, dataset, watch)
    launch.launch(_stages_here, current, current.config, watch)
    return run.open_run(current.path)


def _stages_here(current: Run, watch: Watch) -> None:
    """What each process does that was started for this run."""
    _stages(current, _same_data(current), watch)


def _check_place(config: TrainConfig, dataset: DataSet) -> None:
    """Refuse a device that is not there or cannot do it, and a batch that the processes cannot share."""
    device = _device(config)
    if config.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise ConfigError(f"precision 'bf16': device {config.device!r} cannot compute in it; use fp32")
    images = min(config.batch_size, len(dataset.train))
    processes = config.devices * config.nodes
    cluster.check_batch(images, processes, config.accumulate)
    if config.cache_teacher:
        check_again(config.augment, processes)


def _prepare(config: TrainConfig) -> DataSet:
    """The data; refuses now whatever would fail after hours."""
    distill.check(config.method, config.method_options)
    _device(config)
    dataset = data.configured(config)
    _check_place(config, dataset)
    augment.check(config.augment, dataset.sample_shape)
    reused = config.teacher and not config.foreign
    if reused and run.open_run(str(config.teacher)).data["sha256"] != dataset.sha256:
        raise ConfigError(f"teacher {config.teacher} was trained on other data than {dataset.name} as it is here")
    with torch.device("meta"):  # no memory, no time: only whether they can be built and started
        student, teacher, method = _pair(config, dataset.input_shape, len(dataset.classes), config.teacher_weights)
        load_engine(config.engine, config.method, method.needs).check(student)
        if config.cache_teacher:
            shapes = [(len(dataset.classes),), *(method.setup.teacher_taps if method.teacher_taps else ())]
            check_room(len(dataset.train), shapes)
        method.prepare(student, teacher, torch.zeros(2, *dataset.input_shape))
    return dataset


def _pair(
    config: TrainConfig, shape: models.Shape, classes: int, weights: Path | str | None = None
) -> tuple[Network, Network, distill.Method]:
    """Student, teacher and the method between them, with fresh weights, or the teacher with those of a file."""
    student = models.student(config, shape, classes)
    teacher = _teacher_network(config, shape, classes, weights)
    setup = distill.Setup(classes, config.timesteps, tap_shapes(student, shape), tap_shapes(teacher, shape), teacher)
    return student, teacher, distill.create(config.method, setup, **config.method_options)


def _teacher_network(
    config: TrainConfig, shape: models.Shape, classes: int, weights: Path | str | None = None
) -> Network:
    """Our own network or the user's, with fresh weights, as the code sets them, or those of a file."""
    if config.foreign:
        return foreign.teacher(config, shape, classes, weights)
    network = models.teacher(config, shape, classes)
    if weights is not None:
        models.read_weights(models.channels_last(network), Path(weights))
    return network


@torch.no_grad()
def tap_shapes(network: Network, shape: models.Shape) -> tuple[tuple[int, ...], ...]:
    """Shapes of the taps without the batch axis."""
    with next((p.device for p in network.parameters()), torch.zeros(0).device):
        return tuple(tuple(tap.shape[1:]) for tap in network.eval().outputs(torch.zeros(2, *shape)).taps)


def _settled(config: TrainConfig) -> TrainConfig:
    """Absolute paths, and the shape of the teacher: as asked for, as in another run, as its code, or as the student."""
    if config.teacher is not None and not config.foreign and (other := run.open_run(config.teacher)).config.foreign:
        config = replace(config, **foreign.adopted(config, other))
    foreign.check_settings(config)
    if config.foreign:
        data_dir = None if config.data_dir is None else str(Path(config.data_dir).resolve())
        return replace(config, data_dir=data_dir, **foreign.absolute(config))
    settled: dict[str, Any] = {
        "teacher_model": config.teacher_model or config.model,
        "teacher_width": config.teacher_width or config.width,
        "teacher_depth": config.teacher_depth or config.depth,
    }
    if config.data_dir is not None:
        settled["data_dir"] = str(Path(config.data_dir).resolve())
    if config.teacher is not None:
        other = run.open_run(config.teacher)
        settled["teacher"] = str(other.path.resolve())
        settled |= {key: getattr(other.config, key) for key in settled if key.startswith("teacher_")}
    return replace(config, **settled)


def _device(config: TrainConfig) -> torch.device:
    try:
        device = cluster.here().device or torch.device(config.device)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"device {config.device!r} cannot be used here: {reason}") from error
    return device


def _described(dataset: DataSet) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "sha256": dataset.sha256,
        "train": len(dataset.train),
        "test": len(dataset.test),
        "scale": dataset.scale,
        "classes": list(dataset.classes),
        "input_shape": list(dataset.input_shape),
    }


def versions() -> dict[str, str]:
    """Of what the numbers of a run depend on."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return {**found, "snnkd-deploy": __version__}


@contextmanager
def environment(config: TrainConfig) -> Iterator[torch.device]:
    """Threads as asked for, convolutions that repeat exactly, the caller's random numbers left alone.

    On a CPU freed memory is kept for the process: see snn/allocator.py. Gives the device.
    """
    threads = torch.get_num_threads()
    if config.device == "cpu":
        keep_memory()
    devices = [_device(config)] if config.device.startswith("cuda") else []
    with torch.random.fork_rng(devices), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        torch.set_num_threads(config.threads or max(1, threads // config.devices))
        try:
            yield _device(config)
        finally:
            torch.set_num_threads(threads)


def _stages(current: Run, dataset: DataSet, watch: Watch) -> Run:
    """Teacher, then student; what is complete already is not done again."""
    with environment(current.config) as device:
        more = dataset.scale, device, len(dataset.classes)
        images = Images.of(dataset.train, *more), Images.of(dataset.test, *more)
        if not current.document["teacher"]:
            current = _teacher(current, dataset, *images, watch)
        if not current.document["student"]:
            current = _student(current, *images, watch)
    return cluster.first(current.finish)


def _teacher(current: Run, dataset: DataSet, images: Images, test: Images, watch: Watch) -> Run:
    config = current.config
    if config.foreign:
        return foreign.bring(current, dataset, test, watch)
    if config.teacher is not None:
        return cluster.first(lambda: _reuse_teacher(current, run.open_run(str(config.teacher)), watch))
    _seed(config.seed, "teacher")
    network = models.teacher(config, current.input_shape, len(current.classes)).to(images.device)

    def losses(batch: Tensor, labels: Tensor) -> dict[str, Tensor]:
        with _precision(config, batch.device):
            logits = over_processes(network)(batch)
        return {"ce": functional.cross_entropy(wide(logits), labels)}

    epochs, rate = config.teacher_epochs, config.teacher_learning_rate
    Stage("teacher", current, network, nn.Module(), losses, epochs, rate).run(images, test, watch)
    share = accuracy(network, test)
    for doubt in foreign.doubts(share, None, test.labels):
        watch.note(doubt)
    return cluster.first(lambda: _complete(current, "teacher", network, share))


def _complete(current: Run, role: str, network: Network, share: float, **more: Any) -> Run:
    """Write the weights, and that they are final."""
    checkpoint.write_weights(current.path / f"{role}.safetensors", network)
    return current.complete(role, share, **more)


def _precision(config: TrainConfig, device: torch.device) -> AbstractContextManager[None]:
    """Where products are taken in bfloat16, if asked for.

    Without the cache of cast weights: one filled in the spike pass of engine rate would have no gradient in the other.
    """
    if config.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def _reuse_teacher(current: Run, other: Run, watch: Watch) -> Run:
    with replacing(current.teacher_file) as partial:
        shutil.copyfile(other.teacher_file, partial)
    watch.note(f"teacher taken from {other.path}, test accuracy {other.accuracies['teacher']:.2%}")
    return current.complete("teacher", other.accuracies["teacher"])


def _student(current: Run, images: Images, test: Images, watch: Watch) -> Run:
    config, device = current.config, images.device
    _seed(config.seed, "student")
    student, teacher, method = _pair(config, current.input_shape, len(current.classes), current.teacher_file)
    teacher.eval().requires_grad_(False)
    for part in (student, teacher, method):
        part.to(device)
    engine = load_engine(config.engine, config.method, method.needs)
    asked: Network | Remembered = teacher
    if config.cache_teacher:
        asked = Remembered(teacher, len(images), method.teacher_taps, encoded=config.data_encoding != "direct")

    def losses(batch: Tensor, labels: Tensor) -> dict[str, Tensor]:
        with _precision(config, batch.device):
            seen, taught = engine.outputs(student, batch), asked.outputs(batch)
        return over_processes(method).losses(seen.widened(), taught.widened(), batch, labels)

    stage = Stage("student", current, student, method, losses, config.epochs, config.learning_rate)
    if not stage.begun:
        method.prepare(student, teacher, images.spread(CALIBRATED))
    stage.run(images, test, watch)
    with models.recording(student) as rates:
        share = accuracy(student, test)
    return cluster.first(lambda: _complete(current, "student", student, share, rates=rates))


@dataclass(frozen=True, eq=False)
class Stage:
    """One network on its way; `method` holds the layers that are trained with it and thrown away afterwards."""

    name: str
    current: Run
    network: nn.Module
    method: nn.Module
    losses: Losses
    epochs: int
    learning_rate: float
    settle: Callable[[], None] | None = None  # called after the last step of each epoch, before the evaluation

    @property
    def file(self) -> Path:
        """Its checkpoint."""
        return self.current.state / f"{self.name}.safetensors"

    @property
    def begun(self) -> bool:
        """Whether an epoch is done already."""
        return cluster.first(lambda: bool(checkpoint.rows(self.file)))

    def run(self, images: Images, test: Images, watch: Watch) -> None:
        """Train from the last checkpoint, or the start, to the last epoch."""
        config, file = self.current.config, self.file
        trained = models.channels_last(nn.ModuleDict({"network": self.network, "method": self.method}))
        optimizer = _optimizer(trained, config)
        rows = cluster.first(lambda: checkpoint.rows(file))
        if rows:
            checkpoint.restore(file, trained, optimizer)
        earlier = checkpoint.rows(self.current.state / "teacher.safetensors") if self.name != "teacher" else []
        watch.stage(self.name, self.epochs, len(rows), _steps(images, config) * min(config.batch_size, len(images)))
        for epoch in range(len(rows) + 1, self.epochs + 1):
            trained.train()
            row = self._epoch(epoch, optimizer, images, watch)
            if self.settle:
                self.settle()
            row["accuracy"] = accuracy(self.network, test)
            rows.append(row)
            if cluster.leads():
                checkpoint.save(file, trained, optimizer, rows)
                run.write_history(self.current.path / "history.csv", earlier + rows)
            watch.epoch(row)

    def _epoch(self, epoch: int, optimizer: torch.optim.Optimizer, images: Images, watch: Watch) -> dict[str, Any]:
        """One pass over the images in a new order, without the incomplete last batch; its line of history.csv."""
        config, start = self.current.config, time.perf_counter()
        _seed(config.seed, self.name, epoch)
        steps, size = _steps(images, config), config.batch_size
        sums: dict[str, float] = defaultdict(float)
        order = torch.randperm(len(images))
        for step in range(steps):
            _seed(config.seed, self.name, epoch, step)
            rows = order[step * size : (step + 1) * size]
            _set_rate(optimizer, self.learning_rate * _cosine((epoch - 1) * steps + step, self.epochs * steps))
            batch = images.batch(rows, config.augment)
            images.expect(order[(step + 1) * size : min(step + 2, steps) * size])
            losses = self._step(optimizer, *batch)
            if not math.isfinite(sum(losses.values())):
                raise ConfigError(self._diverged(epoch, step, losses))
            for name, value in losses.items():
                sums[name] += value / steps
            watch.step(len(rows), sum(losses.values()))
        rate, speed = optimizer.param_groups[0]["lr"], steps * min(size, len(images)) / (time.perf_counter() - start)
        return self._row(epoch, sums, learning_rate=rate, images_per_second=round(speed, 1))

    def _step(self, optimizer: torch.optim.Optimizer, batch: Tensor, labels: Tensor) -> dict[str, float]:
        """One step with a batch; each loss, mean over processes and micro-batches."""
        parts, names = self.current.config.accumulate, list[str]()
        values: list[Tensor] = []
        optimizer.zero_grad()
        for images, answers in cluster.parts(batch, labels, parts):
            losses = self.losses(images, answers)
            stacked = torch.stack(list(losses.values()))
            torch.autograd.backward(stacked.sum() / parts)
            names, values = list(losses), [*values, stacked.detach()]
        cluster.average_gradients(parameter for group in optimizer.param_groups for parameter in group["params"])
        optimizer.step()
        means = cluster.total(torch.stack(values).mean(0)) / cluster.size()
        return dict(zip(names, means.tolist(), strict=True))

    def _row(self, epoch: int, losses: dict[str, float], **more: float) -> dict[str, Any]:
        parts = {f"loss_{name}": value for name, value in losses.items()}
        return {"stage": self.name, "epoch": epoch, "loss": sum(losses.values()), **parts, **more}

    def _diverged(self, epoch: int, step: int, losses: dict[str, float]) -> str:
        met = ", ".join(f"{name} {value}" for name, value in losses.items())
        key = "teacher_learning_rate" if self.name == "teacher" else "learning_rate"
        kept = f"the checkpoint of epoch {epoch - 1} is kept in {self.current.state}" if epoch > 1 else "none is kept"
        advice = f"use a smaller {key} than {self.learning_rate}"
        return f"the {self.name} diverged in epoch {epoch}, step {step}: {met}; {advice} ({kept})"


def _steps(images: Images, config: TrainConfig) -> int:
    """Batches per epoch; a set smaller than one batch is one."""
    return max(1, len(images) // config.batch_size)


def _cosine(step: int, steps: int) -> float:
    """Share of the learning rate at a step: half a cosine from 1 towards 0."""
    return 0.5 + 0.5 * math.cos(math.pi * step / steps)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _seed(*key: object) -> None:
    """Seed torch from (seed, stage, epoch, step) or the front part of it."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big"))


def _optimizer(trained: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Weights decay; biases and BatchNorm, which have one axis, do not."""
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.learning_rate)
