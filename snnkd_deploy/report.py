"""An energy report as plain tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from typing import Any, Literal

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

NOTHING = "-"
FOOTNOTES = (
    "All numbers are means per inference, summed over its T steps; layers marked 'once' count one evaluation.",
    "rate: spikes per neuron and step. events: inputs that are not zero. synops: pairs of an event and an output that "
    "reads it, padding left out; an addition each. MACs: the same pairs where the input is no single spike; a "
    "multiply-accumulate each. adds: of biases, pools, residual sums and products of spikes. updates: neurons times "
    "steps; active ones got an event or a bias, or fired.",
    "Energy charges the layers of a still picture at each step and for all pixels; the range of ANN/SNN covers other "
    "conventions. Totals are low / nominal / high where the prices differ; '-': nothing that this table prices.",
    "dense: every input multiplied; sparse: inputs that are zero skipped. ANN/SNN above 1: the spiking network needs "
    "less; both sides pay the same prices.",
)


def render(report: Mapping[str, Any], width: int = 110) -> str:
    """The report as text of `width` columns, without colours."""
    out = StringIO()
    Console(file=out, width=width, color_system=None, legacy_windows=False).print(renderable(report))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def renderable(report: Mapping[str, Any]) -> RenderableType:
    """The whole report, for a rich console."""
    parts: list[RenderableType] = [Text(_title(report)), counts_table(report), anns_table(report)]
    if report["energy"]:
        parts += [energy_table(report), Text("\n".join(_price_notes(report))), Text()]
    parts += [Text("\n".join(_literature(report))), Text(), Text("\n".join(_headline(report))), Text()]
    parts += [Text(line) for line in _notes(report)]
    return Group(*parts)


def counts_table(report: Mapping[str, Any]) -> Table:
    """What each layer does."""
    headings = ("layer", "kind", "input", "rate", "events", "synops", "MACs", "adds", "updates", "active")
    table = _table("Counts per inference", headings, left=3)
    for row in report["layers"]:
        table.add_row(Text(row["name"]), row["op"], _input(row), *_layer_counts(row))
    totals = report["totals"]["per_inference"]
    table.add_section()
    table.add_row("total", "", "", "", *_counts(totals))
    return table


def anns_table(report: Mapping[str, Any]) -> Table:
    """What the ANNs to compare with do."""
    headings = ("ANN", "parameters", "MACs", "without padding", "input not zero", "additions", "compares")
    table = _table("ANNs, counts per inference", headings, left=1)
    samples = report["data"]["samples"]
    for ann in report["ann"]:
        effective = NOTHING if ann["macs_effective"] is None else number(ann["macs_effective"] / samples)
        dense = [number(ann[key]) for key in ("params", "macs_dense", "macs_dense_inrange")]
        table.add_row(_role(ann["role"]), *dense, effective, number(ann["adds"]), number(ann["compares"]))
    return table


def energy_table(report: Mapping[str, Any]) -> Table:
    """What it costs: a column for each price table."""
    entries = report["energy"]
    table = _table("Energy per inference", ("", *(entry["table"] for entry in entries)), left=1)
    for row in report["layers"]:
        table.add_row(Text(row["name"]), *(_nominal(entry, row["name"]) for entry in entries))
    table.add_section()
    table.add_row("spiking network", *(energy(entry["snn"]["total"]) + _least(entry) for entry in entries))
    for index, ann in enumerate(entries[0]["ann"]):
        name = f"{_role(ann['role'])}, {'dense' if ann['work'] == 'dense' else 'sparse'}"
        table.add_row(name, *(energy(entry["ann"][index]["total"]) for entry in entries))
    table.add_section()
    table.add_row("ANN/SNN", *(_range(entry["ratio"]) for entry in entries))
    table.add_row("wins", *(_wins(entry) for entry in entries))
    return table


def number(value: float) -> str:
    """Three significant digits, with k, M, G or T."""
    for unit in ("", "k", "M", "G"):
        if abs(value) < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}T"


def energy(three: Sequence[float] | None) -> str:
    """pJ in a unit that suits, low / nominal / high where they differ."""
    if three is None:
        return NOTHING
    scale, unit = next(((one, name) for one, name in UNITS if three[2] >= 0.9995 * one), UNITS[-1])
    shown = three if three[0] < three[2] else three[1:2]
    return f"{' / '.join(f'{value / scale:.3g}' for value in shown)} {unit}"


UNITS = ((1e12, "J"), (1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ"), (1.0, "pJ"))


def _table(title: str, headings: Sequence[str], left: int) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for index, heading in enumerate(headings):
        justify: Literal["left", "right"] = "left" if index < left else "right"
        table.add_column(Text(heading), justify=justify, overflow="fold", no_wrap=index == 0)
    return table


def _title(report: Mapping[str, Any]) -> str:
    model, data, accuracy = report["model"], report["data"], report["accuracy"]
    known = {"network": accuracy["snn_counted"], "teacher": accuracy["ann_counted"], "agreement": accuracy["agreement"]}
    return "\n".join(
        [
            f"Energy estimate of {model['name']} for {model['target']}: {model['timesteps']} steps, "
            f"{model['neurons']:,} neurons, {model['params']:,} parameters of {model['weight_bits']} bits, "
            f"{model['zero_weight_fraction']:.1%} of the weights zero",
            f"{data['samples']:,} samples of {data['name']}, {data['encoding']} coding; "
            + ", ".join(f"{name} {value:.2%}" for name, value in known.items() if value is not None),
            "An estimate from counts and price tables; nothing was measured on a device.",
            "",
        ]
    )


def _input(row: Mapping[str, Any]) -> str:
    kind = str(row.get("input_kind", ""))
    return f"{kind}, once" if row["static"] and kind else kind


def _layer_counts(row: Mapping[str, Any]) -> tuple[str, ...]:
    rate = f"{row['rate']:.1%}" if "rate" in row else ""
    return (rate, *_counts(row["per_inference"]))


def _counts(means: Mapping[str, float]) -> Iterator[str]:
    """events, synops, MACs, adds, updates, active updates; empty where a layer has no such work."""
    synops = means["synops"] - means["event_macs"] if "synops" in means else None
    active = means.get("updates_active")
    updates = None if active is None else active + means["updates_inactive"]
    kinds = ("bias_adds", "pool_ops", "residual_adds", "attention_and", "attention_adds")
    adds = [means[key] for key in kinds if key in means]
    added = sum(adds) if adds else None
    for value in (means.get("events_in"), synops, means.get("event_macs"), added, updates, active):
        yield "" if value is None else number(value)


def _nominal(entry: Mapping[str, Any], layer: str) -> str:
    found = entry["snn"]["by_layer"].get(layer)
    return NOTHING if found is None else energy([found[1]] * 3)


def _least(entry: Mapping[str, Any]) -> str:
    """Marks a total that leaves something out."""
    return " *" if any(one["side"] == "snn" for one in entry["unpriced"]) else ""


def _wins(entry: Mapping[str, Any]) -> str:
    return f"{entry['wins']} of {entry['of']}" if entry["of"] else NOTHING


def _range(found: Sequence[float] | None) -> str:
    return NOTHING if found is None else f"{found[0]:.3g} to {found[1]:.3g}"


def _role(role: str) -> str:
    return role.replace("_", " ")


def _price_notes(report: Mapping[str, Any]) -> Iterator[str]:
    """Boundary of each table, and what it has no price for."""
    for entry in report["energy"]:
        yield f"{entry['table']}: {entry['evidence']}; {entry['source']}"
        yield f"    covers {entry['covers']}; not {', '.join(entry['excludes'])}"
        missing = [f"{number(one['per_inference'])} {one['operation']}" for one in _missing(entry)]
        if missing:
            yield f"    * without a price here: {', '.join(missing)}; the total is a lower bound, so no ratio is stated"
        elif not entry["of"]:
            yield "    no ratio: this table does not price all operations of an ANN"


def _missing(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in entry["unpriced"] if one["side"] == "snn"]


def _literature(report: Mapping[str, Any]) -> Iterator[str]:
    found = report["literature"]
    yield f"Formula of the literature: {found['formula']}"
    once, each = ([found["snn"][key]] * 3 for key in ("once", "per_step"))
    yield (
        f"    spiking network {energy(once)} (first layer charged once), {energy(each)} (at each step); "
        f"ANN {energy([found['ann']] * 3)}"
    )
    if over := found["ratio_exact_over_literature"]:
        parts = [f"{over[key]:.3g} ({key.replace('_', ' ')})" for key in over if over[key] is not None]
        yield f"    exact / literature, with the same prices: {', '.join(parts)}"


def _headline(report: Mapping[str, Any]) -> Iterator[str]:
    headline = report["headline"]
    yield f"Result: {headline['statement']}"
    for role, found in headline["against"].items():
        if found["of"]:
            yield f"    against {_role(role)}: wins {_wins(found)}, ANN/SNN {_range(found['ratio'])}"
    for name in headline["tables_without_ratio"]:
        yield f"    no comparison under {name}"


def _notes(report: Mapping[str, Any]) -> Iterator[str]:
    for ann in report["ann"]:
        if ann["is_teacher"]:
            yield "same shape: the teacher has the student's shape, so it is the ANN of the same shape"
        if ann["effective_reason"]:
            yield f"{_role(ann['role'])}: {ann['effective_reason']}"
    for warning in report["warnings"]:
        yield f"warning: {warning}"
    yield f"In no total: {'; '.join(report['excluded'])}"
    yield from FOOTNOTES
