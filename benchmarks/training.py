"""How long a training step takes and what it keeps: snnTorch, its compiled form, SpikingJelly, and this package.

python benchmarks/training.py [--nets S R] [--timesteps 4 8] [--batch 64] [--threads 2] [--rounds 15] [--out FILE]
                              [--variants "snnTorch" "ours" ...]

Nets S and R of nets.py: forward, backward and SGD. `ours` is exact backpropagation through time with the native kernel,
`ours, plain torch` the same without a compiler; `rate-based` is engine rate; ANN is the same network with ReLU and one
step. Compiled are snnTorch's loop as it is, and in channels_last order, which is faster. Measured in pieces, the
figures in FILE are kept beside the new ones. The first step of a compiled loop, which compiles, is timed with an empty
cache, unless TORCHINDUCTOR_CACHE_DIR names one. bf16 is autocast; its convolutions need a processor that has bf16.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor.utils import fresh_cache
from torch.nn import functional

import nets
from figures import Figure, arguments, conclude
from paired import Times, paired
from snnkd_deploy.snn import kernel, models
from snnkd_deploy.snn.allocator import keep_memory
from snnkd_deploy.snn.engines import load_engine
from snnkd_deploy.snn.models import Network, Plan

Logits = Callable[[Tensor], Tensor]
BASE, OURS, PLAIN, ANN = "snnTorch", "ours", "ours, plain torch", "ANN"
COMPILED = ("snnTorch, compiled", "snnTorch, channels_last, compiled")
RATE = "ours, rate-based"
CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""Where torch keeps what it compiled; with one given, a first step does not tell how long compiling takes."""


