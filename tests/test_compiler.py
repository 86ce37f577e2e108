"""The pipeline: each stage in turn, the guilty pass named, one more pass is one more line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import PIPELINE, Pass, adopting, lower
from snnkd_deploy.errors import GraphError, LegalityError
from snnkd_deploy.ir import Conv2d, Graph, Linear, Stage
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import Target, load_target, target_names
from tests.networks import ANY, CHAIN, Recipe, random_inputs, random_network

ONNX = load_target("onnx")


@pytest.mark.parametrize("name", target_names())
def test_legal_networks_spike_as_the_integer_one(name: str) -> None:
    target, lowered = load_target(name), 0
    recipe = replace(CHAIN, residual=True) if target.layout.wiring == "chain" else ANY
    pools = recipe.pools if "MaxPool2d" in target.nodes else ("avg",)
    recipe = replace(recipe, decays=(1.0, 0.5), resets=target.resets, pools=pools)
    for seed in range(40):
        graph = random_network(seed, recipe)
        inputs = random_inputs(graph, 8, seed)
        try:
            compiled = lower(graph, target, Calibration(inputs))
        except LegalityError:
            continue
        expected, met = simulate(compiled.integer, inputs), simulate(compiled.legal, inputs)
        for layer, spikes in expected.spikes.items():
            np.testing.assert_array_equal(met.spikes[layer], spikes)
        np.testing.assert_array_equal(met.logits, expected.logits)
        lowered += 1
    assert lowered > 15


def test_trained_integers_stand_in_for_rounded_ones() -> None:
    graph = random_network(4, CHAIN)
    samples = Calibration(random_inputs(graph, 4))
    trained = lower(graph, ONNX, replace(samples, weight_bits=4)).integer
    assert lower(graph, ONNX, samples).digest != trained.digest
    for name in ("onnx", "loihi", "c"):
        assert lower(graph, load_target(name), samples, adopting(trained)).digest == trained.digest
    other = replace(ONNX, state=replace(ONNX.state, fraction_bits=3))
    with pytest.raises(LegalityError, match=r"computes with 12 and 3 bits.*\n.*decay in 12 bits, membrane in 6"):
        lower(graph, other, samples, adopting(trained))


def prune(graph: Graph, target: Target, calibration: Calibration) -> Graph:
    """A throw-away pass: weights of one unit become zero."""

    def without(node: Linear | Conv2d) -> Linear | Conv2d:
        return replace(node, weight=np.where(np.abs(node.weight) <= 1, 0, node.weight))

    return replace(graph, nodes=tuple(without(n) if isinstance(n, Linear | Conv2d) else n for n in graph))


def test_one_more_pass_is_one_more_line() -> None:
    graph = random_network(4, CHAIN)
    samples = Calibration(random_inputs(graph, 4))
    position = [step.transform.__name__ for step in PIPELINE].index("fold_pooling")
    pipeline = (*PIPELINE[:position], Pass(prune, needs=Stage.INTEGER, gives=Stage.INTEGER), *PIPELINE[position:])
    # what it changes, it changes: the check of the whole road sees that pruning is no rewriting
    with pytest.raises(GraphError, match="rewriting for the target changed the network"):
        for seed in range(40):
            other = random_network(seed, CHAIN)
            lower(other, ONNX, Calibration(random_inputs(other, 4)), pipeline)
    assert lower(graph, ONNX, samples).legal.stage == Stage.LEGAL


def test_a_broken_graph_is_blamed_on_its_pass() -> None:
    def breaks(graph: Graph, target: Target, calibration: Calibration) -> Graph:
        return replace(graph, nodes=graph.nodes[:-1])

    graph = random_network(4, CHAIN)
    pipeline = (PIPELINE[0], Pass(breaks, needs=Stage.FOLDED, gives=Stage.FOLDED), *PIPELINE[1:])
    with pytest.raises(GraphError, match="is not a folded network"):
        lower(graph, ONNX, Calibration(random_inputs(graph, 4)), pipeline)


def test_one_digest_behind_every_target() -> None:
    recipe = Recipe(spiking_input=False, decays=(0.5,), timesteps=(4, 4))
    same = 0
    for seed in range(20):
        graph = random_network(seed, recipe)
        samples = Calibration(random_inputs(graph, 8))
        try:
            digests = {
                lower(graph, load_target(name), samples).digest
                for name in ("loihi", "onnx", "nir", "npz", "c", "snntorch")
            }
        except LegalityError:
            continue
        same += len(digests) == 1
    assert same > 10
