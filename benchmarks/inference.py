"""Inference of the integer network in the native runtime, beside snnTorch, torch.compile and onnxruntime.

python benchmarks/inference.py [--nets S R] [--batches 1 64] [--timesteps 4] [--threads 2] [--rounds 20] [--loops S R]
                               [--out FILE]

Nets S and R of nets.py with fresh weights, each layer firing at a tenth of its chances. All variants take turns. The
native logits are checked to be the simulator's to the last bit; those of the others, of real numbers, to be near.
`--loops`: the nets whose snnTorch loop is compiled too, which takes minutes for R.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import nets
from figures import Figure, arguments, conclude
from onnx_forms import eager, session
from paired import Times, paired
from snnkd_deploy import native
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import Compiled, lower
from snnkd_deploy.ir import Array
from snnkd_deploy.simulate import Record, simulate
from snnkd_deploy.target import load_target

OURS, PEER = "native", "snnTorch eager"
LOOP, FOLDED = "torch.compile of snnTorch's loop", "torch.compile of folded torch"
FORMS = {f"onnxruntime fp32, {form}": form for form in ("unrolled", "folded")}
FASTEST = "integer inference against the fastest of torch.compile and onnxruntime fp32"
BYTES = {OURS, *FORMS}
"""Those that take pictures as bytes; the others take real numbers."""
Calls = dict[str, Callable[[Any], Any]]


def variants(name: str, network: Any, compiled: Compiled, folder: Path, given: argparse.Namespace) -> Calls:
    loop = nets.SnnTorch(network).eval()
    modules: dict[str, nn.Module] = {PEER: loop, FOLDED: compiled_once(nets.plain(network).eval())}
    if name in given.loops:
        modules[LOOP] = compiled_once(nets.SnnTorch(network).eval())
    sessions = {one: session(compiled, form, "float", folder, given.threads) for one, form in FORMS.items()}
    calls: Calls = {one: partial(eager, module) for one, module in modules.items()}
    return {OURS: native.load(compiled.legal, threads=given.threads).run, **calls, **sessions}


def compiled_once(module: nn.Module) -> nn.Module:
    """For each batch anew: sizes are constants."""
    return torch.compile(module, dynamic=False)  # type: ignore[return-value]


def check(calls: Calls, compiled: Compiled, few: Tensor, bytes_: Array) -> Record:
    """Ours to the last bit, the others but for a spike that rounding decides; what the network does."""
    exact, real = (simulate(graph, bytes_.astype(np.int64)) for graph in (compiled.legal, compiled.folded))
    for name, call in calls.items():
        met = np.asarray(call(bytes_ if name in BYTES else few))
        if name == OURS:
            np.testing.assert_array_equal(met, exact.logits)
        else:
            assert np.median(np.abs(met - real.logits)) < 1e-3 * np.abs(real.logits).max(), name
    return exact


def measure(name: str, given: argparse.Namespace, folder: Path) -> tuple[list[Figure], dict[str, Any]]:
    """The figures, and by case the milliseconds of every variant and the spike rates."""
    torch.manual_seed(0)
    network = nets.ours(name, given.timesteps, 16 if given.quick else None)
    pictures = nets.pictures(name, max(given.batches))
    nets.settled(network, pictures)
    images = (255 * pictures).round().numpy().astype(np.int64)
    compiled = lower(nets.graph(network, name), load_target("native"), Calibration(images[:64]))
    calls = variants(name, network, compiled, folder, given)
    figures, details = list[Figure](), dict[str, Any]()
    for batch in given.batches:
        few, bytes_ = pictures[:batch], images[:batch].astype(np.uint8)
        rates = {layer: float(one.mean()) for layer, one in check(calls, compiled, few, bytes_).spikes.items()}
        ready = {one: partial(call, bytes_ if one in BYTES else few) for one, call in calls.items()}
        times = paired(
            ready, given.rounds, warm_up=1, repeats=1 if given.quick else max(1, 16 // batch), settle=0.1
        )  # pools of the others spin on for a while
        case = f"{name}, batch {batch}"
        figures += compared(times, case)
        details[case] = {"milliseconds": {one: 1e3 * times.median(one) for one in times.seconds}, "rates": rates}
        tell(case, details[case])
    return figures, details


def compared(times: Times, case: str) -> list[Figure]:
    """The two goals, then each peer."""
    dense = [one for one in times.seconds if one not in (OURS, PEER)]
    return [
        Figure(f"integer inference against {PEER}", case, times.ratio(OURS, PEER)),
        Figure(FASTEST, case, min(times.ratio(OURS, one) for one in dense)),
        *(Figure(f"integer inference against {one}", case, times.ratio(OURS, one)) for one in dense),
    ]


def tell(case: str, found: Mapping[str, Any]) -> None:
    took = ", ".join(f"{one} {ms:.3g} ms" for one, ms in found["milliseconds"].items())
    rates = ", ".join(f"{rate:.3f}" for rate in found["rates"].values())
    print(f"{case}: {took}; logits exact; spike rates {rates}\n", flush=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--nets", nargs="+", default=list(nets.SHAPES), choices=list(nets.SHAPES))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--timesteps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--loops", nargs="*", default=list(nets.SHAPES), choices=list(nets.SHAPES))
    given = parser.parse_args()
    if given.quick:
        given.nets, given.batches, given.timesteps, given.rounds, given.loops = ["S"], [1, 2], 2, 1, []
    torch.set_num_threads(given.threads)
    figures, details = list[Figure](), dict[str, Any]()
    for name in given.nets:
        with tempfile.TemporaryDirectory() as folder:
            found, more = measure(name, given, Path(folder))
        figures += found
        details |= more
    settings = {key: getattr(given, key) for key in ("nets", "batches", "timesteps", "threads", "rounds", "loops")}
    conclude(__file__, figures, settings, given.out, **details)


if __name__ == "__main__":
    main()
