"""Weights, bias and threshold on one scale; everything fits the target, and the network still does what it did."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.check import graph_problems
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import ConfigError, GraphError, LegalityError
from snnkd_deploy.ir import (
    Add,
    Array,
    Attention,
    AvgPool2d,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    SumPool2d,
)
from snnkd_deploy.passes.fold_batchnorm import fold_batchnorm
from snnkd_deploy.passes.quantize import find_groups, quantize
from snnkd_deploy.passes.weight_shortcuts import weight_shortcuts
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import Target, load_target, target_names
from tests.networks import ANY, ATTENTIVE, CHAIN, LEAKS, random_inputs, random_network

ONNX, LOIHI = load_target("onnx"), load_target("loihi")


def dense(weight: Array, threshold: float = 1.0, decay: float | Array = 1.0, bias: Array | None = None) -> Graph:
    """Spikes in, one dense layer with neurons, an identity as readout."""
    out = len(weight)
    nodes = (
        Input(name="x", shape=(weight.shape[1],), high=1, static=False),
        Linear(name="w", inputs=("x",), weight=weight, bias=np.zeros(out) if bias is None else bias),
        Neuron(name="s", inputs=("w",), decay=decay, threshold=np.asarray(threshold)),
        Linear(name="r", inputs=("s",), weight=np.eye(out), bias=np.zeros(out)),
        Output(name="y", inputs=("r",)),
    )
    return Graph(nodes=nodes, timesteps=3)


def integers(graph: Graph, target: Target = ONNX, **options: object) -> Graph:
    folded = fold_batchnorm(graph, target, Calibration(np.empty(0)))
    return quantize(folded, target, Calibration(random_inputs(graph, 8), **options))  # type: ignore[arg-type]


def layer(graph: Graph, name: str) -> Linear | Conv2d:
    node = graph[name]
    assert isinstance(node, Linear | Conv2d)
    return node


def neuron(graph: Graph, name: str) -> Neuron:
    node = graph[name]
    assert isinstance(node, Neuron)
    return node


def test_one_scale_for_weight_bias_and_threshold_by_hand() -> None:
    # largest weight 0.5 and threshold 1: n = floor(127 / 0.5) = 254, unit 1 / 254
    graph = integers(dense(np.array([[0.5, -0.25], [0.1, 0.3]]), bias=np.array([0.02, -0.5])), method="max")
    assert neuron(graph, "s").threshold == 254
    assert layer(graph, "w").weight.tolist() == [[127, -64], [25, 76]]  # -63.5 rounds to even
    assert layer(graph, "w").bias.tolist() == [5, -127]


def test_whole_weights_survive_unchanged() -> None:
    weight = np.array([[3.0, -2.0], [1.0, 127.0]])
    graph = integers(dense(weight, threshold=5.0), method="max")
    np.testing.assert_array_equal(layer(graph, "w").weight, weight)
    assert neuron(graph, "s").threshold == 5


def test_per_channel_units_use_all_bits_of_each_channel() -> None:
    weight = np.array([[0.5, -0.25], [0.005, 0.003]])
    per_layer, per_channel = (integers(dense(weight), granularity=g, method="max") for g in ("layer", "channel"))
    assert abs(layer(per_layer, "w").weight[1]).max() == 1
    assert abs(layer(per_channel, "w").weight).max(axis=1).tolist() == [127, 127]
    assert neuron(per_channel, "s").threshold.tolist() == [254, 25400]


def test_thresholds_per_channel_become_one_threshold_where_a_layer_has_one() -> None:
    graph = dense(np.array([[0.55, -0.25], [0.25, 0.56]]))
    nodes = [replace(n, threshold=np.array([1.0, 2.0])) if isinstance(n, Neuron) else n for n in graph]
    graph = replace(graph, nodes=tuple(nodes))
    integer = integers(graph, LOIHI, method="max")
    assert neuron(integer, "s").threshold.ndim == 0
    inputs = random_inputs(graph, 50)
    np.testing.assert_array_equal(simulate(graph, inputs).spikes["s"], simulate(integer, inputs).spikes["s"])


def test_the_worst_case_decides_where_the_state_is_narrow() -> None:
    nodes = list(dense(np.full((1, 9), 0.5)).nodes)
    nodes[0] = Input(name="x", shape=(9,), scale=1 / 255, high=255)
    graph = replace(dense(np.full((1, 9), 0.5)), nodes=tuple(nodes))
    integer = integers(graph)
    weight = layer(integer, "w").weight
    reach = 255 * int(weight.sum()) + int(
        neuron(integer, "s").threshold
    )  # a membrane at its threshold, then all inputs
    assert 0.95 * 131071 < reach <= 131071
    assert weight.max() < 127


def test_average_pools_become_sums_and_the_next_unit_takes_the_area() -> None:
    pools = 0
    for seed in range(30):
        graph = random_network(seed, CHAIN)
        if graph.of(AvgPool2d):
            integer = integers(graph)
            assert not integer.of(AvgPool2d)
            assert len(integer.of(SumPool2d)) == len(graph.of(AvgPool2d))
            pools += 1
    assert pools > 3


def test_layers_that_meet_in_a_sum_share_a_unit() -> None:
    sums = 0
    for seed in range(60):
        graph = random_network(seed, ANY)
        if not graph.of(Add):
            continue
        samples = Calibration(random_inputs(graph, 8))
        try:
            compiled = lower(graph, ONNX, samples)
        except LegalityError:
            continue
        groups = find_groups(weight_shortcuts(compiled.folded, ONNX, samples))
        for group in (one for one in groups if len(one.members) > 1):
            units = {float(np.atleast_1d(layer(compiled.integer, name).unit)[0]) for name in group.members}  # type: ignore[arg-type]
            assert len(units) == 1
            sums += 1
    assert sums > 3


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("bits", [8, 4])
def test_integer_spikes_stay_close_to_the_float_ones(seed: int, bits: int) -> None:
    """The tolerance is loose at 4 bits on purpose: rounding to 15 levels moves spikes, but must not scramble them."""
    graph = random_network(seed, CHAIN)
    inputs = random_inputs(graph, 32, seed)
    try:
        compiled = lower(graph, ONNX, Calibration(inputs, weight_bits=bits))
    except LegalityError:
        return
    assert not graph_problems(compiled.integer)
    first = next(iter(compiled.integer.of(Neuron))).name
    expected, met = simulate(compiled.folded, inputs).spikes[first], simulate(compiled.integer, inputs).spikes[first]
    assert (expected == met).mean() > {8: 0.93, 4: 0.7}[bits]
    top = 2 ** (bits - 1) - 1
    assert all(
        np.abs(layer(compiled.integer, one.name).weight).max() <= top
        for one in compiled.integer
        if isinstance(one, Linear | Conv2d)
    )


def test_clipping_by_mse_beats_the_largest_weight_when_one_is_an_outlier() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(16, 64)) * 0.1
    weight[0, 0] = 0.9
    graph = dense(weight)
    inputs = random.integers(0, 2, (3, 200, 64))
    errors = {}
    for method in ("max", "mse"):
        integer = integers(graph, weight_bits=3, method=method)
        step = layer(integer, "w")
        errors[method] = float(((step.weight * step.unit - weight) @ inputs.reshape(-1, 64).T).std())
    assert errors["mse"] < 0.8 * errors["max"]


def test_a_percentile_of_the_weights_is_what_the_largest_integer_stands_for() -> None:
    weight = np.arange(1.0, 101.0).reshape(4, 25)
    graph = dense(weight, threshold=1000.0)
    eighty: dict[str, Any] = {"method": "percentile", "percentile": 80.0, "weight_bits": 4}
    per_layer = layer(integers(graph, ONNX, **eighty), "w")
    assert int((per_layer.weight == 7).sum()) > 20  # those above the 80th percentile, and what rounds up
    assert float(np.asarray(per_layer.unit)) == pytest.approx(np.percentile(weight, 80) / 7, rel=0.02)
    per_channel = layer(integers(graph, ONNX, granularity="channel", **eighty), "w")
    np.testing.assert_allclose(per_channel.unit, np.percentile(weight, 80, axis=1) / 7, rtol=0.02)  # type: ignore[arg-type]
    largest, whole = (integers(graph, method=m, percentile=100.0) for m in ("max", "percentile"))
    assert largest.digest == whole.digest


def test_the_decay_is_a_multiple_of_the_target_s_fraction() -> None:
    assert neuron(integers(dense(np.eye(2), decay=0.9)), "s").decay == round(0.9 * 4096) / 4096


def test_decays_per_channel_are_rounded_one_by_one() -> None:
    graph = dense(np.eye(3), decay=np.array([0.9, 1 / 3, 0.5]))
    assert np.asarray(neuron(integers(graph), "s").decay).tolist() == [3686 / 4096, 1365 / 4096, 0.5]


def test_decays_per_channel_are_refused_layer_by_layer_where_a_layer_has_one() -> None:
    graph = next(g for seed in range(60) if len((g := random_network(seed, LEAKS)).of(Neuron)) > 2)
    several = [node.name for node in graph.of(Neuron) if np.ndim(node.decay)]
    assert len(several) > 1
    with pytest.raises(LegalityError, match="one per channel") as caught:
        lower(graph, LOIHI, Calibration(random_inputs(graph, 4)))
    assert [reason.split(":")[0] for reason in caught.value.reasons] == several
    assert all(reason.endswith("train with one (--learn-decay layer)") for reason in caught.value.reasons)


def attentive(scale: float, threshold: float = 1.0, neurons: bool = True) -> Graph:
    """Three channels of 1 x 6 spikes, or currents, multiplied with themselves; neurons, the mean over time of these."""
    nodes: list[Node] = [
        Input(name="x", shape=(3, 1, 6), high=1, static=False),
        Conv2d(name="w", inputs=("x",), weight=np.eye(3).reshape(3, 3, 1, 1), bias=np.zeros(3)),
        Neuron(name="s", inputs=("w",), decay=0.5, threshold=np.asarray(0.5)),
    ]
    source = "s" if neurons else "w"
    nodes = nodes if neurons else nodes[:2]
    nodes += [
        Attention(name="a", inputs=(source, source, source), heads=1, scale=scale),
        Neuron(name="b", inputs=("a",), decay=0.5, threshold=np.asarray(threshold)),
        Flatten(name="f", inputs=("b",)),
        Linear(name="r", inputs=("f",), weight=np.ones((2, 18)), bias=np.zeros(2)),
        Output(name="y", inputs=("r",)),
    ]
    return Graph(nodes=tuple(nodes), timesteps=3)


@pytest.mark.parametrize(
    ("scale", "threshold", "counts"), [(0.25, 1.0, 4), (1 / 8, 1.0, 8), (0.1, 0.3, 3), (1, 2.5, 2)]
)
def test_the_scale_of_a_product_moves_into_the_threshold(scale: float, threshold: float, counts: int) -> None:
    graph = attentive(scale, threshold)
    integer = integers(graph)
    attention = integer["a"]
    assert isinstance(attention, Attention)
    assert attention.scale == 1
    assert neuron(integer, "b").threshold == counts
    inputs = random_inputs(graph, 30)
    if counts * scale == threshold:
        expected, met = simulate(graph, inputs).spikes["b"], simulate(integer, inputs).spikes["b"]
        assert 0 < met.mean() < 1
        np.testing.assert_array_equal(expected, met)


def test_products_that_are_no_counts_are_refused() -> None:
    with pytest.raises(GraphError, match=r"a: multiplies w \(Conv2d\); only spikes are accepted"):
        integers(attentive(0.25, neurons=False))
    with pytest.raises(LegalityError, match=r"b: its threshold 0\.2 is below 0\.25, which one product"):
        integers(attentive(0.25, threshold=0.2))


def test_a_stream_of_currents_has_one_unit() -> None:
    graphs = [random_network(seed, ATTENTIVE) for seed in range(40)]
    streams = 0
    for graph in (one for one in graphs if len(one.of(Add)) == 1):
        try:
            compiled = lower(graph, ONNX, Calibration(random_inputs(graph, 8)))
        except LegalityError:
            continue
        terms = [layer(compiled.integer, name).unit for name in compiled.integer.of(Add)[0].inputs]
        assert float(terms[0]) == float(terms[1])  # type: ignore[arg-type]
        streams += 1
    assert streams > 3


def test_neurons_behind_a_pool_of_spikes_count_in_its_unit() -> None:
    nodes: tuple[Node, ...] = (
        Input(name="x", shape=(1, 2, 2), high=1, static=False),
        AvgPool2d(name="p", inputs=("x",), kernel=(2, 2), stride=(2, 2)),
        Neuron(name="s", inputs=("p",), decay=0.5, threshold=np.asarray(0.5)),
        Flatten(name="f", inputs=("s",)),
        Linear(name="r", inputs=("f",), weight=np.ones((2, 1)), bias=np.zeros(2)),
        Output(name="y", inputs=("r",)),
    )
    graph = Graph(nodes=nodes, timesteps=3)
    integer, inputs = integers(graph), random_inputs(graph, 30)
    assert neuron(integer, "s").threshold == 2
    np.testing.assert_array_equal(simulate(graph, inputs).spikes["s"], simulate(integer, inputs).spikes["s"])


def test_refusals_name_layer_and_limit() -> None:
    with pytest.raises(LegalityError, match=r"s: with weights of 2 bits a threshold of 0\.1 is less than one unit"):
        integers(dense(np.full((2, 2), 0.5), threshold=0.1), weight_bits=2)
    with pytest.raises(ConfigError, match=r"weight bits 9: onnx takes 2\.\.8"):
        integers(dense(np.eye(2)), weight_bits=9)
    with pytest.raises(ConfigError, match="granularity 'channel': loihi takes layer"):
        integers(dense(np.eye(2)), LOIHI, granularity="channel")


@pytest.mark.parametrize("name", target_names())
def test_bits_and_granularity_are_those_of_the_target(name: str) -> None:
    target, graph = load_target(name), dense(np.eye(2))
    assert [layer(integers(graph, target, weight_bits=n), "w").weight.max() for n in (2, 8)] == [1, 127]
    for bits in (1, 9):
        with pytest.raises(ConfigError, match=rf"weight bits {bits}: {name} takes 2\.\.8"):
            integers(graph, target, weight_bits=bits)
    if name in ("loihi", "loihi2"):
        with pytest.raises(ConfigError, match=f"granularity 'channel': {name} takes layer"):
            integers(graph, target, granularity="channel")
    else:
        assert integers(graph, target, granularity="channel").of(Neuron)


def test_input_neurons_count_their_threshold_in_units_of_the_input() -> None:
    """More than 127.4 of 255 are at least 128, and 0.99 of one unit is none."""
    for threshold, expected in ((127.4 / 255, 127), (1 / 255, 1), (1.0, 255)):
        assert pixels(threshold)["p"].threshold == expected  # type: ignore[attr-defined]
    with pytest.raises(LegalityError, match=r"p: its threshold 0\.00388.* is below 0\.00392.*, one unit of the input"):
        pixels(0.99 / 255)


def pixels(threshold: float) -> Graph:
    graph = dense(np.array([[0.5, 0.8]]))
    neuron = Neuron(name="p", inputs=("x",), decay=1.0, threshold=np.asarray(threshold))
    source = replace(graph.input, high=255, scale=1 / 255, static=True)
    return integers(replace(graph, nodes=(source, neuron, replace(graph["w"], inputs=("p",)), *graph.nodes[2:])))
