"""What a training step costs under each method, as a multiple of the undistilled one: all methods take turns.

python benchmarks/method_costs.py [--dataset fashion-mnist|cifar100] [--width 8] [--teacher-width 16] [--rounds 20]

The networks are those of `methods.py`, with fresh weights, on noise of the data set's size; a step is forward of
student and teacher, losses, backward and AdamW.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from methods import method_of
from paired import machine, paired
from snnkd_deploy import distill
from snnkd_deploy.config import TrainConfig, load_config
from snnkd_deploy.distill import methods
from snnkd_deploy.snn import models
from snnkd_deploy.snn.engines import load_engine
from snnkd_deploy.train import tap_shapes

SETS = {"fashion-mnist": ((1, 28, 28), 10, "cnn", 4), "cifar100": ((3, 32, 32), 100, "resnet", 2)}
"""Shape, classes, network and steps of `methods.py`'s tables."""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=SETS, default="fashion-mnist")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--teacher-width", type=int, default=16)
    parser.add_argument("--timesteps", type=int, help="default: 4, of cifar100 2")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--engine", default="bptt")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=["none", *sorted({*methods()} - {"none"})])
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    return parser.parse_args()


def config_of(given: argparse.Namespace, text: str) -> TrainConfig:
    _, _, model, timesteps = SETS[given.dataset]
    names = ("width", "teacher_width", "batch_size", "engine")
    name, chosen = method_of(text)
    return load_config(
        **{key: getattr(given, key) for key in names},
        model=model, timesteps=given.timesteps or timesteps, method=name, method_options=chosen,
    )  # fmt: skip


def step(config: TrainConfig, shape: tuple[int, ...], classes: int) -> Callable[[], None]:
    """One training step with everything that a method brings."""
    torch.manual_seed(0)
    student, teacher = models.student(config, shape, classes), models.teacher(config, shape, classes)
    setup = distill.Setup(classes, config.timesteps, tap_shapes(student, shape), tap_shapes(teacher, shape), teacher)
    method = distill.create(config.method, setup, **config.method_options)
    engine = load_engine(config.engine, config.method, method.needs)
    teacher = models.channels_last(teacher).eval().requires_grad_(False)
    trained = models.channels_last(torch.nn.ModuleList([student, method])).train()
    optimizer = torch.optim.AdamW(one for one in trained.parameters() if one.requires_grad)
    images, labels = torch.rand(config.batch_size, *shape), torch.randint(classes, (config.batch_size,))
    images = images.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        optimizer.zero_grad()
        losses = method.losses(engine.outputs(student, images), teacher.outputs(images), images, labels)
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()

    return run


def main() -> None:
    given = options()
    torch.set_num_threads(given.threads)
    shape, classes, *_ = SETS[given.dataset]
    times = paired({text: step(config_of(given, text), shape, classes) for text in given.methods}, given.rounds)
    base = given.methods[0]
    rows: dict[str, dict[str, Any]] = {
        text: {"median_ms": 1e3 * times.median(text), "cost": 1 / times.ratio(text, base)} for text in given.methods
    }
    print(f"{given.dataset}, {given.threads} threads, batch {given.batch_size}, {given.rounds} rounds")
    print(f"{'method':28} {'ms per step':>11} {f'times {base}':>11}")
    for text, row in rows.items():
        print(f"{text:28} {row['median_ms']:11.1f} {row['cost']:11.2f}")
    if given.out:
        settings = {key: value for key, value in vars(given).items() if key not in ("out", "methods")}
        content = {"settings": settings, "machine": machine(), "rows": rows}
        given.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
