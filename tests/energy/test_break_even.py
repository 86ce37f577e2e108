"""Break-even: at S* both sides cost the same, and what stays without spikes is what a silent network costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from snnkd_deploy import energy
from snnkd_deploy.energy.break_even import capacity_bits, mean_rate, spikes_per_synapse
from snnkd_deploy.ir import Graph, Neuron, Stage
from snnkd_deploy.price_files import load_table, load_tables
from tests.energy.reports import only, report, student, teacher

TABLES = ("cmos45_fp32", "cmos45_int8_acc32", "cmos45_int8_sram", "lemaire2022")


def entries(found: energy.Report) -> list[dict[str, Any]]:
    return [entry for entry in found["energy"] if entry["break_even"]]


def test_at_the_break_even_both_sides_cost_the_same() -> None:
    found = energy.price(report(taught=teacher()), [load_table(name) for name in TABLES])
    assert len(entries(found)) == len(TABLES)
    for entry in entries(found):
        for one in entry["break_even"]:
            assert one["fixed_pj"] + one["margin"] * one["spiking_pj"] == pytest.approx(one["ann_pj"])
            assert one["fixed_pj"] + one["spiking_pj"] == pytest.approx(entry["snn"]["total"][1])
            here = found["break_even"]["spikes_per_synapse"]
            assert one["spikes_per_synapse_max"] == pytest.approx(max(0, here * one["margin"]))


@pytest.mark.parametrize("name", TABLES)
def test_what_stays_is_what_the_same_network_costs_if_it_never_fires(name: str) -> None:
    table = load_table(name)
    one = energy.price(report(), [table])["energy"][0]["break_even"][0]
    quiet = [replace(node, threshold=np.asarray(99)) if isinstance(node, Neuron) else node for node in student()]
    silent = report(Graph(nodes=tuple(quiet), timesteps=3, stage=Stage.LEGAL))
    assert one["fixed_pj"] == pytest.approx(energy.price(silent, [table])["energy"][0]["snn"]["total"][1])


def test_spikes_per_synapse_and_the_rate_by_hand() -> None:
    """fc: 22 pairs of two samples over 4 multiply-accumulates of the ANN; 30 spikes in 8 x 3 x 2 updates."""
    found = report()
    assert spikes_per_synapse(found) == pytest.approx(22 / (2 * 4))
    assert mean_rate(found) == pytest.approx(30 / 48)


@pytest.mark.parametrize(("steps", "bits"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (15, 4)])
def test_an_ann_of_equal_capacity_tells_as_many_values_apart(steps: int, bits: int) -> None:
    assert capacity_bits({"model": {"timesteps": steps}}) == bits


def test_the_most_steps_that_still_pay_by_hand() -> None:
    """Encoder 24 of three steps, spikes 11: 35 in all, 8 + 11 with the encoder once. The ANN: 12 multiplications."""
    text = "mac_pj = 1\nadd_pj = 0\ncompare_pj = 0\nleak_multiply_pj = 0"
    found = energy.price(report(), [only(text)])["energy"][0]["break_even"][0]
    assert found["max_timesteps"] == {"per_step": 1, "once": 1}  # 12 * 3 / 35; (12 - 8) / (11 / 3)


def test_published_points_are_all_asked_and_disagreement_is_no_verdict() -> None:
    found = energy.price(report(), [])["break_even"]["published"]
    verdicts = {one["name"]: one["verdict"] for one in found["bands"]}
    assert verdicts == {"dampfhoffer_2023": "refuted", "davidson_furber_2021": "refuted", "yan_2024": "refuted"}
    assert found["verdict"] == "refuted"
    mixed = report()
    mixed["layers"] = [{**row, "synops": 8} if row["name"] == "fc" else row for row in mixed["layers"]]
    mixed = energy.price(mixed, [])["break_even"]["published"]
    assert {one["verdict"] for one in mixed["bands"]} == {"marginal", "plausible", "refuted"}
    assert mixed["verdict"] == "marginal"


def test_a_layer_stays_dense_where_that_costs_less_under_every_table() -> None:
    found = energy.price(report(), load_tables())
    advice = {one["layer"]: one for one in found["break_even"]["layers"]}
    assert advice["conv"]["advice"] == "dense"  # at each step, and an ANN multiplies once
    assert advice["conv"]["neurons"] == "lif"
    assert advice["fc"]["of"] == sum(entry["dense_by_layer"] is not None for entry in found["energy"]) == 8
    cheap = energy.price(report(), [load_table("cmos45_fp32")])
    costs = cheap["energy"][0]["snn"]["by_layer"]["fc"][1], cheap["energy"][0]["dense_by_layer"]["fc"]
    assert (cheap["break_even"]["layers"][1]["advice"] == "spiking") == (costs[0] < costs[1])


def test_without_spikes_behind_the_encoder_there_is_nothing_to_break_even() -> None:
    found = energy.price(report(), [])["break_even"]
    assert (found["spikes_per_synapse_max"], found["comparisons"], found["max_timesteps"]) == (None, 0, None)
