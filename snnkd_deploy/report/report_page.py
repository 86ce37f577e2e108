"""An energy report as one HTML page: the verdict, six plots, and tables whose columns explain themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from snnkd_deploy import page
from snnkd_deploy.report import plots, wording
from snnkd_deploy.report.detail_sheets import details, sources
from snnkd_deploy.report.numbers import form
from snnkd_deploy.report.sheets import Sheet, chips, comparison, layer_counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]


def report_page(report: Row) -> str:
    """The document, complete in itself: no scripts, nothing to load."""
    return page.page(wording.title(report), _parts(report))


def main_entry(report: Row) -> Row | None:
    """The table that is drawn in detail: with memory and the network's own bits if there is one."""
    priced = [entry for entry in report["energy"] if entry["break_even"]]
    whole = [entry for entry in priced if entry["memory"]]
    own = [entry for entry in whole if entry["memory"]["value_bits"] is None]
    return next(iter([*own, *whole, *priced]), None)


def _parts(report: Row) -> Iterator[str]:
    yield page.lead(report["headline"]["statement"])
    yield page.facts([one for one in wording.summary(report) if one[0] != "Result"])
    drawn = list(_drawings(report))
    if drawn:
        yield drawn.pop(0)
    yield sheet_of(comparison(report, wide=True))
    yield from drawn
    for one in (chips(report), layer_counts(report), *details(report)):
        if one.rows:
            yield sheet_of(one)
    yield page.heading("Notes")
    yield page.bullets([*wording.elsewhere(report, full=True), *wording.notes(report, full=True)])
    yield sheet_of(sources(report))
    for text in (wording.conventions(report), wording.hashes(report)):
        yield page.paragraph(text, quiet=True)


def _drawings(report: Row) -> Iterator[str]:
    """Headings with figures, as many as the report has data for."""
    entry = main_entry(report)
    if any(one["of"] for one in report["energy"]):
        yield _drawing("ANN against spiking network, under each price table", plots.forest(report), FOREST)
    if entry is not None:
        yield _drawing(f"Where the energy goes, under {entry['table']}", plots.layers(entry), LAYERS)
        if report["break_even"]["spikes_per_synapse"]:
            yield _drawing(f"How much may spike, under {entry['table']}", plots.spikes(report, entry), SPIKES)
    if steps := report["literature"]["steps"]:
        yield _drawing("From the papers' formula to the exact figure", plots.waterfall(steps), WATERFALL)
    if drawn := plots.rates(report):
        yield _drawing("Firing rates", drawn, RATES)
    if entry is not None and (points := points_of(report, entry)):
        title = f"Accuracy against energy, under {entry['table']}"
        yield _drawing(title, plots.accuracies(points, entry["table"]), ACCURACY)


def _drawing(title: str, drawn: Figure, caption: str) -> str:
    return page.heading(title) + page.figure(drawn, caption)


FOREST = (
    "Dots: the reference way of counting at nominal prices, with the bounds of the prices; thin line: every way of "
    "counting and every ANN. A verdict needs all of a line on one side of 1."
)
LAYERS = "Nominal energy of the spiking network by layer and class of operation, reference way of counting."
SPIKES = (
    "All that spikes cause grows with the spikes per synapse; the rest does not. Diamonds: S*, where the network would "
    "cost what the ANN does. Grey: published break-even points."
)
WATERFALL = "What the usual formula leaves out, one after the other, at 45 nm fp32 prices."
RATES = "Spikes per neuron, in percent, of each layer at each step: mean over the samples."
ACCURACY = (
    "Bars: bounds of the prices, and 95 % of the accuracy by the number of samples. Several reports together: "
    "snnkd-deploy energy A.json B.json --out comparison.html"
)


def points_of(report: Row, entry: Row) -> list[dict[str, Any]]:
    """The spiking network, and each ANN whose accuracy is known, for the plot of accuracies."""
    accuracy = report["accuracy"]
    if accuracy["snn_counted"] is None:
        return []
    name = f"spiking, T = {report['model']['timesteps']}"
    found = [_point(name, entry["snn"]["total"], accuracy["snn_counted"], accuracy["snn_ci95"], "spiking")]
    if accuracy["ann_counted"] is not None:
        for one in entry["ann"]:
            if one["role"] == "teacher" and one["total"] and not one["bits"]:
                found.append(_point(form(one), one["total"], accuracy["ann_counted"], None, "ann"))
    return found


def _point(name: str, pj: Any, accuracy: float, spread: Any, kind: str) -> dict[str, Any]:
    return {"name": name, "pj": pj, "accuracy": accuracy, "ci95": spread, "kind": kind, "front": False}


def sheet_of(sheet: Sheet) -> str:
    """Heading, table, and one click away the unit and meaning of each column."""
    unique = list(dict.fromkeys((one.heading, one.unit, one.meaning) for one in sheet.columns))
    terms = [(heading, f"{unit}. {meaning}" if unit else meaning) for heading, unit, meaning in unique]
    note = page.paragraph(sheet.note, quiet=True) if sheet.note else ""
    columns = [one.heading for one in sheet.columns]
    drawn = page.table(columns, sheet.rows, left=sheet.left, totals=sheet.totals)
    return page.heading(sheet.title) + drawn + note + page.definitions("What these columns mean", terms)
