"""What a reader sees: every number named, nothing wider than asked, markup in names left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from snnkd_deploy import energy
from snnkd_deploy.ir import Linear, Output
from snnkd_deploy.prices import load_tables
from snnkd_deploy.report import energy as energy_text
from snnkd_deploy.report import number, render
from tests.networks import seeds
from tests.test_counts import integer_network
from tests.test_energy import report, student, teacher


def shown(tables: bool = True) -> str:
    return render(energy.price(report(taught=teacher()), load_tables() if tables else ()))


def test_the_report_names_what_it_is_based_on() -> None:
    text = " ".join(shown().split())
    for part in (
        "Energy estimate of tiny for onnx: 3 steps, 8 neurons, 10 parameters of 3 bits",
        "2 samples of two pictures, direct coding",
        "nothing was measured on a device",
        "teacher, sparse",
        "same shape, dense",
        "Formula of the literature: E = 4.6 pJ x FLOPs(layer 1)",
        "Horowitz, ISSCC 2014",
        "the spiking network wins in",
        "against teacher: wins",
        "against same shape: wins",
        "no comparison under loihi1_davies",
        "without a price here: 35 mac",
        "same shape: no trained ANN of this shape",
        "warning: only 2 samples were counted",
        "In no total: memory",
        "means per inference, summed over its T steps",
    ):
        assert part in text


def test_each_layer_has_a_row_of_counts_and_one_of_energy() -> None:
    lines = shown().splitlines()
    for name in ("conv", "lif", "pool", "fc"):
        assert sum(line.split()[:1] == [name] for line in lines) == 2
    counts = next(line.split() for line in lines if line.split()[:1] == ["fc"])
    assert counts == ["fc", "Linear", "sums", "5.5", "0", "11", "3"]


def test_a_report_without_prices_shows_counts_and_says_so() -> None:
    text = shown(tables=False)
    assert "Energy per inference" not in text
    assert "no comparison: no price table" in text


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_any_report_fits_its_width(seed: int) -> None:
    graph, inputs = integer_network(seed)
    text = render(energy.price(report(graph, None, inputs), load_tables()))
    assert max(map(len, text.splitlines())) <= 110


def test_brackets_in_a_name_are_no_markup() -> None:
    graph = student()
    nodes = [
        replace(node, name="[bold]fc")
        if isinstance(node, Linear)
        else replace(node, inputs=("[bold]fc",))
        if isinstance(node, Output)
        else node
        for node in graph
    ]
    assert "[bold]fc" in render(energy.price(report(replace(graph, nodes=tuple(nodes))), load_tables()))


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
    assert energy_text([0.5, 0.5, 0.5]) == "0.5 pJ"
    assert energy_text([1000.0] * 3) == "1 nJ"
    assert energy_text([2e5, 1.5e6, 3e6]) == "0.2 / 1.5 / 3 µJ"
    assert energy_text(None) == "-"
