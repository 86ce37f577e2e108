"""Sentences: what a summary says, and the measured network that an estimate is held against."""

from __future__ import annotations

import pytest

from snnkd_deploy.price_files import load_table
from snnkd_deploy.report import wording
from tests.energy.reports import entry_of, priced, report, teacher


def test_pilotnet_s_neuron_updates_explain_at_most_a_fifth_of_what_was_measured() -> None:
    """118,909 to 158,509 neurons, 16 steps, 52 to 81 pJ: 0.099 to 0.205 of 1.094 mJ."""
    entry = entry_of(priced(), "loihi2_as_loihi1")
    text = wording.anchor(entry, entry["anchors"][0])
    assert "1.9M to 2.54M neuron updates at 52 to 81 pJ are 98.9 µJ to 205 µJ, 9% to 19% of it" in text
    assert pytest.approx(0.19, abs=0.005) == 158509 * 16 * 81 / 1e9 / 1.093544


def test_the_measured_network_is_told_where_the_target_is_that_chip_or_all_is_asked_for() -> None:
    found = priced()
    assert not any("PilotNet" in text for text in wording.elsewhere(found))
    assert any("PilotNet" in text for text in wording.elsewhere(found, full=True))
    own = {**found, "model": {**found["model"], "target": "loihi2"}}
    assert any("PilotNet" in text for text in wording.elsewhere(own))


def test_uncertainties_are_told_one_beside_the_other() -> None:
    text = wording.moved(priced()["uncertainty"])
    for part in ("samples ±", "bootstrap over 2", "prices of one table x", "way of counting x", "choice of table x"):
        assert part in text


def test_the_formula_of_the_papers_stands_under_its_own_name() -> None:
    found = priced(load_table("cmos45_fp32"))["literature"]
    text = wording.literature(found)
    assert text.startswith("the usual formula says 43.5 pJ (ANN x1.3) with the first layer charged once, 117 pJ (ANN")
    assert text.endswith("exact counts at its own prices are x3.6 and x2 that")
    assert "exact counts" not in wording.literature(report()["literature"])


def test_every_warning_is_told_but_floors_are_told_in_full_alone() -> None:
    found = priced(taught=teacher())
    short, long = list(wording.notes(found)), list(wording.notes(found, full=True))
    assert "Warning: only 2 samples were counted" in short
    assert not any("a floor at full load" in text for text in short)
    assert any("a floor at full load" in text for text in long)
