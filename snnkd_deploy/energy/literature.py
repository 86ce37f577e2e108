"""The formula of most papers under its own name, and the way from its figure to the exact one.

Papers can be compared with each other by it, and with nothing else: it moves with how the first layer, borders, pools,
biases, neurons and memory are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from snnkd_deploy.energy.operations import REFERENCE, Convention, charges, is_encoder, pairs, synaptic
from snnkd_deploy.prices import Table, bill, split, total

Row = Mapping[str, Any]

MAC_PJ, AC_PJ = 4.6, 0.9
FORMULA = "E = 4.6 pJ x FLOPs(layer 1) + 0.9 pJ x sum over the other layers of rate x T x FLOPs"


def literature(report: Row, tables: Iterable[Table] = ()) -> dict[str, Any]:
    """What the formula of most papers gives for this network, pJ, with its first layer charged once and at each step.

    FLOPs are textbook, on the shapes of the ANN; the rate of a layer is that of the neurons in front of it, pools
    ignored. A layer that reads anything but spikes counts as a first layer. `ratio_exact_over_literature` needs a table
    with the formula's own prices.
    """
    timesteps = report["model"]["timesteps"]
    rates = {row["name"]: row["rate"] for row in report["layers"] if row["op"] == "Neuron"}
    first, others, all_flops = 0, 0.0, 0
    for row in report["layers"]:
        if "ann_macs" in row:
            rate = _literature_rate(row, rates)
            first += row["ann_macs"] if rate is None else 0
            others += row["ann_macs"] * (rate or 0.0)
            all_flops += row["ann_macs"]
    spiking = AC_PJ * timesteps * others
    energy = {"once": MAC_PJ * first + spiking, "per_step": MAC_PJ * first * timesteps + spiking}
    own = [one for one in tables if _literature_prices(one)]
    exact = next((one for one in own if one.memory is None), None)
    return {
        "formula": FORMULA,
        "source": "Horowitz, ISSCC 2014, as used by most papers on spiking networks",
        "unit": "pJ",
        "snn": energy,
        "ann": MAC_PJ * all_flops,
        "exact_under": exact.name if exact else None,
        "ratio_exact_over_literature": _over_literature(report, exact, energy) if exact else None,
        "steps": _steps(report, energy, exact, next((one for one in own if one.memory), None)) if exact else [],
    }


def _literature_rate(row: Row, rates: Mapping[str, float]) -> float | None:
    """Events per input and step, of an attention the mean of q, k and v; None where it charges multiply-accumulates."""
    if row["op"] == "Attention":
        return float(row["events_in"] / (3 * prod(row["shape"]) * row["evaluations"]))
    if row["fed_by"]:
        return sum(rates[name] for name in row["fed_by"])
    if row["input_kind"] == "spikes" and not row["static"]:
        return float(row["events_in"] / (row["inputs"] * row["evaluations"]))
    return None


def _literature_prices(table: Table) -> bool:
    prices = {"mac": MAC_PJ, "synop": AC_PJ}
    return all(key in table.prices and table.prices[key][1] == value for key, value in prices.items())


def _over_literature(report: Row, table: Table, energy: Mapping[str, float]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for encoder, pj in energy.items():
        due = bill(charges(report, Convention(encoder), table), table)
        found[encoder] = total(due, table, report["data"]["samples"])[1] / pj if pj else None
    return found


def _steps(report: Row, formula: Mapping[str, float], exact: Table, remembers: Table | None) -> list[dict[str, Any]]:
    """From the formula's figure to the exact one, pJ: what each correction alone adds or takes."""
    samples, timesteps = report["data"]["samples"], report["model"]["timesteps"]
    parts = {name: three[1] for name, three in _by_group(report, exact).items()}
    sums = {one: parts.pop(one, 0.0) for one in ("encoder", "synapses", "graded", "attention")}
    graded = sum(sum(pairs(row, REFERENCE)) for row in synaptic(report) if _is_graded(row)) * AC_PJ / samples
    found = [
        ("the formula, first layer charged once", formula["once"]),
        ("first layer at each step", formula["per_step"]),
        ("taps on padding left out", _formula_in_range(report, timesteps)),
        ("each spike with its own fan-out (pools, strides)", sum(sums.values()) - sums["graded"] + graded),
        ("sums of spikes multiplied", sum(sums.values())),
    ]
    labels = {"bias": "biases", "neurons": "neuron updates", "pooling": "pools", "residual": "residual sums"}
    for group, label in labels.items():
        if group in parts:
            found.append((label, found[-1][1] + parts.pop(group)))
    assert not parts, parts
    if remembers:
        done = charges(report, REFERENCE, remembers)
        found.append(("memory, without reuse", total(bill(done, remembers), remembers, samples)[1]))
    changes = [0.0, *(value for _, value in found)]
    return [
        {"step": label, "total_pj": value, "change_pj": value - before}
        for (label, value), before in zip(found, changes, strict=False)
    ]


def _by_group(report: Row, table: Table) -> dict[str, list[float]]:
    return split(charges(report, REFERENCE, table), table, report["data"]["samples"], "group")


def _is_graded(row: Row) -> bool:
    return not is_encoder(row) and bool(row["event_macs"])


def _formula_in_range(report: Row, timesteps: int) -> float:
    """The formula without taps on padding, its first layer charged at each step."""
    rates = {row["name"]: row["rate"] for row in report["layers"] if row["op"] == "Neuron"}
    cost = 0.0
    for row in report["layers"]:
        if "ann_macs_inrange" in row:
            rate = _literature_rate(row, rates)
            cost += row["ann_macs_inrange"] * (MAC_PJ if rate is None else AC_PJ * rate)
    return cost * timesteps
