"""What a reader sees: the verdict first, every number named, nothing wider than asked, markup in names left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from snnkd_deploy import energy
from snnkd_deploy.ir import Linear, Output
from snnkd_deploy.price_files import load_tables
from snnkd_deploy.report import render
from tests.energy.reports import report, student, teacher
from tests.networks import seeds
from tests.test_counts import integer_network


@pytest.fixture(scope="module")
def found() -> energy.Report:
    return energy.price(report(taught=teacher()), load_tables())


def test_the_verdict_comes_first_and_everything_is_named(found: energy.Report) -> None:
    text = render(found)
    lines = text.splitlines()
    assert lines[0] == "Energy of tiny for onnx: an estimate from counts and prices, nothing was measured"
    assert lines[2].startswith("Result       No verdict: ANN/SNN energy is ")
    words = " ".join(text.split())
    for part in (
        "In all it wins",
        "Against teacher: ANN/SNN",
        "Uncertainty the ratio moves with: samples ±",
        "Break-even 2.75 spikes per synapse and inference",
        "dampfhoffer_2023 refuted (2.8 against 0.15 to 1.38)",
        "Layers cheaper dense: conv",
        "Papers the usual formula says",
        "exact counts at its own prices are",
        "3 steps, 8 neurons, 10 parameters of 3 bits, 33.3% of the weights zero; the LEGAL graph",
        "2 samples of two pictures, direct coding",
        "sparse",
        "same shape",
        "spinnaker1 measured ≥",
        "The ANN (teacher, dense) on a processor at full load takes at least:",
        "Same shape: no trained ANN of this shape",
        "Warning: only 2 samples were counted",
        "In no total: control, clock",
        "means per inference, summed over its T steps",
        "--out report.html",
    ):
        assert part.lower() in words.lower(), part


def test_each_layer_has_a_row_of_counts(found: energy.Report) -> None:
    lines = render(found).splitlines()
    for name in ("conv", "lif", "pool", "fc"):
        assert sum(line.split()[:1] == [name] for line in lines) == 1
    counts = next(line.split() for line in lines if line.split()[:1] == ["fc"])
    assert counts == ["fc", "Linear", "sums", "5.5", "0", "11", "3"]


def test_the_full_report_tells_what_the_figures_rest_on(found: energy.Report) -> None:
    text = render(found, full=True)
    words = " ".join(text.split())
    for part in (
        "ANNs, counts per inference",
        "Break-even, by table and ANN",
        "Dense or spiking, layer by layer",
        "Published break-even points",
        "Spiking network by class of operation",
        "From the papers' formula to the exact figure",
        "Memory accesses per inference",
        "loihi1_davies (",
        "without a price here: 35 mac (snn)",
        "checked: constants and formulas in SpikingJelly",
        "loihi2_as_loihi1, measured: PilotNet LIF",
        "9% to 19% of it",
        "Ways of counting compared: encoder per_step or once; pixels all or nonzero; sums graded or unit;",
        f"Graph {found['model']['digest']}",
        f"counts {found['counts_sha256']}",
    ):
        assert part in words, part
    assert len(text) > 3 * len(render(found))


def test_a_report_without_prices_shows_counts_and_says_so() -> None:
    text = render(report(taught=teacher()))
    assert "both sides under the same prices" not in text
    assert "No comparison: no price table" in text


@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_any_report_fits_its_width(seed: int) -> None:
    graph, inputs = integer_network(seed)
    priced = energy.price(report(graph, None, inputs), load_tables(["cmos45_int8_sram", "loihi1_davies"]))
    for full in (False, True):
        assert max(map(len, render(priced, full=full).splitlines())) <= 110


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
    text = render(energy.price(report(replace(graph, nodes=tuple(nodes))), load_tables(["cmos45_fp32"])), full=True)
    assert "[bold]fc" in text
