"""The runtime against the simulator: every instruction set, number of threads and batch, spike for spike."""

from __future__ import annotations

import multiprocessing
import threading
from dataclasses import replace
from functools import cache
from itertools import cycle

import numpy as np
import pytest

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import BundleError, InputError, LegalityError
from snnkd_deploy.ir import Array, Graph, MaxPool2d, Neuron, Node, Relay, SumPool2d
from snnkd_deploy.native import Native, Wanted, load
from snnkd_deploy.native.runtime import processors
from snnkd_deploy.simulate import Record, simulate
from snnkd_deploy.target import load_target
from tests.native.integer_networks import NETWORKS, attentive, cnn, mlp, residual
from tests.networks import (
    ANY,
    ATTENTIVE,
    CHAIN,
    EVERY_RESET,
    KEEPING,
    LEAKS,
    SPIKING_ENDS,
    Recipe,
    random_inputs,
    random_network,
)

RECIPES = {"chain": CHAIN, "any": replace(ANY, decays_per_channel=True), "resets": EVERY_RESET, "leaks": LEAKS,
           "ends": SPIKING_ENDS, "keeping": KEEPING, "attentive": ATTENTIVE}  # fmt: skip


@cache
def instruction_sets() -> tuple[str, ...]:
    """Those that this processor has; the portable one is everywhere."""
    with pytest.raises(BundleError) as caught:
        load(mlp(), instructions="none")
    return tuple(str(caught.value).rpartition("there are ")[2].split(", "))


def assert_equal(expected: Record, met: Record) -> None:
    assert met.spikes.keys() == expected.spikes.keys()
    for layer, spikes in expected.spikes.items():
        np.testing.assert_array_equal(met.spikes[layer], spikes, err_msg=layer)
    np.testing.assert_array_equal(met.logits, expected.logits)


def lowered(seed: int, recipe: Recipe, target: str = "onnx") -> tuple[Graph, Array] | None:
    graph = random_network(seed, recipe)
    inputs = random_inputs(graph, 5, seed)
    try:
        return lower(graph, load_target(target), Calibration(inputs)).legal, inputs
    except LegalityError:
        return None


def test_the_portable_code_is_everywhere() -> None:
    assert instruction_sets()[0] == "portable"
    assert load(mlp()).instructions == instruction_sets()[-1]


@pytest.mark.parametrize("recipe", RECIPES)
def test_random_networks_spike_as_the_simulator(recipe: str) -> None:
    ran = 0
    for seed in range(25):
        if (found := lowered(seed, RECIPES[recipe])) is None:
            continue
        graph, inputs = found
        expected = simulate(graph, inputs)
        for instructions in instruction_sets():
            for threads in (1, 3):
                assert_equal(expected, load(graph, threads=threads, instructions=instructions).record(inputs))
        ran += 1
    assert ran > 15


def test_what_a_chip_needs_is_run_too() -> None:
    """Relays and bias neurons, which the compiler makes for Loihi."""
    ran = relays = 0
    for seed in range(30):
        if (found := lowered(seed, replace(CHAIN, residual=True), "loihi")) is None:
            continue
        graph, inputs = found
        for instructions in instruction_sets():
            assert_equal(simulate(graph, inputs), load(graph, threads=2, instructions=instructions).record(inputs))
        ran, relays = ran + 1, relays + bool(graph.of(Relay))
    assert ran > 10
    assert relays > 2


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [1, 5])
def test_large_layers_spike_as_the_simulator(name: str, batch: int) -> None:
    graph = NETWORKS[name]()
    inputs = random_inputs(graph, batch, batch)
    expected = simulate(graph, inputs)
    rates = {layer: spikes.mean() for layer, spikes in expected.spikes.items()}
    assert all(0.01 < rate < 0.9 for rate in rates.values()), rates
    for instructions in instruction_sets():
        for threads in (1, 2, 7):
            assert_equal(expected, load(graph, threads=threads, instructions=instructions).record(inputs))


