"""Constant inputs carry the biases of the first layer that a register cannot hold, exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from snnkd_deploy.bounds import bounds
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import RefusedError
from snnkd_deploy.ir import BiasedInput, Conv2d, Flatten, Graph, Input, Linear, Stage
from snnkd_deploy.passes.bias_planes import bias_planes, carried_by_planes, inner_tap
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target
from tests.exporters.netx_graphs import chain, changed, linear, neuron, pictures, samples
from tests.networks import Recipe, random_inputs, random_network

LOIHI, LOIHI2, NOTHING = load_target("loihi"), load_target("loihi2"), Calibration(np.empty(0))


def first_layer(graph: Graph) -> Linear | Conv2d:
    return next(node for node in graph if isinstance(node, Linear | Conv2d))


def integer(graph: Graph, bias: list[int]) -> Graph:
    return replace(changed(graph, first_layer(graph).name, bias=np.array(bias)), stage=Stage.INTEGER)


DENSE = chain(
    Flatten(name="flatten", inputs=("input",)),
    linear("linear", "flatten", np.arange(-24, 24).reshape(4, 12)),
    neuron("lif", "linear", 30000),
    linear("readout", "lif", [[1, -2, 3, 4], [-4, 5, -6, 2]]),
    source=Input(name="input", shape=(1, 3, 4)),
)
FLAT = chain(
    *(replace(node, inputs=("input",)) if node.name == "linear" else node for node in DENSE.nodes[2:-1]),
    source=Input(name="input", shape=(12,)),
)
GRAPHS = {
    "still": pictures(),
    "frames": pictures(static=False, high=16),
    "stride": changed(changed(pictures(), "conv1", stride=(2, 1)), "readout", weight=np.arange(90).reshape(3, 30)),
    "flattened": DENSE,
    "features": FLAT,
}


@pytest.mark.parametrize("bias", [[4096, 0, -4096, 12], [36480, -36480, 4095, 1], [60000, -40000, 0, -4097]])
@pytest.mark.parametrize("case", GRAPHS)
def test_every_spike_and_every_worst_case_stay(case: str, bias: list[int]) -> None:
    graph = integer(GRAPHS[case], bias)
    carried, inputs = bias_planes(graph, LOIHI2, NOTHING), samples(graph)
    first = first_layer(carried)
    assert isinstance(carried.input, BiasedInput)
    assert np.abs(first.bias).max() <= 4095
    assert np.abs(first.weight).max() <= 127
    before, after = simulate(graph, inputs), simulate(carried, inputs)
    for name, spikes in before.spikes.items():
        assert_array_equal(after.spikes[name], spikes)
    assert_array_equal(after.logits, before.logits)
    assert_array_equal(bounds(carried).values[first.name], bounds(graph).values[first.name])


@pytest.mark.parametrize(("bias", "planes"), [(4095, 0), (4096, 1), (127 * 255 + 127, 1), (127 * 255 + 128, 2)])
def test_there_are_as_many_planes_as_the_bias_needs(bias: int, planes: int) -> None:
    carried = bias_planes(integer(pictures(), [-bias, 0, 0, 0]), LOIHI2, NOTHING)
    assert carried.input.shape[0] - carried.input.sample_shape[0] == planes


def test_dense_layers_take_single_messages() -> None:
    source = bias_planes(integer(DENSE, [50000, 0, 0, 0]), LOIHI2, NOTHING).input
    assert isinstance(source, BiasedInput)
    assert source.constant.shape == (1, 3, 4)
    assert source.constant.sum() == 2 * 255


@pytest.mark.parametrize("size", range(3, 9))
@pytest.mark.parametrize("kernel", range(1, 5))
@pytest.mark.parametrize("padding", range(4))
def test_an_inner_tap_is_inside_at_every_position_and_found_if_there_is_one(
    size: int, kernel: int, padding: int
) -> None:
    for stride in (1, 2, 3):
        for dilation in (1, 2):
            span = dilation * (kernel - 1)
            starts = range(-padding, size + padding - span, stride)
            inside = [tap for tap in range(kernel) if all(0 <= at + tap * dilation < size for at in starts)]
            layer = Conv2d(
                name="c", inputs=("x",), weight=np.zeros((1, 1, kernel, 1)), bias=np.zeros(1),
                stride=(stride, 1), padding=(padding, 0), dilation=(dilation, 1),
            )  # fmt: skip
            if starts:
                assert inner_tap(layer, (1, size, 1)) == ((inside[0], 0) if inside else None)


@pytest.mark.parametrize(
    "graph",
    [
        pictures(high=1),
        changed(pictures(), "conv1", padding=(2, 1)),
        changed(pictures(), "conv1", groups=2, weight=np.ones((4, 1, 3, 2), np.int64)),
        changed(pictures(), "conv2", inputs=("input",)),
    ],
    ids=["spikes", "no inner tap", "groups", "two readers"],
)
def test_what_no_plane_can_carry_keeps_the_limit_of_its_register(graph: Graph) -> None:
    assert carried_by_planes(graph, LOIHI2) == frozenset()
    graph = integer(graph, [4096, 0, 0, 0])
    assert bias_planes(graph, LOIHI2, NOTHING) is graph


def test_targets_say_whether_they_have_constant_inputs() -> None:
    graph = integer(pictures(), [4096, 0, 0, 0])
    assert carried_by_planes(graph, LOIHI2) == {"conv1"}
    silent = replace(LOIHI2, entry=replace(LOIHI2.entry, message_bits=0))
    without = replace(LOIHI2, nodes=tuple({*LOIHI2.nodes} - {"BiasedInput"}))
    for target in (LOIHI, load_target("onnx"), without, silent):
        assert bias_planes(graph, target, NOTHING) is graph


def test_loihi_2_holds_the_integer_network_of_loihi_whatever_the_biases() -> None:
    carried = 0
    for seed in range(60):
        graph, random = random_network(seed, Recipe(spiking_input=False)), np.random.default_rng(seed)
        nodes = [
            replace(node, bias=3 * random.normal(size=len(node.bias))) if isinstance(node, Linear | Conv2d) else node
            for node in graph
        ]
        graph = replace(graph, nodes=tuple(nodes))
        samples = Calibration(random_inputs(graph, 4))
        try:
            one, two = (lower(graph, target, samples) for target in (LOIHI, LOIHI2))
        except RefusedError:
            continue
        if carried_by_planes(one.integer, LOIHI2):
            assert one.digest == two.digest == two.legal.origin
            carried += bool(two.legal.of(BiasedInput))
    assert carried > 10
