"""The forms of an ONNX file in onnxruntime, of integers and of real numbers, side by side with snnTorch's loop.

python benchmarks/onnx_forms.py [--nets S R] [--batches 1 64] [--timesteps 4] [--threads 2] [--rounds 15] [--out FILE]

Nets S and R of nets.py with fresh weights, each layer firing at a tenth of its chances. `one-step` is called once per
step. All forms of integers must give the same logits, to the last bit, as the simulator; of real numbers, nearly so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import nets
from figures import Figure, arguments, conclude
from paired import Times, paired
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import Compiled, lower
from snnkd_deploy.ir import Array
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target

FORMS = [(form, numbers) for numbers in ("integer", "float") for form in ("unrolled", "folded", "one-step")]
PEER = "snnTorch eager"
Call = Callable[[Array], Array]


def session(compiled: Compiled, form: str, numbers: str, folder: Path, threads: int) -> Call:
    """A function from pictures, uint8, to logits: sums of integers, means of real numbers."""
    graph, path = compiled.folded if numbers == "float" else compiled.legal, folder / f"{form}-{numbers}.onnx"
    loader = load_exporter("onnx").write(graph, load_target("onnx"), path, form=form, numbers=numbers)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    runtime = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    if form == "one-step":
        return lambda images: stream(runtime, loader, images) / (loader["timesteps"] if numbers == "float" else 1)
    return lambda images: runtime.run(["logits"], {"input": images})[0]  # type: ignore[no-any-return]


def stream(runtime: Any, loader: Mapping[str, Any], images: Array) -> Array:
    states = loader["states"]
    held = [np.zeros((len(images), *one["shape"]), dtype=one["type"]) for one in states]
    for _ in range(loader["timesteps"]):
        given = {one["input"]: value for one, value in zip(states, held, strict=True)}
        held = runtime.run([one["output"] for one in states], {"input": images, **given})
    return held[[one["output"] for one in states].index("logits")]


def check(compiled: Compiled, calls: Mapping[str, Call], images: Array) -> None:
    """Every form computes the network."""
    wanted = {"integer": simulate(compiled.legal, images), "float": simulate(compiled.folded, images)}
    for form, numbers in FORMS:
        off = np.abs(calls[f"{form}, {numbers}"](images.astype(np.uint8)) - wanted[numbers].logits).max()
        assert off <= (0 if numbers == "integer" else 1e-5), f"{form}, {numbers}: {off}"


def measure(name: str, given: Any, folder: Path) -> tuple[list[Figure], dict[str, dict[str, float]]]:
    """The figures, and milliseconds of everything by case."""
    torch.manual_seed(0)
    network = nets.ours(name, given.timesteps, 16 if given.quick else None)
    pictures = nets.pictures(name, max(given.batches))
    nets.settled(network, pictures)
    images = (255 * pictures).round().numpy().astype(np.int64)
    compiled = lower(nets.graph(network, name), load_target("onnx"), Calibration(images[:64]))
    calls = {f"{form}, {of}": session(compiled, form, of, folder, given.threads) for form, of in FORMS}
    check(compiled, calls, images[:4])
    peer = nets.SnnTorch(network).eval()
    figures, milliseconds = list[Figure](), dict[str, dict[str, float]]()
    for batch in given.batches:
        few, bytes_ = pictures[:batch], images[:batch].astype(np.uint8)
        variants: dict[str, Callable[[], object]] = {PEER: lambda few=few: eager(peer, few)}  # type: ignore[misc]
        variants |= {form: lambda call=call, few=bytes_: call(few) for form, call in calls.items()}  # type: ignore[misc]
        repeats = 1 if given.quick else max(1, 16 // batch)
        times = paired(variants, given.rounds, warm_up=1, repeats=repeats, settle=0.02)
        case = f"{name}, batch {batch}"
        figures += compared(times, case)
        milliseconds[case] = {one: 1e3 * times.median(one) for one in times.seconds}
    return figures, milliseconds


@torch.inference_mode()
def eager(peer: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = peer(images)
    return logits


def compared(times: Times, case: str) -> list[Figure]:
    """The default forms beside their goals, then all of them."""
    integer, real = "unrolled, integer", "unrolled, float"
    return [
        Figure("float ONNX against snnTorch eager", case, times.ratio(real, PEER)),
        Figure("integer ONNX, time of the float ONNX", case, times.ratio(real, integer)),
        *(Figure(f"ONNX {n}, against snnTorch eager", case, times.ratio(n, PEER)) for n in times.seconds if n != PEER),
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--nets", nargs="+", default=list(nets.SHAPES), choices=list(nets.SHAPES))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--timesteps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    if given.quick:
        given.nets, given.batches, given.timesteps, given.rounds = ["S"], [1, 2], 2, 1
    torch.set_num_threads(given.threads)
    figures, milliseconds = list[Figure](), dict[str, dict[str, float]]()
    for name in given.nets:
        with tempfile.TemporaryDirectory() as folder:
            found, took = measure(name, given, Path(folder))
        figures += found
        milliseconds |= took
    settings = {key: getattr(given, key) for key in ("nets", "batches", "timesteps", "threads", "rounds")}
    conclude(__file__, figures, settings, given.out, milliseconds=milliseconds)


if __name__ == "__main__":
    main()
