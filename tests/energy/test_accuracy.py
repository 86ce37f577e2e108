"""Accuracy has an interval, and a network that guesses gets no verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from snnkd_deploy import energy
from snnkd_deploy.counts import count
from snnkd_deploy.energy.accuracy import accuracies, guessing, wilson
from snnkd_deploy.price_files import load_table
from tests.energy.reports import PIXELS, report, student, teacher


def accuracy(**more: Any) -> dict[str, Any]:
    return {"snn_counted": 0.5, "guess": 0.1, **more}


def test_shares_are_of_the_counted_samples() -> None:
    counts = count(student(), PIXELS)
    assert counts.predictions.tolist() == [1, 1]
    labels = np.array([1, 0])
    found = accuracies(counts, count(teacher(), PIXELS), labels, {"snn": 0.7})
    assert (found["snn"], found["ann"], found["snn_counted"]) == (0.7, None, 0.5)
    assert found["guess"] == 0.5
    assert found["agreement"] is not None
    assert accuracies(counts, None, None, {})["guess"] is None


@pytest.mark.parametrize(("hits", "samples", "low", "high"), [(0, 10, 0, 0.2775), (50, 100, 0.4038, 0.5962)])
def test_the_interval_of_wilson(hits: int, samples: int, low: float, high: float) -> None:
    assert wilson(hits, samples) == pytest.approx([low, high], abs=1e-4)


@pytest.mark.parametrize(
    "known",
    [
        accuracy(),
        accuracy(snn_counted=0.2),
        accuracy(guess=None),
        accuracy(guess=1.0),  # one class alone: nobody can tell
        {"snn_counted": 0.1},  # a report of before
    ],
)
def test_a_network_that_works_or_cannot_be_judged_is_not_doubted(known: dict[str, Any]) -> None:
    assert guessing(known) is None


def test_a_network_that_guesses_is_doubted() -> None:
    assert guessing(accuracy(snn_counted=0.18)) == (
        "the network is right on 18.00% of the samples, hardly better than guessing (10.00%)"
    )


def test_a_network_that_guesses_gets_no_verdict() -> None:
    prices, fair = [load_table("cmos45_int8_acc32")], report()
    poor = {**fair, "accuracy": {**fair["accuracy"], "guess": 0.5}}
    sure, doubted = (energy.price(one, prices)["headline"] for one in (fair, poor))
    assert sure["verdict"] == doubted["all"]["verdict"] == "loses"
    assert doubted["verdict"] is None
    assert doubted["statement"].startswith(
        "No verdict: the network is right on 0.00% of the samples, hardly better than"
    )
    assert "ANN/SNN energy would be " in doubted["statement"]


def test_it_is_warned_of() -> None:
    inputs = np.concatenate([PIXELS, PIXELS])
    found = energy.build(
        graph=student(), inputs=inputs, labels=np.array([0, 0, 0, 1]), teacher=None, data={}, accuracy={}, name="n"
    )
    assert found["warnings"][0] == "the network is right on 25.00% of the samples, hardly better than guessing (75.00%)"
