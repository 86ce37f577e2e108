"""The teacher and the ANN of the same shape, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snnkd_deploy import energy
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.counts import count
from snnkd_deploy.ir import Flatten, Graph, Input, Linear, MaxPool2d, Neuron, Output, Relu, Stage
from snnkd_deploy.passes.fold_pooling import fold_pooling
from snnkd_deploy.price_files import load_table
from snnkd_deploy.target import load_target
from tests.energy.reports import attentive, only, report, student, teacher
from tests.networks import random_inputs
from tests.test_counts import pooled_network


def test_an_ann_of_the_same_shape_by_hand() -> None:
    found = energy.price(report(), [load_table("cmos45_fp32")])
    (same,) = found["ann"]
    assert (same["role"], same["params"], same["macs_dense"], same["macs_dense_nonzero"]) == ("same_shape", 10, 12, 7)
    assert same["macs_effective"] is None
    assert "no trained ANN of this shape" in same["effective_reason"]
    total = 4.6 * 12 + 0.9 * (4 + 1 + 8) + 0.9 * 8  # biases that are not zero, the pool; a ReLU for each neuron
    assert found["energy"][0]["ann"] == [
        {"role": "same_shape", "work": "dense", "bits": None, "total": [pytest.approx(total)] * 3, "lower_bound": False}
    ]


def test_sums_over_an_ann_are_those_of_its_layers() -> None:
    for ann in report(taught=teacher())["ann"]:
        for field in ("params", "macs_dense", "macs_dense_inrange", "macs_dense_nonzero", "adds", "compares"):
            assert ann[field] == sum(layer[field] for layer in ann["layers"])
    same = report()["ann"][0]["layers"]
    sizes = [(layer["name"], layer["inputs"], layer["outputs"], layer["params"]) for layer in same if layer["params"]]
    assert sizes == [("conv", 4, 8, 4), ("fc", 2, 2, 6)]


def test_an_ann_of_the_same_shape_pools_first_and_skips_padding_on_every_target() -> None:
    graph = pooled_network("conv")
    inputs = random_inputs(graph, 5)
    folded = fold_pooling(graph, load_target("loihi2"), Calibration(inputs))
    (graded,), (widened,) = (report(one, inputs=inputs)["ann"] for one in (graph, folded))
    assert {**widened, "layers": None} == {**graded, "layers": None}
    taps = (2 + 3 + 3 + 2) * (2 + 3 + 2)  # of 12 x 9 of a 3x3 kernel on 4 x 3, padded by one
    assert (graded["macs_dense"], graded["macs_dense_inrange"]) == (12 * 9 * 2 * 3 + 72, taps * 2 * 3 + 72)
    assert (graded["adds"], graded["compares"]) == (96 + 12, 96 + 36)
    entry = energy.price(report(graph, inputs=inputs), [only("mac_pj = 1\nadd_pj = 0\ncompare_pj = 0")])["energy"][0]
    assert entry["ann"][0]["total"] == [float(graded["macs_dense_inrange"])] * 3


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


def test_a_teacher_s_attention_skips_what_is_zero() -> None:
    values = np.array([[[[[1, 1, 0]], [[0, 1, 0]]]]])
    effective = count(replace(attentive(Relu), timesteps=1), values)
    assert (effective.total("attention_and"), effective.total("attention_adds")) == (5, 6)
