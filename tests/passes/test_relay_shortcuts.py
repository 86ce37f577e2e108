"""Shortcuts carried by relays: the same spikes in a row of layers, or a refusal that names the shortcut."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.check import chain_problems
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import LegalityError
from snnkd_deploy.ir import (
    Add,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Output,
    Relay,
    Stage,
)
from snnkd_deploy.passes.relay_shortcuts import drive, relay_shortcuts
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target
from tests.networks import Recipe, random_inputs, random_network

LOIHI, LOIHI2, ONNX, NOTHING = *map(load_target, ("loihi", "loihi2", "onnx")), Calibration(np.empty(0))
RESIDUAL = Recipe(residual=True, pools=())
SEEDS = [seed for seed in range(120) if random_network(seed, RESIDUAL).of(Add)]


def neuron(name: str, source: str, threshold: int = 60, decay: float = 0.5) -> Neuron:
    limit = np.asarray(threshold)
    return Neuron(name=name, inputs=(source,), decay=decay, threshold=limit, decay_bits=12, fraction_bits=6)


def conv(
    name: str,
    source: str,
    into: int,
    out: int,
    kernel: int = 3,
    stride: int = 1,
    seed: int = 0,
    padding: int | None = None,
) -> Conv2d:
    pick = np.random.default_rng(seed).integers
    weight, bias, strides = pick(-40, 60, (out, into, kernel, kernel)), pick(-9, 10, out), (stride, stride)
    pad = kernel // 2 if padding is None else padding
    return Conv2d(name=name, inputs=(source,), weight=weight, bias=bias, stride=strides, padding=(pad, pad))


def network(*nodes: Node, timesteps: int = 4, **source: Any) -> Graph:
    """Input, conv c0, neurons s0, what is asked about, then a dense readout of the last node."""
    first = Input(name="x", shape=(2, 8, 8), **source)
    front: list[Node] = [first, conv("c0", "x", 2, 3), neuron("s0", "c0", 4000), *nodes]
    front.append(Flatten(name="f", inputs=(front[-1].name,)))
    features = Graph(nodes=tuple(front), timesteps=timesteps).shapes["f"][0]
    weight = np.random.default_rng(1).integers(-9, 10, (4, features))
    front.append(Linear(name="r", inputs=("f",), weight=weight, bias=np.zeros(4, np.int64)))
    return Graph(nodes=(*front, Output(name="y", inputs=("r",))), timesteps=timesteps, stage=Stage.INTEGER)


def residual(threshold: int, decay: float, stride: int = 1) -> Graph:
    """A block with a projection, then one with an identity."""
    eye = Conv2d(name="i2", inputs=("s2",), weight=np.full((5, 1, 1, 1), 70), bias=np.zeros(5, np.int64), groups=5)
    return network(
        conv("c1", "s0", 3, 5, stride=stride),
        neuron("s1", "c1", threshold, decay),
        conv("c2", "s1", 5, 5),
        conv("p2", "s0", 3, 5, kernel=1, stride=stride),
        Add(name="a2", inputs=("c2", "p2")),
        neuron("s2", "a2", 70, decay),
        conv("c3", "s2", 5, 5, seed=1),
        neuron("s3", "c3", threshold, decay),
        conv("c4", "s3", 5, 5, seed=2),
        eye,
        Add(name="a4", inputs=("c4", "i2")),
        neuron("s4", "a4", 65, decay),
    )


def sums_of_spikes() -> Graph:
    """Two blocks that add spikes to spikes, the second one with neurons in its shortcut."""
    return network(
        conv("c1", "s0", 3, 3),
        neuron("s1", "c1"),
        Add(name="a1", inputs=("s1", "s0")),
        conv("c2", "a1", 3, 5, stride=2),
        neuron("s2", "c2", 300),
        conv("c3", "s2", 5, 5),
        neuron("s3", "c3"),
        conv("p3", "a1", 3, 5, kernel=1, stride=2),
        neuron("q3", "p3", 30),
        Add(name="a3", inputs=("s3", "q3")),
        conv("c4", "a3", 5, 4),
        neuron("s4", "c4"),
    )


def same_spikes(graph: Graph, row: Graph, seed: int = 0) -> list[float]:
    """Compares them on random samples; the rates."""
    inputs = random_inputs(graph, 12, seed)
    before, after = simulate(graph, inputs), simulate(row, inputs)
    assert list(after.spikes) == list(before.spikes)
    for name, spikes in before.spikes.items():
        np.testing.assert_array_equal(after.spikes[name], spikes)
    np.testing.assert_array_equal(after.logits, before.logits)
    return [float(spikes.mean()) for spikes in before.spikes.values()]


CASES = {
    "one weight is enough": residual(100, 0.5),
    "a bias helps": residual(200, 0.5),
    "copies are needed": residual(700, 0.5),
    "no leak": residual(400, 1.0),
    "strides": residual(300, 0.75, stride=2),
    "sums of spikes": sums_of_spikes(),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", [LOIHI, LOIHI2], ids=["loihi", "loihi2"])
def test_every_spike_stays_in_a_row_of_layers(case: str, target: object) -> None:
    graph = CASES[case]
    row = relay_shortcuts(graph, target, NOTHING)  # type: ignore[arg-type]
    assert not list(chain_problems(row))
    rates = same_spikes(graph, row)
    assert all(0 < rate < 1 for rate in rates)


def test_layers_of_copies_stand_only_where_a_weight_and_a_bias_are_too_small() -> None:
    copies = {case: len(relay_shortcuts(graph, LOIHI, NOTHING).nodes) for case, graph in CASES.items()}
    names = [node.name for node in relay_shortcuts(CASES["copies are needed"], LOIHI, NOTHING)]
    assert {"s1.copies", "s3.copies"} <= set(names)
    assert copies["one weight is enough"] == copies["a bias helps"] == copies["copies are needed"] - 4


def test_the_input_is_carried_if_it_is_spikes() -> None:
    def graph(**source: Any) -> Graph:
        return network(
            conv("c1", "s0", 3, 5),
            conv("p1", "x", 2, 5, kernel=1),
            Add(name="a1", inputs=("c1", "p1")),
            neuron("s1", "a1"),
            **source,
        )

    frames = graph(high=1, static=False)
    same_spikes(frames, relay_shortcuts(frames, LOIHI, NOTHING))
    with pytest.raises(LegalityError, match="x: s1, behind other neurons, reads pixels; relays carry spikes alone"):
        relay_shortcuts(graph(high=255), LOIHI, NOTHING)


ENDS = replace(RESIDUAL, input_neurons=True, counted=True)


@pytest.mark.parametrize(
    "recipe", [RESIDUAL, replace(RESIDUAL, decays_per_channel=True), ENDS], ids=["layers", "leaks", "ends"]
)
@pytest.mark.parametrize("seed", SEEDS[:12])
def test_random_residual_networks_keep_every_spike(seed: int, recipe: Recipe) -> None:
    """With one decay in a layer, or with decays per channel, which no shipped target with relays has."""
    graph = random_network(seed, recipe)
    try:
        integer = lower(graph, ONNX, Calibration(random_inputs(graph, 8))).integer
    except LegalityError:
        return
    same_spikes(integer, relay_shortcuts(integer, LOIHI, NOTHING), seed)


def test_dense_networks_with_shortcuts_are_carried_too() -> None:
    pick = np.random.default_rng(0).integers

    def dense(name: str, source: str) -> Linear:
        return Linear(name=name, inputs=(source,), weight=pick(-60, 90, (6, 6)), bias=pick(-9, 10, 6))

    nodes: tuple[Node, ...] = (
        Input(name="x", shape=(6,), high=9),
        dense("c0", "x"),
        neuron("s0", "c0", 400),
        dense("c1", "s0"),
        neuron("s1", "c1", 300),
        dense("c2", "s1"),
        dense("p2", "s0"),
        Add(name="a", inputs=("c2", "p2")),
        neuron("s2", "a"),
        dense("r", "s2"),
        Output(name="y", inputs=("r",)),
    )
    graph = Graph(nodes=nodes, timesteps=4, stage=Stage.INTEGER)
    same_spikes(graph, relay_shortcuts(graph, LOIHI, NOTHING))


@pytest.mark.parametrize("threshold", [1, 126, 127, 128, 200, 254, 255, 1000, 40000])
@pytest.mark.parametrize("decay", [0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("timesteps", [1, 2, 5])
def test_a_relay_fires_exactly_when_its_source_does(threshold: int, decay: float, timesteps: int) -> None:
    """Every spike train there is; and with one weight, or one unit, less it would not be exact."""
    limit = neuron("s", "c", threshold, round(decay * 4096) / 4096)
    feed = drive(limit, timesteps, LOIHI)
    assert feed.weight <= LOIHI.weights.maximum
    assert exact(limit, feed.copies * feed.weight, [feed.bias], timesteps) == [True]
    assert exact(limit, feed.copies * (feed.weight - 1), [feed.bias], timesteps) == [False]
    fewer = (feed.copies - 1) * LOIHI.weights.maximum
    assert not any(exact(limit, fewer, list(range(LOIHI.bias.maximum + 1)), timesteps))


def exact(limit: Neuron, weight: int, biases: list[int], timesteps: int) -> list[bool]:
    """For each bias, whether the neuron repeats every spike train that there is."""
    trains = np.array(list(product((0, 1), repeat=timesteps))).T[:, :, None]
    size = len(biases)
    nodes = (
        Input(name="x", shape=(1,), high=1, static=False),
        Linear(name="c", inputs=("x",), weight=np.full((size, 1), weight), bias=np.array(biases)),
        limit,
        Linear(name="r", inputs=("s",), weight=np.zeros((1, size), np.int64), bias=np.zeros(1, np.int64)),
        Output(name="y", inputs=("r",)),
    )
    spikes = simulate(Graph(nodes=nodes, timesteps=timesteps, stage=Stage.INTEGER), trains).spikes["s"]
    found: list[bool] = (spikes == trains).all(axis=(0, 1)).tolist()
    return found


REFUSED = {
    "strides that differ": (
        network(
            conv("c1", "s0", 3, 5, stride=2),
            neuron("s1", "c1"),
            conv("c2", "s1", 5, 5),
            conv("p2", "s0", 3, 5, kernel=3, stride=2),
            Add(name="a2", inputs=("c2", "p2")),
            neuron("s2", "a2"),
        ),
        r"s2: p2 reads s0 with stride \(2, 2\), and the layers .* keep every \(2, 2\)-th pixel",
    ),
    "pixels lost": (
        network(
            conv("c1", "s0", 3, 5, padding=0),
            neuron("s1", "c1"),
            conv("c2", "s1", 5, 5, padding=2),
            conv("p2", "s0", 3, 5, kernel=1),
            Add(name="a2", inputs=("c2", "p2")),
            neuron("s2", "a2"),
        ),
        r"s0: s1 of \(5, 6, 6\) has no room for all its pixels \(3, 8, 8\); pad the layer's kernel",
    ),
    "past a dense layer": (
        network(
            Flatten(name="f1", inputs=("s0",)),
            Linear(name="c1", inputs=("f1",), weight=np.ones((6, 192), np.int64), bias=np.zeros(6, np.int64)),
            neuron("s1", "c1"),
            Linear(name="c2", inputs=("s1",), weight=np.ones((7, 6), np.int64), bias=np.zeros(7, np.int64)),
            Linear(name="p2", inputs=("f1",), weight=np.ones((7, 192), np.int64), bias=np.zeros(7, np.int64)),
            Add(name="a2", inputs=("c2", "p2")),
            neuron("s2", "a2"),
        ),
        r"s0: its spikes \(3, 8, 8\) cannot be carried past s1, whose shape is \(6,\)",
    ),
    "spikes added to a current": (
        network(conv("c1", "s0", 3, 3), Add(name="a1", inputs=("c1", "s0")), neuron("s1", "a1")),
        "s0: Neuron where a Linear or Conv2d is needed in front of neurons",
    ),
    "a pool": (
        network(
            MaxPool2d(name="p", inputs=("s0",), kernel=(1, 1), stride=(1, 1)),
            Add(name="a1", inputs=("p", "s0")),
            conv("c1", "a1", 3, 3),
            neuron("s1", "c1"),
        ),
        "p: MaxPool2d between neurons and the layer that weighs their spikes",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_shortcut_that_cannot_be_carried_is_named(case: str) -> None:
    graph, message = REFUSED[case]
    with pytest.raises(LegalityError, match=message):
        relay_shortcuts(graph, LOIHI, NOTHING)


def test_rows_and_targets_without_relays_stay_as_they_are() -> None:
    row = network(conv("c1", "s0", 3, 3), neuron("s1", "c1"))
    assert relay_shortcuts(row, LOIHI, NOTHING) is row
    graph = residual(100, 0.5)
    assert relay_shortcuts(graph, ONNX, NOTHING) is graph
    plain = replace(LOIHI, nodes=tuple(name for name in LOIHI.nodes if name != "Relay"))
    assert relay_shortcuts(graph, plain, NOTHING) is graph


def test_one_integer_network_with_or_without_relays() -> None:
    carried = 0
    for seed in SEEDS[:20]:
        graph = random_network(seed, RESIDUAL)
        calibration = Calibration(random_inputs(graph, 8))
        try:
            on_loihi, on_onnx = (lower(graph, target, calibration) for target in (LOIHI, ONNX))
        except LegalityError:
            continue
        carried += on_loihi.digest == on_onnx.digest and bool(on_loihi.legal.of(Relay))
    assert carried > 5
