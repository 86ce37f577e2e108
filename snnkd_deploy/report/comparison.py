"""Several energy reports together: a table of accuracy and energy, the Pareto front, and its plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from snnkd_deploy.energy import stored
from snnkd_deploy.report.files import write
from snnkd_deploy.report.markdown import meanings, table
from snnkd_deploy.report.numbers import NOTHING, at_least, ranged
from snnkd_deploy.report.sheets import Sheet, named, sheet
from snnkd_deploy.report.terminal import as_table, printed

Row = Mapping[str, Any]
PREFERRED = ("cmos45_int8_sram", "cmos45_int8_acc32", "cmos45_fp32")
TITLE = "Accuracy against energy: estimates from counts and prices, nothing was measured"


def main_table(found: Row) -> str:
    """The table that is drawn: one with memory if it is there."""
    return str(next((one for one in PREFERRED if one in found["tables"]), found["tables"][0]))


def runs(found: Row) -> Sheet:
    """A row for each report, the most accurate first."""
    drawn, rows = main_table(found), []
    for run in sorted(found["runs"], key=lambda one: -float(one["accuracy"])):
        low, high = run["ci95"]
        named = (run["name"], run["target"] or NOTHING, run["method"] or NOTHING)
        rows.append(
            (
                *(*named, str(run["timesteps"]), str(run["weight_bits"])),
                f"{run['accuracy']:.2%} ({low:.1%} to {high:.1%})",
                *(at_least([run["energy_pj"][drawn][1]] * 3, drawn in run["lower_bound"]), ranged(run["ratio"])),
                f"{len(run['front'])} of {len(found['tables'])}",
            )
        )
    headings = ("run", "target", "method", "T", "bits", "accuracy", "energy", "ANN/SNN", "front")
    return sheet(f"Runs, their energy under {drawn}", headings, rows, left=3)


def by_table(found: Row) -> Sheet:
    """Energy of each run under each table, those on its front marked."""
    columns = (named("price table", "price table"), *(named(run["name"], "energy of a run") for run in found["runs"]))
    rows = []
    for name in found["tables"]:
        rows.append((name, *(_cell(run, name) for run in found["runs"])))
    note = "*: on the front: no other run is as accurate and cheaper, or as cheap and more accurate, under this table"
    return Sheet("Energy of each run under each table (nominal)", columns, rows, note=note)


def _cell(run: Row, name: str) -> str:
    cost = at_least([run["energy_pj"][name][1]] * 3, name in run["lower_bound"])
    return cost + (" *" if name in run["front"] else "  ")


def render(found: Row, width: int = 110) -> str:
    """The comparison as text of `width` columns."""
    parts: list[RenderableType] = [Text(TITLE), Text(), as_table(runs(found)), as_table(by_table(found)), Text()]
    parts += [Text(f"Warning: {text}") for text in found["warnings"]]
    return printed(Group(*parts), width)


def write_as(found: Row, path: Path) -> None:
    """Write to `path`. ConfigError if its suffix is none of .html, .md, .csv and .json."""
    write(path, WRITERS, found)


def markdown(found: Row) -> str:
    """The comparison as Markdown."""
    sheets = [runs(found), by_table(found)]
    lines = [f"# {TITLE}", *(line for one in sheets for line in ("", *table(one)))]
    return "\n".join([*lines, "", *(f"- Warning: {text}" for text in found["warnings"]), "", *meanings(sheets)]) + "\n"


def run_csv(found: Row) -> str:
    """A row a run: accuracy with its interval, and energy under each table."""
    words = ["name", "model", "target", "method", "timesteps", "weight_bits", "samples", "spikes_per_synapse"]
    words += ["accuracy", "accuracy_low95", "accuracy_high95"]
    ends = [f"{name}_{end}_pj" for name in found["tables"] for end in ("low", "nominal", "high")]
    out = io.StringIO()
    lines = csv.DictWriter(out, [*words, *ends], extrasaction="ignore", lineterminator="\n")
    lines.writeheader()
    for run in found["runs"]:
        costs = [value for name in found["tables"] for value in run["energy_pj"][name]]
        low, high = run["ci95"]
        lines.writerow({**run, "accuracy_low95": low, "accuracy_high95": high, **dict(zip(ends, costs, strict=True))})
    return out.getvalue()


def comparison_page(found: Row) -> str:
    """The comparison as an HTML page with the Pareto front drawn."""
    from snnkd_deploy import page
    from snnkd_deploy.report import plots
    from snnkd_deploy.report.report_page import sheet_of

    drawn = main_table(found)
    points = [
        {**run, "pj": run["energy_pj"][drawn], "kind": "spiking", "front": drawn in run["front"],
         "name": f"{run['name']} (T = {run['timesteps']})"}
        for run in found["runs"]
    ]  # fmt: skip
    caption = (
        f"The line joins the runs that no other run beats in both, under {drawn}. Bars: bounds of the prices, and 95 % "
        "of the accuracy by the number of samples."
    )
    parts = [page.figure(plots.accuracies(points, drawn), caption), sheet_of(runs(found)), sheet_of(by_table(found))]
    return page.page(TITLE, [*parts, page.bullets(f"Warning: {text}" for text in found["warnings"])])


WRITERS: dict[str, Callable[[Any], str]] = {
    ".html": comparison_page,
    ".md": markdown,
    ".csv": run_csv,
    ".json": lambda found: stored.as_text(found) + "\n",
}
