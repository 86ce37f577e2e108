"""How long an inference takes on a chip whose times are published, and what its static power costs in that time.

A step takes as long as the busiest core: its synaptic operations and its neuron updates one after the other, then the
barrier that ends the step. Both are means over samples and steps, so bursts, and waiting for messages, come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snnkd_deploy.prices import Price, Table

Row = Mapping[str, Any]
NONE: Price = (0.0, 0.0, 0.0)


def timing(report: Row, table: Table, dynamic: list[float]) -> dict[str, Any] | None:
    """Times and static energy under the table; None where it publishes no times or maps no such target.

    `dynamic`: low, nominal and high pJ per inference, for the share that static energy has and the product with time.
    """
    mapping, steps = report["mapping"], report["model"]["timesteps"]
    if mapping is None or mapping["target"] not in table.mapped or not table.times:
        return None
    busiest, step = _step(report, table)
    inference = [steps * one for one in step]
    static = None
    if table.static:
        static = [mapping["chips"] * mw * ns for mw, ns in zip(table.static.mw_per_chip, inference, strict=True)]
    whole = dynamic if static is None else [one + other for one, other in zip(dynamic, static, strict=True)]
    return {
        "busiest": busiest,
        "step_ns": step,
        "inference_us": [one / 1000 for one in inference],
        "static_pj": static,
        "static_share": static[1] / whole[1] if static and whole[1] else None,
        "total_pj": whole,
        "energy_delay_pj_us": [one * ns / 1000 for one, ns in zip(whole, inference, strict=True)],
    }


def _step(report: Row, table: Table) -> tuple[str, list[float]]:
    """The layer of the busiest core at nominal times, and ns a step with the barrier, low, nominal, high."""
    placed = {one["name"]: [_core(one, report, table, at) for at in range(3)] for one in report["mapping"]["layers"]}
    busiest = max(placed, key=lambda name: placed[name][1])
    barrier = table.times.get("barrier", NONE)
    return busiest, [max(one[at] for one in placed.values()) + barrier[at] for at in range(3)]


def _core(placed: Row, report: Row, table: Table, at: int) -> float:
    """ns a step of the busiest core of one layer."""
    rows = {row["name"]: row for row in report["layers"]}
    steps = report["data"]["samples"] * report["model"]["timesteps"]
    named = rows[placed["name"]]
    synapses = next((row for row in rows.values() if row.get("feeds") == placed["name"]), named)
    kind = "linear" if synapses["op"] == "Linear" else "conv"
    time: float = placed["busiest_synops"] / steps * _time(table, f"synop_{kind}", at)
    if "updates_active" in named:
        updates = named["updates_active"] + named["updates_inactive"]
        active = named["updates_active"] / updates
        each = active * _time(table, "neuron_active", at) + (1 - active) * _time(table, "neuron_inactive", at)
        fired = named["spikes_out"] / updates * _time(table, "spike", at)
        time += placed["busiest_neurons"] * (each + fired)
    return time


def _time(table: Table, operation: str, at: int) -> float:
    general = "synop" if operation.startswith("synop") else operation
    return next((table.times[one][at] for one in (operation, general) if one in table.times), 0.0)
