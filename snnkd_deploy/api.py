"""The library's front door: one function per command of the command line, with the same name and the same defaults.

from snnkd_deploy.api import export, train
bundle = export(train(), target="loihi")
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnkd_deploy.bundle import Bundle, find_bundle, newest, open_bundle
from snnkd_deploy.calibration import FinetuneOptions
from snnkd_deploy.comparison import differences
from snnkd_deploy.config import TrainConfig, load_config
from snnkd_deploy.errors import BundleError, ConfigError, RunError
from snnkd_deploy.export import ExportOptions, Say, bundle_data, export, silent, verify
from snnkd_deploy.ir import Graph
from snnkd_deploy.progress import Watch
from snnkd_deploy.run import Run, latest, open_run
from snnkd_deploy.target import Target, load_target, target_names

if TYPE_CHECKING:
    from snnkd_deploy.deploy import Checked

__all__ = [
    "ExportOptions", "FinetuneOptions", "check", "compare", "cover", "diff", "energy", "export", "finetune",
    "mapping", "saliency", "targets", "train", "verify",
]  # fmt: skip


def train(
    config: TrainConfig | None = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    watch: Watch | None = None,
    qat: str | None = None,
    integers: FinetuneOptions | None = None,
) -> Run:
    """Train a teacher and distil a student; see `snnkd_deploy.train.train`.

    With `qat`, a target, the student is then trained on as its integers: `finetune` into the folder `RUN-qat`, which is
    returned. What the target refuses of the untrained student is refused before anything is trained.
    """
    from snnkd_deploy.launch import speaks
    from snnkd_deploy.train import train as run_training

    integers = integers or FinetuneOptions()
    if qat is not None and not resume:
        _refuse_now(qat, integers, config or load_config())
    run = run_training(config, out=out, resume=resume, watch=watch)
    if qat is None or not speaks():
        return run
    return finetune(run, qat, integers, out=run.path.with_name(f"{run.path.name}-qat"), watch=watch)


def _refuse_now(target: str, integers: FinetuneOptions, config: TrainConfig) -> None:
    """Raise what would be raised behind the training, as far as the untrained student shows it."""
    from snnkd_deploy import deploy
    from snnkd_deploy.data import configured
    from snnkd_deploy.snn.models import student

    data = configured(config)
    network = student(config, data.input_shape, len(data.classes)).eval()
    chosen = ExportOptions(integers.weight_bits, integers.granularity, integers.calibration, integers.weight_percentile)
    deploy.compile(network, target, data, options=chosen, name=config.model)


def finetune(
    run: Run | Path | str | None = None,
    target: str = "loihi",
    options: FinetuneOptions | None = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Train a finished run on as the integers of a target; see `snnkd_deploy.finetune.finetune`."""
    from snnkd_deploy.finetune import finetune as run_finetuning

    return run_finetuning(run, target, options, out=out, resume=resume, watch=watch)


def energy(
    report: Path | str = "report.json",
    bundle: Path | str | None = None,
    *,
    refresh: bool = False,
    samples: int | None = None,
    tables: tuple[str, ...] = (),
    model: Any = None,
    say: Say = silent,
    **reading: Any,
) -> dict[str, Any]:
    """The report at `report`, priced with `tables` (none: those that come with the package).

    If there is no such file, or with `refresh`, the network of `bundle` (None: the newest export of the newest run) is
    simulated on the test data (all, or the first `samples`), its operations are counted and the report is written.
    Instead of a bundle, `model` is counted as it is: the folder of a finished run, whose float student that is, or a
    network of the user's own with the keywords of `snnkd_deploy.compile` (`x` and `y` are its samples and labels).
    """
    from snnkd_deploy import energy as estimator
    from snnkd_deploy.price_files import load_tables

    if bundle is not None and model is not None:
        raise ConfigError("a bundle and a model are given; one of them is counted")
    prices, path = load_tables(tables), Path(report)
    if not refresh and path.exists():
        say(f"{path} is there and is read; --refresh counts again")
        return estimator.price(estimator.read(path), prices)
    if model is not None:
        from snnkd_deploy.unexported import report as count_model

        counts = count_model(model, samples, say, **reading)
    else:
        counts = _count(open_bundle(bundle) if bundle is not None else newest(latest().path), samples)
    counted = estimator.price(counts, prices)
    estimator.write(path, counted)
    return counted


