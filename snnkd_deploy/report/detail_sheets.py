"""What the figures of an energy report rest on: break-even, layers, memory, mapping, formula and sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snnkd_deploy.report.numbers import NOTHING, at_least, band, form, number, one_energy, ranged, share, wins
from snnkd_deploy.report.sheets import Sheet, anns, named, sheet

Row = Mapping[str, Any]
MOST = 7
"""Columns of layers or classes in one sheet; more are in the JSON and CSV."""


def details(report: Row) -> list[Sheet]:
    """Everything that has rows, but the sources."""
    found = [anns(report), break_even(report), advice(report), published(report), by_class(report), by_layer(report)]
    found += [formula(report), memory(report), mapping(report)]
    return [one for one in found if one.rows]


def break_even(report: Row) -> Sheet:
    """How much may spike, by table and ANN."""
    rows = []
    for entry in report["energy"]:
        for one in entry["break_even"]:
            margin, most = one["margin"], one["spikes_per_synapse_max"]
            rows.append(
                (
                    *(entry["table"], form(one)),
                    *(one_energy(one[key]) for key in ("fixed_pj", "spiking_pj", "ann_pj")),
                    NOTHING if margin is None else f"x{margin:.3g}" if margin > 0 else "none",
                    NOTHING if most is None else f"{most:.3g}",
                    "any" if (one["rate_max"] or 0) > 1 else share(one["rate_max"]),
                    " / ".join(NOTHING if value is None else str(value) for value in one["max_timesteps"].values()),
                )
            )
    headings = ("price table", "against", "silent", "spiking", "dense cost", "margin", "S*", "rate*", "T*")
    note = (
        "silent: without a single spike. margin: how often its spikes the network may have. S*, rate*: spikes per "
        "synapse and per neuron and step at which both cost the same. T*: most steps, first layer at each step / once."
    )
    title = "Break-even, by table and ANN (nominal prices, reference way of counting)"
    return sheet(title, headings, rows, left=2, note=note)


def advice(report: Row) -> Sheet:
    """Dense or spiking, layer by layer."""
    rows = []
    for one in report["break_even"]["layers"]:
        spikes = NOTHING if one["spikes_per_synapse"] is None else f"{one['spikes_per_synapse']:.3g}"
        tables = f"{one['cheaper_spiking']} of {one['of']}" if one["of"] else NOTHING
        rows.append((one["layer"], spikes, tables, one["advice"] or NOTHING))
    return sheet("Dense or spiking, layer by layer", ("layer", "S", "cheaper spiking", "advice"), rows)


def published(report: Row) -> Sheet:
    """Against every published break-even point."""
    rows = [
        (one["name"], f"{one['value']:.3g} {one['quantity'].replace('_', ' ')}", band(one["band"]), one["verdict"],
         f"{one['claim']} ({one['evidence']}; {one['source']})")
        for one in report["break_even"]["published"]["bands"]
    ]  # fmt: skip
    return sheet("Published break-even points", ("study", "here", "break-even", "says", "claim"), rows, left=5)


def by_class(report: Row) -> Sheet:
    """Nominal energy by class of operation: a row for each table."""
    return _split(report, "by_class", "energy of a class", "Spiking network by class of operation (nominal)")


def by_layer(report: Row) -> Sheet:
    """Nominal energy by layer: a row for each table."""
    return _split(report, "by_layer", "energy of a layer", "Spiking network by layer (nominal)")


def _split(report: Row, what: str, like: str, title: str) -> Sheet:
    entries = [entry for entry in report["energy"] if entry["snn"]]
    names = list(dict.fromkeys(name for entry in entries for name in entry["snn"][what]))
    largest = sorted(names, key=lambda name: -max(_part(entry["snn"], what, name) for entry in entries))[:MOST]
    shown = [name for name in names if name in largest]
    rows = [
        (
            entry["table"],
            *(one_energy(entry["snn"][what][name][1]) if name in entry["snn"][what] else NOTHING for name in shown),
            _whole(entry["snn"]),
        )
        for entry in entries
    ]
    columns = (named("price table", "price table"), *(named(name, like) for name in shown), named("total", "total"))
    note = f"{len(names) - MOST} more are in the JSON and CSV reports" if len(names) > MOST else ""
    return Sheet(title, columns, rows, note=note)


def _whole(snn: Row) -> str:
    """The total, marked where something has no price; where nothing has one, there is none."""
    nominal = snn["total"][1]
    return at_least([nominal] * 3, snn["lower_bound"]) if nominal or not snn["lower_bound"] else NOTHING


def _part(snn: Row, what: str, name: str) -> float:
    """Of the total under one table."""
    return float(snn[what][name][1] / snn["total"][1]) if name in snn[what] and snn["total"][1] else 0.0


def formula(report: Row) -> Sheet:
    """From the formula of the papers to the exact figure."""
    rows = [
        (one["step"], _change(one["change_pj"]), one_energy(one["total_pj"])) for one in report["literature"]["steps"]
    ]
    return sheet("From the papers' formula to the exact figure", ("step", "change", "then"), rows)


def _change(pj: float) -> str:
    return ("-" if pj < 0 else "+") + one_energy(abs(pj))


_ACCESSES = (
    *(("weight_reads",), ("state_reads",), ("state_writes",), ("fifo_reads", "input_reads")),
    *(("fifo_writes", "output_writes"), ("address_adds", "address_multiplies")),
)


def memory(report: Row) -> Sheet:
    """Reads and writes of each layer, without reuse and with ideal reuse."""
    samples, rows = report["data"]["samples"], []
    for row in report["layers"]:
        for kind, found in row["memory"].items():
            sums = [sum(found.get(key, 0) for key in keys) / samples for keys in _ACCESSES]
            if any(sums):
                rows.append((row["name"], kind.split("_")[0], *map(number, sums)))
    headings = ("layer", "reuse", "weights", "states read", "written", "inputs", "outputs", "addresses")
    title = "Memory accesses per inference (of a layer on a still picture: per evaluation)"
    return sheet(title, headings, rows, left=2)


def mapping(report: Row) -> Sheet:
    """Cores, messages and hops; no rows without a mapping."""
    found, samples = report["mapping"], report["data"]["samples"]
    headings = ("layer", "reads", "cores", "messages", "hops E-W", "hops N-S", "busiest core", "its neurons")
    if found is None:
        return sheet("Mapping", headings, [], left=2)
    rows = []
    for one in found["layers"]:
        hops = [one["hops_east_west"], one["hops_north_south"]]
        rows.append(
            (
                *(one["name"], one["source"] or "host", str(one["cores"]), number(one["messages"] / samples)),
                *(NOTHING if value is None else number(value / samples) for value in hops),
                *(number(one["busiest_synops"] / samples), str(one["busiest_neurons"])),
            )
        )
    chips = f"{found['chips']} chip{'s' if found['chips'] > 1 else ''}"
    return sheet(f"Mapping to {found['target']}: {found['cores']} cores on {chips}", headings, rows, left=2)


def sources(report: Row) -> Sheet:
    """Where each table's prices come from, and what they stand for."""
    rows = []
    for entry in report["energy"]:
        checked = f" Checked: {entry['checked']}." if entry["checked"] else ""
        missing = [f"{number(one['per_inference'])} {one['operation']} ({one['side']})" for one in entry["unpriced"]]
        unpriced = f" Without a price here: {', '.join(missing)}." if missing else ""
        won = f" Won {wins(entry)}, ANN/SNN {ranged(entry['ratio'])}." if entry["of"] else ""
        boundary = f"{entry['covers']}; not {', '.join(entry['excludes'])}.{unpriced}{won}"
        rows.append((entry["table"], entry["evidence"], entry["hash"][:12], entry["source"] + "." + checked, boundary))
    headings = ("price table", "evidence", "hash", "source", "covers")
    return sheet("Price tables", headings, rows, left=5)
