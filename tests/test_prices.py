"""Sums and ratios under a price table, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnkd_deploy.price_files import load_table, parse_table
from snnkd_deploy.prices import Bill, Charge, Memory, Table, bill, ratio, split, total
from tests.test_price_files import PARTS, TEXT


def table(text: str = TEXT) -> Table:
    return parse_table(text, "mine.toml")


def test_a_bill_in_pj_by_hand() -> None:
    charges = [
        Charge("conv", "synapses", "synop_conv", 6),
        Charge("fc", "synapses", "synop_linear", 4),
        Charge("conv", "bias", "add", 100),
        Charge("lif", "neurons", "neuron_active", 2),
        Charge("conv", "graded", "mac", 7),
    ]
    due = bill(charges, table())
    assert dict(due) == {"synop": 10, "neuron_active": 2, None: 7}
    assert total(due, table(), samples=2) == [15.0, 20.0, 30.0]
    assert split(charges, table(), 2, "layer") == {
        "conv": [3.0, 6.0, 12.0],
        "fc": [2.0, 4.0, 8.0],
        "lif": [10.0, 10.0, 10.0],
    }
    assert split(charges, table(), 2, "group") == {"synapses": [5.0, 10.0, 20.0], "neurons": [10.0, 10.0, 10.0]}


def test_layers_may_have_prices_of_their_own() -> None:
    own = table(TEXT.replace("synop_pj", "synop_conv_pj"))
    assert own.key("synop_conv") == "synop_conv"
    assert own.key("synop_linear") is None
    assert table().key("host synop_conv") is None


def test_both_sides_of_a_ratio_pay_the_same_price_of_the_range() -> None:
    over = bill([Charge("a", "", "synop", 10), Charge("b", "", "neuron_active", 1)], table())
    under = bill([Charge("a", "", "synop", 5)], table())
    assert ratio(over, under, table()) == [50 / 20, 30 / 10, 20 / 5]


def test_there_is_no_ratio_without_all_prices_or_over_nothing() -> None:
    assert ratio({"synop": 1, None: 1}, {"synop": 1}, table()) is None
    assert ratio({"synop": 1}, {"synop": 1, None: 1}, table()) is None
    assert ratio({"synop": 1}, {}, table()) is None


def memory(text: str = PARTS) -> Memory:
    found = table(text).memory
    assert found is not None
    return found


def test_an_access_costs_what_the_memory_s_size_says() -> None:
    """10 pJ up to 8 KiB, 20 pJ from 32 KiB, linear between; 8 of 64 bits pay an eighth, whole words all."""
    packed, whole = memory(), memory(PARTS.replace('"packed"', '"whole"'))
    for size, pj in ((1, 10), (8192, 10), (20480, 15), (32768, 20), (10**9, 20)):
        assert packed.access(8 * size, 8) == pytest.approx(pj / 8)
        assert whole.access(8 * size, 8) == pytest.approx(pj)
        assert whole.access(8 * size, 65) == pytest.approx(2 * pj)


def test_memory_is_one_entry_of_nominal_energy_with_the_table_s_bounds() -> None:
    charges = [Charge("a", "weights", "weight_read", 3, 8, 64), Charge("a", "states", "state_write", 2, 8 * 32768, 64)]
    due = bill(charges, table(PARTS))
    assert dict(due) == {"memory": 3 * 10 + 2 * 20}
    assert total(due, table(PARTS), 1) == [70, 70, 140]
    assert dict(bill(charges, table())) == {}
    assert split(charges, table(PARTS), 1, "group") == {"weights": [30, 30, 60], "states": [40, 40, 80]}


def test_arrays_of_resamplings_are_priced_at_once() -> None:
    due = bill(
        [Charge("a", "synapses", "synop_conv", np.array([1.0, 2.0])), Charge("a", "x", "mac", np.zeros(2))], table()
    )
    low, nominal, _ = total(due, table(), 1)
    assert (low.tolist(), nominal.tolist()) == ([1, 2], [2, 4])


def test_fewer_bits_of_an_activation_need_fewer_rows_of_a_multiplier() -> None:
    full = load_table("cmos45_int8_acc32")
    half = full.quantized(4)
    assert half is not None
    assert half.prices["mac"] == pytest.approx((0.2, 0.2, 0.2))
    assert half.prices["synop"] == full.prices["synop"]
    assert full.quantized(8) is None
    assert load_table("cmos45_fp32").quantized(3) is None


def test_the_dearer_side_may_have_another_table() -> None:
    """Half the price of a synop above; the neuron's price moves on both sides at once."""
    other = table(TEXT.replace("[1, 2.0, 4]", "[0.5, 1, 2]"))
    due: Bill = {"synop": 10}
    assert ratio(due, due, table(), other) == [0.5, 0.5, 0.5]


@given(st.lists(st.integers(0, 5), min_size=3, max_size=3), st.lists(st.integers(1, 5), min_size=3, max_size=3))
def test_no_price_in_its_range_leads_out_of_the_bounds_of_a_ratio(over: list[int], under: list[int]) -> None:
    ranged = parse_table(TEXT.replace("= 10", "= [8, 10, 30]").replace("= 5", "= [1, 5, 6]"), "t.toml")
    keys = ("synop", "neuron_active", "neuron_inactive")
    bills: list[Bill] = [dict(zip(keys, numbers, strict=True)) for numbers in (over, under)]
    found = ratio(bills[0], bills[1], ranged)
    assert found is not None
    for seed in range(20):
        share = np.random.default_rng(seed).random(3)
        prices = [
            low + part * (high - low) for part, (low, _, high) in zip(share, map(ranged.price, keys), strict=True)
        ]
        met = np.dot(over, prices) / np.dot(under, prices)
        assert found[0] - 1e-9 <= met <= found[2] + 1e-9
