"""What is drawn is what was counted and priced: bars add up, dots lie at their ratio, the front joins who is on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from snnkd_deploy import energy
from snnkd_deploy.report import plots
from tests.energy.reports import entry_of, priced, teacher


@pytest.fixture(scope="module")
def found() -> energy.Report:
    return priced(taught=teacher())


def test_the_bars_of_a_layer_add_up_to_its_energy(found: energy.Report) -> None:
    entry = entry_of(found, "cmos45_fp32")
    (axes,) = plots.layers(entry).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    scale = plots.unit_of(max(three[1] for three in entry["snn"]["by_layer"].values()))[0]
    ends: dict[int, float] = {}
    for bar in axes.patches:
        place = round(bar.get_y() + bar.get_height() / 2)  # type: ignore[attr-defined]
        ends[place] = max(ends.get(place, 0), bar.get_x() + bar.get_width())  # type: ignore[attr-defined]
    assert {names[place]: end * scale for place, end in ends.items()} == {
        name: pytest.approx(three[1]) for name, three in entry["snn"]["by_layer"].items()
    }


def test_dots_lie_at_the_ratio_of_the_reference_on_a_logarithmic_axis(found: energy.Report) -> None:
    (axes,) = plots.forest(found).axes
    assert axes.get_xscale() == "log"
    tables = [label.get_text() for label in axes.get_yticklabels()]
    assert set(tables) == {entry["table"] for entry in found["energy"] if entry["of"]}
    drawn = [np.asarray(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"]
    dots = sorted(float(one[0]) for one in drawn if len(one))
    nominal = [
        case["ratio"][1]
        for entry in found["energy"]
        for case in entry["cases"]
        if case["ratio"] and case["convention"] == entry["cases"][0]["convention"]
    ]
    assert dots == pytest.approx(sorted(nominal))


def test_the_network_lies_on_its_line_and_diamonds_where_it_meets_the_ann(found: energy.Report) -> None:
    entry = entry_of(found, "cmos45_int32")
    (axes,) = plots.spikes(found, entry).axes
    scale = plots.unit_of(entry["break_even"][0]["fixed_pj"] + entry["break_even"][0]["spiking_pj"])[0]
    points = {line.get_label(): np.asarray(line.get_xydata())[0] for line in axes.lines if line.get_marker() == "o"}
    here = found["break_even"]["spikes_per_synapse"]
    assert points["this network"] == pytest.approx([here, entry["snn"]["total"][1] / scale])
    diamonds = [np.asarray(line.get_xydata())[0] for line in axes.lines if line.get_marker() == "D"]
    met = [one for one in entry["break_even"] if one["spikes_per_synapse_max"]]
    expected = [(one["spikes_per_synapse_max"], one["ann_pj"] / scale) for one in met]
    assert np.ravel(diamonds) == pytest.approx(np.ravel(expected))


def test_the_waterfall_ends_at_the_exact_figure(found: energy.Report) -> None:
    steps = found["literature"]["steps"]
    (axes,) = plots.waterfall(steps).axes
    last = axes.patches[-1]
    scale = plots.unit_of(steps[0]["total_pj"])[0]
    end = last.get_x() + last.get_width()  # type: ignore[attr-defined]
    assert end * scale == pytest.approx(steps[-1]["total_pj"])
    assert [label.get_text() for label in axes.get_yticklabels()] == [one["step"] for one in steps]


def test_the_heat_map_is_the_rate_of_each_layer_at_each_step(found: energy.Report) -> None:
    drawn = plots.rates(found)
    assert drawn is not None
    shown = np.asarray(drawn.axes[0].images[0].get_array())
    assert shown.tolist() == [[pytest.approx(one) for one in (9 / 16, 10 / 16, 11 / 16)]]
    assert plots.rates({"layers": []}) is None


@pytest.mark.parametrize(
    ("rate", "text"), [(0.0, "0"), (1.0, "100"), (0.374, "37"), (0.0078, "0.8"), (0.00004, "0.004")]
)
def test_a_rare_spike_is_told_from_none(rate: float, text: str) -> None:
    assert plots.percent(rate) == text


def test_the_line_joins_the_front() -> None:
    def point(name: str, pj: float, accuracy: float, front: bool) -> dict[str, Any]:
        return {"name": name, "pj": [pj, pj, 2 * pj], "accuracy": accuracy, "ci95": None, "kind": "ann", "front": front}

    points = [point("b", 20, 0.9, True), point("worse", 15, 0.5, False), point("a", 10, 0.8, True)]
    (axes,) = plots.accuracies(points, "a table").axes
    assert np.asarray(axes.lines[0].get_xydata()).tolist() == [[10, 80], [20, 90]]
    assert {text.get_text() for text in axes.texts} == {"a", "b", "worse"}
