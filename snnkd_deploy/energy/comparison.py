"""Several reports side by side: accuracy against energy, and which runs no other run beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from snnkd_deploy.errors import InputError

Row = Mapping[str, Any]


def compare(reports: Mapping[str, Row]) -> dict[str, Any]:
    """Priced reports by name, all under the same tables. InputError if an accuracy or a table that they share lacks.

    A run is on the front of a table if no other is at least as accurate and at most as dear, and better in one of both.
    """
    if unlabelled := [name for name, one in reports.items() if one["accuracy"]["snn_counted"] is None]:
        raise InputError(f"{', '.join(unlabelled)}: no accuracy to compare, since the counted samples have no labels")
    tables = _shared(list(reports.values()))
    if not tables:
        raise InputError("no price table gives all of these reports an energy")
    runs = [_run(name, report, tables) for name, report in reports.items()]
    fronts = {table: _front(runs, table) for table in tables}
    return {
        "schema": "snnkd-deploy/energy-comparison",
        "schema_version": 1,
        "estimate": True,
        "measured": False,
        "tables": tables,
        "runs": [{**run, "front": [table for table in tables if run["name"] in fronts[table]]} for run in runs],
        "warnings": _warnings(reports),
    }


def _shared(reports: Sequence[Row]) -> list[str]:
    """Tables that price the spiking networks of all reports, or lack a price for the same operations of all of them."""
    lacking = [{entry["table"]: _lacking(entry) for entry in one["energy"] if entry["snn"]} for one in reports]
    names = [entry["table"] for entry in reports[0]["energy"]]
    return [name for name in names if all(one.get(name) is not None for one in lacking) and _alike(lacking, name)]


def _lacking(entry: Row) -> frozenset[str]:
    return frozenset(one["operation"] for one in entry["unpriced"] if one["side"] == "snn")


def _alike(lacking: Sequence[Mapping[str, frozenset[str]]], name: str) -> bool:
    return len({one[name] for one in lacking}) == 1


def _run(name: str, report: Row, tables: Sequence[str]) -> dict[str, Any]:
    entries = {entry["table"]: entry for entry in report["energy"]}
    return {
        "name": name,
        "model": report["model"]["name"],
        "target": report["model"]["target"],
        "method": report["model"]["training"].get("method"),
        "timesteps": report["model"]["timesteps"],
        "weight_bits": report["model"]["weight_bits"],
        "samples": report["data"]["samples"],
        "accuracy": report["accuracy"]["snn_counted"],
        "ci95": report["accuracy"]["snn_ci95"],
        "spikes_per_synapse": report["break_even"]["spikes_per_synapse"],
        "ratio": report["headline"]["all"]["ratio"],
        "energy_pj": {table: entries[table]["snn"]["total"] for table in tables},
        "lower_bound": [table for table in tables if entries[table]["snn"]["lower_bound"]],
        "counts_sha256": report["counts_sha256"],
    }


def _front(runs: Sequence[Row], table: str) -> set[str]:
    """Names of the runs that no other beats, at nominal prices."""
    points = [(run["name"], run["accuracy"], run["energy_pj"][table][1]) for run in runs]
    return {name for name, right, cost in points if not any(_beats(one[1:], (right, cost)) for one in points)}


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """At least as accurate and at most as dear, and not equal in both."""
    return one[0] >= other[0] and one[1] <= other[1] and one != other


def _warnings(reports: Mapping[str, Row]) -> list[str]:
    """What keeps these reports from being compared like with like."""
    found = []
    if len({one["data"]["inputs_sha256"] for one in reports.values()}) > 1:
        names = dict.fromkeys(f"{one['data']['samples']:,} of {one['data']['name']}" for one in reports.values())
        found.append(f"not all were counted on the same samples as they enter the network ({', '.join(names)})")
    if len({one["model"]["target"] for one in reports.values()}) > 1:
        found.append("not all are for the same target, which rewrites the network (pools, relays, host layers)")
    few = [name for name, one in reports.items() if one["data"]["samples"] < 100]
    if few:
        found.append(f"fewer than 100 samples: {', '.join(few)}")
    return found
