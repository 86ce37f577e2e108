"""From a network of the user's own to a proven bundle: read, converted if it has no neurons, compiled, written.

import snnkd_deploy
deployment = snnkd_deploy.compile(model, "onnx", x, y)
bundle = deployment.write("exports/mine")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snnkd_deploy.bundle import Bundle
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import Compiled, lower
from snnkd_deploy.coverage import Coverage, Trail, coverage
from snnkd_deploy.data import DataSet, load
from snnkd_deploy.errors import ConfigError, InputError, RefusedError
from snnkd_deploy.export import CALIBRATION_SAMPLES, ExportOptions, Origin, Proofs, Say, silent, write_bundle
from snnkd_deploy.frontend.conversion import Conversion, convert
from snnkd_deploy.ir import Array, Graph, Neuron, Reset, Shape, Stage
from snnkd_deploy.ladder import climb
from snnkd_deploy.passes.fold_batchnorm import fold_batchnorm
from snnkd_deploy.samples import Samples, load_samples, of_data_set, samples_of, save
from snnkd_deploy.target import Target, load_target

if TYPE_CHECKING:
    from snnkd_deploy.frontend.network import Read

SAMPLES = "samples.npz"


@dataclass(frozen=True)
class Reading:
    """How a network is read. `dt`: seconds per step, for a NIR file. The last three are for networks of ReLUs.

    `reset` None: the first that the target's file lists.
    """

    timesteps: int | None = None
    dt: float | None = None
    percentile: float = 99.9
    decay: float = 1.0
    reset: Reset | None = None


@dataclass(frozen=True, eq=False)
class Deployment:
    """A network that a target holds; `write` writes it and proves it."""

    name: str
    network: Graph
    """As it was read, in real numbers; of a network of ReLUs, as it was converted."""
    ann: Graph | None
    """The network of ReLUs before its conversion."""
    factor: float
    """The network's own result is its logits, a mean over time, times this."""
    compiled: Compiled
    samples: Samples
    target: Target
    coverage: Coverage
    options: ExportOptions
    reading: Reading

    def write(self, out: Path | str | None = None, say: Say = silent) -> Bundle:
        """Write the bundle to `out` (None: `exports/NAME/TARGET`) and prove it. ProofError leaves nothing behind."""
        folder = Path(out) if out is not None else Path("exports") / self.name / self.target.name
        return write_bundle(folder, self.target, self.compiled, self._origin(), self.options, say)

    def _origin(self) -> Origin:
        samples = self.samples
        nothing = Calibration(np.empty(0))
        teacher = {} if self.ann is None else {"teacher": fold_batchnorm(self.ann, self.target, nothing)}
        return Origin(
            data=samples,
            run={"name": self.name},
            data_entry={"name": samples.name, "sha256": samples.sha256, "file": SAMPLES, "note": samples.note},
            ladder=self._ladder,
            graphs=teacher,
            entries={
                "coverage": self.coverage.as_dict(),
                "reading": asdict(self.reading),
                "result": {
                    "meaning": "what the network returns is its logits times this",
                    "factor": self.factor,
                },
            },
            keep=lambda path: save(path, samples),
        )

    def _ladder(self, proofs: Proofs) -> dict[str, Any]:
        """Accuracy where there are labels, and how often each form answers as the network that came in."""
        inputs, labels = self.samples.integers(slice(None)), self.samples.labels
        forms = {"ann": self.ann, "network": self.network, "integer": self.compiled.integer}
        rungs: dict[str, Any] = {}
        first: Array | None = None
        for form, graph in forms.items():
            if graph is None:
                continue
            rung = climb(graph, inputs, np.zeros(len(self.samples)) if labels is None else labels)
            first = rung.answers if first is None else first
            agreement = float((rung.answers == first).mean())
            rungs[form] = {**rung.as_dict(), "agreement": agreement} | ({"accuracy": None} if labels is None else {})
        ran = [proof for proof in proofs if proof["verified"]]
        rungs["file"] = {"accuracy": ran[0]["accuracy"], "samples": ran[0]["samples"]} if ran else None
        return rungs


@dataclass(frozen=True, eq=False)
class Checked:
    """What `check` found: every part of the network, and the graph for the target or why there is none."""

    coverage: Coverage
    graph: Graph | None
    refusal: RefusedError | None


@dataclass(frozen=True, eq=False)
class Own:
    """A network of the user's own as it computes, compiled for nothing."""

    name: str
    graph: Graph
    """Its spiking network, in real numbers; of a file of this package the integers that it holds."""
    ann: Graph | None
    """The network of ReLUs before its conversion."""
    samples: Samples
    notes: tuple[str, ...]
    footprint: int | None
    """Bytes of parameters and buffers of a torch network; None of a file."""


