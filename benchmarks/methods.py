"""What each distillation method adds over `none` under an equal budget, at what cost per step.

One teacher per seed (or that of `--teacher`, a finished run, for all) serves all methods; weights are those of the last
epoch, nothing is selected on the test images. Other numbers of steps than the student was trained with are the
same weights run for so many steps, without recalibration. With `--out` each figure is written as soon as it is known,
and the same command goes on where an earlier one was stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from snnkd_deploy import data
from snnkd_deploy.batches import Images, accuracy
from snnkd_deploy.config import TrainConfig, load_config
from snnkd_deploy.distill import methods
from snnkd_deploy.files import replacing
from snnkd_deploy.run import Run, open_run
from snnkd_deploy.snn import models
from snnkd_deploy.snn.saliency import agreement
from snnkd_deploy.train import train

SALIENT = 256  # test images whose saliency is compared
Row = dict[str, Any]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15, help="of the student")
    parser.add_argument("--teacher-epochs", type=int, default=30)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--teacher-width", type=int, default=16)
    parser.add_argument("--teacher-depth", type=int, default=None, help="default: as the student")
    parser.add_argument("--teacher", type=Path, help="a finished run whose teacher serves all seeds")
    parser.add_argument("--timesteps", type=int, default=4, help="of training")
    parser.add_argument("--steps", type=int, nargs="+", help="of the tests; default: 1, 2, 4 up to those of training")
    parser.add_argument("--augment", help="default, here and below: the data set's own")
    parser.add_argument("--precision")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--optimizer")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--threshold", type=float)
    parser.add_argument("--surrogate")
    parser.add_argument("--engine", default="bptt")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--methods", nargs="+", default=["none", *sorted({*methods()} - {"none"})],
                        help="NAME or NAME:KEY=VALUE,KEY=VALUE, for example bkd:logits=kd")  # fmt: skip
    parser.add_argument("--out", type=Path, help="also write every figure as JSON, and go on from what is there")
    return parser.parse_args()


def method_of(text: str) -> tuple[str, dict[str, Any]]:
    """bkd:logits=kd,blur=0.4 to its name and options."""
    name, _, rest = text.partition(":")
    pairs = (one.partition("=") for one in rest.split(",") if one)
    return name, {key: _value(value) for key, _, value in pairs}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def config_of(given: argparse.Namespace, seed: int, **more: Any) -> TrainConfig:
    names = ["dataset", "data_dir", "augment", "model", "width", "depth", "timesteps", "teacher_width", "teacher_depth"]
    names += ["engine", "epochs", "teacher_epochs", "batch_size", "optimizer", "learning_rate", "precision"]
    names += ["threshold", "surrogate", "threads", "device"]
    return load_config(**{name: getattr(given, name) for name in names}, seed=seed, **more)


def measured(run: Run, test: Images, steps: list[int]) -> Row:
    """One student: accuracy at each number of steps, firing rate, saliency, time per step."""
    _, teacher = models.load(run)
    student = at(run, run.config.timesteps)
    shared = agreement(student, teacher, *next(test.in_order(SALIENT)))
    return {
        "seed": run.config.seed,
        "teacher": run.accuracies["teacher"],
        "accuracy": {str(t): accuracy(at(run, t), test) for t in steps},
        "rate": statistics.mean(run.rates.values()),
        "saliency_cosine": shared.cosine,
        "saliency_spearman": shared.spearman,
        "seconds_per_step": seconds_per_step(run),
    }


def at(run: Run, timesteps: int) -> models.Network:
    """The student of a run, on so many steps."""
    network = models.student(replace(run.config, timesteps=timesteps), run.input_shape, len(run.classes))
    models.read_weights(network, run.student_file)
    return network.eval()


def seconds_per_step(run: Run) -> float:
    """Median over the epochs."""
    with (run.path / "history.csv").open(newline="") as file:
        speeds = [float(row["images_per_second"]) for row in csv.DictReader(file) if row["stage"] == "student"]
    return run.config.batch_size / statistics.median(speeds)


def compare(given: argparse.Namespace, folder: Path, rows: dict[str, list[Row]], keep: Callable[[], None]) -> None:
    """Fill in the rows of every method, one per seed; methods take turns within a seed, so a busy machine hits all."""
    found = data.configured(config_of(given, 0))
    test, steps = Images.of(found.test, found.scale, torch.device("cpu")), steps_of(given, len(found.input_shape) == 4)
    for seed in range(given.seeds):
        missing = [text for text in given.methods if all(row["seed"] != seed for row in rows[text])]
        teacher = given.teacher
        for text in missing:
            name, chosen = method_of(text)
            config = config_of(given, seed, method=name, method_options=chosen, teacher=teacher)
            run = train(config, out=folder / f"{seed}-{text.replace(':', '-')}")
            teacher = teacher or run.path
            rows[text].append(measured(run, test, steps))
            keep()


def steps_of(given: argparse.Namespace, framed: bool) -> list[int]:
    """Numbers of steps to test at; where each step has a frame of its own, none can be left out."""
    if given.steps or framed:
        return given.steps or [given.timesteps]
    return [*(t for t in (1, 2, 4) if t < given.timesteps), given.timesteps]


def spread(rows: list[Row], pick: Callable[[Row], float], scale: float = 1) -> tuple[float, float]:
    """Mean and standard deviation (n - 1) over the seeds."""
    values = [scale * pick(row) for row in rows]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def line(rows: list[Row]) -> list[str]:
    steps = rows[0]["accuracy"]
    shares = [spread(rows, lambda row, t=t: row["accuracy"][t], 100) for t in steps]  # type: ignore[misc]
    cells = [f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in shares]
    others = [statistics.mean(row[key] for row in rows) for key in ("rate", "saliency_cosine", "saliency_spearman")]
    pace = statistics.median(row["seconds_per_step"] for row in rows)
    return [*cells, *(f"{value:.3f}" for value in others), f"{1000 * pace:.1f}"]


def table(results: dict[str, list[Row]]) -> str:
    """Markdown."""
    first = next(iter(results.values()))
    columns = [f"T = {t}" for t in first[0]["accuracy"]]
    head = ["method", *columns, "spikes per neuron and step", "saliency cosine", "Spearman", "ms per step"]
    lines = [head, ["---"] * len(head), *([text, *line(rows)] for text, rows in results.items())]
    mean, deviation = spread(first, lambda row: row["teacher"], 100)
    title = f"test accuracy in %, mean ± standard deviation of {len(first)} seeds; teacher {mean:.2f} ± {deviation:.2f}"
    return "\n".join([title, "", *("| " + " | ".join(cells) + " |" for cells in lines)])


def settings_of(given: argparse.Namespace) -> dict[str, Any]:
    """What decides the figures, and the versions; which methods and how many seeds may grow from run to run."""
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in vars(given).items()}
    unused = ("teacher_width", "teacher_depth", "teacher_epochs") if given.teacher else ()
    for key in ("out", "data_dir", "teacher", "methods", "seeds", *unused):
        del plain[key]
    teacher = open_run(given.teacher).document["teacher"] if given.teacher else "one per seed"
    return {**plain, "teacher": teacher, "python": platform.python_version(), "torch": torch.__version__}


def earlier_rows(given: argparse.Namespace, settings: dict[str, Any]) -> dict[str, list[Row]]:
    """What `--out` holds already; SystemExit if it was measured with other settings."""
    if not (given.out and given.out.exists()):
        return {}
    kept = json.loads(given.out.read_text())
    if _given(kept["settings"]) != _given(settings):
        raise SystemExit(f"{given.out} was measured with other settings: {kept['settings']}; now: {settings}")
    rows: dict[str, list[Row]] = kept["rows"]
    return rows


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Without options that were left out, which a file may be too old to name."""
    return {key: value for key, value in settings.items() if value is not None}


def main() -> None:
    given = options()
    settings = settings_of(given)
    rows = earlier_rows(given, settings)
    rows |= {text: [] for text in given.methods if text not in rows}

    def keep() -> None:
        if given.out:
            with replacing(given.out) as partial:
                partial.write_text(json.dumps({"settings": settings, "rows": rows}, indent=2) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        compare(given, Path(folder), rows, keep)
    print(table({text: found for text, found in rows.items() if found}))


if __name__ == "__main__":
    main()
