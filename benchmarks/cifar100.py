"""CIFAR-100 in a given time: teacher, undistilled and distilled student under an equal budget, on one GPU.

    python benchmarks/cifar100.py --data-dir DIR --out FOLDER --device cuda --minutes 27

A fifth of the time goes to the teacher, two fifths to each student; how many epochs that makes is measured first, with
training steps of the very networks. Runs lie in FOLDER; the same command, started again, goes on where it was stopped.
FOLDER/cifar100.json holds every figure. Beside the images per second stands the roofline: what the convolutions and
dense layers alone would allow at the speed at which the device multiplies large matrices in the same precision.
"""

from __future__ import annotations

import argparse
import csv
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from snnkd_deploy.config import TrainConfig, load_config
from snnkd_deploy.files import read_json, write_json
from snnkd_deploy.progress import Lines
from snnkd_deploy.run import Run
from snnkd_deploy.snn import models
from snnkd_deploy.train import train

SHAPE, CLASSES = (3, 32, 32), 100
TEACHING = 0.2  # of the time; the students share the rest
USED = 0.9  # of the time goes to training steps; the rest to tests and checkpoints
PASSES = 3  # of multiplications in a training step: forward, and backward for inputs and for weights
SIDE = 4096  # of the matrices whose product tells the speed of the device


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=27, help="of training in all")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--teacher-model", default="resnet34")
    parser.add_argument("--teacher-width", type=int, default=64)
    parser.add_argument("--timesteps", type=int, default=4)
    parser.add_argument("--engine", default="bptt")
    parser.add_argument("--method", default="logits")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--augment", default="crop+flip+autoaugment+cutout")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


def config_of(given: argparse.Namespace, **more: Any) -> TrainConfig:
    networks = ("model", "width", "teacher_model", "teacher_width", "timesteps")
    names = (
        *networks,
        "data_dir",
        "device",
        "precision",
        "engine",
        "method",
        "batch_size",
        "learning_rate",
        "augment",
        "seed",
        "threads",
    )
    chosen = {name: getattr(given, name) for name in names}
    chosen["teacher_learning_rate"] = given.learning_rate
    return load_config(dataset="cifar100", **{**chosen, **more})


def multiplications(network: models.Network) -> int:
    """Multiply-accumulates of all convolutions and dense layers for one image, over all steps, borders as if inside."""
    found = 0

    def add(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal found
        assert isinstance(layer.weight, torch.Tensor)
        found += output.numel() * layer.weight[0].numel()

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    with torch.no_grad():
        network.eval()(torch.zeros(1, *SHAPE))
    for hook in hooks:
        hook.remove()
    return found


def products_per_second(config: TrainConfig) -> float:
    """Multiply-accumulates per second of the device in a product of large matrices: the median of ten."""
    kind = torch.bfloat16 if config.precision == "bf16" else torch.float32
    side = SIDE if config.device.startswith("cuda") else SIDE // 4
    matrix = torch.rand(side, side, device=config.device, dtype=kind)
    times = []
    for _ in range(12):
        start = time.perf_counter()
        (matrix @ matrix).sum().item()
        times.append(time.perf_counter() - start)
    return side**3 / sorted(times[2:])[5]


def roofline(config: TrainConfig) -> dict[str, float]:
    """Images per second that multiplications alone allow; the distilled student pays the teacher's forward too."""
    speed = products_per_second(config)
    taught = multiplications(models.teacher(config, SHAPE, CLASSES))
    spiking = multiplications(models.student(config, SHAPE, CLASSES))
    costs = {"teacher": PASSES * taught, "undistilled": PASSES * spiking, "distilled": PASSES * spiking + taught}
    return {name: speed / cost for name, cost in costs.items()}


def epochs_of(given: argparse.Namespace) -> dict[str, int]:
    """Epochs of the teacher and of each student that the time allows, from one epoch of each; at least one."""
    with tempfile.TemporaryDirectory() as folder:
        runs = both(given, Path(folder), epochs=1, teacher_epochs=1)
        seconds = {name: run.data["train"] / speed(run, stage) / USED for name, (run, stage) in stages(*runs).items()}
    student = max(seconds["undistilled"], seconds["distilled"])  # the same number for both
    whole = 60 * given.minutes
    return {
        "teacher": max(1, int(TEACHING * whole / seconds["teacher"])),
        "student": max(1, int((1 - TEACHING) / 2 * whole / student)),
    }


def both(given: argparse.Namespace, folder: Path, **more: int) -> tuple[Run, Run]:
    """The run of the teacher and the undistilled student, and that of the distilled one; made or gone on with."""
    first = finished(folder / "undistilled", config_of(given, method="none", **more))
    return first, finished(folder / "distilled", config_of(given, teacher=first.path, **more))


def finished(path: Path, config: TrainConfig) -> Run:
    """The run at `path`, trained to its end with `config`."""
    watch = Lines(Console(stderr=True))
    return train(config, out=path, watch=watch, resume=(path / "run.json").exists())


def stages(undistilled: Run, distilled: Run) -> dict[str, tuple[Run, str]]:
    """In which run, and as what, each network was trained."""
    return {
        "teacher": (undistilled, "teacher"),
        "undistilled": (undistilled, "student"),
        "distilled": (distilled, "student"),
    }


def speed(run: Run, stage: str) -> float:
    """Training images per second, the best epoch: the first ones pay for what is built once."""
    with (run.path / "history.csv").open(newline="") as file:
        return max(float(row["images_per_second"]) for row in csv.DictReader(file) if row["stage"] == stage)


def planned(given: argparse.Namespace) -> dict[str, int]:
    """Epochs as measured when the command was first started in this folder."""
    plan = given.out / "epochs.json"
    if not plan.exists():
        given.out.mkdir(parents=True, exist_ok=True)
        write_json(plan, epochs_of(given))
    return read_json(plan, "plan")


def figures(given: argparse.Namespace, epochs: dict[str, int]) -> dict[str, Any]:
    runs = both(given, given.out, epochs=epochs["student"], teacher_epochs=epochs["teacher"])
    limits = roofline(runs[1].config)
    networks = {
        name: {
            "epochs": epochs["teacher" if stage == "teacher" else "student"],
            "accuracy": run.accuracies[stage],
            "images_per_second": speed(run, stage),
            "roofline": limits[name],
        }
        for name, (run, stage) in stages(*runs).items()
    }
    return {"settings": runs[1].config.as_dict(), "versions": runs[1].document["versions"], "networks": networks}


def main() -> None:
    given = options()
    found = figures(given, planned(given))
    device = torch.device(given.device)
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    write_json(given.out / "cifar100.json", {"device": named, "minutes": given.minutes, **found})
    print(f"{named}, {given.precision}; T = {given.timesteps}, {given.method}")
    print(f"{'network':12} {'epochs':>6} {'accuracy':>9} {'images/s':>9} {'roofline':>9}")
    for name, row in found["networks"].items():
        speeds = f"{row['images_per_second']:9.0f} {row['roofline']:9.0f}"
        print(f"{name:12} {row['epochs']:6} {row['accuracy']:9.2%} {speeds}")


if __name__ == "__main__":
    main()