def read_own(
    model: Any,
    samples: Any = None,
    labels: Any = None,
    *,
    weights: Path | str | None = None,
    input_shape: Shape | None = None,
    dataset: str | None = None,
    data_dir: Path | str | None = None,
    name: str | None = None,
    **more: Any,
) -> Own:
    """A network and its samples, given as `compile` takes them. InputError if it would train while it is run."""
    job = _Job(model, "onnx", samples, labels, weights, input_shape, dataset, data_dir, None, None, name, more)
    if weights is None and (acting := job.acting_in_training()):
        raise InputError(
            f"{job.name} is in training mode, in which {', '.join(acting)} act otherwise than they were trained for: "
            "return network.eval()"
        )
    footprint = None if job.model is None else _footprint(job.model)
    _, network, ann = job.real()
    return Own(job.name, network, ann, job.samples, tuple(job.notes), footprint)


def compile(  # noqa: A001
    model: Any,
    target: str | Target = "loihi",
    samples: Any = None,
    labels: Any = None,
    *,
    weights: Path | str | None = None,
    input_shape: Shape | None = None,
    dataset: str | None = None,
    data_dir: Path | str | None = None,
    reading: Reading | None = None,
    options: ExportOptions | None = None,
    name: str | None = None,
    **more: Any,
) -> Deployment:
    """Compile a network for a target.

    `model`: a torch.nn.Module, `path.py:function` or `module:function` (with `weights`, a file; the function is given
    `shape` and, of a data set, `classes` if it names them), or a .nir file. `samples`: an array
    `(samples, *shape)` or `(samples, time, *shape)`, a .npz or .npy file, or a data set by its name in `dataset`.
    `more`: the fields of `Reading`, above all `timesteps`.

    TraceError, GraphError or LegalityError list every reason why the target cannot hold it.
    """
    job = _Job(model, target, samples, labels, weights, input_shape, dataset, data_dir, reading, options, name, more)
    return job.compiled()


def check(
    model: Any,
    target: str | Target = "loihi",
    samples: Any = None,
    *,
    weights: Path | str | None = None,
    input_shape: Shape | None = None,
    dataset: str | None = None,
    data_dir: Path | str | None = None,
    reading: Reading | None = None,
    name: str | None = None,
    **more: Any,
) -> Checked:
    """What becomes of every part of a network on a target, refusals included; nothing is raised for those.

    Without samples, random ones of `input_shape` stand in: the structure decides, and ranges may change with real ones.
    """
    if samples is None and dataset is None and input_shape is not None:
        samples = np.random.default_rng(0).integers(0, 256, size=(16, *input_shape), dtype=np.uint8)
    job = _Job(model, target, samples, None, weights, input_shape, dataset, data_dir, reading, None, name, more)
    return job.checked()


