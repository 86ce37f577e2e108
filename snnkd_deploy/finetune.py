"""Train a student on as the integers of a target, guided by its teacher, into a run directory of its own.

The scales are chosen once, as an export would choose them, and stay; so does every rule of the target. What the last
evaluation ran is stored as an integer graph, and `export` writes that graph.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from snnkd_deploy import distill, run
from snnkd_deploy.batches import Images, accuracy
from snnkd_deploy.calibration import FinetuneOptions
from snnkd_deploy.compiler import lower
from snnkd_deploy.config import TrainConfig
from snnkd_deploy.errors import ConfigError, ProofError, RunError
from snnkd_deploy.export import Traced, calibration_samples, read_run
from snnkd_deploy.files import replacing
from snnkd_deploy.graph_file import save_graphs
from snnkd_deploy.ir import Graph
from snnkd_deploy.passes.fold_batchnorm import fold_batchnorm
from snnkd_deploy.passes.quantize import Scales, choose_scales
from snnkd_deploy.passes.weight_shortcuts import weight_shortcuts
from snnkd_deploy.progress import Silent, Watch
from snnkd_deploy.run import Run
from snnkd_deploy.simulate import simulate
from snnkd_deploy.snn import models
from snnkd_deploy.snn.integer import IntegerNetwork
from snnkd_deploy.snn.lif import LIF
from snnkd_deploy.target import Target, load_target
from snnkd_deploy.train import Stage, environment, tap_shapes, versions

PROVEN = 64  # test samples whose logits the reference simulator must confirm
SETTLED = 50  # steps after which worst cases are looked at


@dataclass(frozen=True, eq=False)
class Task:
    """A finished run, and what its student becomes on a target."""

    parent: Run
    target: Target
    options: FinetuneOptions
    traced: Traced
    folded: Graph
    weighed: Graph
    scales: Scales

    @property
    def config(self) -> TrainConfig:
        """The parent's settings, with those of the fine-tuning, in one process."""
        chosen, old = self.options, self.parent.config
        rates = replace(old, epochs=chosen.epochs, learning_rate=chosen.learning_rate, precision="fp32", engine="bptt")
        threads, device = chosen.threads or old.threads, chosen.device or old.device
        return replace(rates, threads=threads, device=device, devices=1, nodes=1)

    def network(self) -> IntegerNetwork:
        """The student as integers, before any training."""
        c = self.parent.config
        equation = LIF(surrogate=c.surrogate, detach_reset=c.detach_reset)
        added = {node.name for node in self.weighed} - {node.name for node in self.folded}
        return IntegerNetwork(self.weighed, self.scales, equation, block_ends(self.weighed), frozenset(added))


