"""Every part is told: the node it became, what passes did to it, or why it was refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.coverage import coverage, in_words
from snnkd_deploy.ir import Neuron
from snnkd_deploy.target import load_target
from tests.networks import CHAIN, random_inputs, random_network
from tests.test_simulate import one_neuron

GRAPH = random_network(3, CHAIN)


def test_passes_are_told_for_each_node() -> None:
    inputs = random_inputs(GRAPH, 8)
    trail = lower(GRAPH, load_target("loihi"), Calibration(inputs)).trail
    modules = {node.name: f"My{type(node).__name__}" for node in GRAPH}
    found = coverage("loihi", {**modules, "drop": "Dropout"}, {node.name: node.name for node in GRAPH}, trail)
    parts = {part.place: part for part in found.parts}
    assert set(parts) >= {node.name for node in GRAPH}
    for name, part in parts.items():
        if part.kind == "MyBatchNorm":
            assert part.passes == ("fold_batchnorm: folded away",), name
        if part.kind in ("MyLinear", "MyConv2d", "MyNeuron"):
            assert any(step.startswith("quantize") for step in part.passes), name
        if part.kind == "MyAvgPool2d":
            assert part.passes == ("quantize: AvgPool2d to SumPool2d", "fold_pooling: folded away")
    assert parts["drop"].became == "nothing in evaluation"
    assert found.refusals == ()


def test_a_reason_belongs_to_the_part_that_it_names() -> None:
    reasons = ["gelu: GELU has no node", "sin (net.py:3): sin has no node", "result 1: odd"]
    found = coverage("onnx", {"fc": "Linear", "gelu": "GELU"}, {}, (), reasons)
    parts = {part.place: part for part in found.parts}
    assert parts["gelu"].refused == (reasons[0],)
    assert parts["fc"].refused == ()
    assert found.reasons == tuple(reasons[1:])
    assert sorted(found.refusals) == sorted(reasons)
    assert found.as_dict()["parts"][1]["refused"] == (reasons[0],)


def test_a_node_in_words_has_the_numbers_that_targets_ask_for() -> None:
    graph = one_neuron(0.5, 10, "zero", 4)
    assert in_words(graph["s"]) == "Neuron, decay 0.5, threshold 10, reset zero"
    several = replace(graph.of(Neuron)[0], decay=np.array([0.5, 0.25]))
    assert in_words(several) == "Neuron, decay 0.25..0.5, threshold 10, reset zero"
    keeping = replace(graph.of(Neuron)[0], current_decay=0.9)
    assert in_words(keeping) == "Neuron, decay 0.5, keeps 0.9 of its current, threshold 10, reset zero"
    assert in_words(graph["w"]) == "Linear 1x1"
