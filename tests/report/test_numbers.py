"""Three digits, a unit that suits, bounds only where they differ."""

from __future__ import annotations

import pytest

from snnkd_deploy.report.numbers import at_least, band, between, energy, factor, form, number, one_energy, ranged, share


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (5.5, "5.5"),
        (999, "999"),
        (999.6, "1k"),
        (12226, "12.2k"),
        (1031744, "1.03M"),
        (2e9, "2G"),
        (3e12, "3T"),
    ],
)
def test_numbers_keep_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_energies_take_a_unit_that_suits() -> None:
    assert energy([0.5, 0.5, 0.5]) == "0.5 pJ"
    assert energy([1000.0] * 3) == "1 nJ"
    assert energy([2e5, 1.5e6, 3e6]) == "0.2 / 1.5 / 3 µJ"
    assert energy(None) == one_energy(None) == "-"


def test_bounds_are_marked() -> None:
    assert at_least([1000.0] * 3, lower_bound=True) == "≥ 1 nJ"
    assert at_least([1000.0] * 3, lower_bound=False) == "1 nJ"
    assert at_least(None, lower_bound=True) == "-"
    assert between(1.7e6, 1.8e6) == "1.7 to 1.8 µJ"
    assert between(1.7001e6, 1.7002e6) == "1.7 µJ"
    assert (ranged([0.5, 2]), ranged(None), band([1.72, 1.72])) == ("0.5 to 2", "-", "1.72")


def test_parts_and_factors() -> None:
    assert (share(0.0619), share(None), share(0)) == ("6.19 %", "-", "0")
    assert (factor(2.34), factor(21.4), factor(1234), factor(None)) == ("x2.3", "x21", "x1,234", "-")


def test_an_ann_is_named_by_what_is_computed_of_it() -> None:
    label = {"role": "same_shape", "work": "effective", "bits": None}
    assert form(label) == "same shape, sparse"
    assert form({**label, "work": "dense", "bits": 3}, short=True) == "same shape dense, 3 bits"
