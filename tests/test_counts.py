"""Counts against nested loops over sample, step, channel, position and tap, written without a look at the counter."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.counts import Activations, Counts, Neurons, Pools, Products, Sums, Synapses, collapsed, count
from snnkd_deploy.errors import GraphError, InputError, LegalityError
from snnkd_deploy.ir import (
    Add,
    Array,
    Attention,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Output,
    Pool,
    Relu,
    Stage,
    SumPool2d,
)
from snnkd_deploy.passes.fold_batchnorm import fold_batchnorm
from snnkd_deploy.passes.fold_pooling import fold_pooling
from snnkd_deploy.simulate import sample_axis, simulate
from snnkd_deploy.target import load_target
from tests.networks import ANY, ATTENTIVE, CHAIN, Recipe, random_inputs, random_network, seeds

SAMPLES = 2
SLOW = settings(max_examples=100, deadline=None)


def integer_network(seed: int, recipe: Recipe | None = None) -> tuple[Graph, Array]:
    """An integer network of any kind, and samples for it."""
    graph = random_network(seed, recipe or (ANY if seed % 2 else CHAIN))
    inputs = random_inputs(graph, SAMPLES, seed)
    try:
        return lower(graph, load_target("onnx"), Calibration(inputs)).legal, inputs
    except LegalityError:
        assume(False)
        raise


def teacher_network(seed: int, recipe: Recipe = ANY) -> tuple[Graph, Array]:
    """The same with ReLUs for neurons, one step, real numbers."""
    graph = random_network(seed, replace(recipe, spiking_input=False, timesteps=(1, 1)))
    nodes = tuple(Relu(name=n.name, inputs=n.inputs) if isinstance(n, Neuron) else n for n in graph)
    relu = replace(graph, nodes=nodes)
    inputs = random_inputs(relu, SAMPLES, seed)
    return fold_batchnorm(relu, load_target("onnx"), Calibration(inputs)), inputs


class Loops:
    """The counts of one graph by brute force, node by node."""

    def __init__(self, graph: Graph, inputs: Array) -> None:
        self.graph = graph
        self.found: dict[str, dict[str, int]] = {}
        self.arrived: dict[str, Array] = {}
        simulate(graph, inputs, self.note)

    def note(self, node: Node, arguments: tuple[Array, ...], value: Array) -> None:
        arrived = np.zeros(value.shape, dtype=bool)
        counts = self.found.setdefault(node.name, dict.fromkeys(("events_in", "synops", "synops_nonzero", "unit"), 0))
        for place in product(*map(range, value.shape)):
            arrived[place] = self.one(node, arguments, value, place, counts)
        if isinstance(node, Conv2d | Linear):
            counts["events_in"] = sum(1 for number in arguments[0].flat if number != 0)
        if isinstance(node, Attention):
            counts.update(self.multiply(node, arguments))
        if isinstance(node, Neuron):
            counts["active"] = int(arrived.sum())
        self.arrived[node.name] = arrived

    def one(
        self, node: Node, arguments: tuple[Array, ...], value: Array, place: tuple[int, ...], counts: dict[str, int]
    ) -> bool:
        """Count what one output of one sample at one step reads; whether something arrives there."""
        step, sample, *where = place
        if isinstance(node, Conv2d | Linear):
            return self.weigh(node, arguments[0][step, sample], where, counts)
        before = [self.arrived[name] for name in node.inputs]
        steps = [step if len(one) > 1 else 0 for one in before]
        if isinstance(node, Neuron):
            return bool(before[0][(steps[0], sample, *where)]) or value[place] == 1
        if isinstance(node, Add):
            return any(one[(at, sample, *where)] for one, at in zip(before, steps, strict=True))
        if isinstance(node, Flatten):
            return bool(before[0][step, sample].reshape(-1)[where[0]])
        if isinstance(node, Pool):
            return self.pool(node, arguments[0][step, sample], before[0][step, sample], where, counts)
        return bool(np.any(value[place] != 0))

    def multiply(self, node: Attention, factors: tuple[Array, ...]) -> dict[str, int]:
        """Every pair that meets in either product, in the order with fewer of them where all are events."""
        time, batch, channels, height, width = factors[0].shape
        size, tokens = channels // node.heads, height * width
        done = {"events_in": sum(1 for one in factors for number in one.flat if number != 0), "and": 0, "adds": 0}
        for step, sample, head in product(range(time), range(batch), range(node.heads)):
            q, k, v = (one[step, sample].reshape(node.heads, size, tokens)[head] for one in factors)
            first, second, reader = (k, v, q) if size <= tokens else (k.T, q.T, v.T)
            done["and"] += sum(1 for a, b in product(first, second) for n in range(len(a)) if a[n] and b[n])
            done["adds"] += sum(1 for row, _ in product(reader, range(len(reader))) for number in row if number)
        return done

    def weigh(self, node: Conv2d | Linear, x: Array, where: list[int], counts: dict[str, int]) -> bool:
        some = node.bias[where[0]] != 0
        for number, weight in reads(node, x, where):
            if number != 0:
                some = True
                counts["synops"] += 1
                counts["synops_nonzero"] += bool(weight != 0)
                counts["unit"] += int(number)
        return bool(some)

    def pool(self, node: Pool, x: Array, arrived: Array, where: list[int], counts: dict[str, int]) -> bool:
        some = False
        for row, column in product(range(node.kernel[0]), range(node.kernel[1])):
            at = (where[0], where[1] * node.stride[0] + row, where[2] * node.stride[1] + column)
            counts["synops"] += bool(x[at] != 0)
            some = some or bool(arrived[at])
        return some


def reads(node: Conv2d | Linear, x: Array, where: list[int]) -> list[tuple[Any, Any]]:
    """The numbers that one output reads, each with its weight; none on padding."""
    if isinstance(node, Linear):
        return list(zip(x, node.weight[where[0]], strict=True))
    out, per_group, rows, columns = node.weight.shape
    first = where[0] // (out // node.groups) * per_group
    found = []
    for channel, row, column in product(range(per_group), range(rows), range(columns)):
        y = where[1] * node.stride[0] + row * node.dilation[0] - node.padding[0]
        z = where[2] * node.stride[1] + column * node.dilation[1] - node.padding[1]
        if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
            found.append((x[first + channel, y, z], node.weight[where[0], channel, row, column]))
    return found


def feeding(graph: Graph, node: Node) -> str:
    """What kind of value arrives: looked up by hand, from the far end."""
    source = graph[node.inputs[0]]
    if isinstance(source, Flatten | MaxPool2d):
        return feeding(graph, source)
    if isinstance(source, SumPool2d):
        return "sums" if feeding(graph, source) == "spikes" and source.kernel != (1, 1) else feeding(graph, source)
    if isinstance(source, Add):
        parts = [graph[name] for name in source.inputs]
        return "sums" if all(isinstance(part, Neuron) for part in parts) else "values"
    if isinstance(source, Input):
        return "spikes" if source.spikes else "picture"
    return "spikes" if isinstance(source, Neuron) else "values"


def check_synapses(graph: Graph, layer: Synapses, met: dict[str, int], evaluations: int) -> None:
    node = graph[layer.name]
    assert isinstance(node, Conv2d | Linear)
    shape, places = graph.shapes[node.inputs[0]], list(product(*map(range, graph.shapes[node.name])))
    taps = [pair for place in places for pair in reads(node, np.ones(shape), list(place))]
    assert layer.input_kind == feeding(graph, node)
    assert (layer.events_in, layer.synops, layer.synops_nonzero) == (
        met["events_in"],
        met["synops"],
        met["synops_nonzero"],
    )
    multiply = layer.input_kind != "spikes"
    assert layer.event_macs == multiply * met["synops"]
    assert layer.event_macs_nonzero == multiply * met["synops_nonzero"]
    assert layer.synops_unit == (met["unit"] if layer.input_kind in ("spikes", "sums") else None)
    assert layer.dense_macs == len(places) * int(np.prod(node.weight.shape[1:]))
    assert layer.dense_macs_inrange == len(taps)
    assert layer.dense_macs_nonzero == sum(1 for _, weight in taps if weight != 0)
    assert layer.bias_adds == evaluations * sum(1 for place in places if node.bias[place[0]] != 0)


def check(graph: Graph, inputs: Array) -> None:
    """Every count of every layer, to the integer."""
    counts, loops = count(graph, inputs, batch=1), Loops(graph, inputs)
    record = simulate(graph, inputs)
    assert counts.samples == SAMPLES
    for layer in counts.layers:
        met, size = loops.found[layer.name], int(np.prod(layer.shape))
        evaluations = SAMPLES * (1 if layer.name in graph.static else graph.timesteps)
        if isinstance(layer, Synapses):
            check_synapses(graph, layer, met, evaluations)
        elif isinstance(layer, Neurons):
            spikes, updates = record.spikes[layer.name], size * SAMPLES * graph.timesteps
            assert (layer.updates_active, layer.updates_inactive) == (met["active"], updates - met["active"])
            assert layer.spikes_out == spikes.sum()
            assert layer.spikes_per_step == tuple(spikes.sum(axis=tuple(range(1, spikes.ndim))))
            assert layer.rate == pytest.approx(spikes.mean())
        elif isinstance(layer, Pools):
            assert layer.pool_ops == met["synops"]
        elif isinstance(layer, Products):
            assert (layer.attention_and, layer.attention_adds) == (met["and"], met["adds"])
            assert layer.events_in == met["events_in"]
        elif isinstance(layer, Sums):
            assert layer.residual_adds == evaluations * size * (len(graph[layer.name].inputs) - 1)
        elif isinstance(layer, Activations):
            assert layer.compares == evaluations * size


@SLOW
@given(seed=seeds)
def test_integer_networks_are_counted_exactly(seed: int) -> None:
    check(*integer_network(seed))


@SLOW
@given(seed=seeds)
def test_teachers_are_counted_exactly(seed: int) -> None:
    check(*teacher_network(seed))


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_products_of_spikes_are_counted_exactly(seed: int) -> None:
    check(*integer_network(seed, ATTENTIVE))


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_products_of_a_teacher_are_counted_exactly(seed: int) -> None:
    check(*teacher_network(seed, ATTENTIVE))


@pytest.mark.parametrize(("shape", "order"), [((4, 2, 3), "context"), ((4, 1, 1), "scores")])
def test_an_attention_multiplies_in_the_shorter_order_and_each_pair_once(shape: tuple[int, ...], order: str) -> None:
    nodes: list[Node] = [Input(name="x", shape=shape, high=1, static=False)]
    nodes += [Attention(name="a", inputs=("x", "x", "x"), heads=2), Output(name="y", inputs=("a",))]
    counts = count(Graph(nodes=tuple(nodes), timesteps=1, stage=Stage.INTEGER), np.ones((1, 2, *shape), dtype=int))
    layer = counts["a"]
    assert isinstance(layer, Products)
    tokens = shape[1] * shape[2]
    pairs = {"context": 2 * 2 * 2 * tokens, "scores": 2 * 2 * tokens * tokens}  # 2 heads of 2 channels, each product
    assert (layer.order, layer.input_kind, layer.events_in) == (order, "spikes", 2 * 3 * 4 * tokens)
    assert layer.attention_and == layer.attention_adds == 2 * pairs[order]
    assert layer.dense_macs == layer.ann_macs_nonzero == 2 * pairs[order] == 2 * min(pairs.values())


def rows(counts: Counts) -> list[dict[str, Any]]:
    return [asdict(layer) for layer in counts.layers]


@settings(max_examples=15, deadline=None)
@given(seed=seeds, batch=st.integers(min_value=1, max_value=8))
def test_batch_size_and_sample_order_do_not_matter(seed: int, batch: int) -> None:
    graph, _ = integer_network(seed)
    inputs = random_inputs(graph, 7, seed)
    shuffled = np.take(inputs, np.random.default_rng(seed).permutation(7), axis=sample_axis(graph))
    assert rows(count(graph, inputs)) == rows(count(graph, shuffled, batch=batch))


def pooled_network(kind: str) -> Graph:
    """Two spiking planes, a 2x2 sum pool, then a padded convolution or a readout: integers, no two weights alike."""
    random = np.random.default_rng(5)
    nodes: list[Node] = [
        Input(name="input", shape=(2, 8, 6), high=1, static=False),
        Neuron(name="lif", inputs=("input",), decay=0.5, threshold=np.asarray(0), decay_bits=12, fraction_bits=6),
        SumPool2d(name="pool", inputs=("lif",), kernel=(2, 2), stride=(2, 2)),
    ]
    if kind == "conv":
        weight = random.permutation(np.arange(-27, 27)).reshape(3, 2, 3, 3)
        conv = Conv2d(name="layer", inputs=("pool",), weight=weight, bias=np.array([0, 1, 0]), padding=(1, 1))
        nodes += [conv, Neuron(name="lif2", inputs=("layer",), decay=0.0, threshold=np.asarray(9))]
        nodes += [Flatten(name="flat", inputs=("lif2",))]
        nodes += [Linear(name="readout", inputs=("flat",), weight=np.arange(72).reshape(2, 36), bias=np.zeros(2, int))]
    else:
        nodes += [Flatten(name="flat", inputs=("pool",))]
        dense = random.permutation(np.arange(-24, 24)).reshape(2, 24)
        nodes += [Linear(name="layer", inputs=("flat",), weight=dense, bias=np.zeros(2, int))]
    nodes += [Output(name="output", inputs=(nodes[-1].name,))]
    return Graph(nodes=tuple(nodes), timesteps=3, stage=Stage.INTEGER)


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_a_pool_folded_into_a_kernel_is_found_and_counted_per_spike(kind: str) -> None:
    graph = pooled_network(kind)
    inputs = random_inputs(graph, 5)
    folded = fold_pooling(graph, load_target("loihi2"), Calibration(inputs))
    assert "pool" not in folded
    before, after = count(graph, inputs)["layer"], count(folded, inputs)["layer"]
    assert isinstance(before, Synapses)
    assert isinstance(after, Synapses)
    assert (before.input_kind, before.pool_mode, before.pool_window) == ("sums", "graded", (1, 1))
    assert (after.input_kind, after.pool_mode, after.pool_window) == ("spikes", "folded", (2, 2))
    assert (after.synops, after.synops_nonzero) == (before.synops_unit, before.synops_unit_nonzero)
    assert (after.ann_macs, after.ann_macs_inrange) == (before.dense_macs, before.dense_macs_inrange)
    assert after.ann_macs_nonzero == before.dense_macs_nonzero
    assert after.dense_macs == 4 * before.dense_macs
    assert after.ann_pool_adds == 2 * 8 * 6
    assert before.event_macs == before.synops > 0
    assert after.event_macs == 0


def one_layer(layer: Conv2d | Linear, shape: tuple[int, ...], *before: Node) -> Graph:
    """Pixels, what comes before the layer, the layer, the sum over time."""
    nodes = (Input(name="input", shape=shape, high=9), *before, layer, Output(name="output", inputs=("layer",)))
    return Graph(nodes=nodes, timesteps=1, stage=Stage.INTEGER)


@settings(max_examples=200, deadline=None)
@given(seed=seeds)
def test_a_window_is_taken_out_of_a_kernel_only_where_that_changes_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = (2, int(random.integers(4, 9)), int(random.integers(4, 9)))
    rows, columns = (int(one) for one in random.integers(1, 5, size=2))
    weight = np.broadcast_to(random.integers(-1, 2, size=(3, 2, rows, 1)), (3, 2, rows, columns)).copy()
    stride, padding = ((int(a), int(b)) for a, b in random.integers([[1, 1], [0, 0]], 5, size=(2, 2)))
    conv = Conv2d(name="layer", inputs=("input",), weight=weight, bias=np.zeros(3, int), stride=stride, padding=padding)
    taps = np.repeat(random.integers(0, 2, size=(3, 2, shape[1], -(-shape[2] // 3))), 3, axis=3)[..., : shape[2]]
    flat = Flatten(name="flat", inputs=("input",))
    linear = Linear(name="layer", inputs=("flat",), weight=taps.reshape(3, -1), bias=np.zeros(3, int))
    for graph in (one_layer(conv, shape), one_layer(linear, shape, flat)):
        same_behind_its_pool(graph, shape, random_inputs(graph, 2, seed))


def same_behind_its_pool(graph: Graph, shape: tuple[int, ...], inputs: Array) -> None:
    node = graph["layer"]
    assert isinstance(node, Conv2d | Linear)
    found = collapsed(node, graph)
    pool = SumPool2d(name="pool", inputs=("input",), kernel=found.window, stride=found.window)
    flat = Flatten(name="flat", inputs=("pool",))
    before: tuple[Node, ...] = (pool, flat) if isinstance(node, Linear) else (pool,)
    small = one_layer(replace(found.node, inputs=(before[-1].name,)), shape, *before)
    assert small.shapes[before[-1].name] == found.shape
    assert_array_equal(simulate(small, inputs).logits, simulate(graph, inputs).logits)


def test_sums_of_spikes_from_a_residual_are_graded() -> None:
    nodes = (
        Input(name="input", shape=(3,), high=2, static=False),
        Neuron(name="a", inputs=("input",), decay=0.0, threshold=np.asarray(0)),
        Neuron(name="b", inputs=("input",), decay=0.0, threshold=np.asarray(1)),
        Add(name="add", inputs=("a", "b")),
        Linear(name="layer", inputs=("add",), weight=np.array([[5, 0, 7]]), bias=np.array([0])),
        Output(name="output", inputs=("layer",)),
    )
    counts = count(Graph(nodes=nodes, timesteps=1, stage=Stage.INTEGER), np.array([[[1, 2, 0]]]))
    layer = counts.synapses()[0]
    assert (layer.input_kind, layer.fed_by) == ("sums", ("a", "b"))
    assert (layer.events_in, layer.event_macs, layer.event_macs_nonzero) == (2, 2, 1)
    assert (layer.synops_unit, layer.synops_unit_nonzero) == (3, 1)
    assert counts.total("residual_adds") == 3


def test_a_layer_behind_a_layer_reads_values() -> None:
    inner = Linear(name="inner", inputs=("input",), weight=np.array([[1, 1], [1, -1]]), bias=np.array([0, 0]))
    layer = Linear(name="layer", inputs=("inner",), weight=np.array([[1, 2]]), bias=np.array([0]))
    counts = count(one_layer(layer, (2,), inner), np.array([[3, 3], [3, 1]]))
    found = counts.synapses()[1]
    assert (found.input_kind, found.events_in, found.event_macs, found.synops_unit) == ("values", 3, 3, None)


def test_the_class_of_a_layer_does_not_depend_on_the_values_met() -> None:
    graph = pooled_network("conv")
    silent = count(graph, np.zeros((3, 2, 2, 8, 6), dtype=np.int64))["layer"]
    assert isinstance(silent, Synapses)
    assert (silent.input_kind, silent.events_in, silent.bias_adds) == ("sums", 0, 2 * 3 * 12)


def test_a_neuron_that_fires_on_what_it_kept_is_active() -> None:
    nodes = (
        Input(name="input", shape=(1,), high=9, static=False),
        Linear(name="layer", inputs=("input",), weight=np.array([[1], [0]]), bias=np.array([0, 0])),
        Neuron(name="lif", inputs=("layer",), decay=1.0, threshold=np.asarray(1), reset="subtract"),
        Output(name="output", inputs=("lif",)),
    )
    graph = Graph(nodes=nodes, timesteps=4, stage=Stage.INTEGER)
    lif = count(graph, np.array([3, 0, 0, 0]).reshape(4, 1, 1))["lif"]
    assert isinstance(lif, Neurons)
    assert lif.spikes_per_step == (1, 1, 0, 0)
    assert (lif.updates_active, lif.updates_inactive) == (3, 5)  # both at step 1: a zero weight delivers; one at step 2
    assert (lif.leak_multiplies, lif.reset_adds, lif.compares) == (0, 2, 8)


def test_a_still_picture_is_read_once_a_sample() -> None:
    nodes = (
        Input(name="input", shape=(4,), high=9),
        Linear(name="layer", inputs=("input",), weight=np.ones((2, 4), dtype=int), bias=np.array([1, 0])),
        Neuron(name="lif", inputs=("layer",), decay=0.5, threshold=np.asarray(5), decay_bits=1),
        Output(name="output", inputs=("lif",)),
    )
    counts = count(Graph(nodes=nodes, timesteps=6, stage=Stage.INTEGER), np.array([[1, 0, 2, 0], [0, 0, 0, 3]]))
    layer, lif = counts.synapses()[0], counts["lif"]
    assert (layer.events_in, layer.event_macs, layer.dense_macs, layer.bias_adds) == (3, 6, 8, 2)
    assert (layer.static, layer.feeds, layer.fed_by) == (True, "lif", ())
    assert isinstance(lif, Neurons)
    assert (lif.updates_active, lif.leak_multiplies) == (24, 24)
    assert_array_equal(counts.events["layer"], [1, 0, 1, 1])


def test_channels_that_do_not_leak_multiply_nothing() -> None:
    nodes = (
        Input(name="input", shape=(4, 2, 1), high=1, static=False),
        Neuron(
            name="lif", inputs=("input",), decay=np.array([0.5, 1.0, 0.0, 0.25]), threshold=np.asarray(1), decay_bits=2
        ),
        Flatten(name="flat", inputs=("lif",)),
        Output(name="output", inputs=("flat",)),
    )
    lif = count(Graph(nodes=nodes, timesteps=3, stage=Stage.INTEGER), np.ones((3, 5, 4, 2, 1), dtype=int))["lif"]
    assert isinstance(lif, Neurons)
    assert (lif.compares, lif.leak_multiplies) == (3 * 5 * 8, 3 * 5 * 4)


def test_a_current_that_is_kept_is_multiplied_and_added_too() -> None:
    nodes = (
        Input(name="input", shape=(2,), high=1, static=False),
        Neuron(
            name="lif",
            inputs=("input",),
            decay=1.0,
            threshold=np.asarray(1),
            decay_bits=2,
            current_decay=np.array([0.5, 1.0]),
        ),
        Output(name="output", inputs=("lif",)),
    )
    lif = count(Graph(nodes=nodes, timesteps=3, stage=Stage.INTEGER), np.zeros((3, 5, 2), dtype=int))["lif"]
    assert isinstance(lif, Neurons)
    assert (lif.compares, lif.leak_multiplies, lif.membrane_adds) == (3 * 5 * 2, 3 * 5, 3 * 5 * 2)


def test_no_samples_are_refused() -> None:
    graph, inputs = integer_network(4)
    none = np.take(inputs, [], axis=sample_axis(graph))
    with pytest.raises(InputError, match="without samples"):
        count(graph, none)


def test_a_network_with_batchnorm_is_refused() -> None:
    graph = random_network(1)
    with pytest.raises(GraphError, match="fold its BatchNorm first"):
        count(graph, random_inputs(graph, 1))
