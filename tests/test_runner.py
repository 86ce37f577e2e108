"""Who runs a network: chosen by what is here and what is worth it, with the same integers in any case."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snnkd_deploy import runner as module
from snnkd_deploy.ir import Graph, Neuron
from snnkd_deploy.native import Native, library
from snnkd_deploy.proof import first_difference
from snnkd_deploy.runner import Runner, parts, runner, work
from snnkd_deploy.simulate import Record, simulate
from tests.native.integer_networks import NETWORKS, cnn, mlp, residual
from tests.networks import ANY, random_inputs, random_network


@pytest.fixture(autouse=True)
def built() -> Iterator[None]:
    library.build()
    yield
    library.build.cache_clear()


@pytest.mark.parametrize("name", NETWORKS)
def test_records_are_those_of_the_simulator_whoever_makes_them(name: str) -> None:
    graph = NETWORKS[name]()
    inputs = random_inputs(graph, 7)
    found = runner(graph, inputs)
    assert found.native is not None
    assert (found.why, found.by.split(" (")[0]) == ("", "native runtime")
    for who in (found, Runner(graph, None)):
        for part, record in zip(parts(graph, inputs, 3), who.records(inputs, 3), strict=True):
            assert first_difference(graph, simulate(graph, part), record) is None


def test_a_network_in_real_numbers_is_simulated() -> None:
    graph = random_network(1, ANY)
    found = runner(graph, random_inputs(graph, 3))
    assert found.native is None
    assert found.why.endswith("not in integers yet (it is traced)")
    assert found.by == "reference simulator, float64 arithmetic"


def test_what_32_bits_cannot_hold_is_simulated() -> None:
    graph = mlp()
    nodes = (replace(n, fraction_bits=17) if isinstance(n, Neuron) else n for n in graph)
    graph = replace(graph, nodes=tuple(nodes))
    found = runner(graph, random_inputs(graph, 3))
    assert (found.native, found.why.split(":")[0]) == (None, "lif2")
    assert found.by == "reference simulator, integer arithmetic"


def test_nothing_is_run_without_samples() -> None:
    found = runner(mlp(), random_inputs(mlp(), 0))
    assert (found.native, found.why) == (None, "there are no samples")
    assert not list(found.records(random_inputs(mlp(), 0)))


def test_without_a_compiler_it_is_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    library.build.cache_clear()
    graph = mlp()
    inputs = random_inputs(graph, 3)
    found = runner(graph, inputs)
    assert (found.native, found.why.split(";")[0]) == (None, "no C++ compiler (no-such-compiler)")
    (record,) = found.records(inputs)
    np.testing.assert_array_equal(record.logits, simulate(graph, inputs).logits)


def test_it_is_built_for_many_samples_and_not_for_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library.build.cache_clear()
    monkeypatch.setenv("SNNKD_CACHE", str(tmp_path))
    graph, inputs = mlp(), random_inputs(mlp(), 3)
    assert not library.built()
    found = runner(graph, inputs)
    assert (found.native, found.why.split(",")[0]) == (None, "the native runtime is not built yet")
    assert not list(tmp_path.iterdir())
    asked: list[Graph] = []

    def load(one: Graph) -> Native:
        asked.append(one)
        return Lying()

    monkeypatch.setattr(module, "WORTH_BUILDING", 3 * work(graph))
    monkeypatch.setattr(module, "load", load)
    assert runner(graph, inputs).native is None
    assert asked == [graph]


def test_work_is_what_the_layers_multiply() -> None:
    first, *others = (100 * 300, 300 * 530, 530 * 40, 40 * 10)
    assert work(mlp()) == first + 5 * sum(others)  # the first layer sees a still picture
    large = (33 * 2 * 9 * 99, 33 * 33 * 9 * 99, 40 * 33 * 9 * 30, 24 * 40 * 9 * 30, 24 * 24 * 9 * 30)
    assert work(residual()) == residual().timesteps * sum((*large, 24 * 33 * 30, 24 * 30, 24 * 2 * 3 * 10))


class Lying(Native):
    """A runtime that answers something else."""

    def __init__(self) -> None:
        self.instructions = "none"

    def record(self, inputs: np.ndarray) -> Record:
        found = simulate(cnn() if inputs.ndim == 4 else mlp(), inputs)
        return replace(found, logits=found.logits + 1)


def test_a_runtime_that_errs_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load", lambda graph: Lying())
    graph = cnn()
    found = runner(graph, random_inputs(graph, 5))
    assert found.native is None
    assert found.why.startswith("the native runtime errs: layer output, sample 0, element (0,): the simulator has")
    assert found.by == "reference simulator, integer arithmetic"
