"""Neurons that fire for any spike of a window are a max pool."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import LegalityError
from snnkd_deploy.ir import Graph, MaxPool2d, Neuron
from snnkd_deploy.passes.or_pooling import or_pooling
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target
from tests.networks import Recipe, random_inputs, random_network

LOIHI, NOTHING = load_target("loihi"), Calibration(np.empty(0))
POOLED = Recipe(pools=("max",))


def integer(seed: int) -> Graph:
    graph = random_network(seed, POOLED)
    return lower(graph, load_target("onnx"), Calibration(random_inputs(graph, 8))).integer


SEEDS = [seed for seed in range(60) if random_network(seed, POOLED).of(MaxPool2d)]


@pytest.mark.parametrize("seed", SEEDS[:15])
def test_every_spike_stays(seed: int) -> None:
    graph = integer(seed)
    pools = graph.of(MaxPool2d)
    inputs = random_inputs(graph, 20, seed)
    rewritten = or_pooling(graph, LOIHI, NOTHING)
    assert not rewritten.of(MaxPool2d)
    seen: dict[str, np.ndarray] = {}  # type: ignore[type-arg]
    before = simulate(graph, inputs, lambda node, arguments, value: seen.update({node.name: value}))
    after = simulate(rewritten, inputs)
    for name, spikes in before.spikes.items():
        np.testing.assert_array_equal(after.spikes[name], spikes)
    for pool in pools:
        np.testing.assert_array_equal(after.spikes[pool.name], seen[pool.name])
    np.testing.assert_array_equal(after.logits, before.logits)


def test_a_network_with_max_pools_reaches_loihi() -> None:
    lowered = 0
    for seed in SEEDS[:15]:
        graph = random_network(seed, POOLED)
        try:
            legal = lower(graph, LOIHI, Calibration(random_inputs(graph, 8))).legal
        except LegalityError:
            continue
        lowered += any(pool.name in {node.name for node in legal.of(Neuron)} for pool in graph.of(MaxPool2d))
    assert lowered > 8


def test_targets_with_max_pools_keep_them_and_pools_of_pixels_stay_refused() -> None:
    graph = integer(SEEDS[0])
    assert or_pooling(graph, load_target("onnx"), NOTHING) is graph
    source = graph.input.name
    moved = [replace(n, inputs=(source,)) if isinstance(n, MaxPool2d) else n for n in graph]
    assert or_pooling(replace(graph, nodes=tuple(moved)), LOIHI, NOTHING).of(MaxPool2d)
