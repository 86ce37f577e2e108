"""Seconds and memory that lowering takes: an untrained ResNet-18 of width 64 on 3x32x32, for every target.

python benchmarks/compile.py [--data-dir DIR] [--model resnet18] [--width 64] [--targets onnx nir ...] [--out FILE]

Each target in a process of its own: fold, quantise with 64 calibration pictures, legalise, check. Memory is the peak
of that process, in which torch and the network are already. Without --data-dir (a folder with CIFAR-100) the pictures
are noise, which costs the same. Then net R of nets.py, compiled with one calibration picture and written as ONNX.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from figures import Figure, arguments, conclude
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.config import load_config
from snnkd_deploy.errors import LegalityError
from snnkd_deploy.export import calibration_samples
from snnkd_deploy.ir import Array, Graph, Input
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.target import load_target, target_names

EVERY = "compile CIFAR ResNet-18 of width 64, every target"
GIB = 2**20  # of the KiB that Linux counts in


def untrained(model: str, width: int) -> Graph:
    import torch

    from snnkd_deploy.snn.models import student
    from snnkd_deploy.trace import trace

    torch.manual_seed(0)
    network = student(load_config(dataset="cifar100", model=model, width=width, data_dir="."), (3, 32, 32), 100)
    return trace(network.eval(), Input(name="input", shape=(3, 32, 32), scale=1 / 255), model)


def pictures(data_dir: str | None) -> Array:
    if data_dir is None:
        return np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32))
    from snnkd_deploy.data import load

    return calibration_samples(load("cifar100", data_dir, 4))


def measure(target: str, model: str, width: int, data_dir: str | None) -> dict[str, Any]:
    """What lowering for one target takes, in this process."""
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
    row = {"seconds": seconds, "cpu_seconds": used, "gib_before": before / GIB, "gib_peak": peak / GIB}
    return {"target": target, **row, "result": result}


def apart(given: Any) -> Iterator[dict[str, Any]]:
    """`measure` of each target, in turn, in a process of its own."""
    shared = ["--model", given.model, "--width", str(given.width)]
    shared += ["--data-dir", given.data_dir] if given.data_dir else []
    print(f"{'target':10}{'seconds':>8}{'CPU':>8}{'GiB before':>12}{'peak':>8}", flush=True)
    for target in given.targets:
        command = [sys.executable, __file__, "--alone", "--targets", target, *shared]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        times = f"{row['seconds']:8.1f}{row['cpu_seconds']:8.1f}"
        print(f"{target:10}{times}{row['gib_before']:12.2f}{row['gib_peak']:8.2f}   {row['result']}", flush=True)
        yield row


def small(rounds: int, width: int | None) -> dict[str, float]:
    """Medians in seconds: net R through the compiler, and from its integers to an ONNX file."""
    import torch

    import nets

    torch.manual_seed(0)
    network = nets.ours("R", 4, width)
    shown = nets.pictures("R", 8)
    nets.settled(network, shown)
    samples = (255 * shown[:1]).round().numpy().astype(np.int64)
    target, exporter, graph = load_target("onnx"), load_exporter("onnx"), nets.graph(network, "R")
    took = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds + 1):
            start = time.perf_counter()
            compiled = lower(graph, target, Calibration(samples))
            middle = time.perf_counter()
            exporter.write(compiled.legal, target, Path(folder) / "network.onnx")
            took.append((middle - start, time.perf_counter() - middle))
    lowered, written = (statistics.median(one) for one in zip(*took[1:], strict=True))
    return {"lower": lowered, "write": written}


def figures(rows: list[dict[str, Any]], r: dict[str, float], usual: bool) -> list[Figure]:
    """Beside the goals, which are those of the usual network; then each part."""
    held = [row for row in rows if not row["result"].startswith("refused")]
    slowest, largest = (max(row[key] for row in held) for key in ("seconds", "gib_peak"))
    every = [Figure(f"{EVERY}, slowest", "time", slowest), Figure(f"{EVERY}, peak memory", "memory", largest)]
    parts = [Figure(f"{name}, net R", "R", seconds, "s", "lower") for name, seconds in r.items()]
    return (every if usual else []) + [Figure("compile and write ONNX", "R", sum(r.values())), *parts]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data-dir")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--targets", nargs="+", default=target_names())
    parser.add_argument("--rounds", type=int, default=9, help="for net R")
    parser.add_argument("--alone", action="store_true", help="measure the one target in this process")
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(measure(given.targets[0], given.model, given.width, given.data_dir)))
        return
    if given.quick:
        given.width, given.targets, given.rounds = 2, given.targets[:2], 1
    usual = (given.model, given.width) == ("resnet18", 64)
    rows, r = list(apart(given)), small(given.rounds, 2 if given.quick else None)
    settings = {"model": given.model, "width": given.width, "rounds": given.rounds, "noise": given.data_dir is None}
    conclude(__file__, figures(rows, r, usual), settings, given.out, targets=rows)


if __name__ == "__main__":
    main()
