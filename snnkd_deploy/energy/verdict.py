"""What may be said of all comparisons together: a range, a verdict only if all agree, and what the figures hang on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from snnkd_deploy.energy.accuracy import guessing
from snnkd_deploy.energy.anns import compared
from snnkd_deploy.energy.operations import conventions

Row = Mapping[str, Any]
NEVER = (
    "control, clock, instruction fetch and the host",
    "reading the picture in and the result out, the readout's sum over time included",
    "memory outside of the chip (DRAM), and filling memories with weights",
    "memory of pools, residual sums and attention",
)
"""What is in no total of any table."""
STATIC_SHARE = 0.5


def of_cases(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the cases that have a ratio: its range, how many are won at nominal prices, and whether all agree.

    `verdict`: "wins" or "loses" only if every case does at every price in its range, "depends" otherwise.
    """
    ratios = [case["ratio"] for case in cases if case["ratio"]]
    if not ratios:
        return {"ratio": None, "wins": 0, "of": 0, "verdict": None}
    low, high = min(one[0] for one in ratios), max(one[2] for one in ratios)
    return {
        "ratio": [low, high],
        "wins": sum(one[1] > 1 for one in ratios),
        "of": len(ratios),
        "verdict": "wins" if low > 1 else "loses" if high < 1 else "depends",
    }


