"""The papers' formula, and each step from it to the exact figure, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from snnkd_deploy import energy
from snnkd_deploy.ir import Neuron
from snnkd_deploy.price_files import load_table
from tests.energy.reports import attentive, report


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


def test_the_literature_has_no_exact_counterpart_under_other_prices() -> None:
    found = energy.price(report(), [load_table("cmos45_int8_acc32")])["literature"]
    assert (found["exact_under"], found["ratio_exact_over_literature"]) == (None, None)


def test_attention_has_the_mean_rate_of_its_factors() -> None:
    spikes = np.array([[[[[1, 1, 0]], [[0, 1, 0]]]], [[[[0, 0, 0]], [[0, 0, 0]]]]])
    literature = energy.price(report(attentive(Neuron), inputs=spikes), [])["literature"]
    assert literature["snn"]["once"] == pytest.approx(4.6 * 12 + 0.9 * 2 * (9 / 36) * 24)


def test_steps_lead_from_the_formula_to_the_exact_figure() -> None:
    found = energy.price(report(), [load_table("cmos45_fp32"), load_table("cmos45_fp32_sram")])
    steps = {one["step"]: one["total_pj"] for one in found["literature"]["steps"]}
    rate, exact = 30 / 48, found["energy"][0]["snn"]["total"][1]
    expected = {
        "the formula, first layer charged once": 4.6 * 8 + 0.9 * rate * 3 * 4,
        "first layer at each step": 4.6 * 24 + 0.9 * rate * 3 * 4,
        "taps on padding left out": 4.6 * 24 + 0.9 * rate * 3 * 4,  # there is no padding
        "each spike with its own fan-out (pools, strides)": 4.6 * 24 + 0.9 * 11,
        "sums of spikes multiplied": 4.6 * (24 + 11),
        "biases": 4.6 * (24 + 11) + 0.9 * 15,
        "neuron updates": 4.6 * (24 + 11) + 0.9 * (15 + 33 / 2 + 15 + 24),
        "pools": exact,
        "memory, without reuse": found["energy"][1]["snn"]["total"][1],
    }
    assert steps == {step: pytest.approx(value) for step, value in expected.items()}
    changes = [one["change_pj"] for one in found["literature"]["steps"]]
    assert sum(changes) == pytest.approx(found["energy"][1]["snn"]["total"][1])
