"""Prices on counts, by hand; what has none; both kinds of uncertainty; the published schema."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings

from snnkd_deploy import energy
from snnkd_deploy.energy.operations import Convention
from snnkd_deploy.ir import Graph, Input, Linear, Neuron, Output, Stage
from snnkd_deploy.price_files import load_table, load_tables
from tests.energy.reports import FLAT, PIXELS, entry_of, only, priced, report, teacher
from tests.networks import seeds
from tests.test_counts import integer_network, teacher_network


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


def test_memory_by_hand() -> None:
    """One pJ an access: conv 24 weights and 16 pixels at each of 3 steps; lif 48 reads and writes, 30 spikes; fc 28
    weights, 22 membranes read and written, 11 events. Addresses: 14 places of 2 samples at 3 steps, and 22 pairs.
    """
    table = only("mac_pj = 0\nadd_pj = 10\ncompare_pj = 0", more=FLAT)
    entry = energy.price(report(), [table])["energy"][0]
    found = {name: three[1] for name, three in entry["snn"]["by_class"].items()}
    parts = {
        "weights": (72 + 28) / 2,
        "states": (96 + 44) / 2,
        "events": (48 + 30 + 11) / 2,
        "addresses": 10 * (84 + 22) / 2,
    }
    assert {name: found[name] for name in parts} == {name: pytest.approx(value) for name, value in parts.items()}
    assert entry["snn"]["by_class"]["states"] == [35.0, 70.0, 140.0]


def test_an_ann_s_memory_by_hand() -> None:
    """Without reuse: 12 + 5 weights, 8 + 2 inputs, 8 + 2 outputs; ideally 4 + 6, 4 + 2, and as many outputs."""
    table = only("mac_pj = 0\nadd_pj = 0\ncompare_pj = 0", more=FLAT)
    cases = energy.price(report(), [table])["energy"][0]["cases"]
    like = [one for one in cases if {**one["convention"], "reuse": "none"} == asdict(Convention())]
    assert {one["convention"]["reuse"]: one["ann"][1] for one in like} == {
        "none": 17 + 10 + 10,
        "ann": 10 + 6 + 10,
        "both": 10 + 6 + 10,
    }
    spiking = {one["convention"]["reuse"]: one["snn"][1] for one in like}
    assert spiking == {"none": 329 / 2, "ann": 329 / 2, "both": (4 + 4 + 6) + (30 + 11) / 2}


def test_an_ann_of_equal_capacity_multiplies_fewer_bits() -> None:
    """Three steps tell 4 counts apart: 2 bits, a quarter of the 8 rows of a multiplier."""
    entry = energy.price(report(), [load_table("cmos45_int8_acc32")])["energy"][0]
    dense, fewer = entry["ann"]
    assert (dense["bits"], fewer["bits"]) == (None, 2)
    assert dense["total"][1] - fewer["total"][1] == pytest.approx(12 * 0.2 * (1 - 2 / 8))
    assert {one["against"]["bits"] for one in entry["cases"]} == {None, 2}
    assert all(one["bits"] is None for one in energy.price(report(), [load_table("cmos45_fp32")])["energy"][0]["ann"])


def test_a_device_prices_the_dense_ann_alone_and_as_a_floor() -> None:
    entry = entry_of(priced(taught=teacher()), "jetson_orin_nano_peak")
    assert entry["snn"] is None
    assert [(one["role"], one["work"], one["total"], one["lower_bound"]) for one in entry["ann"]] == [
        ("teacher", "dense", [27.0] * 3, True),
        ("same_shape", "dense", [18.0] * 3, True),
    ]
    assert (entry["cases"], entry["verdict"]) == ([], None)
    assert "a floor at full load, not an estimate" in entry["warnings"][0]


def test_no_ann_is_compared_on_a_chip_even_where_multiplications_have_a_price() -> None:
    entry = entry_of(priced(), "loihi2_as_loihi1")
    assert "mac" in entry["prices"]
    assert (entry["ann"], entry["cases"], entry["ratio"]) == ([], [], None)


def test_without_prices_nothing_is_compared() -> None:
    found = report()
    assert found["energy"] == []
    assert found["headline"]["all"] == {"ratio": None, "wins": 0, "of": 0, "verdict": None}
    assert "No comparison" in found["headline"]["statement"]


def test_what_has_no_price_is_listed_and_never_zero() -> None:
    entry = energy.price(report(), [only("synop_pj = 1")])["energy"][0]
    assert entry["snn"]["by_class"] == {}
    assert entry["ratio"] is None
    missing = {one["operation"]: one["per_inference"] for one in entry["unpriced"] if one["side"] == "snn"}
    assert missing == {"mac": 24 + 11, "add": 15 + 15 + 33 / 2 + 15, "compare": 24}


def test_a_silent_network_has_no_ratio() -> None:
    nodes = (
        Input(name="input", shape=(2,), high=1, static=False),
        Neuron(name="lif", inputs=("input",), decay=1.0, threshold=np.asarray(9)),
        Linear(name="fc", inputs=("lif",), weight=np.ones((2, 2), dtype=int), bias=np.zeros(2, dtype=int)),
        Output(name="output", inputs=("fc",)),
    )
    found = report(Graph(nodes=nodes, timesteps=2, stage=Stage.INTEGER), inputs=np.zeros((2, 3, 2), dtype=np.int64))
    assert energy.price(found, [only("mac_pj = 1\nsynop_pj = 1\nadd_pj = 1\ncompare_pj = 0")])["energy"][0]["of"] == 0
    assert found["literature"]["snn"]["once"] == 0


def test_samples_and_prices_are_two_uncertainties() -> None:
    """Alike samples leave nothing to resampling; a price range stays; and the other way round."""
    alike, differing = np.tile(PIXELS[:1], (8, 1, 1, 1)), np.tile(PIXELS, (4, 1, 1, 1))
    wide = only("mac_pj = [1, 2, 4]\nadd_pj = 0\ncompare_pj = 0")
    narrow = only("mac_pj = 2\nadd_pj = 1\ncompare_pj = 0")
    first = energy.price(report(inputs=alike), [wide])["energy"][0]
    assert first["snn"]["ci95"] == [pytest.approx(first["snn"]["total"][1])] * 2
    assert first["snn"]["total"][2] == 4 * first["snn"]["total"][0]
    second = energy.price(report(inputs=differing), [narrow])["energy"][0]
    low, high = second["snn"]["ci95"]
    assert low < second["snn"]["total"][1] < high
    assert second["snn"]["total"][0] == second["snn"]["total"][2]


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = energy.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def plain(found: energy.Report) -> Any:
    return json.loads(json.dumps(found))


def test_reports_follow_the_published_schema(validator: Any) -> None:
    for found in (report(), priced(taught=teacher()), priced(load_table("lemaire2022"))):
        assert [error.message for error in validator.iter_errors(plain(found))] == []


def test_the_schema_refuses_what_is_no_report(validator: Any) -> None:
    found = plain(priced())
    changes: list[dict[str, Any]] = [{"measured": True}, {"layers": []}, {"schema_version": 1}, {"surprise": 1}]
    for change in changes:
        assert not validator.is_valid({**found, **change})
    assert not validator.is_valid(
        {key: value for key, value in found.items() if key != "excluded" and key != "headline"}
    )


@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_the_report_of_any_network_follows_the_schema(seed: int) -> None:
    graph, inputs = integer_network(seed)
    found = energy.price(report(graph, teacher_network(seed)[0], inputs), load_tables())
    schema = jsonschema.Draft202012Validator(energy.json_schema())
    assert [error.message for error in schema.iter_errors(plain(found))] == []
