"""What counting costs on top of a forward pass, and what each counter says of the same network.

Nets S and R of `nets.py`, and V, a VGG-9 of width 32 on 3x32x32. Each counter is timed against the plain forward of the
network that it counts on, in turns; the overhead is the median of the ratios within rounds. The peers count the three
things that they share, multiplications, additions and events: NeuroBench its SynapticOperations on snnTorch's network,
SpikingJelly its MAC, AC and SynOp counters on its own, sinabs its hooks on ours, which are those of any torch layer.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from figures import Figure, arguments, conclude
from nets import SHAPES, SnnTorch, SpikingJelly, ours, pictures, settled
from paired import paired
from snnkd_deploy import native
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.counts import Counts, Tally, counted
from snnkd_deploy.counts.native import NativeCounter
from snnkd_deploy.counts.watch import Watch
from snnkd_deploy.ir import Array, Graph, Input
from snnkd_deploy.live import counting, folded
from snnkd_deploy.simulate import batches
from snnkd_deploy.snn import models
from snnkd_deploy.snn.lif import LIF
from snnkd_deploy.snn.models import Network, Plan
from snnkd_deploy.target import load_target
from snnkd_deploy.trace import trace

SETTLING = 32
"""Pictures on which a network is brought to its firing rates."""
WIDTH = {"V": 32}
OURS, GOAL = "torch forward", "exact operation counts, added to a forward pass"
Run = Callable[[], Any]
STACK = ExitStack()
"""Holds hooks until everything is measured."""


@dataclass(frozen=True)
class Compared:
    """A plain forward, the same with a counter, and how to read what was counted: MACs and ACs a picture."""

    plain: Run
    counting: Run
    read: Callable[[Any], tuple[float | None, float | None]]


def network(name: str, timesteps: int, width: int | None) -> Network:
    if name != "V":
        return ours(name, timesteps, width)
    return models.build("vgg9", Plan(SHAPES["R"], 10, width or WIDTH["V"], 2, timesteps, LIF()))


def shown(name: str, count: int) -> Tensor:
    return pictures("R" if name == "V" else name, count)


def compared(name: str, given: argparse.Namespace) -> dict[str, Compared]:
    """Everything that can be counted with here; peers that are not installed are left out."""
    torch.manual_seed(0)
    found = settled(network(name, given.timesteps, given.width), shown(name, SETTLING))
    images = shown(name, given.batch)
    source = Input(name="input", shape=tuple(images.shape[1:]), scale=1 / 255)
    graph = folded(found, source)
    makers: dict[str, Callable[[], Compared]] = {
        "integer simulator": lambda: simulator(found, source, images[: given.simulated]),
        "native runtime, by sample": lambda: runtime(found, source, images, given.threads),
        OURS: lambda: ride(found, graph, images, per_sample=False),
        "torch forward, by sample": lambda: ride(found, graph, images, per_sample=True),
        "NeuroBench": lambda: neurobench(found, images),
        "SpikingJelly": lambda: spikingjelly(found, images),
        "sinabs": lambda: sinabs(found, images),
    }
    variants = {}
    for counter in given.counters or makers:
        with suppress(ImportError):
            variants[counter] = makers[counter]()
    return variants


def simulator(found: Network, source: Input, images: Tensor) -> Compared:
    """Counts on the integer network of an export, which the reference simulator runs."""
    graph, inputs = exported(found, source, images)

    def plain() -> None:
        for _ in batches(graph, inputs):
            pass

    def counted_too() -> Counts:
        tally = Tally(graph, "simulator")
        watch = Watch(tally)
        for _ in batches(graph, inputs, observe=watch.note, look=watch.look):
            pass
        return counted(tally)

    return Compared(plain, counted_too, read_ours)


def runtime(found: Network, source: Input, images: Tensor, threads: int) -> Compared:
    """Counts on the integer network of an export, in the runtime that `energy` runs it on."""
    graph, inputs = exported(found, source, images)
    ours = native.load(graph, threads=threads)
    tally = Tally(graph, "native runtime")
    counter = NativeCounter(graph, ours, tally)
    return Compared(lambda: ours.run(inputs), lambda: counter.add(inputs), lambda _: read_ours(counted(tally)))


def exported(found: Network, source: Input, images: Tensor) -> tuple[Graph, Array]:
    inputs = (255 * images).round().numpy().astype(np.uint8)
    return lower(trace(found, source), load_target("onnx"), Calibration(inputs[:8].astype(np.int64))).legal, inputs


def ride(found: Network, graph: Graph, images: Tensor, per_sample: bool) -> Compared:
    """Counts on the float student while torch runs it; its hooks stay, as over a data set of many batches."""
    hooked = copy.deepcopy(found)
    tally = STACK.enter_context(counting(hooked, graph, per_sample))
    return Compared(lambda: found(images), lambda: hooked(images), lambda _: read_ours(counted(tally)))


def read_ours(counts: Counts) -> tuple[float, float]:
    """Layers on a still picture count once a step, as the peers run them."""
    macs = acs = 0
    for layer in counts.synapses():
        times = counts.timesteps if layer.static else 1
        macs, acs = macs + times * layer.event_macs, acs + times * (layer.synops - layer.event_macs)
    return macs / counts.samples, acs / counts.samples


def neurobench(found: Network, images: Tensor) -> Compared:
    """Its hooks keep every input of every step until the metric has seen them."""
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import NeuroBenchModel

    class Model(NeuroBenchModel):  # type: ignore[misc, unused-ignore]
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def __call__(self, batch: Tensor) -> Any:
            return self.net(batch)

        def __net__(self) -> nn.Module:
            return self.net

    plain = SnnTorch(found)
    model, data = Model(copy.deepcopy(plain)), (images, torch.zeros(len(images)))
    model.register_hooks()

    def counting_forward() -> Any:
        metric = SynapticOperations()
        answers = model(images)
        result = metric(model, answers, data)
        model.reset_hooks()
        return result

    return Compared(lambda: plain(images), counting_forward, lambda r: (r["Effective_MACs"], r["Effective_ACs"]))


def spikingjelly(found: Network, images: Tensor) -> Compared:
    from spikingjelly.activation_based import op_counter

    net = SpikingJelly(found)

    def counting_forward() -> Any:
        counters = [op_counter.MACCounter(), op_counter.ACCounter(), op_counter.SynOpCounter()]
        with op_counter.DispatchCounterMode(counters):
            net(images)
        return [one.get_total() for one in counters]

    return Compared(lambda: net(images), counting_forward, lambda r: (r[0] / len(images), r[2] / len(images)))


def sinabs(found: Network, images: Tensor) -> Compared:
    """Its counts are sums of inputs times fan-out, so grey values and means of spikes weigh less than one."""
    from sinabs import hooks

    net = copy.deepcopy(found)
    layers: list[Any] = [one for one in net.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    for one in layers:
        convolves = isinstance(one, nn.Conv2d)
        one.register_forward_hook(hooks.conv_layer_synops_hook if convolves else hooks.linear_layer_synops_hook)

    def counting_forward() -> float:
        net(images)
        return sum(float(one.hook_data["layer_synops_per_timestep"]) for one in layers)

    return Compared(lambda: found(images), counting_forward, lambda r: (None, r * found.timesteps))


def measure(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each counter."""
    rows = []
    with torch.no_grad():  # in inference mode SpikingJelly's counters see no convolution
        for counter, one in compared(name, given).items():
            macs, acs = one.read(one.counting())
            times = paired({"plain": one.plain, "counting": one.counting}, given.rounds, warm_up=1)
            rows.append(
                {
                    "net": name,
                    "counter": counter,
                    "batch": given.simulated if counter == "integer simulator" else given.batch,
                    "plain_ms": 1e3 * times.median("plain"),
                    "counting_ms": 1e3 * times.median("counting"),
                    "overhead": times.ratio("plain", "counting"),
                    "macs": macs,
                    "acs": acs,
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| net | counter | batch | forward, ms | counting, ms | ratio | MACs a picture | ACs a picture |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in rows:
        said = " | ".join("-" if row[key] is None else f"{row[key]:,.0f}" for key in ("macs", "acs"))
        times = f"{row['plain_ms']:.1f} | {row['counting_ms']:.1f} | {row['overhead']:.3f}"
        lines.append(f"| {row['net']} | {row['counter']} | {row['batch']} | {times} | {said} |")
    return "\n".join(lines)


def figures(rows: list[dict[str, Any]]) -> list[Figure]:
    """What each counter adds to the forward that it counts, in percent; ours beside its goal."""
    added = [(row["counter"], row["net"], 100 * (row["overhead"] - 1)) for row in rows]
    goal = [Figure(GOAL, net, percent) for counter, net, percent in added if counter == OURS]
    return goal + [Figure(f"counts of {one}, added", net, percent, "%", "lower") for one, net, percent in added]


def main() -> None:
    options = arguments(__doc__)
    options.add_argument("--nets", nargs="+", choices=["S", "R", "V"], default=["S", "R", "V"])
    options.add_argument("--counters", nargs="+", help="those of the table's second column (default: all)")
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--simulated", type=int, default=16, help="pictures that the integer simulator runs")
    options.add_argument("--timesteps", type=int, default=4)
    options.add_argument("--width", type=int, help="of the first layer (default: each net's own)")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--threads", type=int, default=2)
    given = options.parse_args()
    if given.quick:
        given.nets, given.batch, given.simulated, given.timesteps, given.width, given.rounds = ["S"], 2, 2, 2, 4, 1
    torch.set_num_threads(given.threads)
    rows = [row for name in given.nets for row in measure(name, given)]
    print(f"{given.threads} threads, T = {given.timesteps}, {given.rounds} rounds")
    print(table(rows) + "\n")
    settings = {key: value for key, value in vars(given).items() if key not in ("out", "quick")}
    conclude(__file__, figures(rows), settings, given.out, counters=rows)


if __name__ == "__main__":
    main()
