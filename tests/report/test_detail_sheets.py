"""What the figures rest on: rows in numbers worked out elsewhere, and no table without rows."""

from __future__ import annotations

from snnkd_deploy.price_files import load_table
from snnkd_deploy.report.detail_sheets import (
    MOST,
    advice,
    break_even,
    by_class,
    details,
    formula,
    mapping,
    memory,
    sources,
)
from tests.energy.reports import priced, report, teacher


def test_a_report_without_prices_or_mapping_shows_what_it_has() -> None:
    titles = [one.title for one in details(report())]
    assert [title.split(",")[0].split(" (")[0] for title in titles] == [
        "ANNs",
        "Dense or spiking",
        "Published break-even points",
        "Memory accesses per inference",
    ]


def test_break_even_has_a_row_for_each_table_and_ann() -> None:
    found = priced(load_table("cmos45_fp32"), taught=teacher())
    rows = break_even(found).rows
    assert [row[1] for row in rows] == ["teacher, dense", "teacher, sparse", "same shape, dense"]
    assert rows[0][-1] == "1 / 1"
    assert advice(found).rows[0] == ("conv", "-", "0 of 1", "dense")


def test_a_margin_below_nothing_is_none() -> None:
    rows = break_even(priced(load_table("cmos45_int8_acc32"))).rows
    assert rows[0][5:8] == ("none", "0", "0")


def test_memory_is_shown_per_inference() -> None:
    rows = {(row[0], row[1]): row[2:] for row in memory(report()).rows}
    assert rows["fc", "without"] == ("14", "11", "11", "5.5", "0", "11")
    assert rows["fc", "ideal"] == ("6", "0", "0", "5.5", "0", "0")
    assert not any(row[0] == "pool" for row in memory(report()).rows)


def test_the_largest_classes_are_shown_where_there_are_many() -> None:
    sheet = by_class(priced())
    names = [column.heading for column in sheet.columns]
    assert len(names) == MOST + 2
    assert {"states", "weights", "encoder", "graded"} <= set(names)
    assert "more are in the JSON and CSV reports" in sheet.note


def test_steps_carry_their_sign() -> None:
    rows = formula(priced(load_table("cmos45_fp32"))).rows
    assert rows[0][1].startswith("+")
    assert rows[3][1].startswith("+") or rows[3][1].startswith("-")


def test_without_a_mapping_there_are_no_rows() -> None:
    assert mapping(report()).rows == []


def test_sources_say_where_prices_come_from_and_what_is_missing() -> None:
    (row,) = sources(priced(load_table("yan2024_22nm"))).rows
    assert row[:2] == ("yan2024_22nm", "secondary")
    assert "Without a price here: 35 mac (snn)" in row[4]


def test_a_total_without_all_prices_is_marked_and_without_any_price_there_is_none() -> None:
    totals = {row[0]: row[-1] for row in by_class(priced()).rows}
    assert totals["truenorth_average"] == "-"
    assert totals["loihi1_davies"].startswith("≥ ")
    assert not totals["cmos45_fp32"].startswith("≥ ")
