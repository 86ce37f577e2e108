"""Training of a CIFAR ResNet-18 on one GPU, in bf16: images per second and peak memory beside what convolutions take.

python benchmarks/gpu_training.py [--device cuda] [--width 64] [--batch 128] [--timesteps 1 2 4 8] [--rounds 10]
                                  [--out FILE]

Net R of nets.py: forward, backward and SGD with snnTorch's loop, SpikingJelly in multi-step mode (where installed), and
this package's engines bptt and rate. `convolutions` are the same layers alone, forward and backward, all steps as one
batch: nothing that trains every step is faster. Without the device nothing is run, and that is said.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import nets
from figures import Figure, arguments, conclude
from paired import Times, paired
from snnkd_deploy.snn import models
from snnkd_deploy.snn.engines import load_engine
from snnkd_deploy.snn.models import Network

Run = Callable[[], None]
BASE, ROOF = "snnTorch", "convolutions"


def finish(device: torch.device) -> None:
    """Wait for what was asked of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def training(network: nn.Module, logits: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Run:
    """One step of SGD in bf16."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, cache_enabled=False):
            found = logits(images)
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(found.float(), labels))
        optimizer.step()
        finish(images.device)

    return step


def convolutions(network: Network, images: Tensor) -> Run:
    """Forward and backward of each convolution and dense layer in bf16, on inputs of the shapes that it sees."""
    seen: list[tuple[nn.Module, Tensor]] = []

    def look(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.append((layer, torch.rand_like(inputs[0], dtype=torch.bfloat16)))

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    with torch.no_grad():
        network.train()(images)
    for hook in hooks:
        hook.remove()
    network.bfloat16()
    inputs = [one.requires_grad_(number > 0) for number, (_, one) in enumerate(seen)]  # nobody asks for the picture's

    def step() -> None:
        for (layer, _), x in zip(seen, inputs, strict=True):
            y = layer(x)
            torch.autograd.backward(y, torch.ones_like(y))
            x.grad = None
            layer.zero_grad()
        finish(images.device)

    return step


def variants(given: argparse.Namespace, timesteps: int) -> dict[str, Run]:
    """What is timed; those that are not installed are left out."""
    torch.manual_seed(0)
    device = torch.device(given.device)
    images = nets.pictures("R", given.batch).to(device, memory_format=torch.channels_last)
    labels = torch.randint(nets.CLASSES, (given.batch,)).to(device)
    network: Any = models.channels_last(nets.ours("R", timesteps, given.width)).to(device)

    def peer(make: Callable[[Network], nn.Module]) -> Run:
        model = make(network)
        return training(model, model, images, labels)

    def ours(engine: str) -> Run:
        model, outputs = copy.deepcopy(network), load_engine(engine, "none", frozenset()).outputs
        return training(model, lambda images: outputs(model, images).logits, images, labels)

    found = {BASE: peer(nets.SnnTorch)}
    with suppress(ImportError):
        found["SpikingJelly"] = peer(nets.SpikingJelly)
    found |= {engine: ours(engine) for engine in ("bptt", "rate")}
    return {**found, ROOF: convolutions(copy.deepcopy(network), images)}


def peak(run: Run, device: torch.device) -> float | None:
    """Megabytes that one call holds at most, beyond what was there before; None where the device does not tell."""
    if device.type != "cuda":
        return None
    finish(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return float(torch.cuda.max_memory_allocated(device) - before) / 1e6


def compared(times: Times, case: str, batch: int, peaks: dict[str, float | None]) -> list[Figure]:
    figures = []
    for name in times.seconds:
        speed = batch / times.median(name)
        figures.append(Figure(f"images per second, {name}", case, speed, "/s"))
        if name not in (BASE, ROOF):
            figures.append(Figure(f"training step in bf16, {name}, against snnTorch", case, times.ratio(name, BASE)))
        if name != ROOF:
            figures.append(Figure(f"part of the step that convolutions take, {name}", case, times.ratio(name, ROOF)))
        held = peaks.get(name)
        if held is not None:
            figures.append(Figure(f"peak memory, {name}", case, held, "MB", "lower"))
    return figures


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    if given.quick:
        given.device, given.width, given.batch, given.timesteps, given.rounds = "cpu", 4, 4, [1, 2], 1
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"not run: this machine has no device {given.device}")
        return
    figures, start = list[Figure](), time.perf_counter()
    for timesteps in given.timesteps:
        found = variants(given, timesteps)
        times = paired(found, given.rounds)
        peaks = {name: peak(run, device) for name, run in found.items()}
        figures += compared(times, f"T = {timesteps}", given.batch, peaks)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    settings = {key: getattr(given, key) for key in ("width", "batch", "timesteps", "rounds")}
    seconds = time.perf_counter() - start
    conclude(__file__, figures, {"device": name, **settings}, given.out, seconds=seconds)


if __name__ == "__main__":
    main()
