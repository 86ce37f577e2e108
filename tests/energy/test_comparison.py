"""Several reports: who beats whom in accuracy and energy, and which tables allow the question at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnkd_deploy import energy
from snnkd_deploy.energy.comparison import _front, compare
from snnkd_deploy.errors import InputError
from snnkd_deploy.price_files import load_table
from tests.energy.reports import PIXELS, priced, report


def test_a_run_is_on_the_front_if_no_other_beats_it_in_both() -> None:
    points = {"exact": (0.9, 5.0), "cheap": (0.8, 1.0), "worse": (0.8, 2.0), "twin": (0.9, 5.0), "bad": (0.7, 9.0)}
    runs = [
        {"name": name, "accuracy": right, "energy_pj": {"t": [0, cost, 0]}} for name, (right, cost) in points.items()
    ]
    assert _front(runs, "t") == {"exact", "twin", "cheap"}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), min_size=1, max_size=8))
def test_the_front_is_what_brute_force_finds(points: list[tuple[int, int]]) -> None:
    runs = [{"name": str(at), "accuracy": a, "energy_pj": {"t": [0, c, 0]}} for at, (a, c) in enumerate(points)]
    beaten = {
        str(at)
        for at, (right, cost) in enumerate(points)
        for other, less in points
        if (other > right and less <= cost) or (other >= right and less < cost)
    }
    assert _front(runs, "t") == {run["name"] for run in runs} - beaten


def two() -> dict[str, Any]:
    """The same counts twice; the second network answers right, and its neurons are said to fire less."""
    plain = priced()
    accuracy = {**plain["accuracy"], "snn_counted": 1.0}
    return {"plain": plain, "right": {**plain, "accuracy": accuracy}}


def test_runs_are_compared_under_every_table_that_prices_them() -> None:
    found = compare(two())
    assert [run["name"] for run in found["runs"]] == ["plain", "right"]
    assert "cmos45_int8_sram" in found["tables"]
    assert "jetson_orin_nano_peak" not in found["tables"]
    assert found["runs"][1]["front"] == found["tables"]
    assert found["runs"][0]["front"] == []
    assert (found["estimate"], found["measured"]) == (True, False)


def test_tables_that_leave_out_other_things_of_each_run_are_not_asked() -> None:
    runs = two()
    first = runs["plain"]
    lacking = [{"side": "snn", "operation": "mac", "per_inference": 1}]
    changed = [{**one, "unpriced": lacking} if one["table"] == "cmos45_fp32" else one for one in first["energy"]]
    runs["plain"] = {**first, "energy": changed}
    assert "cmos45_fp32" not in compare(runs)["tables"]


def test_what_does_not_compare_is_warned_of() -> None:
    runs = two()
    other = report(inputs=np.tile(PIXELS, (60, 1, 1, 1)))
    runs["more"] = energy.price({**other, "model": {**other["model"], "target": "loihi"}}, [load_table("cmos45_fp32")])
    text = " ".join(compare(runs)["warnings"])
    assert "not all were counted on the same samples as they enter the network (2 of two pictures, 120 of" in text
    assert "not all are for the same target" in text
    assert "fewer than 100 samples: plain, right" in text


def test_reports_without_labels_or_common_tables_are_refused() -> None:
    runs = two()
    unlabelled = {**runs["plain"], "accuracy": {**runs["plain"]["accuracy"], "snn_counted": None}}
    with pytest.raises(InputError, match="other: no accuracy to compare, since the counted samples have no labels"):
        compare({**runs, "other": unlabelled})
    with pytest.raises(InputError, match="no price table gives all of these reports an energy"):
        compare({**runs, "unpriced": report()})
