"""How long a training step takes: snnTorch, SpikingJelly where it is installed, and both engines here.

Net S: conv32-BN-LIF-pool-conv64-BN-LIF-pool-fc10 on 1x28x28, average pooling, forward, backward and SGD. Rounds are
interleaved, the variants of a round in changing order; reported are medians, and the median of the ratios within
rounds, so that what else the machine does falls on all variants alike.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import snntorch
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.snn import models
from snnkd_deploy.snn.engines import load_engine
from snnkd_deploy.snn.lif import LIF
from snnkd_deploy.snn.models import Plan

BASE = "snnTorch loop"
Logits = Callable[[Tensor], Tensor]


class Loop(nn.Module):
    """Net S as snnTorch's tutorials write it: all layers once per step."""

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.conv1, self.norm1 = nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.norm2 = nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.lif1 = snntorch.Leaky(0.5, reset_mechanism="zero")
        self.lif2 = snntorch.Leaky(0.5, reset_mechanism="zero")
        self.head = nn.Linear(64 * 7 * 7, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Mean logits (B, 10)."""
        membrane1, membrane2, logits = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for _ in range(self.timesteps):
            spikes, membrane1 = self.lif1(self.norm1(self.conv1(images)), membrane1)
            x = functional.avg_pool2d(spikes, 2)
            spikes, membrane2 = self.lif2(self.norm2(self.conv2(x)), membrane2)
            logits.append(self.head(functional.avg_pool2d(spikes, 2).flatten(1)))
        return torch.stack(logits).mean(0)


def spikingjelly_network(timesteps: int) -> tuple[nn.Module, Logits]:
    """Net S in SpikingJelly's multi-step mode; with tau 2 and undecayed input its neuron keeps half, as the others.

    ImportError if SpikingJelly is not installed.
    """
    from spikingjelly.activation_based import functional as reset
    from spikingjelly.activation_based import layer, neuron, surrogate

    def fires() -> Any:
        return neuron.LIFNode(tau=2.0, decay_input=False, surrogate_function=surrogate.ATan(), detach_reset=True)

    network = nn.Sequential(
        layer.Conv2d(1, 32, 3, padding=1, bias=False), layer.BatchNorm2d(32), fires(), layer.AvgPool2d(2),
        layer.Conv2d(32, 64, 3, padding=1, bias=False), layer.BatchNorm2d(64), fires(), layer.AvgPool2d(2),
        layer.Flatten(), layer.Linear(64 * 7 * 7, 10),
    )  # fmt: skip
    reset.set_step_mode(network, "m")

    def logits(images: Tensor) -> Tensor:
        reset.reset_net(network)
        mean: Tensor = network(images.expand(timesteps, *images.shape)).mean(0)
        return mean

    return network, logits


class Variant:
    """A network with its optimiser; called, it is one training step."""

    def __init__(self, network: nn.Module, logits: Logits) -> None:
        self.network, self.logits = network.train(), logits
        self.optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        loss = functional.cross_entropy(self.logits(images), labels)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()


def engine(name: str, timesteps: int) -> Variant:
    network = models.channels_last(models.build("cnn", Plan((1, 28, 28), 10, 32, 2, timesteps, LIF())))
    outputs = load_engine(name, "none", frozenset()).outputs
    return Variant(network, lambda images: outputs(network, images).logits)


def variants(timesteps: int) -> dict[str, Variant]:
    torch.manual_seed(0)
    loop = Loop(timesteps)
    found = {BASE: Variant(loop, loop)}
    with suppress(ImportError):
        found["SpikingJelly"] = Variant(*spikingjelly_network(timesteps))
    return {**found, "bptt": engine("bptt", timesteps), "rate": engine("rate", timesteps)}


def saved_megabytes(variant: Variant, images: Tensor) -> float:
    """What autograd keeps between the passes, each memory once, parameters left out."""
    memory: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in variant.network.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            memory[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = variant.logits(images)
    assert logits.requires_grad
    return sum(memory.values()) / 1e6


def seconds(variant: Variant, images: Tensor, labels: Tensor) -> float:
    start = time.perf_counter()
    variant(images, labels)
    return time.perf_counter() - start


def measure(timesteps: int, batch: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each variant."""
    images, labels = torch.rand(batch, 1, 28, 28), torch.randint(10, (batch,))
    compared = variants(timesteps)
    for variant in compared.values():
        for _ in range(3):
            variant(images, labels)
    names, times = list(compared), []
    for number in range(rounds):
        order = names[number % len(names) :] + names[: number % len(names)]
        times.append({name: seconds(compared[name], images, labels) for name in order})
    return [
        {
            "timesteps": timesteps,
            "variant": name,
            "median_ms": 1e3 * statistics.median(one[name] for one in times),
            "times_faster": statistics.median(one[BASE] / one[name] for one in times),
            "saved_mb": saved_megabytes(variant, images),
        }
        for name, variant in compared.items()
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--timesteps", type=int, nargs="+", default=[4, 8])
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--rounds", type=int, default=40)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--out", type=Path, help="also write the figures as JSON")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "snntorch": snntorch.__version__}
    with suppress(PackageNotFoundError):
        versions["spikingjelly"] = version("spikingjelly")
    rows = [row for timesteps in given.timesteps for row in measure(timesteps, given.batch, given.rounds)]
    print(f"{given.threads} threads, batch {given.batch}, {given.rounds} rounds, {versions}")
    print(f"{'T':>2}  {'variant':14} {'ms':>8} {'x faster':>9} {'saved MB':>9}")
    for row in rows:
        figures = f"{row['median_ms']:8.1f} {row['times_faster']:9.2f} {row['saved_mb']:9.1f}"
        print(f"{row['timesteps']:2}  {row['variant']:14} {figures}")
    if given.out:
        settings = {"threads": given.threads, "batch": given.batch, "rounds": given.rounds, "versions": versions}
        given.out.write_text(json.dumps({**settings, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
