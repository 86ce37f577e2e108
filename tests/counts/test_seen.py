"""Values that were met are told, and held against what the graph says; they decide nothing."""

from __future__ import annotations

import numpy as np
import pytest

from snnkd_deploy.counts import Synapses, count
from snnkd_deploy.counts.kinds import Carried
from snnkd_deploy.counts.seen import MOST_VALUES, Seen, contradiction
from snnkd_deploy.ir import Linear
from tests.test_counts import one_layer, pooled_network


def seen(*values: float) -> Seen:
    found = Seen()
    found.add(np.array(values))
    return found


@pytest.mark.parametrize(
    ("values", "carried"),
    [
        ((0, 1), Carried("spikes")),
        ((0, 0.25), Carried("spikes", 0.25)),
        ((-1, 1), Carried("ternary")),
        ((0, 0.5, 0.75), Carried("sums", 0.25)),
        ((0, 1), Carried("sums")),
        ((0, 3, 9), Carried("picture")),
        (tuple(range(40)), Carried("values")),
    ],
)
def test_values_that_fit_are_not_worth_a_word(values: tuple[float, ...], carried: Carried) -> None:
    assert contradiction("layer", seen(*values), carried) is None


@pytest.mark.parametrize(
    ("values", "carried", "message"),
    [
        ((0, 2), Carried("spikes"), "layer: met 0, 2, where the graph says spikes of 1"),
        ((-2, 0), Carried("ternary"), "met -2, 0, where the graph says ternary of 1"),
        ((0, 0.3), Carried("sums", 0.25), "met 0, 0.3, where the graph says sums of 0.25"),
        ((0, 1), Carried("picture"), "met only 0, 1, where the graph says picture: a counter that looks at values"),
        ((0,), Carried("values"), "met only 0, where the graph says values"),
    ],
)
def test_values_that_contradict_or_would_mislead_are_told(
    values: tuple[float, ...], carried: Carried, message: str
) -> None:
    assert message in str(contradiction("layer", seen(*values), carried))


def test_few_values_are_listed_and_of_many_the_range_is_kept() -> None:
    found = seen(*range(MOST_VALUES))
    assert len(found.values or ()) == MOST_VALUES
    found.add(np.array([-3, 99]))
    assert found.values is None
    assert (found.low, found.high) == (-3, 99)


def test_a_black_and_white_picture_stays_a_picture_and_is_warned_of() -> None:
    layer = Linear(name="layer", inputs=("input",), weight=np.array([[1, 2]]), bias=np.array([0]))
    counts = count(one_layer(layer, (2,)), np.array([[0, 9], [9, 9]]))
    found = counts["layer"]
    assert isinstance(found, Synapses)
    assert (found.input_kind, found.event_macs, found.values_seen) == ("picture", 3, (0, 9))
    assert len(counts.warnings) == 1
    assert "layer: met only 0, 9" in counts.warnings[0]


def test_silent_sums_are_no_contradiction() -> None:
    counts = count(pooled_network("conv"), np.zeros((3, 2, 2, 8, 6), dtype=np.int64))
    assert counts.warnings == ()