def headline(report: Row, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Ranges over all comparisons, against each ANN and in all; wins are counted at nominal prices.

    `verdict` is None unless all agree, and of a network that is hardly better than guessing.
    """
    cases = [case for entry in entries for case in entry["cases"]]
    roles = [ann["role"] for ann in compared(report)]
    found = of_cases(cases)
    doubt = guessing(report["accuracy"])
    kinds = ("wins", "loses", "depends")
    tables = {kind: [one["table"] for one in entries if one["verdict"] == kind] for kind in kinds}
    return {
        "all": found,
        "against": {role: of_cases([one for one in cases if one["against"]["role"] == role]) for role in roles},
        "conventions": [asdict(one) for one in conventions(report)],
        "tables": [entry["table"] for entry in entries],
        "by_verdict": tables,
        "tables_without_ratio": [entry["table"] for entry in entries if not entry["of"]],
        "verdict": None if doubt or found["verdict"] == "depends" else found["verdict"],
        "statement": _doubted(found, doubt) if doubt and found["of"] else _statement(found, tables),
        "warnings": [f"{entry['table']}: {text}" for entry in entries for text in entry["warnings"]],
        "excluded": [*NEVER, *_left_out(report, entries)],
    }


def _doubted(found: Row, doubt: str) -> str:
    """A network that does not do what it is for has no energy to be proud of."""
    low, high = found["ratio"]
    return f"No verdict: {doubt}. ANN/SNN energy would be {low:.3g} to {high:.3g}"


def _statement(found: Row, tables: Mapping[str, list[str]]) -> str:
    if not found["of"]:
        return "No comparison: no price table prices all operations of both the spiking network and an ANN"
    low, high = found["ratio"]
    ranged = f"ANN/SNN energy is {low:.3g} to {high:.3g}"
    count = sum(len(some) for some in tables.values())
    every = f"all {found['of']} comparisons under {count} price table{'s' if count > 1 else ''}"
    if found["verdict"] != "depends":
        return f"The spiking network {found['verdict']}: {ranged} in {every}"
    if count == 1:
        return f"No verdict: {ranged}; it depends on how one counts ({found['wins']} of {found['of']} comparisons won)"
    wins, loses, depends = (len(tables[kind]) for kind in ("wins", "loses", "depends"))
    return (
        f"No verdict: {ranged}. The spiking network wins under {wins} of {count} price tables, loses under {loses}; "
        f"under {depends} it depends on how one counts. In all it wins {found['wins']} of {found['of']} comparisons"
    )


def _left_out(report: Row, entries: list[dict[str, Any]]) -> list[str]:
    """What some tables leave out on this network."""
    found = []
    if any(entry["scope"] == "arithmetic" and not entry["memory"] for entry in entries):
        found.append("memory and moving of data, under tables that price arithmetic alone")
    chips = [entry for entry in entries if entry["scope"] == "chip"]
    target = report["mapping"]["target"] if report["mapping"] else None
    if unmapped := [one["table"] for one in chips if target not in one["mapped"]]:
        found.append(f"messages, hops and time, where the network is not mapped to that chip ({', '.join(unmapped)})")
    if graded := [one["table"] for one in chips if any(part["operation"] == "mac" for part in one["unpriced"])]:
        found.append(
            f"multiplications of pixels or sums of spikes, where a chip takes spikes alone ({', '.join(graded)})"
        )
    if silent := [one["table"] for one in chips if not one["static"] and "static" not in one["included"]]:
        found.append(f"static power, where none is published with the prices ({', '.join(silent)})")
    return found


def warnings(entry: Row) -> list[str]:
    """What a reader of one table's figures must know."""
    found = []
    time, static = entry["time"], entry["static"]
    if time and time["static_share"] is not None and time["static_share"] > STATIC_SHARE:
        found.append(
            f"static power is {time['static_share']:.0%} of the energy of an inference of "
            f"{time['inference_us'][1]:.3g} µs: what operations cost hardly matters"
        )
    if static and static["volt"] != entry["volt"]:
        found.append(
            f"prices at {_volts(entry['volt'])}, static power at {_volts(static['volt'])}: they are not of one "
            "operating point, so static energy stands apart from the total"
        )
    if entry["scope"] == "device":
        found.append("a floor at full load, not an estimate: one sample at a time takes one to two decades more")
    return found


def _volts(value: Any) -> str:
    return f"{value} V" if isinstance(value, int | float) else f"a voltage {value}"


def uncertainty(report: Row, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """How far samples, prices, the way of counting and the choice of a table move ANN/SNN, each with all else fixed.

    `sampling`: half the width of the widest 95 % interval, as a part of the nominal ratio. The others are factors:
    the largest of high / low prices in one comparison, of nominal ratios in one table, and of ratios between tables.
    """
    kept = report["sampling"]
    widths = [part for entry in entries for part in _relative_widths(entry)]
    cases = [case for entry in entries for case in entry["cases"] if case["ratio"]]
    return {
        "sampling": {
            "method": kept["method"],
            "level": kept["level"],
            "resamples": kept["resamples"],
            "groups": len(kept["group_sizes"]),
            "samples": report["data"]["samples"],
            "ratio_half_width": max(widths, default=None),
        },
        "pricing": {"factor": max((case["ratio"][2] / case["ratio"][0] for case in cases), default=None)},
        "counting": {"factor": max((_spread(entry) for entry in entries if entry["of"]), default=None)},
        "tables": {"factor": _between(entries)},
    }


def _relative_widths(entry: Row) -> list[float]:
    found = [one["ci95"] for one in entry["ratio_ci95"] if one["ci95"]]
    return [(high - low) / (high + low) for low, high in found if high + low > 0]


def _spread(entry: Row) -> float:
    """Between ways of counting against one and the same ANN."""
    groups: dict[str, list[float]] = {}
    for case in entry["cases"]:
        if case["ratio"]:
            groups.setdefault(str(case["against"]), []).append(case["ratio"][1])
    return max(max(some) / min(some) for some in groups.values() if min(some) > 0)


def _between(entries: list[dict[str, Any]]) -> float | None:
    """Between tables, in the reference convention against the same ANN of the tables' own precision."""
    groups: dict[str, list[float]] = {}
    for entry in entries:
        for case in entry["cases"]:
            if case["ratio"] and case == next(one for one in entry["cases"] if one["against"] == case["against"]):
                groups.setdefault(str(case["against"]), []).append(case["ratio"][1])
    return max((max(some) / min(some) for some in groups.values() if min(some) > 0), default=None)
