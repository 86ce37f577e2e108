"""Markdown: whole tables, cells that cannot break them, and the meaning of every column."""

from __future__ import annotations

from snnkd_deploy.report.markdown import markdown, meanings, table
from snnkd_deploy.report.sheets import Sheet, named
from tests.energy.reports import priced, teacher


def test_every_table_is_whole() -> None:
    text = markdown(priced(taught=teacher()))
    widths = []
    for line in text.splitlines():
        if line.startswith("|"):
            widths.append(line.replace("\\|", "").count("|"))
        elif widths:
            assert len(set(widths)) == 1
            widths = []
    for part in (
        "- **Result**: No verdict",
        "## Counts per inference, exact",
        "## Price tables",
        "## What the columns mean",
    ):
        assert part in text


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    columns = (named("layer", "layer"), named("S", "S"))
    lines = list(table(Sheet("t", columns, [("a|b", "")], note="a note")))
    assert lines == ["## t", "", "| layer | S |", "|---|---:|", "| a\\|b |   |", "", "a note"]


def test_a_meaning_is_told_once() -> None:
    columns = (named("one", "energy of a layer"), named("two", "energy of a layer"))
    lines = [line for line in meanings([Sheet("t", columns, [])]) if line.startswith("- ")]
    assert len(lines) == 1
    assert "(energy per inference)" in lines[0]