def compare(reports: Iterable[Path | str], *, tables: tuple[str, ...] = ()) -> dict[str, Any]:
    """Several written reports under the same price tables: accuracy against energy, and the Pareto front.

    Named after their files, by as much of the path as tells them apart.
    """
    from snnkd_deploy import energy as estimator
    from snnkd_deploy.price_files import load_tables

    prices, paths = load_tables(tables), [Path(one) for one in reports]
    return estimator.compare(
        {name: estimator.price(estimator.read(path), prices) for name, path in zip(_names(paths), paths, strict=True)}
    )


def _names(paths: list[Path]) -> list[str]:
    """File names without suffix, or whole paths where two are alike."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def check(target: str, config: TrainConfig | None = None) -> Graph:
    """Lower the untrained student that `config` describes, so that a target's refusal comes before the training.

    Returns the legal graph. The structure decides; a range that depends on trained weights can still be refused later.
    """
    found = cover(target, config)
    if found.refusal is not None:
        raise found.refusal
    assert found.graph is not None
    return found.graph


def cover(target: str, config: TrainConfig | None = None) -> Checked:
    """The same, part by part: what becomes of each, or why the target refuses it; nothing is raised for that.

    For a network of your own: `snnkd_deploy.deploy.check`.
    """
    from snnkd_deploy import deploy
    from snnkd_deploy.data import configured
    from snnkd_deploy.snn.models import student

    config = config or load_config()
    data = configured(config)
    network = student(config, data.input_shape, len(data.classes)).eval()
    return deploy.check(network, target, data, name=config.model)


def saliency(
    run: Run | Path | str | None = None, out: Path | str | None = None, *, samples: int = 256
) -> dict[str, Any]:
    """What student and teacher of a finished run (None: the newest) look at, on its first `samples` test images.

    Writes a page with pictures to `out` (None: `RUN/saliency.html`) and returns the figures on it.
    """
    from snnkd_deploy.saliency_report import study, write

    found = study(run if isinstance(run, Run) else open_run(run) if run is not None else latest(), samples)
    path = Path(out) if out is not None else found.run.path / "saliency.html"
    write(found, path)
    return {**found.figures, "page": str(path)}


def mapping(bundle: Path | str | None = None) -> dict[str, Any]:
    """The estimate of cores in the manifest of `bundle` (None: the newest export of the newest run).

    BundleError if it was made for a format, which has no cores, or by a version that made no estimate.
    """
    source = open_bundle(bundle) if bundle is not None else newest(latest().path)
    found = source.manifest.get("mapping")
    if not isinstance(found, dict):
        raise BundleError(f"{source.path} holds no mapping; targets that state [resources] get one when they export")
    return found


def targets() -> tuple[Target, ...]:
    """The targets that come with the package."""
    return tuple(load_target(name) for name in target_names())


def diff(first: Path | str, second: Path | str) -> list[str]:
    """Where the networks of two exports differ (bundles, or the files in them); none: equal spikes for every input."""
    return differences(find_bundle(first).reference, find_bundle(second).reference)


def _count(bundle: Bundle, samples: int | None) -> dict[str, Any]:
    from snnkd_deploy import energy as estimator
    from snnkd_deploy.mapping import map_network

    data = bundle_data(bundle)
    count = min(samples or len(data.test), len(data.test))
    ladder = bundle.manifest["ladder"]
    encoding = data.encoding.kind if data.encoding else "frames" if data.frames else "direct"
    labels, before = data.test.labels, ladder.get("teacher") or ladder.get("ann") or {}
    uncounted, target = tuple(bundle.manifest["run"].get("teacher_uncounted", ())), _target(bundle.target)
    return estimator.build(
        graph=bundle.graphs["legal"],
        inputs=data.test.integers(slice(count)),
        labels=None if labels is None else labels[:count],
        pictures=data.test.pictures(slice(count)),
        teacher=bundle.graphs.get("teacher"),
        uncounted=uncounted,
        data={"name": data.name, "sha256": data.sha256, "encoding": encoding},
        accuracy={"snn": ladder["integer"]["accuracy"], "ann": before.get("accuracy")},
        name=str(bundle.manifest["run"]["name"]),
        target=bundle.target,
        unrelayed=bundle.graphs["integer"],
        mapping=map_network(bundle.graphs["legal"], target) if target else None,
        state_bits=target.state.bits if target else None,
        training=_training(bundle),
    )


def _target(name: str) -> Target | None:
    """The target of a bundle; None if its file was the user's and is known by no name."""
    try:
        return load_target(name)
    except ConfigError:
        return None


def _training(bundle: Bundle) -> dict[str, Any]:
    """Method and settings of the run that a bundle lies in, nothing if it lies in none."""
    try:
        config = open_run(bundle.path.parents[1]).config
    except (RunError, IndexError):
        return {}
    return {"model": config.model, "method": config.method, "width": config.width, "seed": config.seed}
