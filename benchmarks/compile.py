"""Seconds and memory that lowering takes: an untrained ResNet-18 of width 64 on 3x32x32, for every target.

python benchmarks/compile.py [--data-dir DIR] [--model resnet18] [--width 64] [--targets onnx nir ...]

Each target in a process of its own, one thread: trace, fold, quantise with 64 calibration pictures, legalise, check.
Without --data-dir (a folder with CIFAR-100) the pictures are noise, which costs the same.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.config import load_config
from snnkd_deploy.errors import LegalityError
from snnkd_deploy.export import calibration_samples
from snnkd_deploy.ir import Array, Graph, Input
from snnkd_deploy.target import load_target, target_names


def untrained(model: str, width: int) -> Graph:
    import torch

    from snnkd_deploy.snn.models import student
    from snnkd_deploy.trace import trace

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = student(load_config(dataset="cifar100", model=model, width=width, data_dir="."), (3, 32, 32), 100)
    return trace(network.eval(), Input(name="input", shape=(3, 32, 32), scale=1 / 255), model)


def pictures(data_dir: str | None) -> Array:
    if data_dir is None:
        return np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32))
    from snnkd_deploy.data import load

    return calibration_samples(load("cifar100", data_dir, 4))


def measure(target: str, model: str, width: int, data_dir: str | None) -> None:
    graph, samples = untrained(model, width), pictures(data_dir)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, used = time.perf_counter(), time.process_time()
    try:
        compiled = lower(graph, load_target(target), Calibration(samples))
        result = f"{len(compiled.legal.nodes)} nodes, {compiled.digest[:16]}"
    except LegalityError as refusal:
        result = f"refused: {refusal.reasons[0]}"
    seconds, used = time.perf_counter() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{target:10}{seconds:8.1f}{used:10.1f}{before / 2**20:10.2f}{peak / 2**20:8.2f}   {result}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--targets", nargs="+", default=target_names())
    parser.add_argument("--alone", action="store_true", help="measure the one target in this process")
    given = parser.parse_args()
    if given.alone:
        measure(given.targets[0], given.model, given.width, given.data_dir)
        return
    print(f"{given.model} of width {given.width}, T = 4; memory: before (torch and the network), and the peak")
    print(f"{'target':10}{'seconds':>8}{'CPU':>10}{'GiB before':>10}{'peak':>8}", flush=True)
    shared = ["--model", given.model, "--width", str(given.width)]
    shared += ["--data-dir", given.data_dir] if given.data_dir else []
    for target in given.targets:
        command = [sys.executable, __file__, "--alone", "--targets", target, *shared]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
