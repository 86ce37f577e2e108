"""Tables of an energy report, each column with its unit and meaning; terminal, Markdown and page show the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from snnkd_deploy.report.meanings import MEANINGS
from snnkd_deploy.report.numbers import NOTHING, at_least, between, energy, form, number, one_energy, ranged, role

Row = Mapping[str, Any]
VERDICTS = {"wins": "spiking wins", "loses": "ANN wins", "depends": "open", None: NOTHING}


@dataclass(frozen=True)
class Column:
    """A heading, and what a reader can ask about it."""

    heading: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class Sheet:
    """Rows of text below columns; the first `left` of them are words. The last `totals` rows are sums."""

    title: str
    columns: tuple[Column, ...]
    rows: list[tuple[str, ...]]
    left: int = 1
    totals: int = 0
    note: str = ""


def sheet(title: str, headings: Iterable[str], rows: Iterable[Sequence[str]], left: int = 1, **more: Any) -> Sheet:
    """A sheet whose columns have the meanings that are on record for their headings."""
    columns = tuple(Column(heading, *MEANINGS[heading]) for heading in headings)
    return Sheet(title, columns, [tuple(row) for row in rows], left, **more)


def named(heading: str, like: str) -> Column:
    """A column for one layer, table or ANN, with the meaning of its kind."""
    return Column(heading, *MEANINGS[like])


def comparison(report: Row, wide: bool = False) -> Sheet:
    """Both sides under every table that prices arithmetic."""
    entries = [entry for entry in report["energy"] if entry["scope"] == "arithmetic"]
    labels = _labels(entries, wide)
    first = ("price table", "spiking network", "95 % of samples") if wide else ("price table", "spiking network")
    kinds = {"dense": "dense ANN", "effective": "sparse ANN"}
    anns = [named(form(label, short=not wide), kinds[label["work"]]) for label in labels]
    last = [named(one, one) for one in ("ANN/SNN", "verdict")]
    return Sheet(
        "Energy per inference, both sides under the same prices" + ("" if wide else " (nominal)"),
        (*(named(one, one) for one in first), *anns, *last),
        [_compared(entry, labels, wide) for entry in entries],
    )


def _compared(entry: Row, labels: Sequence[Row], wide: bool) -> tuple[str, ...]:
    snn = entry["snn"]
    three = snn["total"] if wide else [snn["total"][1]] * 3
    anns = [_total(entry, label, wide) for label in labels]
    samples = (between(*snn["ci95"]),) if wide else ()
    spiking, verdict = at_least(three, snn["lower_bound"]), VERDICTS[entry["verdict"]]
    return (entry["table"], spiking, *samples, *anns, ranged(entry["ratio"]), verdict)


def _labels(entries: Iterable[Row], wide: bool) -> list[Row]:
    """The ANNs that get a column; those of fewer bits only where there is room."""
    found = {form(one): one for entry in entries for one in entry["ann"] if wide or not one["bits"]}
    return list(found.values())


def _total(entry: Row, label: Row, wide: bool) -> str:
    found = next((one for one in entry["ann"] if form(one) == form(label)), None)
    if found is None or found["total"] is None:
        return NOTHING
    return energy(found["total"]) if wide else one_energy(found["total"][1])


def chips(report: Row) -> Sheet:
    """What the spiking network costs on chips, where no ANN runs."""
    rows = []
    for entry in report["energy"]:
        if entry["scope"] == "chip" and entry["snn"]["total"][1]:
            time = entry["time"] or {"inference_us": None, "static_pj": None}
            took = f"{time['inference_us'][1]:.3g} µs" if time["inference_us"] else NOTHING
            spiking = at_least(entry["snn"]["total"], entry["snn"]["lower_bound"])
            rows.append((entry["table"], entry["evidence"], spiking, took, energy(time["static_pj"])))
    headings = ("on a chip", "evidence", "operations", "time of an inference", "static power in that time")
    return sheet("Energy per inference on chips, which run no ANN", headings, rows, left=2)


def layer_counts(report: Row) -> Sheet:
    """What each layer does."""
    headings = ("layer", "kind", "input", "rate", "events", "synops", "MACs", "adds", "updates", "active")
    rows = [(row["name"], row["op"], _input(row), *_layer_counts(row)) for row in report["layers"]]
    total = ("total", "", "", "", *_counts(report["totals"]["per_inference"]))
    return sheet("Counts per inference, exact", headings, [*rows, total], left=3, totals=1)


def _input(row: Row) -> str:
    kind = str(row.get("input_kind", ""))
    return f"{kind}, once" if row["static"] and kind else kind


def _layer_counts(row: Row) -> tuple[str, ...]:
    rate = f"{row['rate']:.1%}" if "rate" in row else ""
    return (rate, *_counts(row["per_inference"]))


def _counts(means: Mapping[str, float]) -> Iterable[str]:
    """events, synops, MACs, adds, updates, active updates; empty where a layer has no such work."""
    synops = means["synops"] - means["event_macs"] if "synops" in means else None
    active = means.get("updates_active")
    updates = None if active is None else active + means["updates_inactive"]
    kinds = ("bias_adds", "pool_ops", "residual_adds", "attention_and", "attention_adds")
    adds = [means[key] for key in kinds if key in means]
    added = sum(adds) if adds else None
    for value in (means.get("events_in"), synops, means.get("event_macs"), added, updates, active):
        yield "" if value is None else number(value)


def anns(report: Row) -> Sheet:
    """What the ANNs to compare with do."""
    samples, rows = report["data"]["samples"], []
    for ann in report["ann"]:
        effective = NOTHING if ann["macs_effective"] is None else number(ann["macs_effective"] / samples)
        dense = [number(ann[key]) for key in ("params", "macs_dense", "macs_dense_inrange")]
        rows.append((role(ann["role"]), *dense, effective, number(ann["adds"]), number(ann["compares"])))
    headings = ("ANN", "parameters", "MACs of an ANN", "without padding", "input not zero", "additions", "compares")
    return sheet("ANNs, counts per inference", headings, rows)
