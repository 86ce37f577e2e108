"""Several reports as text, CSV, Markdown and page: who is on the front, and under which tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from snnkd_deploy.energy import compare
from snnkd_deploy.price_files import load_tables
from snnkd_deploy.report.comparison import by_table, main_table, render, run_csv, runs, write_as
from tests.energy.reports import priced

TABLES = load_tables(["cmos45_fp32", "cmos45_int8_sram", "spinnaker1"])


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    plain = priced(*TABLES)
    right = {**plain, "accuracy": {**plain["accuracy"], "snn_counted": 1.0, "snn_ci95": [0.34, 1.0]}}
    return compare({"plain": plain, "right": right})


def test_the_most_accurate_run_comes_first_with_its_bounds(found: dict[str, Any]) -> None:
    first, second = runs(found).rows
    assert (first[0], first[5], first[-1]) == ("right", "100.00% (34.0% to 100.0%)", "3 of 3")
    assert (second[0], second[-1]) == ("plain", "0 of 3")
    assert main_table(found) == "cmos45_int8_sram"
    assert main_table({"tables": ["mine"]}) == "mine"


def test_stars_mark_the_front_and_least_costs_are_marked_as_such(found: dict[str, Any]) -> None:
    rows = {row[0]: row[1:] for row in by_table(found).rows}
    assert rows["cmos45_fp32"][0].endswith("  ")
    assert rows["cmos45_fp32"][1].endswith(" *")
    assert rows["spinnaker1"][0].startswith("≥ ")


def test_the_text_fits_its_width_and_warns(found: dict[str, Any]) -> None:
    text = render(found)
    assert max(map(len, text.splitlines())) <= 110
    assert "nothing was measured" in text
    assert "Warning: fewer than 100 samples: plain, right" in text


def test_csv_has_a_row_for_each_run(found: dict[str, Any]) -> None:
    rows = list(csv.DictReader(run_csv(found).splitlines()))
    assert [row["name"] for row in rows] == ["plain", "right"]
    assert float(rows[0]["cmos45_fp32_nominal_pj"]) == found["runs"][0]["energy_pj"]["cmos45_fp32"][1]
    assert rows[1]["accuracy_low95"] == "0.34"


def test_each_suffix_has_its_own_content(found: dict[str, Any], tmp_path: Path) -> None:
    for suffix in ("html", "md", "csv", "json"):
        write_as(found, tmp_path / f"c.{suffix}")
    page = (tmp_path / "c.html").read_text()
    assert page.count("<figure>") == 1
    assert "right (T = 3)" in page
    assert "| right | onnx |" in (tmp_path / "c.md").read_text()
    assert json.loads((tmp_path / "c.json").read_text())["runs"] == found["runs"]
