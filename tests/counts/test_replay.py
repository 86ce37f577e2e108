"""Counts of what the native runtime ran are those of what the simulator ran, all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple

import numpy as np
import pytest

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.counts import Counts, Tally, count
from snnkd_deploy.counts.native import holds
from snnkd_deploy.errors import LegalityError
from snnkd_deploy.ir import Array, Graph
from snnkd_deploy.native import library, load
from snnkd_deploy.target import load_target
from tests.native.integer_networks import NETWORKS
from tests.networks import (
    ANY,
    ATTENTIVE,
    EVERY_RESET,
    KEEPING,
    LEAKS,
    SPIKING_ENDS,
    random_inputs,
    random_network,
)

LEFT_TO_THE_REPLAY = {"attentive", "wide_input"}


@pytest.fixture(autouse=True)
def built() -> Iterator[None]:
    library.build()
    yield
    library.build.cache_clear()


def both(graph: Graph, inputs: Array, monkeypatch: pytest.MonkeyPatch) -> tuple[Counts, Counts]:
    """Counts of a native run, and of the simulator for want of a compiler."""
    fast = count(graph, inputs, batch=4)
    with monkeypatch.context() as without:
        without.setenv("CXX", "no-such-compiler")
        library.build.cache_clear()
        slow = count(graph, inputs, batch=4)
    assert fast.simulator.startswith("native runtime (")
    assert slow.simulator == "reference simulator, integer arithmetic"
    return fast, slow


def assert_equal(fast: Counts, slow: Counts) -> None:
    assert (fast.samples, fast.timesteps, fast.stage, fast.warnings) == (
        slow.samples,
        slow.timesteps,
        slow.stage,
        slow.warnings,
    )
    assert [type(layer) for layer in fast.layers] == [type(layer) for layer in slow.layers]
    for one, other in zip(fast.layers, slow.layers, strict=True):
        assert astuple(one) == astuple(other)
    np.testing.assert_array_equal(fast.predictions, slow.predictions)
    assert fast.events.keys() == slow.events.keys()
    for name, events in slow.events.items():
        np.testing.assert_array_equal(fast.events[name], events)
    assert fast.per_sample.keys() == slow.per_sample.keys()
    for name, work in slow.per_sample.items():
        assert fast.per_sample[name].keys() == work.keys()
        for what, numbers in work.items():
            np.testing.assert_array_equal(fast.per_sample[name][what], numbers, err_msg=f"{name}, {what}")


@pytest.mark.parametrize("name", NETWORKS)
def test_large_layers_are_counted_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = NETWORKS[name]()
    assert_equal(*both(graph, random_inputs(graph, 9), monkeypatch))


def test_products_and_numbers_that_are_no_sums_of_spikes_are_left_to_the_replay() -> None:
    graphs = {name: make() for name, make in NETWORKS.items()}
    left = {name for name, graph in graphs.items() if not holds(graph, load(graph), Tally(graph, "native"))}
    assert left == LEFT_TO_THE_REPLAY


RECIPES = {"any": ANY, "resets": EVERY_RESET, "leaks": LEAKS, "keeping": KEEPING, "ends": SPIKING_ENDS,
           "attentive": ATTENTIVE}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("target", ["native", "loihi"])
def test_random_networks_are_counted_alike(recipe: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = 0
    for seed in range(12):
        graph = random_network(seed, RECIPES[recipe])
        inputs = random_inputs(graph, 6, seed)
        try:
            legal = lower(graph, load_target(target), Calibration(inputs)).legal
        except LegalityError:
            continue
        assert_equal(*both(legal, inputs, monkeypatch))
        ran += 1
    assert ran > (5 if target == "native" else -1)
