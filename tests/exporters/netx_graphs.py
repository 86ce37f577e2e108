"""Small legal networks, one for each way into a netx file and each rewriting."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import RefusedError
from snnkd_deploy.ir import Add, Array, Conv2d, Flatten, Graph, Input, Linear, Neuron, Node, Output, Stage
from snnkd_deploy.passes.bias_planes import bias_planes
from snnkd_deploy.passes.relay_shortcuts import relay_shortcuts
from snnkd_deploy.target import Target, load_target
from tests.networks import Recipe, random_inputs, random_network

LOIHI, LOIHI2 = load_target("loihi"), load_target("loihi2")


def neuron(name: str, source: str, threshold: int, decay: float = 0.75) -> Neuron:
    return Neuron(
        name=name, inputs=(source,), decay=decay, threshold=np.array(threshold), decay_bits=12, fraction_bits=6
    )


def linear(name: str, source: str, weight: Any, **other: Any) -> Linear:
    weight = np.asarray(weight)
    return Linear(name=name, inputs=(source,), weight=weight, bias=np.arange(len(weight)), **other)


def chain(*nodes: Node, source: Input | None = None, timesteps: int = 4) -> Graph:
    first = source or Input(name="input", shape=(2, 5, 4), high=255)
    readout = nodes[-1].name
    return Graph(
        nodes=(first, *nodes, Output(name="output", inputs=(readout,))), timesteps=timesteps, stage=Stage.LEGAL
    )


def pictures(placement: Any = "chip", **source: Any) -> Graph:
    """conv, neurons, grouped conv, leaky neurons, readout; no side, stride or padding equal to its neighbour."""
    pick = np.random.default_rng(3).integers
    first = Conv2d(
        name="conv1",
        inputs=("input",),
        placement=placement,
        weight=pick(-90, 91, (4, 2, 3, 2)),
        bias=pick(-50, 51, 4),
        padding=(1, 0),
    )
    second = Conv2d(
        name="conv2",
        inputs=("lif1",),
        weight=pick(-90, 91, (6, 2, 2, 1)),
        bias=pick(-50, 51, 6),
        stride=(2, 1),
        padding=(0, 1),
        dilation=(2, 1),
        groups=2,
    )
    return chain(
        first,
        neuron("lif1", "conv1", 900),
        second,
        neuron("lif2", "conv2", 90, decay=1.0),
        Flatten(name="flatten", inputs=("lif2",)),
        linear("readout", "flatten", pick(-90, 91, (3, 60))),
        source=Input(name="input", shape=(2, 5, 4), **source),
    )


def features(*weights: Any, **source: Any) -> Graph:
    """Linear layers with neurons, the last one the readout."""
    nodes: list[Node] = []
    last = "input"
    for index, weight in enumerate(weights):
        nodes.append(linear(f"linear{index}", last, weight))
        last = f"lif{index}"
        nodes.append(neuron(last, f"linear{index}", 4))
    width = np.asarray(weights[0]).shape[1]
    return chain(*nodes[:-1], source=Input(name="input", shape=(width,), **source))


def changed(graph: Graph, name: str, **fields: Any) -> Graph:
    return replace(graph, nodes=tuple(replace(node, **fields) if node.name == name else node for node in graph))


def relayed() -> Graph:
    """Two residual blocks: a projection with a stride past a relay of one weight, an identity past copies."""
    pick = np.random.default_rng(5).integers

    def conv(name: str, source: str, into: int, out: int, size: int = 3, **other: Any) -> Conv2d:
        weight, pad = pick(-40, 60, (out, into // other.get("groups", 1), size, size)), (size // 2, size // 2)
        return Conv2d(name=name, inputs=(source,), weight=weight, bias=pick(-9, 10, out), padding=pad, **other)

    nodes = (
        Input(name="input", shape=(2, 6, 5), high=1, static=False),
        conv("conv0", "input", 2, 3),
        neuron("lif0", "conv0", 60),
        conv("conv1", "lif0", 3, 4, stride=(2, 2)),
        neuron("lif1", "conv1", 110),
        conv("conv2", "lif1", 4, 4),
        conv("project", "lif0", 3, 4, size=1, stride=(2, 2)),
        Add(name="add2", inputs=("conv2", "project")),
        neuron("lif2", "add2", 90),
        conv("conv3", "lif2", 4, 4),
        neuron("lif3", "conv3", 310),
        conv("conv4", "lif3", 4, 4),
        conv("identity", "lif2", 4, 4, size=1, groups=4),
        Add(name="add4", inputs=("conv4", "identity")),
        neuron("lif4", "add4", 60),
        Flatten(name="flatten", inputs=("lif4",)),
        linear("readout", "flatten", pick(-90, 91, (3, 36))),
        Output(name="output", inputs=("readout",)),
    )
    graph = Graph(nodes=nodes, timesteps=4, stage=Stage.INTEGER)
    row = relay_shortcuts(graph, LOIHI, Calibration(np.empty(0)))
    return replace(row, stage=Stage.LEGAL)


def biased(graph: Graph, name: str, *bias: int) -> Graph:
    """With biases that constant inputs carry."""
    return bias_planes(changed(graph, name, bias=np.array(bias)), LOIHI2, Calibration(np.empty(0)))


GRAPHS = {
    "host conv": (LOIHI, pictures("host", high=255)),
    "graded conv": (LOIHI2, pictures(high=255)),
    "frames of spikes": (LOIHI, pictures(high=1, static=False)),
    "relays": (LOIHI, relayed()),
    "graded conv with constants": (LOIHI2, biased(pictures(high=255), "conv1", 9000, -40000, 4095, -4096)),
    "graded frames with constants": (LOIHI2, biased(pictures(high=9, static=False), "conv1", -9000, 5000, 0, 70000)),
    "features with constants": (
        LOIHI2,
        biased(features([[1, -2], [3, 4]], [[5, -6]], high=9), "linear0", 5000, -40000),
    ),
    "graded frames": (LOIHI2, pictures(high=16, static=False)),
    "host frames": (LOIHI, pictures("host", low=-7, high=16, static=False)),
    "features": (LOIHI2, features([[1, -2], [3, 4]], [[5, -6]], high=9)),
    "flattened picture": (
        LOIHI2,
        chain(
            Flatten(name="flatten", inputs=("input",)),
            linear("linear", "flatten", np.arange(-60, 60).reshape(3, 40) // 6),
            neuron("lif", "linear", 500),
            linear("readout", "lif", [[1, -2, 3], [-4, 5, -6]]),
        ),
    ),
    "flattened on the host": (
        LOIHI,
        chain(
            Flatten(name="flatten", inputs=("input",), placement="host"),
            linear("linear", "flatten", np.arange(-60, 60).reshape(3, 40) // 6, placement="host"),
            neuron("lif", "linear", 500),
            linear("readout", "lif", [[1, -2, 3], [-4, 5, -6]]),
        ),
    ),
    "no positive weight": (LOIHI2, features([[-1, -1], [-1, -1]], [[-1, -2], [-16, -3]], [[2, 1]], low=0, high=9)),
    "no weight but zero": (LOIHI, features([[0, 0], [0, 0]], [[7, -3]], high=1)),
    "a picture into zeros": (LOIHI, changed(pictures("host"), "readout", weight=np.zeros((3, 60), int))),
}


def samples(graph: Graph, count: int = 12) -> Array:
    node, random = graph.input, np.random.default_rng(1)
    shape = (count, *node.sample_shape) if node.static else (graph.timesteps, count, *node.sample_shape)
    return random.integers(node.low, node.high + 1, shape)


CHAIN = Recipe(pools=("avg", "max"))
KEEPING = replace(CHAIN, current_decays=(0.5, 0.9, 1.0))


def compiled(seed: int, target: Target, recipe: Recipe = CHAIN) -> Graph:
    """A random network that this target can hold."""
    for attempt in range(seed, seed + 10000, 100):
        graph = random_network(attempt, recipe)
        with suppress(RefusedError):
            return lower(graph, target, Calibration(random_inputs(graph, 8))).legal
    raise AssertionError("every random network is refused")
