"""An energy report as Markdown, to paste into an issue, a README or a paper's supplement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from snnkd_deploy.report import wording
from snnkd_deploy.report.detail_sheets import details, sources
from snnkd_deploy.report.sheets import Sheet, chips, comparison, layer_counts

Row = Mapping[str, Any]


def markdown(report: Row) -> str:
    """The whole report, with the meaning of each column at the end."""
    sheets = [one for one in (comparison(report, wide=True), chips(report), layer_counts(report)) if one.rows]
    sheets += [*details(report), sources(report)]
    lines = [f"# {wording.title(report)}", ""]
    lines += [f"- **{label}**: {text}" for label, text in wording.summary(report)]
    for one in sheets:
        lines += ["", *table(one)]
    lines += ["", "## Notes", "", *(f"- {text}" for text in wording.elsewhere(report, full=True))]
    notes = (*wording.notes(report, full=True), wording.conventions(report), wording.hashes(report))
    lines += [f"- {text}" for text in notes]
    return "\n".join([*lines, "", *meanings(sheets)]) + "\n"


def table(sheet: Sheet) -> Iterator[str]:
    """A heading and a table; bars in cells are escaped."""
    yield f"## {sheet.title}"
    yield ""
    yield "| " + " | ".join(column.heading or " " for column in sheet.columns) + " |"
    yield "|" + "|".join("---" if at < sheet.left else "---:" for at in range(len(sheet.columns))) + "|"
    for row in sheet.rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") or " " for cell in row) + " |"
    if sheet.note:
        yield from ("", sheet.note)


def meanings(sheets: list[Sheet]) -> Iterator[str]:
    """Unit and definition of every column, once."""
    known = {(one.meaning, one.unit): one.heading for sheet in sheets for one in sheet.columns}
    yield "## What the columns mean"
    yield ""
    for (meaning, unit), heading in known.items():
        yield f"- **{heading}**{f' ({unit})' if unit else ''}: {meaning}"
