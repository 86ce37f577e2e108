"""Accuracy and activity, against counting by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import LegalityError
from snnkd_deploy.ir import Graph, Input, Linear, Neuron, Output, Stage
from snnkd_deploy.ladder import climb, margins, warnings
from snnkd_deploy.native import library
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target
from tests.native.integer_networks import NETWORKS
from tests.networks import CHAIN, random_inputs, random_network


def test_rates_dead_and_saturated_neurons_are_those_of_the_spikes() -> None:
    for seed in range(8):
        graph = random_network(seed, CHAIN)
        inputs = random_inputs(graph, 70, seed)
        record = simulate(graph, inputs)
        labels = np.zeros(70, dtype=np.int64)
        rung = climb(graph, inputs, labels)
        assert rung.accuracy == (record.logits.argmax(axis=1) == 0).mean()
        assert list(rung.layers) == list(record.spikes)
        for name, spikes in record.spikes.items():
            activity, per_neuron = rung.layers[name], spikes.mean(axis=(0, 1))
            assert np.isclose(activity.rate, spikes.mean())
            assert activity.dead == (per_neuron == 0).sum()
            assert activity.saturated == (per_neuron == 1).sum()
            assert activity.neurons == per_neuron.size


@pytest.mark.parametrize("name", NETWORKS)
def test_a_rung_is_the_same_whoever_ran_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = NETWORKS[name]()
    inputs = random_inputs(graph, 9)
    labels = np.arange(9) % 10
    library.build()
    fast = climb(graph, inputs, labels)
    monkeypatch.setenv("CXX", "no-such-compiler")
    library.build.cache_clear()
    slow = climb(graph, inputs, labels)
    assert fast.run_by.startswith("native runtime (")
    assert slow.run_by == "reference simulator, integer arithmetic"
    assert {**fast.as_dict(), "run_by": ""} == {**slow.as_dict(), "run_by": ""}
    np.testing.assert_array_equal(fast.answers, slow.answers)


def test_margins_are_what_membranes_reach_and_what_they_can() -> None:
    target = load_target("onnx")
    for seed in range(6):
        graph = random_network(seed, CHAIN)
        inputs = random_inputs(graph, 20, seed)
        try:
            integer = lower(graph, target, Calibration(inputs)).integer
        except LegalityError:
            continue
        met = margins(integer, inputs, target)
        assert list(met) == [node.name for node in integer.of(Neuron, Output)]
        for name, margin in met.items():
            assert 0 <= margin.observed <= margin.worst <= margin.limit == 131071, name


def test_the_observed_margin_is_counted_by_hand() -> None:
    """Fed with 3: 3, then 1.5 + 3 passes 4 and is reset, then 3 again; the readout sums -5 at the second step."""
    numbers = {"decay": 0.5, "decay_bits": 12, "fraction_bits": 6}
    nodes = (
        Input(name="in", shape=(1,), high=3),
        Neuron(name="lif", inputs=("in",), threshold=np.asarray(4), **numbers),  # type: ignore[arg-type]
        Linear(name="read", inputs=("lif",), weight=np.array([[-5]]), bias=np.array([0])),
        Output(name="out", inputs=("read",)),
    )
    graph = Graph(nodes=nodes, timesteps=3, stage=Stage.INTEGER)
    met = margins(graph, np.array([[3]]), load_target("onnx"))
    assert (met["lif"].observed, met["out"].observed) == (4.5, 5)


def rungs(student: float, integer: float, samples: int = 1000, **layer: int) -> dict[str, dict[str, Any]]:
    layers = {"lif": {"neurons": 8, "dead": 0, "saturated": 0, **layer}}
    first, last = ({"accuracy": one, "samples": samples, "layers": layers} for one in (student, integer))
    return {"student": first, "folded": first, "integer": last}


def test_a_fall_is_told_if_it_is_more_than_a_point_and_more_than_chance() -> None:
    assert warnings(rungs(0.99, 0.97)) == ["from folded to integer the accuracy falls by 2.0 points"]
    assert warnings(rungs(0.99, 0.981)) == []
    assert warnings(rungs(0.99, 0.97, samples=50)) == []
    assert warnings(rungs(0.97, 0.99)) == []


def test_layers_that_say_nothing_are_told() -> None:
    assert warnings(rungs(0.9, 0.9, dead=8)) == ["lif: every neuron stays silent on all samples"]
    assert warnings(rungs(0.9, 0.9, saturated=8)) == ["lif: every neuron fires at every step of all samples"]
    assert warnings(rungs(0.9, 0.9, dead=7)) == []