@dataclass
class Step:
    """A network with its optimiser; called, it is one training step."""

    network: nn.Module
    logits: Logits
    images: Tensor
    labels: Tensor
    bf16: bool = False
    kernel: bool = True
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.network.train()
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9)

    def __call__(self) -> None:
        loss = self.loss()
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()

    def loss(self) -> Tensor:
        os.environ[kernel.SWITCH] = "1" if self.kernel else "0"
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            logits = self.logits(self.images)
        return functional.cross_entropy(logits.float(), self.labels)

    def saved(self) -> int:
        """Bytes that autograd keeps between the passes, each memory once, parameters left out."""
        memory: dict[int, int] = {}
        own = {parameter.untyped_storage().data_ptr() for parameter in self.network.parameters()}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                memory[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            self.loss()
        return sum(memory.values())


def makers(network: Network, name: str, images: Tensor, width: int | None) -> dict[str, Callable[[], Step]]:
    """What makes each variant, around copies of one network."""
    labels = torch.randint(nets.CLASSES, (len(images),))

    def step(model: nn.Module, logits: Logits | None = None, **more: Any) -> Step:
        return Step(model, model if logits is None else logits, images, labels, **more)

    def ours(engine: str = "bptt", **more: Any) -> Step:
        model, outputs = channels_last(copy.deepcopy(network)), load_engine(engine, "none", frozenset()).outputs
        return step(model, lambda images: outputs(model, images).logits, **more)

    def compiled(model: nn.Module) -> Step:
        return step(model, torch.compile(model))

    return {
        BASE: lambda: step(nets.SnnTorch(network)),
        COMPILED[0]: lambda: compiled(nets.SnnTorch(network)),
        COMPILED[1]: lambda: compiled(channels_last(nets.SnnTorch(network))),
        "SpikingJelly": lambda: step(nets.SpikingJelly(network)),
        PLAIN: lambda: ours(kernel=False),
        OURS: ours,
        f"{OURS}, bf16": lambda: ours(bf16=True),
        RATE: lambda: ours("rate"),
        f"{RATE}, bf16": lambda: ours("rate", bf16=True),
        ANN: lambda: step(channels_last(ann(name, width))),
    }


def channels_last(network: nn.Module) -> Any:
    return models.channels_last(network)


def ann(name: str, width: int | None) -> Network:
    model, usual = {"S": ("cnn", 32), "R": ("resnet18", 16)}[name]
    return models.build(model, Plan(nets.SHAPES[name], nets.CLASSES, width or usual, 2))


def measure(name: str, timesteps: int, given: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """Figures, and milliseconds and megabytes by variant."""
    torch.manual_seed(0)
    width = 8 if given.quick else None
    network, images = nets.ours(name, timesteps, width), nets.pictures(name, given.batch)
    steps: dict[str, Step] = {}
    compiling: dict[str, float] = {}
    for variant, make in makers(network, name, images, width).items():
        if given.variants and variant not in given.variants:
            continue
        with suppress(ImportError):
            steps[variant] = make()
            start = time.perf_counter()
            steps[variant]()
            if variant in COMPILED and given.cold:
                compiling[variant] = time.perf_counter() - start
    times = paired(steps, given.rounds) if given.rounds else Times({})
    saved = {variant: step.saved() for variant, step in steps.items() if variant not in COMPILED}
    details = {
        "milliseconds": {variant: 1e3 * times.median(variant) for variant in times.seconds},
        "saved for backward, MB": {variant: one / 1e6 for variant, one in saved.items()},
        "first step, s": compiling,
        "rounds": dict.fromkeys(times.seconds, given.rounds),
    }
    return [*compared(times, name, timesteps), *kept(saved, name, timesteps)], details


def compared(times: Times, name: str, timesteps: int) -> list[Figure]:
    """Each variant against snnTorch, under the name of its goal where it has one."""
    there, case = times.seconds, f"{name}, T = {timesteps}"
    goal = {
        OURS: "training step, exact fp32, against snnTorch",
        PLAIN: "training step, exact fp32, without a compiler, against snnTorch",
        f"{OURS}, bf16": "training step, exact bf16, against snnTorch",
    }
    rates = {RATE: "training step, rate-based fp32, against snnTorch"}
    rates |= {f"{RATE}, bf16": "training step, rate-based bf16, against snnTorch"}
    found = []
    for variant in there if BASE in there else ():
        what = {**goal, **rates}.get(variant, f"training step, {variant}, against snnTorch")
        if variant != BASE:
            plain = variant in goal and timesteps == 4
            found.append(Figure(what, name if plain else case, times.ratio(variant, BASE)))
    if OURS in there and any(one in there for one in COMPILED):
        fastest = min((one for one in COMPILED if one in there), key=times.median)
        what = "training step, exact fp32, against the best torch.compile of snnTorch"
        found.append(Figure(what, name if timesteps == 4 else case, times.ratio(OURS, fastest)))
    return found


def kept(saved: Mapping[str, int], name: str, timesteps: int) -> list[Figure]:
    what = "saved for backward, of snnTorch's"
    cases = {OURS: f"{name}, exact" + ("" if timesteps == 4 else f", T = {timesteps}")}
    cases |= {RATE: f"{name}, rate-based, T = {timesteps}"}
    if BASE not in saved:
        return []
    return [Figure(what, case, saved[one] / saved[BASE], better="lower") for one, case in cases.items() if one in saved]


def joined(out: Path | None, figures: list[Figure], details: dict[str, Any]) -> tuple[list[Figure], dict[str, Any]]:
    """With what the file already holds of other cases."""
    if out is None or not out.exists():
        return figures, details
    old, new = json.loads(out.read_text()), {(one.what, one.case) for one in figures}
    rows = [one for one in old["rows"] if (one["what"], one["case"]) not in new]
    before = [Figure(one["what"], one["case"], one["measured"], one["unit"], one["better"]) for one in rows]
    cases = old["details"]
    for case, kinds in details.items():
        held = cases.setdefault(case, {})
        for kind, values in kinds.items():
            held.setdefault(kind, {}).update(values)
    return before + figures, cases


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--nets", nargs="+", default=list(nets.SHAPES), choices=list(nets.SHAPES))
    parser.add_argument("--timesteps", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--variants", nargs="+", help="those of the figures' names (default: all)")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15, help="0: only what is saved, which no other load changes")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    if given.quick:
        given.nets, given.timesteps, given.batch, given.rounds, given.threads = ["S"], [2], 4, 1, 1
        given.variants = given.variants or [BASE, PLAIN, OURS, RATE, f"{RATE}, bf16", ANN]
    given.cold = CACHE not in os.environ
    torch.set_num_threads(given.threads)
    warnings.filterwarnings("ignore", category=UserWarning)  # torch.compile's advice on matrix precision
    memory = keep_memory()
    figures, details = list[Figure](), dict[str, Any]()
    with fresh_cache() if given.cold else nullcontext():
        for name in given.nets:
            for timesteps in given.timesteps:
                found, more = measure(name, timesteps, given)
                figures += found
                details[f"{name}, T = {timesteps}"] = more
    settings = {key: getattr(given, key) for key in ("batch", "threads")}
    settings |= {"kernel": kernel.available(), "freed memory is kept": memory}
    figures, details = joined(given.out, figures, details)
    conclude(__file__, figures, settings, given.out, **details)
    for case, kinds in details.items():
        for variant in {**kinds["milliseconds"], **kinds["saved for backward, MB"]}:
            units = {"ms": "milliseconds", "MB saved": "saved for backward, MB", "s, first step": "first step, s"}
            values = [f"{kinds[kind][variant]:.1f} {unit}" for unit, kind in units.items() if variant in kinds[kind]]
            print(f"{case}: {variant}: {', '.join(values)}")


if __name__ == "__main__":
    main()
