"""Neurons that always fire carry biases to currents that are kept, spike for spike."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.check import bias_problems
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import LegalityError, RefusedError
from snnkd_deploy.ir import Array, BiasedInput, Conv2d, Flatten, Graph, Input, Linear, Neuron, Relay, Stage
from snnkd_deploy.passes.bias_neurons import bias_neurons
from snnkd_deploy.passes.bias_planes import bias_planes
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import Target, load_target
from tests.exporters.netx_graphs import KEEPING, chain, changed, linear, neuron, pictures, samples
from tests.networks import random_inputs, random_network

LOIHI, LOIHI2, NOTHING = load_target("loihi"), load_target("loihi2"), Calibration(np.empty(0))


def keeping(name: str, source: str, threshold: int) -> Neuron:
    return replace(neuron(name, source, threshold), current_decay=0.75)


def dense(bias: list[int], threshold: int = 60) -> Graph:
    """Two dense layers; the second neurons keep their current, and the bias is theirs."""
    numbers = np.random.default_rng(2).integers
    nodes = (
        linear("one", "input", numbers(-40, 90, (5, 6))),
        neuron("first", "one", threshold),
        replace(linear("two", "first", numbers(-40, 90, (4, 5))), bias=np.array(bias)),
        keeping("second", "two", 150),
        linear("readout", "second", numbers(-9, 9, (3, 4))),
    )
    graph = chain(*nodes, source=Input(name="input", shape=(6,), high=1, static=False), timesteps=5)
    return replace(graph, stage=Stage.INTEGER)


def convolutional(bias: Array, side: int = 0) -> Graph:
    """The second neurons of two convolutions keep their current, and so do those behind the dense layer."""
    base = pictures(high=1, static=False)
    nodes = [
        base["conv1"],
        neuron("lif1", "conv1", 90),
        replace(base["conv2"], bias=bias, padding=(0, side)),  # type: ignore[call-arg]
        keeping("lif2", "conv2", 90),
        Flatten(name="flatten", inputs=("lif2",)),
        replace(
            linear("two", "flatten", np.random.default_rng(1).integers(-9, 20, (5, 36 + 24 * side))),
            bias=np.arange(-2, 3) * 99,
        ),
        keeping("lif3", "two", 150),
        linear("readout", "lif3", np.eye(5, dtype=int)),
    ]
    return replace(chain(*nodes, source=base.input), stage=Stage.INTEGER)


def assert_carried(graph: Graph) -> Graph:
    carried, inputs = bias_planes(bias_neurons(graph, LOIHI, NOTHING), LOIHI, NOTHING), samples(graph, 40)
    assert list(bias_problems(carried)) == []
    before, after = simulate(graph, inputs), simulate(carried, inputs)
    for name, spikes in before.spikes.items():
        assert 0 < spikes.mean() < 1, name
        assert_array_equal(after.spikes[name], spikes)
    assert_array_equal(after.logits, before.logits)
    return carried


@pytest.mark.parametrize("bias", [[0, 0, 0, 1], [12, -30, 0, 127], [128, -400, 255, 4]])
def test_every_spike_stays_where_dense_layers_get_their_bias_from_neurons(bias: list[int]) -> None:
    graph = dense(bias)
    carried = assert_carried(graph)
    count = -(-max(map(abs, bias)) // 127)
    first, two = carried["first"], carried["two"]
    assert isinstance(first, Relay)
    assert isinstance(two, Linear)
    assert (first.own, carried.shapes["first"]) == (5, (5 + count,))
    assert not two.bias.any()
    fired: dict[str, Array] = {}
    simulate(carried, samples(graph), lambda node, given, value: fired.update({node.name: value}))
    assert fired["first"][:, :, 5:].all()


def test_pictures_get_channels_and_every_tap_stays_inside() -> None:
    carried = assert_carried(convolutional(np.array([9, -30, 0, 200, 5, -128])))
    one, two = carried["conv1"], carried["conv2"]
    assert isinstance(one, Conv2d)
    assert isinstance(two, Conv2d)
    assert one.weight.shape[0] == 4 + 2
    assert (two.groups, two.weight.shape[1]) == (1, 4 + 2)  # groups are written out, with zeros between them
    assert carried.shapes["lif2"][0] == 6 + 1  # 198 of weight 127 and 71 at two of its pixels


def test_biases_that_no_current_keeps_stay_where_they_are() -> None:
    graph = changed(dense([1, 2, 3, 4]), "second", current_decay=0.0)
    assert bias_neurons(graph, LOIHI, NOTHING) is graph
    assert bias_neurons(dense([0, 0, 0, 0]), LOIHI, NOTHING).of(Relay) == ()
    graph = dense([1, 2, 3, 4])
    assert bias_neurons(graph, load_target("onnx"), NOTHING) is graph


def test_the_first_layer_of_spikes_gets_constant_spikes() -> None:
    graph = changed(
        changed(dense([0, 0, 0, 0]), "one", bias=np.array([1, -1, 127, 128, -300])), "first", current_decay=0.5
    )
    carried = assert_carried(graph)
    assert isinstance(carried.input, BiasedInput)
    assert carried.input.constant.tolist() == [1, 1, 1]
    assert carried.input.spikes


@pytest.mark.parametrize("bias", [[1, -1, 127, 0], [254, 255, 256, -383], [9000, -40000, 4095, -4096]])
def test_the_first_layer_of_pixels_gets_constant_pixels_to_the_last_unit(bias: list[int]) -> None:
    graph = changed(changed(pictures(high=255), "conv1", bias=np.array(bias)), "lif1", current_decay=0.5)
    graph = changed(replace(graph, stage=Stage.INTEGER), "lif1", threshold=np.array(20000))
    carried, inputs = bias_planes(graph, LOIHI2, NOTHING), samples(graph)
    assert isinstance(carried.input, BiasedInput)
    assert not carried["conv1"].bias.any()  # type: ignore[attr-defined]
    for name, spikes in simulate(graph, inputs).spikes.items():
        assert_array_equal(simulate(carried, inputs).spikes[name], spikes)


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (
            dense([1, 2, 3, 4], threshold=4095),
            "two: .* no bias fires first .*a threshold of 4095, a bias is at most 4095",
        ),
        (
            convolutional(np.arange(6), side=1),
            "conv2: .* has no tap that is inside the picture everywhere; use an odd kernel, or leave the bias out",
        ),
    ],
)
def test_what_cannot_be_carried_is_refused_with_advice(graph: Graph, reason: str) -> None:
    with pytest.raises(LegalityError, match=reason) as caught:
        bias_neurons(graph, LOIHI, NOTHING)
    assert "bias=False" in str(caught.value)


def test_neurons_of_a_threshold_just_below_the_largest_bias_can_fire_always() -> None:
    assert bias_neurons(dense([1, 2, 3, 4], threshold=4094), LOIHI, NOTHING).of(Relay)


@pytest.mark.parametrize("target", [LOIHI, LOIHI2], ids=["host", "planes"])
def test_neurons_behind_pixels_fire_by_the_host_or_by_constant_pixels(target: Target) -> None:
    """The thresholds there are beyond what a bias register holds."""
    graph = replace(changed(dense([5, -60, 0, 300]), "first", threshold=np.array(9000)), timesteps=3)
    graph = changed(graph, "input", high=255, static=True)
    carried = bias_planes(bias_neurons(graph, target, NOTHING), target, NOTHING)
    inputs = samples(graph, 40)
    before, after = simulate(graph, inputs), simulate(carried, inputs)
    for name, spikes in before.spikes.items():
        assert 0 < spikes.mean() < 1, name
        assert_array_equal(after.spikes[name], spikes)
    assert carried.of(Relay)
    assert bool(carried.of(BiasedInput)) == (target is LOIHI2)


def test_networks_that_keep_currents_reach_both_chips() -> None:
    relays = planes = 0
    for seed in range(80):
        graph = random_network(seed, KEEPING)
        calibration = Calibration(random_inputs(graph, 4, seed))
        for target in (LOIHI, LOIHI2):
            with suppress(RefusedError):
                legal = lower(graph, target, calibration).legal  # which compares spikes before and after
                relays, planes = relays + bool(legal.of(Relay)), planes + bool(legal.of(BiasedInput))
    assert relays > 10
    assert planes > 10
