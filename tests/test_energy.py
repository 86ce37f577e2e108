"""Reports of a network small enough to price by hand, and what happens to a report that was touched."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from snnkd_deploy import energy
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.counts import count
from snnkd_deploy.errors import BundleError, GraphError, InputError
from snnkd_deploy.ir import (
    Array,
    Attention,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Output,
    Relu,
    Stage,
    SumPool2d,
)
from snnkd_deploy.passes.bias_planes import bias_planes
from snnkd_deploy.passes.fold_pooling import fold_pooling
from snnkd_deploy.prices import Table, load_table, load_tables, parse_table
from snnkd_deploy.simulate import sample_axis
from snnkd_deploy.target import load_target
from tests.networks import random_inputs, seeds
from tests.test_counts import integer_network, pooled_network, teacher_network

PIXELS = np.array([[[[3, 0], [0, 1]]], [[[0, 0], [2, 0]]]])  # two pictures of 1 x 2 x 2
CONV = np.array([[[[1]]], [[[0]]]])
READOUT = np.array([[1, 0], [-1, 2]])


def student() -> Graph:
    """1x1 convolution on a still picture, IF neurons of threshold 2, a 2x2 sum pool, a readout; three steps.

    Channel 0 sees the pixels, channel 1 its bias of 3 alone. Soft reset: pixel 3 fires at each step (potential 3, 4,
    5), pixel 1 at the third, pixel 2 at the second and third (2, 4, 4), channel 1 at each.
    """
    nodes: tuple[Node, ...] = (
        Input(name="input", shape=(1, 2, 2), high=3),
        Conv2d(name="conv", inputs=("input",), weight=CONV, bias=np.array([0, 3])),
        Neuron(name="lif", inputs=("conv",), decay=1.0, threshold=np.asarray(2), reset="subtract"),
        SumPool2d(name="pool", inputs=("lif",), kernel=(2, 2), stride=(2, 2)),
        Flatten(name="flat", inputs=("pool",)),
        Linear(name="fc", inputs=("flat",), weight=READOUT, bias=np.array([1, 0])),
        Output(name="output", inputs=("fc",)),
    )
    return Graph(nodes=nodes, timesteps=3, stage=Stage.LEGAL, name="student")


def teacher(hidden: int = 3) -> Graph:
    nodes: tuple[Node, ...] = (
        Input(name="input", shape=(1, 2, 2), high=3),
        Flatten(name="flat", inputs=("input",)),
        Linear(name="one", inputs=("flat",), weight=np.ones((hidden, 4)), bias=np.zeros(hidden)),
        Relu(name="relu", inputs=("one",)),
        Linear(name="two", inputs=("relu",), weight=np.ones((2, hidden)), bias=np.ones(2)),
        Output(name="output", inputs=("two",)),
    )
    return Graph(nodes=nodes, timesteps=1, stage=Stage.FOLDED, name="teacher")


def report(
    graph: Graph | None = None,
    taught: Graph | None = None,
    inputs: Array = PIXELS,
    unrelayed: Graph | None = None,
) -> energy.Report:
    graph = graph or student()
    return energy.build(
        graph=graph,
        inputs=inputs,
        labels=np.zeros(inputs.shape[sample_axis(graph)], dtype=np.int64),
        teacher=taught,
        data={"name": "two pictures"},
        accuracy={"snn": 0.5, "ann": None},
        name="tiny",
        target="onnx",
        unrelayed=unrelayed,
    )


def row(found: energy.Report, name: str) -> dict[str, Any]:
    return next(one for one in found["layers"] if one["name"] == name)


def only(prices: str, scope: str = "arithmetic", included: str = "") -> Table:
    head = f'name="t"\ntitle="t"\nscope="{scope}"\nnode_nm=1\nvolt=1\nevidence="derived"\nsource="s"\ncovers="c"\n'
    return parse_table(f"{head}excludes=[]\nincluded=[{included}]\n[prices]\n{prices}", "t.toml")


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


def test_prices_by_hand() -> None:
    priced = energy.price(report(), [load_table("cmos45_fp32")])["energy"][0]
    parts = {
        "encoder": 4.6 * 24,  # 8 multiply-accumulates at each of 3 steps, all pixels
        "bias": 0.9 * (3 * 4 + 3),  # channel 1 at each step; one class of the readout
        "neurons": 0.9 * (33 / 2 + 30 / 2 + 24),  # additions of active updates and of soft resets, compares; no leak
        "pooling": 0.9 * 15,
        "graded": 4.6 * 11,
    }
    assert priced["snn"]["by_class"] == {key: [pytest.approx(value)] * 3 for key, value in parts.items()}
    assert priced["snn"]["total"] == [pytest.approx(sum(parts.values()))] * 3
    assert sum(one[1] for one in priced["snn"]["by_layer"].values()) == pytest.approx(sum(parts.values()))
    assert priced["unpriced"] == []


def test_an_ann_of_the_same_shape_by_hand() -> None:
    found = energy.price(report(), [load_table("cmos45_fp32")])
    (same,) = found["ann"]
    assert (same["role"], same["params"], same["macs_dense"], same["macs_dense_nonzero"]) == ("same_shape", 10, 12, 7)
    assert same["macs_effective"] is None
    assert "no trained ANN of this shape" in same["effective_reason"]
    total = 4.6 * 12 + 0.9 * (4 + 1 + 8) + 0.9 * 8  # biases that are not zero, the pool; a ReLU for each neuron
    assert found["energy"][0]["ann"] == [{"role": "same_shape", "work": "dense", "total": [pytest.approx(total)] * 3}]


def test_an_ann_of_the_same_shape_pools_first_and_skips_padding_on_every_target() -> None:
    graph = pooled_network("conv")
    inputs = random_inputs(graph, 5)
    folded = fold_pooling(graph, load_target("loihi2"), Calibration(inputs))
    (graded,), (widened,) = (report(one, inputs=inputs)["ann"] for one in (graph, folded))
    assert widened == graded
    taps = (2 + 3 + 3 + 2) * (2 + 3 + 2)  # of 12 x 9 of a 3x3 kernel on 4 x 3, padded by one
    assert (graded["macs_dense"], graded["macs_dense_inrange"]) == (12 * 9 * 2 * 3 + 72, taps * 2 * 3 + 72)
    assert (graded["adds"], graded["compares"]) == (96 + 12, 96 + 36)
    entry = energy.price(report(graph, inputs=inputs), [only("mac_pj = 1\nadd_pj = 0\ncompare_pj = 0")])["energy"][0]
    assert entry["ann"][0]["total"] == [float(graded["macs_dense_inrange"])] * 3


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


def test_a_maximum_is_compares() -> None:
    nodes = (
        Input(name="input", shape=(1, 2, 2), high=1, static=False),
        MaxPool2d(name="pool", inputs=("input",), kernel=(2, 2), stride=(2, 2)),
        Flatten(name="flat", inputs=("pool",)),
        Linear(name="fc", inputs=("flat",), weight=np.array([[1], [2]]), bias=np.array([0, 0])),
        Output(name="output", inputs=("fc",)),
    )
    graph = Graph(nodes=nodes, timesteps=1, stage=Stage.INTEGER)
    found = energy.price(
        report(graph, inputs=np.array([[[[[1, 1], [0, 1]]]]])), [only("compare_pj = 1\nsynop_pj = 10")]
    )
    assert found["energy"][0]["snn"]["by_class"] == {"pooling": [3.0] * 3, "synapses": [20.0] * 3}
    assert found["ann"][0]["compares"] == 4


def test_the_teacher_is_counted_dense_and_without_zeros() -> None:
    found = report(taught=teacher())
    taught, same = found["ann"]
    assert (taught["role"], taught["macs_dense"], taught["macs_effective"]) == ("teacher", 18, (2 + 1) * 3 + 2 * 6)
    assert (taught["adds"], taught["compares"], taught["params"]) == (2, 3, 23)
    assert same["macs_effective"] is None


def test_a_teacher_of_the_same_shape_lends_its_zeros() -> None:
    ann = tuple(Relu(name="lif", inputs=("conv",)) if isinstance(node, Neuron) else node for node in student())
    found = report(taught=Graph(nodes=ann, timesteps=1, stage=Stage.FOLDED, name="ann"))
    taught, same = found["ann"]
    assert same["macs_effective"] == taught["macs_effective"] == 3 * 2 + 4 * 2
    assert same["effective_reason"] is None


def test_each_way_of_counting_that_matters_is_compared() -> None:
    entry = energy.price(report(taught=teacher()), [load_table("cmos45_fp32")])["energy"][0]
    assert len(entry["cases"]) == 2 * 2 * 2 * 2 * 3
    cheapest = min(entry["cases"], key=lambda case: float(case["snn"][1]))["convention"]
    assert cheapest == {"encoder": "once", "pixels": "nonzero", "sums": "unit", "weights": "nonzero"}
    unit = next(one for one in entry["cases"] if one["convention"] == cheapest)
    assert unit["snn"][1] == pytest.approx(4.6 * 1.5 + 0.9 * (18 + (4 + 3) + 33 / 2 + 15 + 24 + 15))
    assert entry["of"] == len(entry["cases"])
    ratios = [case["ratio"] for case in entry["cases"]]
    assert entry["ratio"] == [min(one[0] for one in ratios), max(one[2] for one in ratios)]
    assert entry["wins"] == sum(case["ann"][1] > case["snn"][1] for case in entry["cases"])


def test_the_headline_is_a_range_over_tables_conventions_and_anns() -> None:
    found = energy.price(report(taught=teacher()), load_tables())
    headline = found["headline"]
    assert headline["all"]["of"] == sum(part["of"] for part in headline["against"].values()) == 96
    assert headline["tables_without_ratio"] == ["loihi1_davies", "loihi1_measured_fit"]
    assert headline["statement"].startswith(f"the spiking network wins in {headline['all']['wins']} of 96 comparisons")


def test_without_prices_nothing_is_compared() -> None:
    found = report()
    assert found["energy"] == []
    assert found["headline"]["all"] == {"ratio": None, "wins": 0, "of": 0}
    assert "no comparison" in found["headline"]["statement"]


def test_what_has_no_price_is_listed_and_never_zero() -> None:
    entry = energy.price(report(), [only("synop_pj = 1")])["energy"][0]
    assert entry["snn"]["by_class"] == {}
    assert entry["ratio"] is None
    missing = {one["operation"]: one["per_inference"] for one in entry["unpriced"] if one["side"] == "snn"}
    assert missing == {"mac": 24 + 11, "add": 15 + 15 + 33 / 2 + 15, "compare": 24}


def test_a_chip_prices_whole_neurons_and_spikes() -> None:
    table = only("neuron_active_pj = 10\nneuron_inactive_pj = 1\nspike_pj = 100", "chip", '"bias", "pooling"')
    entry = energy.price(report(), [table])["energy"][0]
    assert entry["snn"]["by_class"] == {"neurons": [(330 + 15) / 2] * 3, "spikes": [1500.0] * 3}
    missing = [one["operation"] for one in entry["unpriced"] if one["side"] == "snn"]
    assert missing == ["mac"]


def test_a_chip_has_no_price_for_the_host() -> None:
    nodes = tuple(
        Conv2d(name="conv", inputs=("input",), weight=CONV, bias=np.array([0, 3]), placement="host")
        if isinstance(node, Conv2d)
        else node
        for node in student()
    )
    found = report(Graph(nodes=nodes, timesteps=3, stage=Stage.LEGAL))
    assert "conv: computed by the host, which no chip's price table covers" in found["warnings"]
    entry = energy.price(found, [only("mac_pj = 1", "chip", '"bias", "pooling"')])["energy"][0]
    assert entry["snn"]["by_class"] == {"graded": [11.0] * 3}
    assert "host mac" in [one["operation"] for one in entry["unpriced"]]
    arithmetic = energy.price(found, [only("mac_pj = 1")])["energy"][0]
    assert arithmetic["snn"]["by_class"] == {"encoder": [24.0] * 3, "graded": [11.0] * 3}


def test_the_formula_of_the_literature_by_hand() -> None:
    found = energy.price(report(), [load_table("cmos45_fp32")])
    literature = found["literature"]
    rate = 30 / 48
    assert literature["snn"]["once"] == pytest.approx(4.6 * 8 + 0.9 * rate * 3 * 4)
    assert literature["snn"]["per_step"] == pytest.approx(4.6 * 8 * 3 + 0.9 * rate * 3 * 4)
    assert literature["ann"] == pytest.approx(4.6 * 12)
    exact = found["energy"][0]["snn"]["total"][1]
    over = literature["ratio_exact_over_literature"]
    assert over["per_step"] == pytest.approx(exact / literature["snn"]["per_step"])
    assert over["once"] == pytest.approx((exact - 4.6 * 16 - 0.9 * 8) / literature["snn"]["once"])


def attentive(kind: type[Node]) -> Graph:
    """Two channels of 1 x 3 spikes, or of what a ReLU leaves of them, multiplied with themselves; two steps, or one."""
    spiking = kind is Neuron
    state = {"decay": 0.0, "threshold": np.asarray(0)} if spiking else {}
    nodes: tuple[Node, ...] = (
        Input(name="input", shape=(2, 1, 3), high=1, static=False),
        kind(name="lif", inputs=("input",), **state),  # type: ignore[arg-type]
        Attention(name="attention", inputs=("lif", "lif", "lif"), heads=1),
        Flatten(name="flat", inputs=("attention",)),
        Linear(name="fc", inputs=("flat",), weight=np.arange(12).reshape(2, 6), bias=np.zeros(2, dtype=int)),
        Output(name="output", inputs=("fc",)),
    )
    return Graph(nodes=nodes, timesteps=2, stage=Stage.LEGAL if spiking else Stage.FOLDED, name="attentive")


def test_products_of_spikes_are_additions_and_those_of_an_ann_multiply_accumulates() -> None:
    spikes = np.array([[[[[1, 1, 0]], [[0, 1, 0]]]], [[[[0, 0, 0]], [[0, 0, 0]]]]])  # one sample, silent at step 1
    found = energy.price(report(attentive(Neuron), inputs=spikes), [load_table("cmos45_fp32")])
    attention = row(found, "attention")
    # at token 0 one channel fires, at token 1 both: 1 + 4 pairs; 3 spikes of q read 2 numbers each
    assert (attention["attention_and"], attention["attention_adds"]) == (5, 6)
    assert attention["dense_macs"] == 2 * 2 * 2 * 3
    assert found["energy"][0]["snn"]["by_class"]["attention"] == [pytest.approx(0.9 * 11)] * 3
    same = next(ann for ann in found["ann"] if ann["role"] == "same_shape")
    assert same["macs_dense"] == 2 * 2 * 2 * 3 + 12
    literature = energy.price(report(attentive(Neuron), inputs=spikes), [])["literature"]
    assert literature["snn"]["once"] == pytest.approx(4.6 * 12 + 0.9 * 2 * (9 / 36) * 24)


def test_a_teacher_s_attention_skips_what_is_zero() -> None:
    values = np.array([[[[[1, 1, 0]], [[0, 1, 0]]]]])
    effective = count(replace(attentive(Relu), timesteps=1), values)
    assert (effective.total("attention_and"), effective.total("attention_adds")) == (5, 6)


def test_the_literature_has_no_exact_counterpart_under_other_prices() -> None:
    found = energy.price(report(), [load_table("cmos45_int8_acc32")])["literature"]
    assert (found["exact_under"], found["ratio_exact_over_literature"]) == (None, None)


def test_a_silent_network_has_no_ratio_and_is_warned_of() -> None:
    nodes = (
        Input(name="input", shape=(2,), high=1, static=False),
        Neuron(name="lif", inputs=("input",), decay=1.0, threshold=np.asarray(9)),
        Linear(name="fc", inputs=("lif",), weight=np.ones((2, 2), dtype=int), bias=np.zeros(2, dtype=int)),
        Output(name="output", inputs=("fc",)),
    )
    found = report(Graph(nodes=nodes, timesteps=2, stage=Stage.INTEGER), inputs=np.zeros((2, 3, 2), dtype=np.int64))
    assert "lif: no neuron ever fires" in found["warnings"]
    assert energy.price(found, [only("mac_pj = 1\nsynop_pj = 1\nadd_pj = 1\ncompare_pj = 0")])["energy"][0]["of"] == 0
    assert found["literature"]["snn"]["once"] == 0


def test_a_report_is_priced_again_without_the_model(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    first = energy.price(report(taught=teacher()), [load_table("cmos45_fp32")])
    energy.write(path, first)
    assert energy.read(path) == json.loads(json.dumps(first))
    again = energy.price(energy.read(path), load_tables())
    energy.write(path, again)
    assert energy.read(path)["energy"][0] == first["energy"][0]
    assert again["counts_sha256"] == first["counts_sha256"]


def change(path: Path, key: str, value: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, key: value}))


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("totals", {}, r"counts are not those that were written \(counts_sha256 differs\)"),
        ("model", {"timesteps": 1}, "counts_sha256 differs"),
        ("schema_version", 2, "version 2; this program reads version 1"),
        ("schema", "something else", "not an energy report: its schema is 'something else'"),
        ("counts_sha256", None, "counts_sha256 differs"),
    ],
)
def test_a_changed_report_is_refused(tmp_path: Path, key: str, value: object, reason: str) -> None:
    path = tmp_path / "report.json"
    energy.write(path, report())
    change(path, key, value)
    with pytest.raises(BundleError, match=reason):
        energy.read(path)


def test_a_changed_price_does_not_matter_since_prices_are_computed_anew(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    priced = energy.price(report(), [load_table("cmos45_fp32")])
    energy.write(path, priced)
    change(path, "energy", [])
    assert energy.price(energy.read(path), [load_table("cmos45_fp32")]) == json.loads(json.dumps(priced))


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"counts": 1}', '{"schema": "snnkd-deploy/energy", "lay'])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(BundleError, match="is not an energy report|is not a report"):
        energy.read(path)


def test_a_missing_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no report at"):
        energy.read(tmp_path / "none.json")


def test_labels_must_fit_the_samples() -> None:
    with pytest.raises(InputError, match="1 labels for 2 samples"):
        energy.build(
            graph=student(), inputs=PIXELS, labels=np.zeros(1), teacher=None, data={}, accuracy={}, name="", target=""
        )


def test_only_integer_networks_have_an_energy() -> None:
    with pytest.raises(GraphError, match="it is FOLDED; the integer network is counted"):
        report(teacher())


def test_a_teacher_of_other_samples_is_not_counted() -> None:
    linear = Linear(name="one", inputs=("input",), weight=np.ones((2, 5)), bias=np.zeros(2))
    nodes = (Input(name="input", shape=(5,)), linear, Output(name="output", inputs=("one",)))
    found = report(taught=Graph(nodes=nodes, timesteps=1, stage=Stage.FOLDED))
    assert [one["role"] for one in found["ann"]] == ["same_shape"]
    assert "the teacher takes (5,), the network other samples: it was not counted" in found["warnings"]


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_any_network_gives_a_report_that_is_plain_json(seed: int) -> None:
    graph, inputs = integer_network(seed)
    found = energy.price(report(graph, teacher_network(seed)[0], inputs), load_tables())
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))
    for entry in found["energy"]:
        assert entry["wins"] <= entry["of"] <= len(entry["cases"])
        parts = sum(one[1] for one in entry["snn"]["by_layer"].values())
        assert parts == pytest.approx(entry["snn"]["total"][1])