class _Job:
    """One call of `compile` or `check`: everything loaded, nothing computed."""

    def __init__(
        self,
        model: Any,
        target: str | Target,
        samples: Any,
        labels: Any,
        weights: Path | str | None,
        shape: Shape | None,
        dataset: str | None,
        data_dir: Path | str | None,
        reading: Reading | None,
        options: ExportOptions | None,
        name: str | None,
        more: Mapping[str, Any],
    ) -> None:
        self.target = target if isinstance(target, Target) else load_target(target)
        self.options = options or ExportOptions()
        self.reading = _reading(reading or Reading(), more)
        self.file = Path(model) if str(model).endswith(".nir") else None
        if self.file is not None and weights is not None:
            raise ConfigError("a .nir file holds its weights; give no others")
        self.name = name or _name(model)
        self.samples, self.calibration = _samples(samples, labels, shape, dataset, data_dir, self.reading.timesteps)
        self.model = None if self.file is not None else _opened(model, weights, self.samples)
        self.modules = {} if self.model is None else _modules(self.model)
        self.trail: Trail = ()
        self.origins: Mapping[str, str] = {}
        self.notes: list[str] = [self.samples.note] if self.samples.note else []

    def acting_in_training(self) -> list[str]:
        """Kinds of layers that are in training mode, and act otherwise there."""
        from snnkd_deploy.frontend.network import acting_in_training

        return [] if self.model is None else acting_in_training(self.model)

    def real(self) -> tuple[Read, Graph, Graph | None]:
        """What was read, its spiking network, and if that had to be made, the network of ReLUs."""
        found = self._read()
        self.notes += found.notes
        ann = None if _spikes(found.graph) else found.graph
        return found, found.graph if ann is None else self._converted(found.graph), ann

    def compiled(self) -> Deployment:
        """All the way to the target's integers."""
        found, network, ann = self.real()
        self.trail, self.origins = (("traced", network),), self._placed(found.origins, network)
        options = self.options
        calibration = options.calibrated(self.calibration)
        compiled = lower(network, self.target, calibration)
        self.trail = compiled.trail
        return Deployment(
            name=self.name,
            network=network,
            ann=ann,
            factor=found.factor,
            compiled=compiled,
            samples=self.samples,
            target=self.target,
            coverage=self.coverage(),
            options=options,
            reading=replace(self.reading, timesteps=network.timesteps),
        )

    def checked(self) -> Checked:
        """The same, with refusals in the table."""
        try:
            done = self.compiled()
        except RefusedError as refusal:
            return Checked(self.coverage(refusal), None, refusal)
        return Checked(done.coverage, done.compiled.legal, None)

    def coverage(self, refusal: RefusedError | None = None) -> Coverage:
        """What is known about every part so far."""
        reasons = () if refusal is None else refusal.reasons or (str(refusal),)
        return coverage(self.target.name, self.modules, self.origins, self.trail, reasons, self.notes)

    def _read(self) -> Read:
        if self.file is not None:
            from snnkd_deploy.frontend import nir

            return nir.read(self.file, self.samples.source, self.reading.timesteps, self.reading.dt)
        from snnkd_deploy.frontend.network import read

        assert self.model is not None
        return read(self.model, self.samples, self.reading.timesteps, self.name)

    def _converted(self, ann: Graph) -> Graph:
        """The spiking network of a network of ReLUs."""
        steps = self.reading.timesteps
        if steps is None:
            raise ConfigError(
                f"{self.name} has no spiking neurons; say with timesteps over how many steps its ReLUs are counted"
            )
        reset = self.reading.reset or self.target.resets[0]
        chosen = Conversion(steps, self.reading.percentile, self.reading.decay, reset)
        self.notes.append(
            f"no spiking neurons: a ReLU becomes a neuron over {steps} steps, reset {reset}, threshold at percentile "
            f"{chosen.percentile:g} of its activations; a start for distillation, no equal"
        )
        return convert(ann, self.calibration, chosen)

    def _placed(self, origins: Mapping[str, str], network: Graph) -> dict[str, str]:
        """Where each node comes from; what a conversion made of a ReLU comes from that ReLU."""
        return {
            node.name: origins.get(node.name, origins.get(node.name.rpartition(".")[0], node.name)) for node in network
        }


def _reading(given: Reading, more: Mapping[str, Any]) -> Reading:
    unknown = sorted(set(more) - {*asdict(given)})
    if unknown:
        raise ConfigError(f"no setting {', '.join(map(repr, unknown))}; known: {', '.join(asdict(given))}")
    return replace(given, **more)


def _opened(model: Any, weights: Path | str | None, samples: Samples) -> Any:
    from snnkd_deploy.user_code import opened

    known = {} if samples.classes is None else {"classes": samples.classes}
    return opened(model, weights, shape=samples.shape, **known)


def _name(model: Any) -> str:
    if isinstance(model, str | Path):
        place, _, function = str(model).rpartition(":")
        path = Path(place or function)
        return path.stem if path.suffix in (".py", ".nir") else path.name.rpartition(".")[2]
    return type(model).__name__.lower()


def _samples(
    given: Any,
    labels: Any,
    shape: Shape | None,
    dataset: str | None,
    data_dir: Path | str | None,
    timesteps: int | None,
) -> tuple[Samples, Array]:
    """The samples for proofs, and those for calibration."""
    if dataset is not None and given is not None:
        raise ConfigError("samples and a data set are given; one of them is needed")
    data = given if isinstance(given, DataSet) else None if dataset is None else load(dataset, data_dir, timesteps)
    if data is not None:
        samples, calibration = of_data_set(data)
    elif given is None:
        raise ConfigError("no samples: give x, a .npz with x (and y, labels), or a data set; they calibrate and prove")
    else:
        samples = _user_samples(given, labels, shape)
        calibration = samples.spread(CALIBRATION_SAMPLES)
    if shape is not None and samples.shape != shape:
        raise InputError(f"input_shape {shape}: {samples.name} has samples of shape {samples.shape}")
    return samples, calibration


def _user_samples(given: Any, labels: Any, shape: Shape | None) -> Samples:
    if isinstance(given, Samples):
        return given
    if isinstance(given, str | Path):
        return load_samples(given, shape)
    return samples_of(given, labels, shape)


def _modules(model: Any) -> dict[str, str]:
    """Type of each module that is one operation, by path."""
    from snnkd_deploy.frontend.record import is_leaf

    return {path: type(one).__name__ for path, one in model.named_modules() if is_leaf(one)}


def _footprint(model: Any) -> int:
    """Bytes of parameters and buffers."""
    return sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()))


def _spikes(graph: Graph) -> bool:
    return bool(graph.of(Neuron)) or graph.stage >= Stage.INTEGER
