"""Export a trained student, and prove the written file against the integer simulator."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from snnkd_deploy import __version__
from snnkd_deploy.bundle import FORMAT, GRAPHS, MANIFEST, VERSION, Bundle, find_bundle, newest, open_bundle
from snnkd_deploy.calibration import Calibration, Rounding
from snnkd_deploy.compiler import PIPELINE, Compiled, adopting, lower
from snnkd_deploy.data import DataSet, configured, load
from snnkd_deploy.errors import (
    ConfigError,
    DataError,
    InputError,
    ProofError,
    RunError,
    RuntimeMissingError,
    StorageError,
    UnknownNameError,
)
from snnkd_deploy.files import read_json, replacing_folder, sha256, write_json
from snnkd_deploy.graph_file import load_graphs, save_graphs
from snnkd_deploy.ir import Array, Conv2d, Graph, Linear, Neuron, Stage
from snnkd_deploy.ladder import climb, margins, warnings
from snnkd_deploy.mapping import map_network
from snnkd_deploy.passes.fold_batchnorm import fold_batchnorm
from snnkd_deploy.proof import Proof, agree, first_difference
from snnkd_deploy.registry import chosen_options, load_exporter
from snnkd_deploy.run import Run, latest, now, open_run
from snnkd_deploy.runner import Runner, runner
from snnkd_deploy.samples import Samples, open_saved
from snnkd_deploy.simulate import Record
from snnkd_deploy.target import Target, load_target

Say = Callable[[str], None]
"""Told what is being done, one line at a time."""


def silent(line: str) -> None:
    """Say nothing."""


CALIBRATION_SAMPLES = MARGIN_SAMPLES = 64
PACKAGES = ("numpy", "onnx", "onnxruntime", "h5py", "nir", "snntorch", "torch")


@dataclass(frozen=True)
class ExportOptions(Rounding):
    """How to export. `samples`: per proof, None for each proof's own number.

    `exporter`: options of the format, for example `{"form": "one-step"}` of ONNX. Of a fine-tuned run the integers are
    those that were trained, so what decides them must stay as it is.
    """

    samples: int | None = None
    exporter: Mapping[str, str] = field(default_factory=dict)


Tested = DataSet | Samples
"""What a bundle is proven with: a data set, or samples of the user's own."""

