"""What an energy report can be about that no export has made: a run's student, a network of the user's own.

Both are counted in real numbers, with BatchNorm folded, by the reference simulator in float64; of a .nir file of this
package, the integers that it holds. What rounding does to spikes, an export shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from snnkd_deploy import energy
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.deploy import read_own
from snnkd_deploy.energy.noise import is_noise
from snnkd_deploy.errors import ConfigError, InputError
from snnkd_deploy.export import Say, read_run, silent
from snnkd_deploy.ir import Graph, Stage
from snnkd_deploy.passes.fold_batchnorm import fold_batchnorm
from snnkd_deploy.run import open_run
from snnkd_deploy.target import load_target


def report(model: Any, count: int | None = None, say: Say = silent, **given: Any) -> energy.Report:
    """The counts of `model`: the folder of a finished run, or what `snnkd_deploy.compile` takes.

    `given`: its keywords, and its samples and labels as `x` and `y`. `count`: the first so many samples, None for all.
    InputError if the samples are noise or the network is in training mode, TraceError with every part that cannot be
    counted.
    """
    known = {key: value for key, value in given.items() if value is not None}
    return _of_run(Path(model), count, known) if _is_folder(model) else _of_own(model, count, say, known)


def _is_folder(model: Any) -> bool:
    return isinstance(model, str | Path) and Path(model).is_dir()


def _of_run(path: Path, count: int | None, given: dict[str, Any]) -> energy.Report:
    """The float student of a run, on its test set."""
    if given:
        raise ConfigError(f"{', '.join(given)}: {path} is a run, which says itself what its student and data are")
    run = open_run(path)
    traced = read_run(run)
    test = traced.data.test
    rows = slice(min(count or len(test), len(test)))
    return energy.build(
        graph=folded(traced.student),
        inputs=test.integers(rows),
        labels=test.labels[rows],
        pictures=test.pictures(rows),
        teacher=traced.teacher,
        uncounted=traced.uncounted,
        data={"name": traced.data.name, "sha256": traced.data.sha256, "encoding": run.config.data_encoding},
        accuracy={"snn": run.accuracies["student"], "ann": run.accuracies["teacher"]},
        name=run.path.resolve().name,
        training={key: getattr(run.config, key) for key in ("model", "method", "width", "seed")},
    )


def _of_own(model: Any, count: int | None, say: Say, given: dict[str, Any]) -> energy.Report:
    """A network of the user's own, on the samples that come with it."""
    x, y = given.pop("x", None), given.pop("y", None)
    if x is None and given.get("dataset") is None:
        raise ConfigError(
            "no samples: what a network does is counted on data; give x (--data, a .npz with x and, for accuracy, y) "
            "or a dataset"
        )
    own = read_own(model, x, y, **given)
    for note in own.notes:
        say(f"  {note}")
    samples = own.samples
    rows = slice(min(count or len(samples), len(samples)))
    inputs = samples.integers(rows)
    if is_noise(inputs, samples.static):
        raise InputError(
            f"{samples.name} is noise: no value depends on its place, its sample or its neighbour; counts on it say "
            "nothing about data, so give samples of what the network was trained for"
        )
    return energy.build(
        graph=folded(own.graph),
        inputs=inputs,
        labels=None if samples.labels is None else samples.labels[rows],
        teacher=None if own.ann is None else folded(own.ann),
        data={"name": samples.name, "sha256": samples.sha256, "note": samples.note},
        accuracy={},
        name=own.name,
        footprint=own.footprint if own.ann is None else None,
    )


def folded(graph: Graph) -> Graph:
    """Without BatchNorm; an integer network stays what it is."""
    if graph.stage >= Stage.FOLDED:
        return graph
    return fold_batchnorm(graph, load_target("onnx"), Calibration(np.empty(0)))
