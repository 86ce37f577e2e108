"""Worst cases hold, and are reached where they can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snnkd_deploy.bounds import Interval, bounds
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import LegalityError
from snnkd_deploy.ir import Array, Attention, Graph, Input, Neuron, Node, Output, Stage
from snnkd_deploy.simulate import kept_currents, membranes, simulate
from snnkd_deploy.target import load_target
from tests.networks import ATTENTIVE, EVERY_RESET, KEEPING, LEAKS, Recipe, random_inputs, random_network
from tests.test_simulate import one_neuron


@pytest.mark.parametrize(
    "recipe", [EVERY_RESET, ATTENTIVE, LEAKS, KEEPING], ids=["any", "attentive", "leaks", "keeping"]
)
@pytest.mark.parametrize("seed", range(60))
def test_no_value_ever_leaves_its_interval(seed: int, recipe: Recipe) -> None:
    graph = random_network(seed, recipe)
    inputs = random_inputs(graph, 16, seed)
    try:
        integer = lower(graph, load_target("onnx"), Calibration(inputs)).integer
    except LegalityError:
        return
    limits = bounds(integer)

    def look(node: Node, arguments: tuple[Array, ...], value: Array) -> None:
        if isinstance(node, Neuron):
            for kept in kept_currents(node, arguments[0], integer.timesteps):
                assert_within(limits.currents[node.name], kept[None], node)
            for membrane, _ in membranes(node, arguments[0], integer.timesteps):
                assert_within(limits.membranes[node.name], membrane[None], node)
        assert_within((limits.membranes if node is integer.output else limits.values)[node.name], value, node)

    simulate(integer, inputs, look)


def assert_within(interval: Interval, value: Array, node: Node) -> None:
    """All of `(time or 1, batch, *shape)`."""
    low, high = (side.reshape(-1, *[1] * (value.ndim - 3)) for side in interval)
    assert (value >= low).all(), node.name
    assert (value <= high).all(), node.name


def test_an_attention_is_bounded_by_tokens_times_the_products_of_a_head() -> None:
    shape = (4, 2, 3)
    nodes: list[Node] = [Input(name="x", shape=shape, low=-2, high=3)]
    nodes += [Attention(name="a", inputs=("x", "x", "x"), heads=2), Output(name="y", inputs=("a",))]
    limits = bounds(Graph(nodes=tuple(nodes), timesteps=1, stage=Stage.INTEGER)).values["a"]
    assert [side.tolist() for side in limits] == [[6 * 2 * -2 * 9] * 4, [6 * 2 * 27] * 4]


def test_a_membrane_that_only_falls_is_followed_through_the_steps() -> None:
    low, high = bounds(one_neuron(1.0, 10, "zero", 4)).membranes["s"]
    assert low.tolist() == [-200 * 64 * 4]
    assert high.tolist() == [(10 + 200) * 64]


def test_a_leaking_membrane_is_bounded_by_its_series() -> None:
    low, _ = bounds(one_neuron(0.5, 10, "zero", 3)).membranes["s"]
    assert low.tolist() == [-int(200 * 64 * (1 + 0.5 + 0.25))]


def test_each_channel_is_bounded_by_its_own_leak() -> None:
    graph = one_neuron(0.5, 10, "zero", 3)
    several = replace(graph.of(Neuron)[0], decay=np.array([0.5, 1.0, 0.25]), inputs=("x",))
    nodes = (replace(graph.input, shape=(3,)), several, Output(name="y", inputs=("s",)))
    low, _ = bounds(replace(graph, nodes=nodes)).membranes["s"]
    assert low.tolist() == [-int(200 * 64 * sums) for sums in (1.75, 3, 1.3125)]


def test_a_kept_current_is_bounded_by_its_series_and_adds_to_the_membrane() -> None:
    graph = one_neuron(1.0, 10, "none", 3)
    keeping = replace(graph.of(Neuron)[0], current_decay=0.5)
    limits = bounds(replace(graph, nodes=tuple(keeping if node.name == "s" else node for node in graph)))
    assert limits.currents["s"][1].tolist() == [200 * 64 * 1.75]
    assert limits.membranes["s"][1].tolist() == [200 * 64 * (1 + 1.5 + 1.75)]
    assert bounds(graph).currents["s"][1].tolist() == [200 * 64]


def test_subtraction_lets_a_membrane_grow() -> None:
    _, high = bounds(one_neuron(1.0, 10, "subtract", 3)).membranes["s"]
    assert high.tolist() == [(200 + 190 + 190) * 64]
    assert np.all(high > bounds(one_neuron(1.0, 10, "zero", 3)).membranes["s"][1])
