"""The command line: options in, one library call, print. Heavy imports wait until a command needs them."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import click

from snnkd_deploy import __version__
from snnkd_deploy.config import PLACE, TrainConfig, load_config
from snnkd_deploy.errors import ConfigError, SnnkdError, StorageError

if TYPE_CHECKING:
    from snnkd_deploy.bundle import Bundle
    from snnkd_deploy.coverage import Coverage
    from snnkd_deploy.run import Run

F = TypeVar("F", bound=Callable[..., Any])
INTERRUPTED = 130


class _Commands(click.Group):
    """The one place where an error of the library becomes an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SnnkdError as error:
            return _end(ctx, f"error: {error}", error.exit_code)
        except KeyboardInterrupt:
            return _end(ctx, "interrupted; nothing half-written was left under its final name", INTERRUPTED)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            named = f" {error.filename}" if error.filename else ""
            return _end(ctx, f"error: the system refused{named}: {error.strerror or error}", StorageError.exit_code)


def _end(ctx: click.Context, message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    ctx.exit(code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="snnkd-deploy")
def main() -> None:
    """From a trained ANN to a proven neuromorphic deployment.

    \b
    snnkd-deploy train
    snnkd-deploy export --target loihi
    snnkd-deploy energy report.json

    Exit codes: 0 done, 2 wrong option, 3 input missing or damaged, 4 the network is refused, 5 a proof found a
    difference, 6 a runtime is missing, 7 the disk refused, 130 interrupted.
    """


SETTINGS = {
    "dataset": "digits (comes along), fashion-mnist, mnist, cifar10, cifar100, imagenet, tiny-imagenet, folder (of "
    "your own pictures), n-mnist, cifar10-dvs, dvs128-gesture, or as counts of events n-mnist-counts, "
    "cifar10-dvs-counts, dvs128-gesture-counts",
    "data_dir": "folder with the original files of the data set",
    "image_size": "height and width of pictures from files, or of frames of the larger event cameras",
    "model": "student: mlp, cnn, vgg9, vgg11, vgg16, resnet, resnet18, resnet19, resnet20, resnet34, sew_resnet18 or "
    "spikingformer",
    "width": "channels or neurons of the student's first layer (spikingformer: of its embedding)",
    "depth": "blocks of the student (resnet: per stage)",
    "teacher_model": "teacher network, with ReLU (default: as the student)",
    "teacher_width": "width of the teacher (default: the student's)",
    "teacher_depth": "depth of the teacher (default: the student's)",
    "teacher": "instead of training one: a finished run, or a torch network: path.py:function or module:function",
    "teacher_weights": "its state_dict: .safetensors, or as torch.save wrote it",
    "teacher_taps": "modules of it whose outputs are compared, joined by commas (default: found by itself)",
    "teacher_normalize": "MEAN/STD of the images it was trained on, one number or one per channel (a,b,c/d,e,f)",
    "teacher_accuracy": "test accuracy that its author states, 0 to 1; a lower one met is a warning",
    "cache_teacher": "compute what the teacher says of each training image once; needs augment none",
    "timesteps": "steps T of the student; events are binned into as many frames",
    "encoding": "how a student sees still pictures: direct (at each step), as spikes by rate or latency, or through "
    "neurons of its own, one for each pixel",
    "readout": "how classes are read: from the sums of the last layer, or from the spikes of neurons behind it",
    "decay": "part of the membrane that is kept each step; 1 is IF",
    "learn_decay": "keep the decay, or learn one per layer, or one per channel (which Loihi cannot hold)",
    "threshold": "membrane above which a neuron fires; not learned, since the BatchNorm in front can scale instead",
    "reset": "membrane after a spike: to zero, or less the threshold",
    "surrogate": "stand-in for the derivative of the spike: atan, sigmoid, triangle, rectangle",
    "detach_reset": "leave the reset out of the gradient",
    "engine": "how gradients come about: bptt (through time) or rate (memory does not grow with T)",
    "method": "none, logits, feature, blockwise, bkd, lasnn, hta-kl, tser or idsnn",
    "epochs": "epochs of the student",
    "teacher_epochs": "epochs of the teacher",
    "batch_size": "images per step, of all devices together",
    "accumulate": "parts that a batch is cut into, one after the other, to save memory; BatchNorm sees one part",
    "precision": "fp32, or bf16 for products and activations in training (weights, membranes and losses stay fp32)",
    "optimizer": "optimiser of both networks",
    "learning_rate": "peak learning rate of the student",
    "teacher_learning_rate": "peak learning rate of the teacher",
    "weight_decay": "weight decay of both networks",
    "augment": "random changes of training images, joined by +: flip, shift, crop, cutout, autoaugment, resized-crop, "
    "mixup",
    "seed": "of weights, order and augmentation",
    "threads": "threads of torch in each process",
    "device": "cpu, cuda, cuda:0, ...",
    "devices": "devices on each node, one process for each; where torchrun starts the command, it decides",
    "nodes": "machines; on each of them torchrun starts the command",
}


def _settings(names: tuple[str, ...] = tuple(SETTINGS)) -> Callable[[F], F]:
    """An option for each of these settings of a run; what is not given is left to the file and the data set."""
    kinds = get_type_hints(TrainConfig)

    def decorate(command: F) -> F:
        for field in reversed(fields(TrainConfig)):
            if field.name in names:
                command = _setting(field.name, kinds[field.name])(command)
        return command

    return decorate


def _setting(name: str, kind: Any) -> Callable[[F], F]:
    flag = "--" + name.replace("_", "-")
    kind = (
        next((one for one in get_args(kind) if one is not type(None)), kind)
        if get_origin(kind) is not Literal
        else kind
    )
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=SETTINGS[name])
    accepted = click.Choice(get_args(kind)) if get_origin(kind) is Literal else kind
    return click.option(flag, name, type=accepted, default=None, help=SETTINGS[name])