@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 1.0])
def test_any_density_of_events_gives_the_same_sums(density: float) -> None:
    """Sparse and dense rows are added up in other ways."""
    graph = residual()
    shape = (graph.timesteps, 4, *graph.input.shape)
    inputs = (np.random.default_rng(0).random(shape) < density).astype(np.int64)
    for instructions in instruction_sets():
        assert_equal(simulate(graph, inputs), load(graph, instructions=instructions).record(inputs))


def test_no_samples_give_no_logits() -> None:
    assert load(mlp()).run(np.empty((0, 100), dtype=np.uint8)).shape == (0, 10)


def test_what_does_not_fit_is_refused() -> None:
    still, frames = load(cnn()), load(residual())
    with pytest.raises(InputError, match=r"integers takes \('samples', 3, 21, 18\), met \(2, 3, 21, 17\)"):
        still.run(np.zeros((2, 3, 21, 17), dtype=np.uint8))
    with pytest.raises(InputError, match=r"integers takes \(6, 'samples', 2, 9, 11\), met \(5, 1, 2, 9, 11\)"):
        frames.run(np.zeros((5, 1, 2, 9, 11), dtype=np.uint8))
    with pytest.raises(InputError, match=r"integers takes integers, met float32"):
        still.run(np.zeros((2, 3, 21, 18), dtype=np.float32))
    with pytest.raises(InputError, match=r"integers takes 0\.\.255, met 0\.\.256"):
        still.run(np.full((2, 3, 21, 18), [[[[0]]], [[[256]]]]))
    outside = np.zeros((6, 3, 2, 9, 11), dtype=np.uint8)
    outside[4, 1, 0, 2, 3] = 2
    with pytest.raises(InputError, match=r"integers: sample 1 leaves 0\.\.1"):
        frames.run(outside)
    with pytest.raises(InputError, match=r"integers: sample 0 leaves 0\.\.1"):
        load(residual(), threads=4).run(outside[:, 1:2])


def test_an_instruction_set_that_is_not_there_is_named() -> None:
    with pytest.raises(BundleError, match="integers: no instructions 'neon9' here; there are portable"):
        load(mlp(), instructions="neon9")


def test_threads_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert load(mlp()).threads == processors() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert processors() >= 1


def test_one_network_may_run_in_several_threads_at_once() -> None:
    graph = cnn()
    network, inputs = load(graph, threads=2), random_inputs(graph, 6)
    expected = simulate(graph, inputs).logits
    met: list[Array] = []
    workers = [threading.Thread(target=lambda: met.extend(network.run(inputs) for _ in range(20))) for _ in range(4)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert len(met) == 80
    assert all((one == expected).all() for one in met)


def test_it_runs_again_behind_a_fork() -> None:
    graph = mlp()
    network, inputs = load(graph, threads=2), random_inputs(graph, 9)
    expected = network.run(inputs)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(network.run(inputs)))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(queue.get(), expected)


# ---- counts ---------------------------------------------------------------------------------------------------------


def everything(network: Native) -> Wanted:
    """All that can be counted, with tables of factors of any size and sign; of some nodes none."""
    random = np.random.default_rng(0)
    kept = [layer for layer in network.layers if layer.kept]
    names = [layer.name for layer in kept]
    tables = {
        layer.name: random.integers(-(2**sized), 2**sized, (number % 3, *layer.shape))
        for number, (layer, sized) in enumerate(zip(kept, cycle((3, 11, 22)), strict=False))
    }
    met = [layer.name for layer in kept if layer.bits]
    return Wanted(names, names, tables, names, met, step_spikes=True, reached=True, changes=True, reach=True)


def weighed(value: Array, tables: Array) -> Array:
    """Of each sample the sum of `(time or 1, samples, *shape)`, and that of its products with each table."""
    total = value.sum(axis=0).reshape(value.shape[1], -1)
    return np.stack([total.sum(axis=1), *(total @ table.reshape(-1) for table in tables)], axis=1)


