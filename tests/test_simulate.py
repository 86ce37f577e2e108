"""The definition against hand-worked numbers and against snnTorch."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from snnkd_deploy.errors import InputError
from snnkd_deploy.ir import Array, Graph, Input, Linear, Neuron, Output, Stage
from snnkd_deploy.simulate import batches, membranes, simulate
from tests.networks import ANY, random_inputs, random_network


def one_neuron(decay: float, threshold: int, reset: str, timesteps: int, bits: int = 12, static: bool = False) -> Graph:
    """A single neuron that sees its input unchanged."""
    identity, zero = np.ones((1, 1), dtype=np.int64), np.zeros(1, dtype=np.int64)
    neuron = Neuron(
        name="s",
        inputs=("w",),
        decay=decay,
        threshold=np.asarray(threshold),
        reset=reset,  # type: ignore[arg-type]
        decay_bits=bits,
        fraction_bits=6,
    )
    nodes = (
        Input(name="x", shape=(1,), low=-200, high=200, static=static),
        Linear(name="w", inputs=("x",), weight=identity, bias=zero),
        neuron,
        Linear(name="r", inputs=("s",), weight=identity, bias=zero),
        Output(name="y", inputs=("r",)),
    )
    return Graph(nodes=nodes, timesteps=timesteps, stage=Stage.INTEGER)


def spikes(graph: Graph, currents: list[int]) -> list[int]:
    values: Array = np.array(currents).reshape(-1, 1, 1)
    return [int(one) for one in simulate(graph, values).spikes["s"].ravel()]


def test_the_threshold_is_strict() -> None:
    assert spikes(one_neuron(1.0, 10, "zero", 3), [10, 0, 1]) == [0, 0, 1]


def test_reset_to_zero_forgets_and_reset_by_subtraction_keeps() -> None:
    assert spikes(one_neuron(1.0, 10, "zero", 3), [25, 0, 0]) == [1, 0, 0]
    assert spikes(one_neuron(1.0, 10, "subtract", 3), [25, 0, 0]) == [1, 1, 0]


def test_the_leak_keeps_sixty_fourths_and_truncates() -> None:
    # 1 -> 32/64 -> 16/64 -> ... -> 1/64 -> 0: six halvings leave 1/64, a seventh leaves nothing
    assert spikes(one_neuron(0.5, 10, "zero", 8), [1, 0, 0, 0, 0, 0, 0, 10]) == [0] * 8
    assert spikes(one_neuron(0.5, 10, "zero", 7), [1, 0, 0, 0, 0, 0, 10]) == [0] * 6 + [1]
    # negative values truncate toward zero too: -1/64 disappears, so 11 alone is above 10
    assert spikes(one_neuron(0.5, 10, "zero", 9), [-1, 0, 0, 0, 0, 0, 0, 0, 11]) == [0] * 8 + [1]


def test_logits_are_sums_over_time_of_the_readout() -> None:
    graph = one_neuron(1.0, 10, "zero", 4)
    assert simulate(graph, np.array([11, 11, 0, 11]).reshape(4, 1, 1)).logits.tolist() == [[3]]


def test_a_kept_current_goes_on_feeding_the_membrane_and_no_reset_touches_it() -> None:
    """u = 0.5 u + x, v = v + u: 8, 8 + 4, then 4 + 2 + 1 behind the reset; all above 10 fire."""
    graph = one_neuron(1.0, 10, "zero", 6)
    keeping = replace(graph.of(Neuron)[0], current_decay=0.5)
    graph = replace(graph, nodes=tuple(keeping if node.name == "s" else node for node in graph))
    assert spikes(graph, [8, 0, 0, 0, 4, 0]) == [0, 1, 0, 0, 0, 0]
    assert spikes(graph, [8, 0, 0, 0, 7, 0]) == [0, 1, 0, 0, 1, 0]


def test_a_kept_current_is_truncated_toward_zero() -> None:
    """1 becomes 32/64, 16/64 .. 1/64, and then nothing: the membrane holds 1 + 63/64, below 2 by 1/64."""
    graph = one_neuron(1.0, 2, "zero", 9)
    keeping = replace(graph.of(Neuron)[0], current_decay=0.5)
    graph = replace(graph, nodes=tuple(keeping if node.name == "s" else node for node in graph))
    last = [v.item() for v, _ in membranes(keeping, np.array([1, *[0] * 8]).reshape(9, 1, 1), 9)][-1]
    assert last == 127
    last = [v.item() for v, _ in membranes(keeping, np.array([-1, *[0] * 8]).reshape(9, 1, 1), 9)][-1]
    assert last == -127
    assert spikes(graph, [1, 0, 0, 0, 0, 0, 0, 0, 0]) == [0] * 9


def test_a_still_picture_is_the_same_input_at_each_step() -> None:
    still, moving = one_neuron(0.5, 100, "zero", 5, static=True), one_neuron(0.5, 100, "zero", 5)
    picture = np.array([[60], [101], [-3]])
    frames = np.broadcast_to(picture, (5, 3, 1))
    np.testing.assert_array_equal(simulate(still, picture).spikes["s"], simulate(moving, frames).spikes["s"])


@pytest.mark.parametrize("seed", range(20))
def test_samples_do_not_influence_each_other(seed: int) -> None:
    graph = random_network(seed, ANY)
    inputs = random_inputs(graph, 7, seed)
    whole = simulate(graph, inputs)
    parts = list(batches(graph, inputs, size=3))
    for name, values in whole.spikes.items():
        np.testing.assert_array_equal(values, np.concatenate([part.spikes[name] for part in parts], axis=1))
    np.testing.assert_allclose(whole.logits, np.concatenate([part.logits for part in parts]), atol=1e-12)


@pytest.mark.parametrize("decay", [1.0, 0.5, 0.9])
def test_float_neurons_equal_snntorch_with_reset_to_zero(decay: float) -> None:
    torch = pytest.importorskip("torch")
    snntorch = pytest.importorskip("snntorch")
    current = np.random.default_rng(0).normal(0.4, 0.6, (12, 50, 1))
    graph = replace(one_neuron(decay, 1, "zero", 12), stage=Stage.TRACED)
    nodes = [replace(n, threshold=np.asarray(1.0)) if isinstance(n, Neuron) else n for n in graph]
    nodes = [replace(n, weight=np.ones((1, 1)), bias=np.zeros(1)) if isinstance(n, Linear) else n for n in nodes]
    met = simulate(replace(graph, nodes=tuple(nodes)), current).spikes["s"]
    leaky = snntorch.Leaky(beta=decay, threshold=1.0, reset_mechanism="zero").double()
    membrane, expected = torch.zeros(50, 1, dtype=torch.float64), []
    for step in torch.tensor(current):
        fired, membrane = leaky(step, membrane)
        expected.append(fired.detach().numpy())
    np.testing.assert_array_equal(met, np.stack(expected))


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_each_channel_leaks_at_its_own_rate_by_fractions(reset: str) -> None:
    """Step by step in Python's own integers and fractions, picture by picture, against three channels of 2 x 2."""
    random = np.random.default_rng(1)
    numerators, thresholds, steps = [4096, 3001, 0], [200, 150, 120], 9
    current = random.integers(-150, 200, (steps, 5, 3, 2, 2))
    nodes = (
        Input(name="x", shape=(3, 2, 2), low=-150, high=200, static=False),
        replace(
            one_neuron(0.5, 1, reset, steps).of(Neuron)[0],
            inputs=("x",),
            decay=np.array(numerators) / 4096,
            threshold=np.array(thresholds),
        ),
        Output(name="y", inputs=("s",)),
    )
    met = simulate(Graph(nodes=nodes, timesteps=steps, stage=Stage.INTEGER), current).spikes["s"]
    for sample, channel, row, column in product(range(5), range(3), range(2), range(2)):
        v, limit = 0, thresholds[channel] * 64
        for step in range(steps):
            v = math.trunc(Fraction(v * numerators[channel], 4096)) + 64 * int(
                current[step, sample, channel, row, column]
            )
            fires = v > limit
            assert met[step, sample, channel, row, column] == fires
            v = (0 if reset == "zero" else v - limit) if fires else v
    assert 0.05 < met.mean() < 0.6


def test_decays_per_channel_that_are_equal_are_one_decay() -> None:
    for seed in range(10):
        graph = random_network(seed, ANY)
        nodes = [
            replace(n, decay=np.full(graph.shapes[n.name][0], n.decay)) if isinstance(n, Neuron) else n for n in graph
        ]
        inputs = random_inputs(graph, 4, seed)
        several = replace(graph, nodes=tuple(nodes))
        np.testing.assert_array_equal(simulate(several, inputs).logits, simulate(graph, inputs).logits)
        assert several.digest != graph.digest


def test_inputs_that_do_not_fit_are_refused() -> None:
    graph = one_neuron(1.0, 10, "zero", 3)
    with pytest.raises(InputError, match=r"takes \(3, 'samples', 1\), met \(2, 1, 1\)"):
        simulate(graph, np.zeros((2, 1, 1), dtype=np.int64))
    with pytest.raises(InputError, match=r"takes -200\.\.200, met 0\.\.201"):
        simulate(graph, np.array([0, 201, 0]).reshape(3, 1, 1))
    with pytest.raises(InputError, match="takes integers, met float64"):
        simulate(graph, np.zeros((3, 1, 1)))
