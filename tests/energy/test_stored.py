"""Reports on disk: read back as written, priced again without the model, and refused once they were touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnkd_deploy import energy
from snnkd_deploy.energy.stored import as_text
from snnkd_deploy.errors import BundleError
from snnkd_deploy.price_files import load_table, load_tables
from tests.energy.reports import entry_of, report, teacher


def test_a_report_is_priced_again_without_the_model(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    first = energy.price(report(taught=teacher()), [load_table("cmos45_fp32")])
    energy.write(path, first)
    assert energy.read(path) == json.loads(json.dumps(first))
    again = energy.price(energy.read(path), load_tables())
    energy.write(path, again)
    assert entry_of(energy.read(path), "cmos45_fp32") == first["energy"][0]
    assert again["counts_sha256"] == first["counts_sha256"]


def change(path: Path, key: str, value: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, key: value}))


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("sampling", {}, "counts_sha256 differs"),
        ("totals", {}, r"counts are not those that were written \(counts_sha256 differs\)"),
        ("model", {"timesteps": 1}, "counts_sha256 differs"),
        ("schema_version", 1, "version 1; this program reads version 2: count again"),
        ("schema", "something else", "not an energy report: its schema is 'something else'"),
        ("counts_sha256", None, "counts_sha256 differs"),
    ],
)
def test_a_changed_report_is_refused(tmp_path: Path, key: str, value: object, reason: str) -> None:
    path = tmp_path / "report.json"
    energy.write(path, report())
    change(path, key, value)
    with pytest.raises(BundleError, match=reason):
        energy.read(path)


def test_a_changed_price_does_not_matter_since_prices_are_computed_anew(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    priced = energy.price(report(), [load_table("cmos45_fp32")])
    energy.write(path, priced)
    change(path, "energy", [])
    assert energy.price(energy.read(path), [load_table("cmos45_fp32")]) == json.loads(json.dumps(priced))


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"counts": 1}', '{"schema": "snnkd-deploy/energy", "lay'])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(BundleError, match="is not an energy report|is not a report"):
        energy.read(path)


def test_a_truncated_report_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    energy.write(path, report())
    path.write_text(path.read_text()[:-200])
    with pytest.raises(BundleError, match="is not a report: not valid JSON"):
        energy.read(path)


def test_a_missing_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no report at"):
        energy.read(tmp_path / "none.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=30)
@given(JSON)
def test_the_text_of_a_report_is_json(value: Any) -> None:
    assert json.loads(as_text(value)) == value


def test_numbers_share_a_line_and_nothing_else_is_long(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    energy.write(path, energy.price(report(), load_tables()))
    lines = path.read_text().splitlines()
    assert len(lines) < 2500
    assert json.dumps(list(range(500))) in as_text({"numbers": list(range(500)), "text": "x"})
