"""Tables: every column has a meaning, every number with a unit says which, rows are as long as their headings."""

from __future__ import annotations

import pytest

from snnkd_deploy import energy
from snnkd_deploy.report.detail_sheets import details, sources
from snnkd_deploy.report.meanings import MEANINGS
from snnkd_deploy.report.sheets import Sheet, chips, comparison, layer_counts, sheet
from tests.energy.reports import priced, report, teacher


@pytest.fixture(scope="module")
def found() -> energy.Report:
    return priced(taught=teacher())


def sheets(found: energy.Report) -> list[Sheet]:
    return [
        *(comparison(found), comparison(found, wide=True), chips(found), layer_counts(found)),
        *(*details(found), sources(found)),
    ]


def test_every_column_explains_itself(found: energy.Report) -> None:
    for one in sheets(found):
        for column in one.columns:
            assert column.meaning.endswith("."), column
        assert one.rows
        assert {len(row) for row in one.rows} == {len(one.columns)}, one.title


def test_every_number_has_a_unit(found: energy.Report) -> None:
    for one in sheets(found):
        for column in one.columns[one.left :]:
            assert column.unit or column.heading in ("verdict", "advice", "says"), column.heading


def test_no_meaning_is_on_record_for_nothing() -> None:
    assert all(meaning and heading for heading, (_, meaning) in MEANINGS.items())


def test_a_heading_without_a_meaning_is_a_bug() -> None:
    with pytest.raises(KeyError):
        sheet("a title", ("no such heading",), [])


def test_the_short_comparison_leaves_out_what_the_wide_one_says(found: energy.Report) -> None:
    short, wide = comparison(found), comparison(found, wide=True)
    assert len(short.columns) < len(wide.columns)
    assert [row[0] for row in short.rows] == [row[0] for row in wide.rows]
    assert not any("/" in cell for row in short.rows for cell in row)
    assert "teacher, dense, 2 bits" in [column.heading for column in wide.columns]


def test_chips_that_the_network_costs_nothing_on_are_left_out(found: energy.Report) -> None:
    """The readout reads sums, and there are no other synapses: a chip that prices spikes alone has nothing to say."""
    names = [row[0] for row in chips(found).rows]
    assert "loihi1_davies" in names
    assert "truenorth_marginal" not in names


def test_a_report_without_prices_has_its_counts() -> None:
    bare = report()
    assert comparison(bare).rows == []
    assert len(layer_counts(bare).rows) == 5
