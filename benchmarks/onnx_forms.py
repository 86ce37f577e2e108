"""The forms of an ONNX file in onnxruntime, side by side: conv32-LIF-pool-conv64-LIF-pool-fc10 on 1x28x28, one thread.

python benchmarks/onnx_forms.py [--timesteps 4] [--batches 1 64] [--rounds 30]

Random weights; medians over rounds in which the forms take turns. `one-step` is called once per time step. A batch of
64 takes more than 64 times a batch of 1 where the membranes leave the cache.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import Compiled, lower
from snnkd_deploy.ir import Array, AvgPool2d, Conv2d, Flatten, Graph, Input, Linear, Neuron, Node, Output
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.target import load_target

FORMS = [(form, numbers) for numbers in ("integer", "float") for form in ("unrolled", "folded", "one-step")]


def network(timesteps: int) -> Graph:
    random = np.random.default_rng(0)
    nodes: list[Node] = [Input(name="input", shape=(1, 28, 28), scale=1 / 255)]

    def then(kind: type[Any], name: str, **fields: Any) -> None:
        nodes.append(kind(name=name, inputs=(nodes[-1].name,), **fields))

    for index, (into, out) in enumerate(((1, 32), (32, 64))):
        weight = random.normal(size=(out, into, 3, 3)) * (0.6 if index else 0.9) / np.sqrt(into)
        then(Conv2d, f"conv{index}", weight=weight, bias=np.zeros(out), padding=(1, 1))
        then(Neuron, f"lif{index}", decay=0.5, threshold=np.asarray(1.0))
        then(AvgPool2d, f"pool{index}", kernel=(2, 2), stride=(2, 2))
    then(Flatten, "flatten")
    then(Linear, "readout", weight=random.normal(size=(10, 64 * 49)) / 56, bias=np.zeros(10))
    then(Output, "output")
    return Graph(nodes=tuple(nodes), timesteps=timesteps, name="S")


def session(compiled: Compiled, form: str, numbers: str, path: Path) -> Callable[[Array], Array]:
    """A function from pictures to logits."""
    graph = compiled.folded if numbers == "float" else compiled.legal
    loader = load_exporter("onnx").write(graph, load_target("onnx"), path, form=form, numbers=numbers)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    runtime = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    if form == "one-step":
        return lambda images: stream(runtime, loader, images)
    return lambda images: runtime.run(["logits"], {"input": images})[0]  # type: ignore[no-any-return]


def stream(runtime: Any, loader: Mapping[str, Any], images: Array) -> Array:
    states = loader["states"]
    held = [np.zeros((len(images), *one["shape"]), dtype=one["type"]) for one in states]
    for _ in range(loader["timesteps"]):
        given = {one["input"]: value for one, value in zip(states, held, strict=True)}
        held = runtime.run([one["output"] for one in states], {"input": images, **given})
    return held[[one["output"] for one in states].index("logits")]


def medians(calls: dict[str, Callable[[Array], Array]], images: Array, rounds: int) -> dict[str, float]:
    """Milliseconds per call."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    repeats = max(1, 16 // len(images))
    for turn in range(rounds + 2):
        names = list(calls)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            for _ in range(repeats):
                calls[name](images)
            if turn >= 2:
                seconds[name].append((time.perf_counter() - start) / repeats)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=4)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    images = np.random.default_rng(1).integers(0, 256, (max(given.batches), 1, 28, 28)).astype(np.uint8)
    compiled = lower(network(given.timesteps), load_target("onnx"), Calibration(images[:8].astype(np.int64)))
    with tempfile.TemporaryDirectory() as folder:
        calls = {
            f"{form}, {numbers}": session(compiled, form, numbers, Path(folder, f"{form}-{numbers}.onnx"))
            for form, numbers in FORMS
        }
        integers = [calls[f"{form}, integer"](images) for form, numbers in FORMS if numbers == "integer"]
        assert all(np.array_equal(integers[0], other) for other in integers)
        print(f"{'ms per batch':24}" + "".join(f"{f'batch {size}':>12}" for size in given.batches))
        columns = [medians(calls, images[:size], given.rounds) for size in given.batches]
        for name in calls:
            print(f"{name:24}" + "".join(f"{column[name]:12.3f}" for column in columns))


if __name__ == "__main__":
    main()