Proofs = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a network comes from: what its bundle says and holds beside the network itself."""

    data: Tested
    run: Mapping[str, Any]
    data_entry: Mapping[str, Any]
    ladder: Callable[[Proofs], dict[str, Any]]
    graphs: Mapping[str, Graph]
    """More graphs to keep: `teacher`."""
    entries: Mapping[str, Any] = field(default_factory=dict)
    """More for the manifest."""
    keep: Callable[[Path], None] | None = None
    """Writes the file that `data_entry` names."""


@dataclass(frozen=True, eq=False)
class Traced:
    """What the compiler needs of a run: the student and its folded teacher as graphs, and the data set.

    A teacher that is the user's own code comes as the graph that the run keeps; no code is run.
    """

    student: Graph
    teacher: Graph | None
    data: DataSet
    uncounted: tuple[str, ...] = ()
    """Why there is no graph of the teacher."""
    integer: Graph | None = None
    """The network that was fine-tuned, if the run did that."""


def export(
    run: Run | Path | str | None = None,
    target: str = "loihi",
    out: Path | str | None = None,
    options: ExportOptions | None = None,
    say: Say = silent,
) -> Bundle:
    """Write the bundle of a finished run (None: the newest below `runs/`) to `out` (None: `RUN/exports/TARGET`).

    Nothing is left under the final name unless every proof that could run found no difference; a bundle that was there
    before stays. LegalityError lists what the target cannot hold, ProofError names the layer and step that differ.
    """
    options, rules = options or ExportOptions(), load_target(target)
    run = run if isinstance(run, Run) else open_run(run) if run is not None else latest()
    say(f"reading {run.path} and {run.data['name']}")
    _check_options(run, options)
    traced = read_run(run)
    say(f"compiling for {rules.title}")
    calibration = options.calibrated(calibration_samples(traced.data))
    pipeline = PIPELINE if traced.integer is None else adopting(traced.integer)
    compiled = lower(traced.student, rules, calibration, pipeline)
    folder = Path(out) if out is not None else run.path / "exports" / rules.name
    return write_bundle(folder, rules, compiled, _origin(run, compiled, traced), options, say)


def write_bundle(
    folder: Path, rules: Target, compiled: Compiled, origin: Origin, options: ExportOptions, say: Say = silent
) -> Bundle:
    """Write a compiled network as a bundle, proven on the samples of its origin. ProofError leaves nothing behind."""
    exporter = load_exporter(rules.exporter)
    options = replace(options, exporter=chosen_options(rules.exporter, exporter, options.exporter))
    with replacing_folder(folder) as partial:
        file = partial / f"network{exporter.suffix}"
        real = options.exporter.get("numbers") == "float"
        loader = exporter.write(compiled.folded if real else compiled.legal, rules, file, **options.exporter)
        written = sorted(one.name for one in partial.iterdir())
        reference = compiled.folded if real else compiled.integer
        proofs = prove(exporter.proofs, reference, file, loader, origin.data, options.samples, say)
        say("climbing the accuracy ladder on the test images")
        ladder = origin.ladder(proofs)
        for warning in (worth_knowing := warnings(ladder)):
            say(f"warning: {warning}")
        reach = margins(compiled.legal, origin.data.test.integers(slice(MARGIN_SAMPLES)), rules)
        others = {**origin.graphs, **({"folded": compiled.folded} if real else {})}
        save_graphs(partial / GRAPHS, {"integer": compiled.integer, "legal": compiled.legal, **others})
        if origin.keep is not None:
            written.append(str(origin.data_entry["file"]))
            origin.keep(partial / written[-1])
        manifest = _manifest(origin, rules, compiled, loader, proofs, ladder, file.name, options)
        if real:
            unit = 1.0 if loader["output"]["meaning"].startswith("mean") else 1 / compiled.folded.timesteps
            manifest["output"] = {"meaning": f"real, {loader['output']['meaning']}", "unit": unit}
        manifest |= {"margins": {name: vars(one) for name, one in reach.items()}, "warnings": worth_knowing}
        manifest["files"] = {name: sha256(partial / name) for name in (*written, GRAPHS)}
        write_json(partial / MANIFEST, manifest)
    return open_bundle(folder)


def _origin(run: Run, compiled: Compiled, traced: Traced) -> Origin:
    data = traced.data
    return Origin(
        data=data,
        run={
            "name": run.path.resolve().name,
            "student_sha256": run.document["student"]["sha256"],
            "teacher_sha256": run.document["teacher"]["sha256"],
            "teacher_uncounted": list(traced.uncounted),
            "finetuning": run.finetuning,
        },
        data_entry={
            "name": data.name,
            "sha256": data.sha256,
            **{key: getattr(run.config, key) for key in ("data_dir", "image_size")},
            "encoding": run.config.data_encoding,
        },
        ladder=lambda proofs: _ladder(run, compiled, data, proofs),
        graphs={"teacher": traced.teacher} if traced.teacher is not None else {},
    )


def verify(
    path: Path | str | None = None, samples: int | None = None, say: Say = silent, *, runtime: str | None = None
) -> list[dict[str, Any]]:
    """Run the file of a bundle again and compare; returns what `prove` does.

    `path`: the bundle, or its file; None: the newest of the newest run. `runtime`: the name of one proof, or a
    word of it (`lava` of `lava-dl`); None: all.
    BundleError if a file was changed, DataError if the data are others, ProofError if a spike differs,
    RuntimeMissingError if a proof that is needed, or was asked for, could not run.
    """
    bundle = find_bundle(path) if path is not None else newest(latest().path)
    exporter = load_exporter(str(bundle.manifest["exporter"]))
    names = [proof.name for proof in exporter.proofs]
    asked = tuple(proof for proof in exporter.proofs if runtime in (None, proof.name, *proof.name.split("-")))
    if not asked:
        raise UnknownNameError(f"runtime of {bundle.file.name}", str(runtime), names)
    data, loader = bundle_data(bundle), bundle.manifest["loader"]
    results = prove(asked, bundle.reference, bundle.file, loader, data, samples, say)
    if missing := [one for one in results if not one["verified"] and (one["required"] or runtime)]:
        raise RuntimeMissingError("\n".join(f"{one['name']} did not run: {one['reason']}" for one in missing))
    return results


def bundle_data(bundle: Bundle) -> Tested:
    """The samples that the bundle was proven with. DataError if what is there now has another hash."""
    wanted = bundle.manifest["data"]
    if "file" in wanted:
        return open_saved(bundle.path / wanted["file"], wanted["name"])
    more = wanted.get("image_size"), wanted.get("encoding", "direct")
    data = load(wanted["name"], wanted["data_dir"], bundle.manifest["timesteps"], *more)
    return _same_data(data, wanted["sha256"], str(bundle.path))


def read_run(run: Run) -> Traced:
    """Trace the networks of a run. DataError if the data set is no longer the one it was trained on."""
    from snnkd_deploy.snn.models import load_student
    from snnkd_deploy.trace import student_source, trace

    data = _same_data(configured(run.config), run.data["sha256"], str(run.path))
    graph, uncounted = _foreign_graph(run) if run.config.foreign else (_teacher_graph(run, data), ())
    student = trace(load_student(run), student_source(data), run.path.resolve().name)
    integer = load_graphs(run.integer_file)["integer"] if run.finetuning else None
    return Traced(student, graph, data, uncounted, integer)


def _check_options(run: Run, options: ExportOptions) -> None:
    """ConfigError if a fine-tuned network shall get other integers than it was trained with."""
    if run.finetuning and replace(options, samples=None, exporter={}) != ExportOptions():
        raise ConfigError(
            f"{run.path} holds integers that were trained: their bits, granularity and calibration were chosen with "
            "finetune; export them without --weight-bits, --granularity, --calibration and --weight-percentile"
        )


def _teacher_graph(run: Run, data: DataSet) -> Graph:
    from snnkd_deploy.snn.models import load_teacher
    from snnkd_deploy.trace import teacher_source, trace

    traced = trace(load_teacher(run), teacher_source(data), "teacher")
    return fold_batchnorm(traced, load_target("onnx"), Calibration(np.empty(0)))


def _foreign_graph(run: Run) -> tuple[Graph | None, tuple[str, ...]]:
    """The graph that the run keeps of a teacher that is code, or why there is none."""
    entry, file = run.document["teacher"]["foreign"], run.teacher_graph_file
    if entry["graph_sha256"] is None:
        return None, tuple(entry["uncounted"])
    if not file.is_file() or sha256(file) != entry["graph_sha256"]:
        raise RunError(f"{run.path} is damaged: {file.name} is missing or not the file that was written")
    return load_graphs(file)["teacher"], ()


def calibration_samples(data: DataSet) -> Array:
    """Training samples as `simulate` takes them, evenly spread over the set."""
    places = np.linspace(0, len(data.train) - 1, min(CALIBRATION_SAMPLES, len(data.train))).round().astype(int)
    return data.train.integers(places)


def prove(
    proofs: tuple[Proof, ...],
    reference: Graph,
    file: Path,
    loader: Mapping[str, Any],
    data: Tested,
    samples: int | None,
    say: Say,
) -> list[dict[str, Any]]:
    """Run every proof on test images; each result says what ran, on how much, or why it did not.

    ProofError at the first proof whose spikes are not those of `reference`.
    """
    return [_prove(proof, reference, file, loader, data, samples or proof.samples, say) for proof in proofs]


def _prove(
    proof: Proof, reference: Graph, file: Path, loader: Mapping[str, Any], data: Tested, samples: int, say: Say
) -> dict[str, Any]:
    count = min(samples, len(data.test))
    inputs = data.test.integers(slice(count))
    say(f"proving with {proof.name} on {count} test images")
    entry: dict[str, Any] = {"name": proof.name, "required": proof.required, "verified": False}
    start = time.perf_counter()
    try:
        met = proof.run(file, inputs, loader)
    except RuntimeMissingError as reason:
        return {**entry, "reason": str(reason)}
    seconds = time.perf_counter() - start
    expected, by = _expected(reference, inputs, proof)
    compared = _compared(reference, expected, met, f"{file.name} run by {proof.name}")
    return {
        **entry,
        "verified": True,
        "samples": count,
        "held_against": by,
        "spikes": int(sum(int(spikes.sum()) for spikes in expected.spikes.values())),
        **compared,
        "accuracy": share(met.logits.argmax(axis=1), data.test.labels, count),
        "seconds": round(seconds, 3),
    }


def _compared(reference: Graph, expected: Record, met: Record, what: str) -> dict[str, Any]:
    """Integers must be equal; real numbers as close as float32 allows, and how close is part of the result."""
    if reference.stage >= Stage.INTEGER:
        if difference := first_difference(reference, expected, met):
            raise ProofError(f"{what} differs from the integer simulator: {difference}")
        return {"differing": 0}
    agreement = agree(reference, expected, met)
    if not agreement.close:
        raise ProofError(f"{what} is further from the float simulation than rounding explains: {agreement}")
    return {"differing": agreement.spikes_differing, "logit_error": agreement.logit_error}


def share(answers: Array, labels: Array | None, count: int) -> float | None:
    """The share of the first `count` samples whose answer is the label; None without labels."""
    return None if labels is None else float((answers == labels[:count]).mean())


def _expected(reference: Graph, inputs: Array, proof: Proof) -> tuple[Record, str]:
    """What the network does, and who ran it: the simulator if it is the native runtime that is to be proven."""
    who = Runner(reference, None) if proof.native else runner(reference, inputs)
    parts = list(who.records(inputs))
    spikes = {name: np.concatenate([part.spikes[name] for part in parts], axis=1) for name in parts[0].spikes}
    return Record(spikes, np.concatenate([part.logits for part in parts])), who.by


def _ladder(run: Run, compiled: Compiled, data: DataSet, proofs: list[dict[str, Any]]) -> dict[str, Any]:
    images, labels = data.test.integers(slice(None)), data.test.labels
    accuracies, count = run.accuracies, len(labels)
    ran = [proof for proof in proofs if proof["verified"]]
    rates = {name: {"rate": rate} for name, rate in run.rates.items()}
    return {
        "teacher": {"accuracy": accuracies["teacher"], "samples": count},
        "student": {"accuracy": accuracies["student"], "samples": count, "layers": rates},
        "folded": _folded_rung(run, compiled.folded, data),
        "integer": climb(compiled.integer, images, labels).as_dict(),
        "file": {"accuracy": ran[0]["accuracy"], "samples": ran[0]["samples"]} if ran else None,
    }


def _folded_rung(run: Run, folded: Graph, data: DataSet) -> dict[str, Any]:
    """Climbed once per run: the folded network is the same for every target. Kept beside the run, by what it is of."""
    kept, key = run.path / "folded-rung.json", [folded.digest, data.sha256, __version__]
    with suppress(InputError):
        found = read_json(kept, "folded rung", InputError)
        if found.get("of") == key:
            return dict(found["rung"])
    rung = climb(folded, data.test.integers(slice(None)), data.test.labels).as_dict()
    with suppress(StorageError):  # a run that cannot be written to is climbed again
        write_json(kept, {"of": key, "rung": rung})
    return rung


def _manifest(
    origin: Origin,
    target: Target,
    compiled: Compiled,
    loader: Mapping[str, Any],
    proofs: list[dict[str, Any]],
    ladder: Mapping[str, Any],
    file: str,
    options: ExportOptions,
) -> dict[str, Any]:
    source, output = compiled.integer.input, compiled.integer.output
    mapping = map_network(compiled.legal, target)
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "created": now(),
        "target": target.name,
        "exporter": target.exporter,
        "verified": all(proof["verified"] for proof in proofs if proof["required"]),
        "file": file,
        "files": {},
        "digest": compiled.digest,
        "timesteps": compiled.integer.timesteps,
        "input": {
            "shape": list(source.shape),
            "axes": "channel, height, width" if len(source.shape) == 3 else "feature",
            "coding": "direct: the same integers at each step" if source.static else _coding(origin.data),
            "first_layer": _first_layer(compiled.legal),
            "scale": source.scale,
            "low": source.low,
            "high": source.high,
        },
        "output": {
            "meaning": "integer sum over timesteps",
            "of": "spikes of the last neurons" if compiled.integer.counts_spikes else "what the last layer weighs",
            "unit": output.unit / compiled.integer.timesteps,
        },
        "loader": dict(loader),
        "proofs": proofs,
        "ladder": dict(ladder),
        "layers": [entry for node in compiled.integer for entry in _layer_entry(compiled.integer, node.name)],
        "mapping": mapping.as_dict() if mapping else None,
        "options": vars(options),
        "data": dict(origin.data_entry),
        "run": dict(origin.run),
        **origin.entries,
        "versions": {"snnkd-deploy": __version__, "python": platform.python_version(), **_versions()},
    }


def _first_layer(legal: Graph) -> str:
    """What the input meets first."""
    if legal.input_neurons is not None:
        return "neurons, one for each value of the input"
    on_host = any(node.placement == "host" for node in legal)
    return "weights on the host, which feeds its sums to neurons" if on_host else "weights on the target"


def _coding(data: Tested) -> str:
    return f"{data.encoding.kind}: one frame of spikes per step" if data.encoding else "one frame per step"


def _layer_entry(graph: Graph, name: str) -> list[dict[str, Any]]:
    node = graph[name]
    shape = list(graph.shapes[name])
    if isinstance(node, Linear | Conv2d):
        extremes = [int(node.weight.min()), int(node.weight.max())]
        entry = {
            "weight_shape": list(node.weight.shape),
            "weights": extremes,
            "zero_weights": int((node.weight == 0).sum()),
        }
        return [
            {
                "name": name,
                "kind": type(node).__name__,
                "shape": shape,
                **entry,
                "bias_largest": int(abs(node.bias).max()),
            }
        ]
    if isinstance(node, Neuron):
        thresholds = sorted({int(one) for one in np.atleast_1d(node.threshold)})
        entry = {"thresholds": [thresholds[0], thresholds[-1]], "decay": _fraction(node.decay_numerator, node)}
        entry |= {"current_decay": _fraction(node.current_numerator, node)} if node.keeps_current else {}
        entry |= {"reset": node.reset}
        return [{"name": name, "kind": "Neuron", "shape": shape, **entry}]
    return []


def _fraction(numerators: Array, node: Neuron) -> str:
    """A decay as the target holds it."""
    span = "..".join(str(one) for one in sorted({numerators.min(), numerators.max()}))
    return f"{span}/{2**node.decay_bits}" + (", per channel" if numerators.ndim else "")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _same_data(data: DataSet, expected: str, owner: str) -> DataSet:
    if data.sha256 != expected:
        raise DataError(
            f"{owner} was made with {data.name} of SHA-256 {expected[:16]}..., the files now give {data.sha256[:16]}..."
        )
    return data
