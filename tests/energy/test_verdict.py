"""The rules of honesty, each as a test: what is said, what is not, and what a reader is warned of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from snnkd_deploy import energy
from snnkd_deploy.energy.verdict import of_cases, uncertainty, warnings
from snnkd_deploy.price_files import load_table, load_tables
from tests.energy.reports import PIXELS, only, priced, report, teacher


def case(*ratio: float, against: str = "a") -> dict[str, Any]:
    return {"ratio": list(ratio), "against": against}


def test_a_report_is_always_an_estimate_and_never_measured() -> None:
    for found in (report(), priced()):
        assert (found["estimate"], found["measured"]) == (True, False)


@pytest.mark.parametrize(
    ("cases", "wins", "verdict"),
    [
        ([case(1.1, 2, 3), case(1.2, 1.3, 1.4)], 2, "wins"),
        ([case(0.9, 2, 3), case(1.2, 1.3, 1.4)], 2, "depends"),  # one price is enough to take the verdict back
        ([case(0.1, 0.2, 0.3)], 0, "loses"),
        ([case(0.1, 0.2, 0.3), case(1.2, 1.3, 1.4)], 1, "depends"),
        ([{"ratio": None}], 0, None),
    ],
)
def test_a_verdict_needs_every_case_at_every_price(cases: list[Any], wins: int, verdict: str | None) -> None:
    found = of_cases(cases)
    assert (found["wins"], found["verdict"]) == (wins, verdict)


def test_the_headline_is_a_range_over_tables_conventions_and_anns() -> None:
    headline = priced(taught=teacher())["headline"]
    cases = [one for entry in priced(taught=teacher())["energy"] for one in entry["cases"]]
    ratios = [one["ratio"] for one in cases if one["ratio"]]
    assert headline["all"]["ratio"] == [min(one[0] for one in ratios), max(one[2] for one in ratios)]
    assert headline["all"]["of"] == sum(part["of"] for part in headline["against"].values()) == len(ratios)
    assert set(headline["against"]) == {"teacher", "same_shape"}
    assert headline["statement"].startswith("No verdict: ANN/SNN energy is ")
    assert sum(map(len, headline["by_verdict"].values())) == 8
    assert {"loihi1_davies", "jetson_orin_nano_peak", "yan2024_22nm"} <= set(headline["tables_without_ratio"])


def test_a_verdict_is_spoken_only_if_all_tables_agree() -> None:
    losing = priced(load_table("cmos45_int8_acc32"))["headline"]
    assert losing["verdict"] == "loses"
    assert losing["statement"].startswith("The spiking network loses: ANN/SNN energy is ")
    assert "under 1 price table" in losing["statement"]
    cheap = only("mac_pj = 1\nsynop_pj = 1e-9\nadd_pj = 0\ncompare_pj = 1")
    mixed = priced(load_table("cmos45_int8_acc32"), cheap)["headline"]
    assert mixed["verdict"] in (None, "loses")


def test_samples_prices_counting_and_tables_stay_apart() -> None:
    inputs = np.random.default_rng(0).integers(0, 4, (60, 1, 2, 2))
    fixed = energy.price(report(inputs=inputs), [load_table("cmos45_fp32")])
    found = fixed["uncertainty"]
    assert found["pricing"]["factor"] == pytest.approx(1)  # no price of it has bounds
    assert found["counting"]["factor"] > 1
    assert found["tables"]["factor"] == pytest.approx(1)
    assert 0 < found["sampling"]["ratio_half_width"] < 0.2
    several = energy.price(report(inputs=inputs), load_tables())["uncertainty"]
    assert several["pricing"]["factor"] > 1
    assert several["tables"]["factor"] > 1
    assert uncertainty(report(), [])["pricing"]["factor"] is None


def entry(**more: Any) -> dict[str, Any]:
    return {"time": None, "static": None, "scope": "chip", "volt": 0.75, **more}


def test_a_static_share_above_one_half_is_warned_of() -> None:
    time = {"inference_us": [1, 2, 3]}
    assert warnings(entry(time={**time, "static_share": 0.5})) == []
    (text,) = warnings(entry(time={**time, "static_share": 0.51}))
    assert text.startswith("static power is 51% of the energy of an inference of 2 µs")


def test_prices_and_static_power_at_other_voltages_are_warned_of() -> None:
    assert warnings(entry(static={"volt": 0.75})) == []
    (text,) = warnings(entry(static={"volt": "not stated"}))
    assert text.startswith(
        "prices at 0.75 V, static power at a voltage not stated: they are not of one operating point"
    )


def test_what_is_in_no_total_is_listed() -> None:
    excluded = " ".join(priced()["headline"]["excluded"])
    for part in (
        "control, clock",
        "host",
        "reading the picture in",
        "DRAM",
        "memory and moving of data",
        "static power",
    ):
        assert part in excluded
    assert "messages, hops and time, where the network is not mapped to that chip (loihi1_davies" in excluded
    assert "multiplications of pixels or sums of spikes, where a chip takes spikes alone" in excluded
    with_memory = " ".join(priced(load_table("lemaire2022"))["headline"]["excluded"])
    assert "moving of data" not in with_memory


def test_graph_table_and_counts_are_named_by_their_hashes() -> None:
    found = priced()
    assert len(found["model"]["digest"]) == len(found["counts_sha256"]) == len(found["data"]["inputs_sha256"]) == 64
    assert {entry["hash"] for entry in found["energy"]} == {table.digest for table in load_tables()}


def test_without_any_table_there_is_nothing_to_say() -> None:
    found = energy.price(report(inputs=PIXELS), [])["headline"]
    assert (found["verdict"], found["statement"][:13]) == (None, "No comparison")
