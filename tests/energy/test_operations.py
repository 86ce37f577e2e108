"""What is charged, under each way of counting, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from snnkd_deploy import energy
from snnkd_deploy.energy.operations import Convention, ann_charges, charges, conventions
from snnkd_deploy.ir import Conv2d, Graph, Neuron, Stage
from snnkd_deploy.price_files import load_table
from snnkd_deploy.prices import bill
from tests.energy.reports import CONV, FLAT, attentive, only, report, row, student, teacher


def test_each_way_of_counting_that_matters_is_compared() -> None:
    entry = energy.price(report(taught=teacher()), [load_table("cmos45_fp32")])["energy"][0]
    assert len(entry["cases"]) == 2 * 2 * 2 * 2 * 3
    cheapest = min(entry["cases"], key=lambda case: float(case["snn"][1]))["convention"]
    assert cheapest == {"encoder": "once", "pixels": "nonzero", "sums": "unit", "weights": "nonzero", "reuse": "none"}
    unit = next(one for one in entry["cases"] if one["convention"] == cheapest)
    assert unit["snn"][1] == pytest.approx(4.6 * 1.5 + 0.9 * (18 + (4 + 3) + 33 / 2 + 15 + 24 + 15))
    assert entry["of"] == len(entry["cases"])
    ratios = [case["ratio"] for case in entry["cases"]]
    assert entry["ratio"] == [min(one[0] for one in ratios), max(one[2] for one in ratios)]
    assert entry["wins"] == sum(case["ann"][1] > case["snn"][1] for case in entry["cases"])


def test_reuse_is_compared_where_memory_has_a_price() -> None:
    found = report()
    plain, remembers = only("mac_pj = 1"), only("mac_pj = 1", more=FLAT)
    assert {one.reuse for one in conventions(found, plain)} == {"none"}
    assert {one.reuse for one in conventions(found, remembers)} == {"none", "ann", "both"}
    assert conventions(found, remembers)[0] == Convention()


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


def test_messages_and_hops_are_charged_only_where_the_network_is_mapped_to_that_chip() -> None:
    layer = {"source": "lif", "messages": 6, "hops_east_west": 4, "hops_north_south": None}
    found = {**report(), "mapping": {"target": "loihi", "layers": [layer, {**layer, "source": None}]}}
    prices = "synop_pj = 0\nmessage_pj = 10\nhop_east_west_pj = 1\nhop_north_south_pj = 1"
    here, elsewhere = (only(prices, "chip", mapped=name) for name in ("loihi", "loihi2"))
    assert dict(bill([one for one in charges(found, Convention(), here) if one.group == "routing"], here)) == {
        "message": 6, "hop_east_west": 4,
    }  # fmt: skip
    assert not [one for one in charges(found, Convention(), elsewhere) if one.group == "routing"]


def test_an_ann_pays_for_all_inputs_or_for_those_that_are_not_zero() -> None:
    found, table = report(taught=teacher()), load_table("cmos45_fp32")
    dense, sparse = (
        bill(ann_charges(found["ann"][0], work, Convention(), table, 2), table) for work in ("dense", "effective")
    )
    assert (dense["mac"], sparse["mac"]) == (2 * 18, (2 + 1) * 3 + 2 * 6)
    assert dense["add"] == sparse["add"] == 2 * 2
