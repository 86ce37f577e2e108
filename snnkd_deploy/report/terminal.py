"""An energy report as plain text for a terminal: what it comes to first, then how."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any, Literal

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from snnkd_deploy.report import wording
from snnkd_deploy.report.detail_sheets import details
from snnkd_deploy.report.numbers import number
from snnkd_deploy.report.sheets import Sheet, chips, comparison, layer_counts

Row = Mapping[str, Any]
FOOTNOTES = (
    "Means per inference, summed over its T steps; layers marked 'once' count one evaluation. rate: spikes per "
    "neuron and step. events: inputs that are not zero. synops: pairs of an event and an output that reads it; an "
    "addition each. MACs: the same where the input is no single spike. updates: neurons times steps; active ones got "
    "an event or a bias, or fired.",
    "ANN/SNN above 1: the spiking network needs less; its range is over prices, ways of counting and ANNs under one "
    "table, and who wins is said only if all of them agree. dense: every input multiplied; sparse: inputs that are "
    "zero skipped. ≥: something in it has no price, or only a least one.",
)
MORE = "With sources, break-even, memory and mapping: --full. A page with plots: --out report.html (or .md, .csv)"


def render(report: Row, width: int = 110, full: bool = False) -> str:
    """The report as text of `width` columns, without colours; `full` with everything that its figures rest on."""
    return printed(renderable(report, full), width)


def printed(parts: RenderableType, width: int) -> str:
    """What a rich console of that width prints, without colours and without spaces at the ends of lines."""
    out = StringIO()
    Console(file=out, width=width, color_system=None, legacy_windows=False).print(parts)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def renderable(report: Row, full: bool = False) -> RenderableType:
    """The whole report, for a rich console."""
    parts: list[RenderableType] = [Text(wording.title(report)), Text(), _summary(report), Text()]
    parts += [as_table(one) for one in (comparison(report), chips(report)) if one.rows]
    if lines := [Text(line) for line in wording.elsewhere(report, full)]:
        parts += [*lines, Text()]
    parts.append(as_table(layer_counts(report)))
    if full:
        parts += [as_table(one) for one in details(report)]
        parts += [Text(line) for line in (*_sources(report), wording.conventions(report), wording.hashes(report))]
    parts += [Text(line) for line in ("", *wording.notes(report, full), *FOOTNOTES, *(() if full else (MORE,)))]
    return Group(*parts)


def _summary(report: Row) -> Table:
    """What it comes to, a line each."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in wording.summary(report):
        grid.add_row(label, Text(text))
    return grid


def as_table(sheet: Sheet) -> Table:
    """A sheet without a frame."""
    table = Table(title=sheet.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.caption, table.caption_justify = sheet.note or None, "left"
    for index, column in enumerate(sheet.columns):
        heading = Text(".\n".join(column.heading.rsplit(".", 1)))
        side: Literal["left", "right"] = "left" if index < sheet.left else "right"
        table.add_column(heading, justify=side, overflow="fold", no_wrap=index == 0)
    for row in sheet.rows[: len(sheet.rows) - sheet.totals]:
        table.add_row(*map(Text, row))
    if sheet.totals:
        table.add_section()
    for row in sheet.rows[len(sheet.rows) - sheet.totals :]:
        table.add_row(*map(Text, row))
    return table


def _sources(report: Row) -> list[str]:
    """Boundary of each price table, and what it has no price for."""
    lines = ["Price tables", ""]
    for entry in report["energy"]:
        lines.append(f"{entry['table']} ({entry['hash'][:12]}): {entry['evidence']}; {entry['source']}")
        lines += [f"    checked: {entry['checked']}"] if entry["checked"] else []
        lines.append(f"    covers {entry['covers']}; not {', '.join(entry['excludes'])}")
        missing = [f"{number(one['per_inference'])} {one['operation']} ({one['side']})" for one in entry["unpriced"]]
        lines += [f"    without a price here: {', '.join(missing)}"] if missing else []
    return [*lines, ""]
