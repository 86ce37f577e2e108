"""How much accuracy a run's student keeps with fewer bits: rounded after training in six ways, and fine-tuned.

The accuracy of integers is that of the network that `export` would write, on all test images; nothing is selected on
these. With `--out` each figure is written as soon as it is known, and the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from snnkd_deploy.batches import Images, accuracy
from snnkd_deploy.calibration import FinetuneOptions
from snnkd_deploy.errors import ConfigError, LegalityError
from snnkd_deploy.export import Traced, read_run
from snnkd_deploy.files import write_json
from snnkd_deploy.finetune import finetune, plan
from snnkd_deploy.run import Run, open_run
from snnkd_deploy.target import load_target

Rows = dict[str, dict[str, float | None]]
"""Accuracy 0 to 1 by form, then by bits; None where the target or the bits refuse it."""

METHODS: tuple[Literal["max", "mse", "percentile"], ...] = ("max", "mse", "percentile")
TUNED = "fine-tuned"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 6, 4, 3, 2])
    parser.add_argument("--target", default="onnx")
    parser.add_argument("--epochs", type=int, default=FinetuneOptions.epochs, help="of the fine-tuning")
    parser.add_argument("--learning-rate", type=float, default=FinetuneOptions.learning_rate)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write every figure as JSON, and go on from what is there")
    return parser.parse_args()


def forms(given: argparse.Namespace, bits: int) -> Iterator[tuple[str, FinetuneOptions]]:
    """Each way to round, by name."""
    for granularity in load_target(given.target).weights.granularity:
        for method in METHODS:
            yield f"{method}, per {granularity}", FinetuneOptions(bits, granularity, method)


def rounded(run: Run, given: argparse.Namespace, chosen: FinetuneOptions, traced: Traced) -> float | None:
    """Accuracy of the integers without any fine-tuning."""
    data = traced.data
    try:
        network = plan(run, given.target, chosen, traced).network()
    except (LegalityError, ConfigError):
        return None
    return accuracy(network, Images.of(data.test, data.scale, torch.device("cpu"), len(data.classes)))


def tuned(run: Run, given: argparse.Namespace, bits: int) -> float | None:
    """Accuracy after fine-tuning."""
    chosen = FinetuneOptions(bits, epochs=given.epochs, learning_rate=given.learning_rate, threads=given.threads)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return finetune(run, given.target, chosen, out=Path(folder) / "run").accuracies["integer"]
        except LegalityError:
            return None


def measure(run: Run, given: argparse.Namespace, rows: Rows, keep: Callable[[], None]) -> None:
    """Fill in what is missing."""
    traced = read_run(run)
    for bits in map(str, given.bits):
        for name, chosen in forms(given, int(bits)):
            if bits not in rows.setdefault(name, {}):
                rows[name][bits] = rounded(run, given, chosen, traced)
        if bits not in rows.setdefault(TUNED, {}):
            rows[TUNED][bits] = tuned(run, given, int(bits))
        keep()


def table(run: Run, given: argparse.Namespace, rows: Rows) -> str:
    """Markdown."""
    head = ["weights", *(f"{bits} bits" for bits in given.bits)]
    body = [[name, *map(share, (by[str(bits)] for bits in given.bits))] for name, by in rows.items()]
    names = ", ".join(f"{name} {share(run.accuracies[name])}" for name in ("teacher", "student"))
    title = f"test accuracy in % of {run.data['name']}, {run.data['test']} images; in real numbers: {names}"
    lines = [head, ["---"] * len(head), *body]
    return "\n".join([title, "", *("| " + " | ".join(cells) + " |" for cells in lines)])


def share(value: float | None) -> str:
    return "refused" if value is None else f"{100 * value:.2f}"


def settings_of(given: argparse.Namespace, run: Run) -> dict[str, Any]:
    """What decides the figures, and the versions; more bits may be added from run to run."""
    plain = {key: getattr(given, key) for key in ("target", "epochs", "learning_rate", "threads")}
    config = {key: value for key, value in run.config.as_dict().items() if key not in ("data_dir", "teacher")}
    hashes = {"student_sha256": run.document["student"]["sha256"], "config": config, "accuracies": run.accuracies}
    return {**plain, **hashes, "python": platform.python_version(), "torch": torch.__version__}


def earlier_rows(given: argparse.Namespace, settings: dict[str, Any]) -> Rows:
    """What `--out` holds already; SystemExit if it was measured with other settings."""
    if not (given.out and given.out.exists()):
        return {}
    kept = json.loads(given.out.read_text())
    if kept["settings"] != settings:
        raise SystemExit(f"{given.out} was measured with other settings: {kept['settings']}; now: {settings}")
    rows: Rows = kept["rows"]
    return rows


def main() -> None:
    given = options()
    torch.set_num_threads(given.threads)
    run = open_run(given.run)
    settings = settings_of(given, run)
    rows = earlier_rows(given, settings)

    def keep() -> None:
        if given.out:
            write_json(given.out, {"settings": settings, "rows": rows})

    measure(run, given, rows, keep)
    print(table(run, given, rows))


if __name__ == "__main__":
    main()