def finetune(
    source: Run | Path | str | None = None,
    target: str = "loihi",
    options: FinetuneOptions | None = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Fine-tune a finished run (None: the newest) into `out` (None: a new runs/<dataset>-<n>); returns that run.

    With `resume` the fine-tuning in `out` goes on with its own settings. LegalityError lists, before any training, what
    the target cannot hold; ConfigError names a method that needs more than integers give.
    """
    watch = watch or Silent()
    if resume:
        return _resumed(out, watch)
    parent = source if isinstance(source, Run) else run.open_run(source) if source is not None else run.latest()
    task = plan(parent, target, options or FinetuneOptions())
    path = run.claim(Path(out) if out is not None else None, parent.config.dataset)
    with run.locked(path):
        return _trained(task, _created(task, path, target), watch)


def _resumed(out: Path | str | None, watch: Watch) -> Run:
    found = run.open_run(out, unfinished=True) if out is not None else run.latest(unfinished=True)
    if found.finetuning is None:
        raise RunError(f"{found.path} is a training, not a fine-tuning; go on with: snnkd-deploy train --resume")
    if found.finished:
        watch.note(f"{found.path} is finished already")
        return found
    settings = found.finetuning
    task = plan(run.open_run(settings["parent"]), settings["target"], FinetuneOptions(**settings["options"]))
    if task.parent.document["student"]["sha256"] != found.document["student"]["sha256"]:
        raise RunError(f"{found.path} was started from another student than {settings['parent']} holds now")
    with run.locked(found.path):
        return _trained(task, found, watch)


def plan(parent: Run, target: str, options: FinetuneOptions, traced: Traced | None = None) -> Task:
    """What is to be done; refuses now whatever would fail later. `traced`: the parent, if it was read already."""
    if parent.finetuning:
        raise ConfigError(f"{parent.path} is fine-tuned already; start from {parent.finetuning['parent']}")
    rules, traced = load_target(target), traced or read_run(parent)
    calibration = options.calibrated(calibration_samples(traced.data))
    lower(traced.student, rules, calibration)
    folded = fold_batchnorm(traced.student, rules, calibration)
    weighed = weight_shortcuts(folded, rules, calibration)
    scales = choose_scales(weighed, rules, calibration)
    task = Task(parent, rules, options, traced, folded, weighed, scales)
    _method(task, models.load(parent)[1])
    return task


def _created(task: Task, path: Path, target: str) -> Run:
    """The new run, before any training."""
    settings = {
        "parent": str(task.parent.path.resolve()),
        "target": target,
        "bits": task.scales.limits.weight.bit_length() + 1,
        "options": asdict(task.options),
    }
    return run.create(path, task.config, task.parent.data, versions()).update(finetuning=settings)


def _trained(task: Task, current: Run, watch: Watch) -> Run:
    """Train to the last epoch, confirm what came out by the reference simulator, and keep it."""
    for role in run.ROLES:
        current = current if current.document[role] else _copied(task.parent, current, role)
    with environment(current.config) as device:
        data, network = task.traced.data, task.network().to(device)
        images, test = (Images.of(one, data.scale, device, len(data.classes)) for one in (data.train, data.test))
        if "before" not in (current.finetuning or {}):
            current = current.update(finetuning={**(current.finetuning or {}), "before": accuracy(network, test)})
        guided = _guided(task, network, device)
        config, method = current.config, guided.method
        Stage("integers", current, network, method, guided, config.epochs, config.learning_rate, guided.settle).run(
            images, test, watch
        )
        share, integer = accuracy(network, test), network.integer
        _confirm(network, integer, task, test)
    with replacing(current.integer_file) as partial:
        save_graphs(partial, {"integer": integer, "folded": network.graph})
    return current.complete(run.FINETUNED, share, digest=integer.digest).finish()


def _copied(parent: Run, current: Run, role: str) -> Run:
    """The new run with the weights of one of its parent's networks."""
    entry = {**parent.document[role]}
    with replacing(current.path / f"{role}.safetensors") as partial:
        shutil.copyfile(parent.path / f"{role}.safetensors", partial)
    return current.complete(
        role, entry.pop("accuracy"), **{k: v for k, v in entry.items() if k not in ("file", "sha256")}
    )


@dataclass(eq=False)
class Guided:
    """The losses of a batch; now and then the weights are brought back to where the worst case fits."""

    network: IntegerNetwork
    teacher: models.Network
    method: distill.Method
    steps: int = 0

    def __call__(self, batch: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """What the method makes of integers and teacher."""
        self.steps += 1
        if self.steps % SETTLED == 0:
            self.network.settle()
        return self.method.losses(self.network.outputs(batch), self.teacher.outputs(batch).widened(), batch, labels)

    def settle(self) -> None:
        """At the end of an epoch."""
        self.steps = 0
        self.network.settle()


def _guided(task: Task, network: IntegerNetwork, device: torch.device) -> Guided:
    torch.manual_seed(task.parent.config.seed)
    _, teacher = models.load(task.parent)
    models.channels_last(teacher).requires_grad_(False)
    return Guided(network, teacher.to(device), _method(task, teacher).to(device))


def _confirm(network: IntegerNetwork, integer: Graph, task: Task, test: Images) -> None:
    """ProofError unless the reference simulator finds the same logits for the first test samples."""
    rows = torch.arange(min(PROVEN, len(test)))
    with torch.no_grad():
        met = network.sums(test.batch(rows)[0]).cpu().numpy()
    expected = simulate(integer, task.traced.data.test.integers(slice(len(rows)))).logits
    if not np.array_equal(met, expected):
        different = int((met != expected).any(axis=1).sum())
        raise ProofError(f"{different} of {len(rows)} test samples have other logits in torch than in the simulator")


def block_ends(graph: Graph) -> tuple[str, ...]:
    """The nodes that hold what each block of a student gives on: the last before the next block, or the head, begins.

    The tracer walks in the order of execution and names nodes after modules.
    """
    parts = [".".join(node.name.split(".")[: 2 if node.name.startswith("blocks.") else 1]) for node in graph]
    starts = [parts.index(part) for part in dict.fromkeys(parts) if part.startswith("blocks.") or part == "head"]
    return tuple(graph.nodes[start - 1].name for start in starts[1:])


def _method(task: Task, teacher: models.Network) -> distill.Method:
    """The method of the run between the integer student and its teacher; ConfigError if it needs membranes."""
    config, shape = task.parent.config, task.parent.input_shape
    taps = tuple(task.weighed.shapes[name] for name in block_ends(task.weighed))
    setup = distill.Setup(len(task.parent.classes), config.timesteps, taps, tap_shapes(teacher, shape), teacher)
    method = distill.create(config.method, setup, **config.method_options)
    if "membranes" in method.needs:
        raise ConfigError(
            f"method {config.method!r} needs membranes, which an integer network does not give; fine-tune a run of a "
            "method that looks at spikes or logits"
        )
    return method
