"""Files by their suffix: a row a layer in CSV, everything in JSON; other suffixes are refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from snnkd_deploy import energy
from snnkd_deploy.errors import ConfigError, StorageError
from snnkd_deploy.price_files import load_table
from snnkd_deploy.report.files import check, layer_csv, write_as
from tests.energy.reports import priced, report, teacher


@pytest.fixture(scope="module")
def found() -> energy.Report:
    return priced(load_table("cmos45_fp32"), load_table("cmos45_int8_sram"), taught=teacher())


def test_csv_has_a_row_for_each_layer_with_counts_bounds_and_energies(found: energy.Report) -> None:
    rows = list(csv.DictReader(layer_csv(found).splitlines()))
    assert [row["name"] for row in rows] == ["conv", "lif", "pool", "fc"]
    fc = rows[3]
    assert (fc["input_kind"], fc["shape"], float(fc["synops"]), fc["rate"]) == ("sums", "2", 11.0, "")
    assert float(fc["synops_low95"]) <= 11 <= float(fc["synops_high95"])
    entry = found["energy"][0]["snn"]["by_layer"]
    assert {row["name"]: float(row["cmos45_fp32_pj"]) for row in rows} == {
        name: pytest.approx(three[1]) for name, three in entry.items()
    }


def test_a_report_without_prices_still_has_its_counts() -> None:
    rows = list(csv.DictReader(layer_csv(report()).splitlines()))
    assert float(rows[3]["events_in"]) == 5.5


def test_each_suffix_has_its_own_content(found: energy.Report, tmp_path: Path) -> None:
    for suffix in ("html", "md", "csv", "json"):
        write_as(found, tmp_path / f"report.{suffix}")
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "report.md").read_text().startswith("# Energy of tiny")
    assert (tmp_path / "report.csv").read_text().startswith("name,op,")
    again = energy.read(tmp_path / "report.json")
    assert again == json.loads(json.dumps(found))


@pytest.mark.parametrize("name", ["report", "report.pdf", "report.HTML"])
def test_another_suffix_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"its name must end in \.html, \.md, \.csv, \.json"):
        check(Path(name))


def test_what_the_disk_refuses_is_said(found: energy.Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*report\.csv"):
        write_as(found, tmp_path / "file" / "report.csv")