def _pairs(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE, as text."""
    parts = [one.partition("=") for one in given]
    if wrong := [key + equals + text for key, equals, text in parts if not equals or not key]:
        raise click.BadParameter(f"{', '.join(map(repr, wrong))}: KEY=VALUE is needed")
    return {key: text for key, _, text in parts}


def _method_options(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, Any] | None:
    """KEY=VALUE, the value as JSON where it is JSON, else as text."""
    options: dict[str, Any] = {}
    for key, text in _pairs(context, parameter, given).items():
        try:
            options[key] = json.loads(text)
        except ValueError:
            options[key] = text
    return options or None


_config = click.option("--config", type=click.Path(path_type=Path), help="TOML file with the settings of a run")
_json = click.option("--json", "as_json", is_flag=True, help="print JSON instead of text")
_method_option = click.option(
    "--method-option", "method_options", multiple=True, callback=_method_options, metavar="KEY=VALUE",
    help="option of the method, for example temperature=4",
)  # fmt: skip


def _rounding(command: F) -> F:
    """The options that decide how real numbers become integers."""
    for option in reversed(
        (
            click.option("--weight-bits", type=int, help="fewer bits than the target's own"),
            click.option("--granularity", type=click.Choice(["layer", "channel"]), default="layer", show_default=True,
                         help="one scale per layer, or one per channel"),
            click.option("--calibration", type=click.Choice(["max", "mse", "percentile"]), default="mse",
                         show_default=True,
                         help="keep the largest weight, clip where that lowers the error, or keep a percentile"),
            click.option("--weight-percentile", type=click.FloatRange(0, 100, min_open=True), default=99.9,
                         show_default=True,
                         help="with --calibration percentile: how many percent of the weights are not clipped"),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@main.command()
@_config
@click.option("--out", type=click.Path(path_type=Path), help="run directory (default: runs/DATASET-N)")
@click.option("--resume", is_flag=True, help="go on with an interrupted run (--out, or the newest)")
@_settings()
@_method_option
@click.option("--logits", help="what a method adds for the logits: kd, wsl or none (short for --method-option logits=)")
@click.option("--qat", is_flag=True, help="then train on as the integers of --target, as finetune does, into RUN-qat")
@click.option("--target", help="with --qat: name of a target, or path of a .toml file (default: loihi)")
@click.option("--weight-bits", type=int, help="with --qat: fewer bits than the target's own")
@_json
def train(
    config: Path | None,
    out: Path | None,
    resume: bool,
    logits: str | None,
    qat: bool,
    target: str | None,
    weight_bits: int | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train an ANN teacher and distil a spiking student from it."""
    if not qat and (target or weight_bits):
        raise ConfigError("--target, --weight-bits: go with --qat; an export chooses them later")
    if logits is not None:
        settings["method_options"] = {**(settings["method_options"] or {}), "logits": logits}
    chosen = _resumed(out, config, settings) if resume else load_config(config, **settings)
    from snnkd_deploy.api import FinetuneOptions
    from snnkd_deploy.api import train as run_training
    from snnkd_deploy.launch import speaks
    from snnkd_deploy.progress import watching

    wanted, integers = (target or "loihi", FinetuneOptions(weight_bits=weight_bits)) if qat else (None, None)
    with watching() as watch:
        run = run_training(chosen, out=out, resume=resume, watch=watch, qat=wanted, integers=integers)
    if speaks():
        _print_json(run.document) if as_json else _print_finetuned(run) if qat else _print_run(run)


def _resumed(out: Path | None, config: Path | None, settings: dict[str, Any]) -> TrainConfig | None:
    """The settings of the run that goes on, in another place if one is given."""
    given = {key: value for key, value in settings.items() if value is not None}
    if config or not given.keys() <= set(PLACE):
        kept = ", ".join("--" + key for key in PLACE)
        raise ConfigError(f"--resume goes on with the settings of the run; give no others than {kept}")
    from snnkd_deploy.run import latest, open_run

    found = open_run(out, unfinished=True) if out else latest(unfinished=True)
    return replace(found.config, **given)


def _shape(context: click.Context, parameter: click.Parameter, given: str | None) -> tuple[int, ...] | None:
    """1,28,28 or 784."""
    if given is None:
        return None
    parts = given.replace("x", ",").split(",")
    if not all(part.strip().isdigit() and int(part) for part in parts) or len(parts) not in (1, 3):
        raise click.BadParameter(f"{given!r}: CHANNELS,HEIGHT,WIDTH or FEATURES is needed, for example 1,28,28")
    return tuple(int(part) for part in parts)


MODEL = {
    "weights": click.option("--weights", type=click.Path(path_type=Path),
                            help="state dict of --model (.pt or .safetensors)"),
    "input_shape": click.option("--input-shape", callback=_shape, help="of one sample of --model, for example 1,28,28"),
    "data": click.option("--data", type=click.Path(path_type=Path),
                         help="samples for --model: .npz with x and, for accuracy, y; or .npy"),
    "percentile": click.option("--percentile", type=float, help="of a ReLU's activations, that a rate of 1 stands for"),
    "dt": click.option("--dt", type=float, help="seconds per step of a .nir file (default: what it says, else 1e-4)"),
}  # fmt: skip


def _own_model(command: F) -> F:
    """The options of a network of the user's own."""
    for option in reversed(MODEL.values()):
        command = option(command)
    return command


def _is_own(model: str | None) -> bool:
    """Whether --model names code or a file of the user's, and not one of our networks."""
    return model is not None and (".py" in model or ":" in model or model.endswith(".nir"))


def _flags(names: Sequence[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _reading(settings: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that say how a network is read."""
    names = ("timesteps", "dt", "percentile", "decay", "reset")
    return {name: settings[name] for name in names if settings.get(name) is not None}


@main.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--target", default="loihi", show_default=True, help="name of a target, or path of a .toml file")
@_rounding
@click.option("--epochs", type=click.IntRange(min=1), default=2, show_default=True, help="epochs of the integers")
@click.option("--learning-rate", type=click.FloatRange(0, 1, min_open=True), default=1e-3, show_default=True,
              help="peak learning rate")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), help="threads of torch (default: as the run)")
@click.option("--device", help="cpu, cuda, ... (default: as the run)")
@click.option("--out", type=click.Path(path_type=Path), help="directory of the new run (default: runs/DATASET-N)")
@click.option("--resume", is_flag=True, help="go on with the interrupted fine-tuning in --out")
@_json
def finetune(run: Path | None, target: str, out: Path | None, resume: bool, as_json: bool, **options: Any) -> None:
    """Train the student of RUN (default: the newest) on as the integers of a target, guided by its teacher."""
    from snnkd_deploy.api import FinetuneOptions
    from snnkd_deploy.api import finetune as run_finetuning
    from snnkd_deploy.progress import watching

    with watching() as watch:
        found = run_finetuning(run, target, FinetuneOptions(**options), out=out, resume=resume, watch=watch)
    _print_json(found.document) if as_json else _print_finetuned(found)


@main.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--model", help="a network of your own instead of RUN: path.py:function, module:function, or a .nir file")
@_own_model
@_settings(("dataset", "data_dir", "timesteps"))
@click.option("--decay", type=float, help="of the neurons that ReLUs of --model become (default: 1)")
@click.option(
    "--reset",
    type=click.Choice(["zero", "subtract"]),
    help="of the neurons that ReLUs of --model become (default: subtract where the target has it)",
)
@click.option("--target", default="loihi", show_default=True, help="name of a target, or path of a .toml file")
@click.option("--out", type=click.Path(path_type=Path), help="folder of the bundle (default: RUN/exports/TARGET)")
@_rounding
@click.option("--samples", type=click.IntRange(min=1), help="test images per proof (default: each proof's own number)")
@click.option("--option", "exporter", multiple=True, callback=_pairs, metavar="KEY=VALUE", help="option of the format")
@click.option("--form", help="short for --option form=: of onnx, unrolled, folded or one-step")
@click.option("--numbers", help="short for --option numbers=: of onnx, integer or float")
@click.option("--nir-version", help="short for --option version=: of nir, 1.0.6 or 1.0.5 (up to and including it)")
@_json
def export(
    run: Path | None, model: str | None, target: str, out: Path | None, form: str | None, numbers: str | None,
    nir_version: str | None, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Write the student of RUN (default: the newest), or your own --model, for a target, and prove the file."""
    from snnkd_deploy.api import ExportOptions
    from snnkd_deploy.api import export as run_export

    short = {"form": form, "numbers": numbers, "version": nir_version}
    settings["exporter"] |= {key: value for key, value in short.items() if value is not None}
    options = ExportOptions(**{field.name: settings.pop(field.name) for field in fields(ExportOptions)})
    given = [name for name, value in settings.items() if value is not None]
    if model is None and given:
        raise ConfigError(f"{_flags(given)}: goes with --model")
    if model is not None and run is not None:
        raise ConfigError(f"RUN {run} and --model {model}: one of them is needed")
    if model is None:
        bundle = run_export(run, target, out, options, say=_say)
    else:
        bundle = _compile(model, target, options, settings).write(out, say=_say)
    _print_json(bundle.manifest) if as_json else _print_bundle(bundle)


def _compile(model: str, target: str, options: Any, settings: dict[str, Any]) -> Any:
    """The network of the user's own, read and compiled; what was decided on the way is told."""
    from snnkd_deploy.deploy import compile as run_compile

    _say(f"reading {model}")
    deployment = run_compile(
        model, target, settings["data"], weights=settings["weights"], input_shape=settings["input_shape"],
        dataset=settings["dataset"], data_dir=settings["data_dir"], options=options, **_reading(settings),
    )  # fmt: skip
    for note in deployment.coverage.notes:
        _say(f"  {note}")
    return deployment


@main.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--runtime", help="run one proof only, by its name or a word of it: lava, replay, c, ... (default: all)")
@click.option("--samples", type=click.IntRange(min=1), help="test images per proof (default: each proof's own number)")
@_json
def verify(bundle: Path | None, runtime: str | None, samples: int | None, as_json: bool) -> None:
    """Run the file of BUNDLE (default: the newest export) again and compare it with the integer simulator.

    BUNDLE is a folder that export wrote, or the file in it. Exit code 0 only if nothing differs.
    """
    from snnkd_deploy.api import verify as run_verify

    proofs = run_verify(bundle, samples, say=_say, runtime=runtime)
    _print_json({"proofs": proofs}) if as_json else _print_proofs(proofs)


@main.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@_json
def mapping(bundle: Path | None, as_json: bool) -> None:
    """Estimate how many cores and chips BUNDLE (default: the newest export) takes, layer by layer."""
    from snnkd_deploy.api import mapping as estimate

    found = estimate(bundle)
    _print_json(found) if as_json else _print_mapping(found)


@main.command()
@click.argument("reports", metavar="REPORT...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help="export to count on (default: the newest)")
@click.option(
    "--model", help="instead of an export, a network as it is: folder of a run, path.py:function, a .nir file"
)
@_own_model
@_settings(("dataset", "data_dir", "timesteps"))
@click.option("--refresh", is_flag=True, help="count again even if REPORT exists")
@click.option("--samples", type=click.IntRange(min=1), help="test images to count on (default: all)")
@click.option("--table", "tables", multiple=True, help="price table: a name or the path of a .toml file (default: all)")
@click.option(
    "--out", "outs", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
    help="write it too: .html (a page with plots), .md, .csv (a row a layer) or .json (with these prices)",
)  # fmt: skip
@click.option("--full", is_flag=True, help="print everything that the figures rest on")
@click.option("--schema", is_flag=True, help="print the JSON Schema of a report, and nothing else")
@_json
def energy(
    reports: tuple[Path, ...],
    bundle: Path | None,
    refresh: bool,
    samples: int | None,
    tables: tuple[str, ...],
    outs: tuple[Path, ...],
    full: bool,
    schema: bool,
    as_json: bool,
    model: str | None,
    **reading: Any,
) -> None:
    """Count the operations of the exported network into REPORT, or read REPORT, and price them.

    With --model, those of a network that was not exported, in real numbers, on --data or --dataset.
    Several reports that exist are compared: accuracy against energy, and which of them no other beats in both.
    """
    if schema:
        from snnkd_deploy.energy import json_schema

        _print_json(json_schema())
    elif len(reports) == 1:
        network = _network(model, bundle, reading)
        _energy_of_one(reports[0], network, refresh, samples, tables, outs, full, as_json)
    elif not reports:
        raise ConfigError("name the report to write or to read, for example report.json, or several to compare")
    elif bundle or model or refresh or samples:
        raise ConfigError("--bundle, --model, --refresh and --samples are for one report; several are read as they are")
    else:
        _energy_of_several(reports, tables, outs, as_json)


def _network(model: str | None, bundle: Path | None, reading: dict[str, Any]) -> dict[str, Any]:
    """What is counted, as `api.energy` takes it; samples of the user's own are called `x` there."""
    given = {key: value for key, value in reading.items() if value is not None}
    if model is None:
        if given:
            raise ConfigError(f"{_flags([*given])}: goes with --model")
        return {"bundle": bundle}
    if "data" in given:
        given["x"] = given.pop("data")
    return {"bundle": bundle, "model": model, "say": _say, **given}


def _energy_of_one(
    report: Path, network: dict[str, Any], refresh: bool, samples: int | None, tables: tuple[str, ...],
    outs: tuple[Path, ...], full: bool, as_json: bool,
) -> None:  # fmt: skip
    from snnkd_deploy.api import energy as run_energy
    from snnkd_deploy.report import check_suffix, render, write_as

    for path in outs:
        check_suffix(path)
    priced = run_energy(report, refresh=refresh, samples=samples, tables=tables, **network)
    for path in outs:
        write_as(priced, path)
    _print_json(priced) if as_json else click.echo(render(priced, full=full))


def _energy_of_several(
    reports: tuple[Path, ...], tables: tuple[str, ...], outs: tuple[Path, ...], as_json: bool
) -> None:
    from snnkd_deploy.api import compare
    from snnkd_deploy.report import check_suffix, comparison

    for path in outs:
        check_suffix(path)
    found = compare(reports, tables=tables)
    for path in outs:
        comparison.write_as(found, path)
    _print_json(found) if as_json else click.echo(comparison.render(found))


@main.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="page to write (default: RUN/saliency.html)")
@click.option("--samples", type=click.IntRange(min=2), default=256, show_default=True, help="test images to look at")
@_json
def saliency(run: Path | None, out: Path | None, samples: int, as_json: bool) -> None:
    """Compare what student and teacher of RUN (default: the newest) look at; write a page with pictures."""
    from snnkd_deploy.api import saliency as run_saliency

    found = run_saliency(run, out, samples=samples)
    _print_json(found) if as_json else _print_saliency(found)


@main.command()
@click.option("--target", required=True, help="name of a target, or path of a .toml file")
@_config
@_settings(
    (
        "dataset",
        "data_dir",
        "image_size",
        "model",
        "width",
        "depth",
        "timesteps",
        "encoding",
        "readout",
        "decay",
        "learn_decay",
        "threshold",
        "reset",
    )
)
@_own_model
@_json
def check(
    target: str,
    config: Path | None,
    as_json: bool,
    weights: Path | None,
    input_shape: tuple[int, ...] | None,
    data: Path | None,
    percentile: float | None,
    dt: float | None,
    **settings: Any,
) -> None:
    """Say what becomes of each part of a network on a target, before any training.

    --model is one of our networks, or your own: path.py:function, module:function or a .nir file.
    """
    own = {"weights": weights, "input_shape": input_shape, "data": data, "percentile": percentile, "dt": dt}
    if _is_own(settings["model"]):
        found = _check_own(target, settings, own)
        name = settings["model"]
    else:
        if given := [key for key, value in own.items() if value is not None]:
            raise ConfigError(
                f"{', '.join('--' + key.replace('_', '-') for key in given)}: goes with a --model of your own"
            )
        chosen = load_config(config, **settings)
        from snnkd_deploy.api import cover

        found, name = cover(target, chosen), chosen.model
    if as_json:
        _print_json(found.coverage.as_dict())
    else:
        _print_coverage(found.coverage)
    if found.refusal is not None:
        raise found.refusal
    if not as_json:
        layers = sum(1 for node in found.graph if hasattr(node, "weight"))
        click.echo(f"{target} can hold this {name}: {layers} layers with weights, {found.graph.timesteps} timesteps")


def _check_own(target: str, settings: dict[str, Any], own: dict[str, Any]) -> Any:
    from snnkd_deploy.deploy import check as run_check

    reading = _reading({**settings, **own})
    return run_check(
        settings["model"], target, own["data"], weights=own["weights"], input_shape=own["input_shape"],
        dataset=settings["dataset"], data_dir=settings["data_dir"], **reading,
    )  # fmt: skip


@main.command()
@click.argument("target", required=False)
@_json
def targets(target: str | None, as_json: bool) -> None:
    """List the targets and what they can hold; of TARGET (a name or a .toml file) every limit and its source."""
    from snnkd_deploy.api import targets as list_targets
    from snnkd_deploy.target import limits, load_target

    found = list_targets() if target is None else (load_target(target),)
    if as_json:
        from dataclasses import asdict

        _print_json({one.name: asdict(one) for one in found})
        return
    if target is not None:
        click.echo(f"{found[0].name}: {found[0].title}")
        _print_table(("rule", "value", "source"), limits(found[0]))
        return
    rows = [
        (one.name, one.title, f"{one.weights.minimum}..{one.weights.maximum}", ", ".join(one.resets),
         one.layout.wiring, one.entry.mode)
        for one in found
    ]  # fmt: skip
    _print_table(("target", "what it is", "weights", "reset", "wiring", "pixels in"), rows)


@main.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.pass_context
def diff(context: click.Context, first: Path, second: Path) -> None:
    """Are two exports (bundles, or the files in them) the same integer network? Exit code 1 if not."""
    from snnkd_deploy.api import diff as run_diff

    differences = run_diff(first, second)
    if not differences:
        click.echo("the same network: equal spikes for every input")
        return
    click.echo("\n".join(["different networks:", *(f"  - {one}" for one in differences)]))
    context.exit(1)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, allow_nan=False, default=list))


def _print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(file=sys.stdout, highlight=False, markup=False, width=None if sys.stdout.isatty() else 110).print(table)


def _print_coverage(coverage: Coverage) -> None:
    rows = [
        (part.place, part.kind, part.became, "REFUSED, see below" if part.refused else "; ".join(part.passes))
        for part in coverage.parts
    ]
    _print_table(("part", "type", "becomes", "changed by"), rows)
    for note in coverage.notes:
        click.echo(note)


def _print_run(run: Run) -> None:
    accuracies = run.accuracies
    config = run.config
    teacher = Path(str(config.teacher)).name if config.foreign else f"{config.teacher_model}, ReLU"
    rows = [("teacher", teacher, f"{accuracies['teacher']:.2%}", "")]
    rate = sum(run.rates.values()) / max(1, len(run.rates))
    rows += [
        (
            "student",
            f"{config.model}, T = {config.timesteps}, {config.method}",
            f"{accuracies['student']:.2%}",
            f"{rate:.3f}",
        )
    ]
    _print_table(("network", "what it is", "test accuracy", "spikes per neuron and step"), rows)
    click.echo(
        f"{run.path}: {run.data['test']} test images of {run.data['name']}; next: snnkd-deploy export --target loihi"
    )


def _print_finetuned(run: Run) -> None:
    settings, accuracies = run.finetuning or {}, run.accuracies
    bits = f"{settings['bits']} bits, {settings['target']}"
    rows = [
        ("teacher", "real numbers", f"{accuracies['teacher']:.2%}"),
        ("student", "real numbers", f"{accuracies['student']:.2%}"),
        ("rounded", f"integers, {bits}", f"{settings['before']:.2%}"),
        ("fine-tuned", f"integers, {bits}", f"{accuracies['integer']:.2%}"),
    ]
    _print_table(("network", "what it is", "test accuracy"), rows)
    click.echo(
        f"{run.path}: {run.data['test']} test images of {run.data['name']}; next: "
        f"snnkd-deploy export {run.path} --target {settings['target']}"
    )


def _print_bundle(bundle: Bundle) -> None:
    rows = []
    for name, rung in bundle.manifest["ladder"].items():
        if rung is None:
            continue
        layers = list(rung.get("layers", {}).values())
        stuck = [
            str(sum(layer[key] for layer in layers)) for key in ("dead", "saturated") if layers and key in layers[0]
        ]
        rates = _rates([layer["rate"] for layer in layers])
        correct = "no labels" if rung["accuracy"] is None else f"{rung['accuracy']:.2%}"
        alike = f", {rung['agreement']:.2%} as at first" if "agreement" in rung else ""
        rows.append((name, correct + alike, str(rung["samples"]), rates, " / ".join(stuck)))
    _print_table(("form", "accuracy", "images", "spikes per neuron and step", "dead / saturated neurons"), rows)
    _print_layers(bundle)
    _print_proofs(bundle.manifest["proofs"])
    if "first_layer" in bundle.manifest["input"]:
        read = bundle.manifest["output"].get("of", "what the last layer weighs")
        click.echo(f"the input meets {bundle.manifest['input']['first_layer']}; logits are sums of {read}")
    if mapping := bundle.manifest.get("mapping"):
        click.echo(f"{bundle.target}, estimated: {mapping['summary']}")
    ran = ", ".join(one["name"] for one in bundle.manifest["proofs"] if one["verified"])
    verdict = f"verified by {ran}" if bundle.verified else "NOT VERIFIED"
    real = bundle.manifest["loader"].get("numbers") == "float"
    what = "float network, not quantised" if real else f"integer network {bundle.digest[:16]}"
    click.echo(f"{bundle.file}: {what}, {verdict}")


def _print_saliency(found: dict[str, Any]) -> None:
    rows = [(name, *(f"{of[key]:.3f}" for key in ("cosine", "spearman")))
            for name, of in (("same picture", found), ("different pictures", found["chance"]))]  # fmt: skip
    _print_table(("saliency of student and teacher", "cosine", "Spearman"), rows)
    losses = found["accuracy_without"]
    orders = {"student": "student's order", "teacher": "teacher's order", "chance": "random order"}
    rows = [(f"{name}, {orders[whose]}", *(f"{share:.1%}" for share in of))
            for name, by in losses.items() for whose, of in by.items()]  # fmt: skip
    _print_table(("accuracy, pixels blurred", *(f"{share:.0%}" for share in found["shares"])), rows)
    click.echo(f"{found['page']}: {found['samples']} test images, with pictures")


def _print_layers(bundle: Bundle) -> None:
    """What each layer of the integer network does, and how much of the target's state its membranes may and do use."""
    layers, rows = bundle.manifest["ladder"]["integer"]["layers"], []
    for name, margin in bundle.manifest["margins"].items():
        layer = layers.get(name)
        counts = (f"{layer['rate']:.3f}", str(layer["dead"]), str(layer["saturated"])) if layer else ("", "", "")
        rows.append((name, *counts, *(f"{margin[key] / margin['limit']:.1%}" for key in ("worst", "observed"))))
    _print_table(("layer", "spikes", "dead", "saturated", "worst case, of the state", "observed"), rows)


def _print_mapping(found: dict[str, Any]) -> None:
    limits = ("neurons", "synapse_bits", "input_axons", "output_axons")
    room = [found["model"][f"{limit}_per_core"] for limit in limits]
    rows = [
        (layer["name"], "x".join(map(str, layer["shape"])), str(layer["cores"]),
         "x".join(map(str, layer["cut"].values())), *(_short(layer["tile"][limit]) for limit in limits),
         f"{layer['binding'].replace('_', ' ')} {layer['filled']:.0%}")
        for layer in found["layers"]
    ]  # fmt: skip
    rows.append(("room in a core", "", "", "", *(_short(one) if one else "-" for one in room), ""))
    columns = ("layer", "shape", "cores", "cut", "neurons", "bits", "axons in", "axons out", "fullest")
    click.echo("Each layer, the cores it is cut onto (channels x rows x columns), and what the fullest of them holds:")
    _print_table(columns, rows)
    click.echo("\n".join([*found["advice"], f"{found['target']}, estimated: {found['summary']}"]))
    click.echo("An estimate from the target's [resources]; the maker's compiler may place the network otherwise.")


def _short(count: int) -> str:
    """Three digits at most, and k or M."""
    scale, unit = (10**6, "M") if count >= 10**6 else (1000, "k") if count >= 1000 else (1, "")
    return f"{count / scale:.3g}{unit}"


def _rates(rates: list[float]) -> str:
    """Of each layer, or of many the range."""
    if len(rates) <= 4:
        return "  ".join(f"{rate:.3f}" for rate in rates)
    return f"{min(rates):.3f} to {max(rates):.3f} in {len(rates)} layers"


def _outcome(proof: dict[str, Any]) -> str:
    text = f"{proof['differing']} of {proof['spikes']} spikes differ"
    return f"{text}, logits within {proof['logit_error']:.0e}" if "logit_error" in proof else text


def _print_proofs(proofs: list[dict[str, Any]]) -> None:
    rows = [
        (one["name"], _outcome(one), str(one["samples"]), f"{one['seconds']:.1f}")
        if one["verified"]
        else (one["name"], "not run, see below", "", "")
        for one in proofs
    ]
    _print_table(("proof", "result", "images", "seconds"), rows)
    for one in proofs:
        if not one["verified"]:
            click.echo(f"{one['name']}: {one['reason']}")
