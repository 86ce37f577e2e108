"""Where spiking stops to pay: how many spikes a synapse may carry before the ANN needs less.

S is the number of accumulates of an inference for each multiply-accumulate of an ANN of the same shape: spikes per
synapse where both have the same synapses. All that spikes cause (accumulates, messages, memory traffic, spikes sent)
grows with S; the encoder, neuron updates, biases and residual sums stay. S* is the S at which both cost the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil, floor, log2
from typing import Any, NamedTuple

from snnkd_deploy.counts.kinds import SPIKING as SPIKING_KINDS
from snnkd_deploy.energy.operations import REFERENCE, Convention, ann_charges, charges, is_encoder, synaptic
from snnkd_deploy.prices import Table, bill, total
from snnkd_deploy.published import bands

Row = Mapping[str, Any]

SPIKING = (
    *("events_in", "synops", "synops_nonzero", "synops_unit", "synops_unit_nonzero", "event_macs"),
    *("event_macs_nonzero", "pool_ops", "attention_and", "attention_adds", "spikes_out", "reset_adds"),
)
"""Counts that vanish in a network that is silent behind its encoder."""


class Opponent(NamedTuple):
    """An ANN to compare with; `priced.Form` is one."""

    ann: Row
    work: str
    bits: int | None
    table: Table


def capacity_bits(report: Row) -> int:
    """Bits that tell as many values apart as the spike counts of T steps do: ceil(log2(T + 1)), as Yan et al. 2024."""
    return ceil(log2(report["model"]["timesteps"] + 1))


def of_table(report: Row, table: Table, against: Any) -> Iterator[dict[str, Any]]:
    """One ANN under one table at nominal prices, in the reference convention; nothing where a price is missing."""
    samples, steps = report["data"]["samples"], report["model"]["timesteps"]
    ours = bill(charges(report, REFERENCE, table), table)
    convention = (REFERENCE, against.table, samples, against.bits)
    theirs = bill(ann_charges(against.ann, against.work, *convention), against.table)
    if None in ours or None in theirs:
        return
    whole, limit = total(ours, table, samples)[1], total(theirs, against.table, samples)[1]
    fixed = total(bill(charges(_silent(report), REFERENCE, table), table), table, samples)[1]
    once = total(bill(charges(report, Convention(encoder="once"), table), table), table, samples)[1]
    margin = (limit - fixed) / (whole - fixed) if whole > fixed else None
    spikes, rate = spikes_per_synapse(report), mean_rate(report)
    yield {
        "fixed_pj": fixed,
        "spiking_pj": whole - fixed,
        "ann_pj": limit,
        "margin": margin,
        "spikes_per_synapse_max": _times(spikes, margin),
        "rate_max": _times(rate, margin),
        "max_timesteps": {
            "per_step": floor(steps * limit / whole) if whole else None,
            "once": _most_steps(limit, whole, once, steps),
        },
    }


def _most_steps(limit: float, whole: float, once: float, steps: int) -> int | None:
    """With an encoder that works once a sample and everything else at each step."""
    encoder = (whole - once) / (steps - 1) if steps > 1 else 0.0
    each = (once - encoder) / steps
    return max(0, floor((limit - encoder) / each)) if each > 0 else None


def _times(value: float | None, factor: float | None) -> float | None:
    return None if value is None or factor is None else max(0.0, value * factor)


def _silent(report: Row) -> dict[str, Any]:
    """The report of the same network without a single spike behind its encoder."""
    rows = [
        row if "synops" in row and (is_encoder(row) or row["input_kind"] == "values") else _without_spikes(row)
        for row in report["layers"]
    ]
    return {**report, "layers": rows, "mapping": None}


def _without_spikes(row: Row) -> dict[str, Any]:
    return {key: 0 if key in SPIKING and value is not None else value for key, value in row.items()}


def spiking_layers(report: Row) -> list[Row]:
    """Layers with weights that read spikes, or sums of them."""
    return [row for row in synaptic(report) if row["input_kind"] in SPIKING_KINDS and not is_encoder(row)]


def spikes_per_synapse(report: Row) -> float | None:
    """S of all layers that read spikes."""
    return _spikes_per_synapse(spiking_layers(report), report)


def _spikes_per_synapse(rows: list[Row], report: Row) -> float | None:
    synapses = report["data"]["samples"] * sum(row["ann_macs_inrange"] for row in rows)
    return sum(row["synops"] for row in rows) / synapses if synapses else None


def mean_rate(report: Row) -> float | None:
    """Spikes per neuron and step, of all neurons."""
    rows = [row for row in report["layers"] if row["op"] == "Neuron"]
    updates = sum(row["updates_active"] + row["updates_inactive"] for row in rows)
    return sum(row["spikes_out"] for row in rows) / updates if updates else None


def break_even(report: Row, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """S, the lowest and highest S* over tables and ANNs, what is published, and which layers should stay dense."""
    spikes, rate = spikes_per_synapse(report), mean_rate(report)
    found = [one for entry in entries for one in entry["break_even"] if one["spikes_per_synapse_max"] is not None]
    known = {key: [one[key] for one in found] for key in ("spikes_per_synapse_max", "rate_max")}
    steps = [one["max_timesteps"][kind] for one in found for kind in ("per_step", "once")]
    counted = [step for step in steps if step is not None]
    return {
        "spikes_per_synapse": spikes,
        "spikes_per_synapse_max": _extremes(known["spikes_per_synapse_max"]),
        "rate": rate,
        "rate_max": _extremes(known["rate_max"]),
        "timesteps": report["model"]["timesteps"],
        "max_timesteps": _extremes(counted),
        "comparisons": len(found),
        "published": _published(report, spikes, rate),
        "layers": [_advice(row, report, entries) for row in synaptic(report)],
    }


def _extremes(values: list[Any]) -> list[Any] | None:
    return [min(values), max(values)] if values else None


def _published(report: Row, spikes: float | None, rate: float | None) -> dict[str, Any]:
    """Verdicts against every published band; the claim that spiking pays stands only if all of them let it stand."""
    steps = report["model"]["timesteps"]
    values = {"spikes_per_synapse": spikes, "spikes_per_neuron": None if rate is None else rate * steps}
    verdicts = [
        {
            "name": band.name,
            "quantity": band.quantity,
            "band": [band.low, band.high],
            "value": values[band.quantity],
            "verdict": band.verdict(values[band.quantity] or 0.0),
            "claim": band.claim,
            "evidence": band.evidence,
            "source": band.source,
        }
        for band in bands()
        if values[band.quantity] is not None
    ]
    said = {one["verdict"] for one in verdicts}
    return {"verdict": said.pop() if len(said) == 1 else "marginal" if said else None, "bands": verdicts}


def _advice(row: Row, report: Row, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Under how many tables a layer, with the neurons behind it, costs less spiking than dense."""
    names = [name for name in (row["name"], row["feeds"]) if name]
    pairs = [
        (sum(spiking[name][1] for name in names if name in spiking), entry["dense_by_layer"])
        for entry in entries
        if (spiking := (entry["snn"] or {}).get("by_layer")) and entry["dense_by_layer"]
    ]
    costs = [(ours, sum(dense.get(name, 0.0) for name in names)) for ours, dense in pairs]
    less = sum(ours < theirs for ours, theirs in costs)
    advice = None if not costs else "spiking" if less == len(costs) else "dense" if less == 0 else "depends"
    return {
        "layer": row["name"],
        "neurons": row["feeds"],
        "spikes_per_synapse": _spikes_per_synapse([row], report) if row in spiking_layers(report) else None,
        "cheaper_spiking": less,
        "of": len(costs),
        "advice": advice,
    }
