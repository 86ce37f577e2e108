"""What a report keeps of a network, in numbers worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from snnkd_deploy import energy
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.errors import GraphError, InputError
from snnkd_deploy.ir import Graph, Input, Linear, Neuron, Node, Output, Stage
from snnkd_deploy.mapping import map_network
from snnkd_deploy.passes.bias_planes import bias_planes
from snnkd_deploy.price_files import load_tables
from snnkd_deploy.target import load_target
from tests.energy.reports import PIXELS, report, row, student, teacher
from tests.networks import seeds
from tests.test_counts import integer_network, teacher_network


def test_counts_by_hand() -> None:
    found = report(taught=teacher())
    conv, lif, pool, fc = (row(found, name) for name in ("conv", "lif", "pool", "fc"))
    assert (conv["events_in"], conv["event_macs"], conv["event_macs_nonzero"], conv["bias_adds"]) == (3, 6, 3, 8)
    assert conv["encoder_macs"] == {"once": {"dense": 16, "events": 6}, "per_step": {"dense": 48, "events": 18}}
    assert lif["spikes_per_step"] == [9, 10, 11]  # 8 of channel 1; pixel 3; pixel 2 from step 2; pixel 1 at step 3
    assert (lif["updates_active"], lif["updates_inactive"]) == (3 * (8 + 3), 3 * 5)
    assert (pool["pool_ops"], pool["pool_ops_dense"]) == (30, 48)
    assert (fc["events_in"], fc["event_macs"], fc["synops_unit"]) == (3 + 2 + 6, 22, 60)
    assert (fc["event_macs_nonzero"], fc["synops_unit_nonzero"]) == (16, 36)
    assert fc["spikes_per_synapse"] == pytest.approx(22 / 2 / 4)
    assert conv["per_inference"]["event_macs"] == 3.0
    assert found["totals"]["event_macs"] == 28
    assert found["totals"]["per_inference"]["event_macs"] == 14.0


def test_the_model_the_data_and_the_accuracy_are_described() -> None:
    found = report(taught=teacher())
    model = found["model"]
    assert (model["neurons"], model["params"], model["weight_bits"]) == (8, 10, 3)
    assert model["zero_weight_fraction"] == pytest.approx(2 / 6)
    assert (model["digest"], model["graph_stage"], model["timesteps"]) == (student().digest, "LEGAL", 3)
    assert found["data"]["samples"] == 2
    assert found["data"]["encoding"] == "direct"
    assert found["accuracy"]["snn"] == 0.5
    assert found["accuracy"]["snn_counted"] == 0.0  # class 1 wins both: 2 x 12 spikes of channel 1
    assert (found["estimate"], found["measured"]) == (True, False)
    assert "only 2 samples were counted" in found["warnings"]


def test_constant_inputs_are_counted_and_the_ann_has_none() -> None:
    first = Linear(name="w", inputs=("x",), weight=np.array([[9, 3]]), bias=np.array([5000]))
    nodes = (
        Input(name="x", shape=(2,), high=9),
        first,
        Neuron(name="s", inputs=("w",), decay=1.0, threshold=np.array(9), decay_bits=12, fraction_bits=6),
        Linear(name="r", inputs=("s",), weight=np.array([[1], [2]]), bias=np.array([0, 0])),
        Output(name="output", inputs=("r",)),
    )
    graph = Graph(nodes=nodes, timesteps=1, stage=Stage.INTEGER)
    carried = bias_planes(graph, load_target("loihi2"), Calibration(np.empty(0)))
    inputs = np.array([[3, 0], [4, 5]])
    plain, found = (report(one, inputs=inputs, unrelayed=graph) for one in (graph, carried))
    assert [one["layers"][0]["events_in"] for one in (plain, found)] == [3, 3 + 2]
    assert [one["layers"][0]["synops"] for one in (plain, found)] == [3, 3 + 2]
    assert found["ann"] == plain["ann"]
    assert any(text.startswith("1 constant inputs carry a bias") for text in found["warnings"])


def test_fan_out_and_neurobench_are_taken_over() -> None:
    found = report()
    assert row(found, "conv")["fan_out"] == {"min": 2, "mean": 2.0, "max": 2}
    assert found["neurobench"]["synaptic_operations"] == {
        "effective_macs": (3 * 3 + 16) / 2,
        "effective_acs": 0,
        "dense": 24 + 12,
    }
    assert found["model"]["simulator"].startswith(("reference simulator", "native runtime"))


def test_accuracy_has_the_interval_of_wilson() -> None:
    """10 of 10: from 1 / (1 + z**2 / n) to 1; half: symmetric."""
    inputs = np.tile(PIXELS[:1], (10, 1, 1, 1))
    found = energy.build(
        graph=student(), inputs=inputs, labels=np.ones(10), teacher=None, data={}, accuracy={}, name="", target=""
    )["accuracy"]
    assert found["snn_counted"] == 1.0
    assert found["snn_ci95"] == pytest.approx([1 / (1 + 1.959964**2 / 10), 1.0])


def test_few_samples_and_dead_or_saturated_layers_are_warned_of() -> None:
    never, always = (
        report(Graph(nodes=tuple(_with_threshold(node, value) for node in student()), timesteps=3, stage=Stage.LEGAL))
        for value in (99, -1)
    )
    assert "lif: no neuron ever fires" in never["warnings"]
    assert "lif: every neuron fires at each step" in always["warnings"]
    assert "only 2 samples were counted" in never["warnings"]
    many = report(inputs=np.tile(PIXELS, (50, 1, 1, 1)))
    assert not [text for text in many["warnings"] if "samples were counted" in text]


def _with_threshold(node: Node, value: int) -> Node:
    return replace(node, threshold=np.asarray(value)) if isinstance(node, Neuron) else node


def test_values_that_contradict_the_graph_are_warned_of() -> None:
    """Pixels that are all 0 or 1 look like spikes: the class stays that of the graph, and a reader is told."""
    found = report(inputs=np.minimum(PIXELS, 1))
    assert row(found, "conv")["input_kind"] == "picture"
    assert any(text.startswith("conv: ") for text in found["warnings"])


def test_a_mapped_network_keeps_its_traffic() -> None:
    target = load_target("loihi")
    nodes: tuple[Node, ...] = (
        Input(name="input", shape=(2,), high=1, static=False),
        Linear(name="one", inputs=("input",), weight=np.array([[1, 1]]), bias=np.array([0])),
        Neuron(name="lif", inputs=("one",), decay=1.0, threshold=np.asarray(0), decay_bits=12),
        Linear(name="two", inputs=("lif",), weight=np.array([[1], [2]]), bias=np.array([0, 0])),
        Output(name="output", inputs=("two",)),
    )
    graph = Graph(nodes=nodes, timesteps=2, stage=Stage.LEGAL)
    found = report(graph, inputs=np.array([[[1, 0]], [[0, 0]]]), mapping=map_network(graph, target), state_bits=24)
    assert [one["messages"] for one in found["mapping"]["layers"]] == [0, 1]
    assert (found["mapping"]["cores"], found["mapping"]["hops"], found["model"]["state_bits"]) == (2, 0, 24)


def test_labels_must_fit_the_samples() -> None:
    with pytest.raises(InputError, match="1 labels for 2 samples"):
        energy.build(
            graph=student(), inputs=PIXELS, labels=np.zeros(1), teacher=None, data={}, accuracy={}, name="", target=""
        )


def test_no_samples_are_refused() -> None:
    with pytest.raises(InputError, match="student cannot be counted without samples"):
        report(inputs=PIXELS[:0])


def test_an_ann_is_no_network_to_count() -> None:
    with pytest.raises(GraphError, match="it has no spiking neurons; an ANN is what one is compared with"):
        report(teacher())


def test_noise_is_warned_of() -> None:
    noise = np.random.default_rng(0).integers(0, 4, (300, 1, 2, 2))
    assert "the samples are noise: counts on them say nothing about data" in report(inputs=noise)["warnings"]
    assert not any("noise" in text for text in report()["warnings"])


def test_a_teacher_of_other_samples_is_not_counted() -> None:
    linear = Linear(name="one", inputs=("input",), weight=np.ones((2, 5)), bias=np.zeros(2))
    nodes = (Input(name="input", shape=(5,)), linear, Output(name="output", inputs=("one",)))
    found = report(taught=Graph(nodes=nodes, timesteps=1, stage=Stage.FOLDED))
    assert [one["role"] for one in found["ann"]] == ["same_shape"]
    assert "the teacher takes (5,), the network other samples: it was not counted" in found["warnings"]


SOME = ("cmos45_fp32", "cmos45_int8_sram", "loihi1_davies", "jetson_orin_nano_peak")


@settings(max_examples=8, deadline=None)
@given(seed=seeds)
def test_any_network_gives_a_report_that_is_plain_json(seed: int) -> None:
    graph, inputs = integer_network(seed)
    found = energy.price(report(graph, teacher_network(seed)[0], inputs), load_tables(SOME))
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))
    for entry in found["energy"]:
        assert entry["wins"] <= entry["of"] <= len(entry["cases"])
        if entry["snn"]:
            parts = sum(one[1] for one in entry["snn"]["by_layer"].values())
            assert parts == pytest.approx(entry["snn"]["total"][1])