def assert_counts(network: Native, graph: Graph, inputs: Array) -> None:
    """All that `watch` gives, of what the simulator computes."""
    values: dict[str, Array] = {}
    reach = {node.name: 0 for node in (*graph.of(Neuron), graph.output)}
    before: Array = np.zeros(0)
    changes: dict[str, Array] = {}

    def note(node: Node, arguments: tuple[Array, ...], value: Array) -> None:
        values[node.name] = value[None] if node is graph.output else value
        if node is graph.output:
            met = np.broadcast_to(arguments[0], (graph.timesteps, *arguments[0].shape[1:])).cumsum(axis=0)
            reach[node.name] = int(np.abs(met).max())

    def look(node: Neuron, step: int, potential: Array, fires: Array) -> None:
        nonlocal before
        reach[node.name] = max(reach[node.name], int(np.abs(potential).max()))
        changed = np.ones_like(fires, dtype=bool) if step == 0 else potential != before
        changes[node.name] = changes.get(node.name, 0) + changed.reshape(len(fires), -1).sum(axis=1)
        before = potential

    wanted = everything(network)
    expected, met = simulate(graph, inputs, note, look), network.watch(inputs, wanted)
    np.testing.assert_array_equal(met.logits, expected.logits)
    assert met.nonzero.keys() == met.sums.keys() == {layer.name for layer in network.layers if layer.kept}
    assert {node.name for node in graph.of(Neuron, SumPool2d, MaxPool2d)} <= met.nonzero.keys()
    for name in met.nonzero:
        value, tables = values[name], wanted.events[name]
        np.testing.assert_array_equal(met.nonzero[name], (value != 0).sum(axis=(0, 1)), err_msg=name)
        np.testing.assert_array_equal(met.sums[name], value.sum(axis=(0, 1)), err_msg=name)
        np.testing.assert_array_equal(met.events[name], weighed(value != 0, tables), err_msg=name)
        np.testing.assert_array_equal(met.amounts[name], weighed(value, tables), err_msg=name)
    for name, found in met.met.items():
        np.testing.assert_array_equal(found, np.unique(values[name]), err_msg=name)
    neurons = {node.name for node in graph.of(Neuron)}
    assert met.step_spikes.keys() == met.changes.keys() == met.reached.keys() == neurons <= met.met.keys()
    for name in neurons:
        fired = values[name].reshape(graph.timesteps, -1).sum(axis=1)
        np.testing.assert_array_equal(met.step_spikes[name], fired, err_msg=name)
        np.testing.assert_array_equal(met.changes[name], changes[name], err_msg=name)
    assert met.reach == reach


@pytest.mark.parametrize("name", NETWORKS)
def test_sums_over_samples_are_those_of_the_simulator(name: str) -> None:
    graph = NETWORKS[name]()
    inputs = random_inputs(graph, 7)
    for instructions in instruction_sets():
        assert_counts(load(graph, threads=3, instructions=instructions), graph, inputs)
    assert_counts(load(graph, threads=9), graph, inputs)


@pytest.mark.parametrize("name", ["cnn", "residual"])
def test_many_steps_and_samples_are_counted_beyond_what_a_byte_holds(name: str) -> None:
    graph = replace(NETWORKS[name](), timesteps=90)
    for instructions in instruction_sets():
        assert_counts(load(graph, threads=1, instructions=instructions), graph, random_inputs(graph, 9))


def test_factors_that_are_too_large_are_refused() -> None:
    graph = mlp()
    network = load(graph)
    (name, *_) = (layer.name for layer in network.layers if layer.neurons)
    shape = graph.shapes[name]
    with pytest.raises(InputError, match="a factor of 8421505 is too large"):
        network.watch(random_inputs(graph, 1), Wanted(events={name: np.full((1, *shape), 8421505)}))


@pytest.mark.parametrize("recipe", RECIPES)
def test_sums_of_random_networks_are_those_of_the_simulator(recipe: str) -> None:
    ran = 0
    for seed in range(25):
        if (found := lowered(seed, RECIPES[recipe])) is not None:
            assert_counts(load(found[0], threads=2), *found)
            ran += 1
    assert ran > 15


def test_a_record_of_counts_leaves_the_spikes_alone() -> None:
    graph = attentive()
    network, inputs = load(graph, threads=2), random_inputs(graph, 4)
    before = network.record(inputs)
    network.watch(inputs, everything(network))
    assert_equal(before, network.record(inputs))
