"""How often the networks of a report are right, and whether that is more than guessing."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np

from snnkd_deploy.counts import Counts
from snnkd_deploy.ir import Array

HARDLY = 0.1
"""Of the way from guessing to perfect; a network below that does not do what it is for."""


def accuracies(
    counts: Counts, taught: Counts | None, labels: Array | None, given: Mapping[str, float | None]
) -> dict[str, Any]:
    """`snn` and `ann` as given; on the counted samples, of the graphs counted; and how often the two agree.

    `guess`: the share of the largest class, which always saying it would reach.
    """
    told = labels is not None
    right = int(np.sum(counts.predictions == labels)) if told else 0
    return {
        "snn": given.get("snn"),
        "ann": given.get("ann"),
        "snn_counted": right / counts.samples if told else None,
        "snn_ci95": wilson(right, counts.samples) if told else None,
        "ann_counted": None if taught is None or not told else float(np.mean(taught.predictions == labels)),
        "agreement": None if taught is None else float(np.mean(taught.predictions == counts.predictions)),
        "guess": None if labels is None else float(np.unique(labels, return_counts=True)[1].max() / counts.samples),
    }


def wilson(hits: int, samples: int) -> list[float]:
    """The 95 % interval of Wilson for a share of samples."""
    z, rate = 1.959964, hits / samples
    middle, width = rate + z * z / (2 * samples), z * sqrt(rate * (1 - rate) / samples + (z / (2 * samples)) ** 2)
    return [max(0.0, (middle - width) / (1 + z * z / samples)), min(1.0, (middle + width) / (1 + z * z / samples))]


def guessing(accuracy: Mapping[str, Any]) -> str | None:
    """What to say of a network that is hardly better than guessing; None of any other, or if nobody can tell."""
    guess, met = accuracy.get("guess"), accuracy["snn_counted"]
    if guess is None or guess == 1 or met >= guess + HARDLY * (1 - guess):
        return None
    return f"the network is right on {met:.2%} of the samples, hardly better than guessing ({guess:.2%})"
