"""The counts of a report under price tables: what each network costs, how they compare, and how sure that is.

Each total is per inference, in pJ, as [low, nominal, high] of its price table. No single ratio is stated: it is given
for every table, every way of counting that makes a difference on this network, and every ANN to compare with. Intervals
of `ci95` are those of the samples at nominal prices; prices and samples are never mixed into one bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from snnkd_deploy.energy.anns import compared, works
from snnkd_deploy.energy.break_even import break_even, capacity_bits, of_table
from snnkd_deploy.energy.counted import plain
from snnkd_deploy.energy.latency import timing
from snnkd_deploy.energy.literature import literature
from snnkd_deploy.energy.operations import REFERENCE, Convention, ann_charges, charges, conventions
from snnkd_deploy.energy.sampling import Resampled, interval
from snnkd_deploy.energy.stored import DERIVED, Report
from snnkd_deploy.energy.verdict import headline, of_cases, uncertainty, warnings
from snnkd_deploy.prices import Bill, Charge, Table, bill, ratio, split, total

Row = Mapping[str, Any]


class Form(NamedTuple):
    """An ANN to compare with, how much of it is computed, and the bits of its activations (None: the table's own)."""

    ann: Row
    work: str
    bits: int | None
    table: Table
    """With the price of a multiply-accumulate of so many bits."""

    @property
    def label(self) -> dict[str, Any]:
        """What names it in a report."""
        return {"role": self.ann["role"], "work": self.work, "bits": self.bits}


def price(report: Row, tables: Iterable[Table]) -> Report:
    """The same counts under these tables: a new report, with what `read` needs and nothing of the old prices."""
    counts = {key: value for key, value in report.items() if key not in DERIVED}
    given = tuple(tables)
    resampled = Resampled(counts)
    entries = [plain(_entry(counts, table, resampled)) for table in given]
    return {
        **counts,
        "literature": literature(counts, given),
        "energy": entries,
        "headline": headline(counts, entries),
        "break_even": break_even(counts, entries),
        "uncertainty": uncertainty(counts, entries),
        "counts_sha256": report["counts_sha256"],
    }


def forms(report: Row, table: Table) -> list[Form]:
    """The ANNs to compare with under this table; none on a chip, where no ANN runs."""
    if table.scope == "chip":
        return []
    found = [Form(ann, work, None, table) for ann in compared(report) for work in works(ann)]
    if table.scope == "device":
        return [form for form in found if form.work == "dense"]
    bits = capacity_bits(report)
    fewer = table.quantized(bits)
    return found + ([Form(ann, "dense", bits, fewer) for ann in compared(report)] if fewer else [])


def _entry(report: Row, table: Table, resampled: Resampled) -> dict[str, Any]:
    """What one table says: the reference convention in detail, then every comparison."""
    samples, against = report["data"]["samples"], forms(report, table)
    done = [] if table.scope == "device" else charges(report, REFERENCE, table)
    cases = _cases(report, table, against) if done else []
    entry = {
        **_described(table),
        "unit": "pJ",
        "snn": _snn(report, table, done, resampled) if done else None,
        "ann": [{**form.label, **_ann(form, samples)} for form in against],
        "dense_by_layer": _dense_by_layer(report, table, done, samples),
        "cases": cases,
        **of_cases(cases),
        "ratio_ci95": _ratio_intervals(report, table, against, resampled) if done else [],
        "unpriced": _unpriced(report, table, done, samples),
        "time": timing(report, table, total(bill(done, table), table, samples)),
        "break_even": [{**form.label, **found} for form in against if done for found in of_table(report, table, form)],
    }
    return {**entry, "warnings": warnings(entry)}


def _described(table: Table) -> dict[str, Any]:
    """All that the table says of itself; `hash` names this state of it."""
    words = plain(asdict(table))
    return {"table": words.pop("name"), "hash": table.digest, **words}


def _snn(report: Row, table: Table, done: list[Charge], resampled: Resampled) -> dict[str, Any]:
    samples = report["data"]["samples"]
    due = bill(done, table)
    varied = total(bill(charges(resampled.report(report), REFERENCE, table), table), table, samples)[1]
    return {
        "convention": asdict(REFERENCE),
        "by_class": split(done, table, samples, "group"),
        "by_layer": split(done, table, samples, "layer"),
        "by_layer_and_class": _by_layer_and_class(done, table, samples),
        "total": total(due, table, samples),
        "ci95": interval(varied),
        "lower_bound": None in due or any(table.key(one) in due for one in table.lower_bounds),
    }


def _by_layer_and_class(done: list[Charge], table: Table, samples: int) -> dict[str, dict[str, float]]:
    """Nominal pJ."""
    layers = dict.fromkeys(charge.layer for charge in done)
    parts = {name: split([one for one in done if one.layer == name], table, samples, "group") for name in layers}
    return {name: {group: three[1] for group, three in found.items()} for name, found in parts.items() if found}


def _ann(form: Form, samples: int) -> dict[str, Any]:
    """Total of an ANN in the reference convention, None if an operation of it has no price; on a device a floor."""
    due = _ann_bill(form, REFERENCE, samples)
    known = None not in due or form.table.scope == "device"
    return {
        "total": total(due, form.table, samples) if known else None,
        "lower_bound": None in due or any(form.table.key(one) in due for one in form.table.lower_bounds),
    }


def _dense_by_layer(report: Row, table: Table, done: list[Charge], samples: int) -> dict[str, float] | None:
    """Nominal pJ of each layer of the dense ANN of the same shape; None unless both sides have all prices."""
    same = next(ann for ann in report["ann"] if ann["role"] == "same_shape")
    dense = ann_charges(same, "dense", REFERENCE, table, samples)
    if table.scope != "arithmetic" or None in bill(done, table) or None in bill(dense, table):
        return None
    return {name: three[1] for name, three in split(dense, table, samples, "layer").items()}


def _ann_bill(form: Form, convention: Convention, samples: int) -> Bill:
    return bill(ann_charges(form.ann, form.work, convention, form.table, samples, form.bits), form.table)


def _cases(report: Row, table: Table, against: list[Form]) -> list[dict[str, Any]]:
    """Every way of counting against every ANN; a ratio is None unless all operations of both sides have a price."""
    samples, found = report["data"]["samples"], []
    bills: dict[tuple[str, str], list[Bill]] = {}
    for convention in conventions(report, table) if against else ():
        ours = bill(charges(report, convention, table), table)
        spiking = total(ours, table, samples)
        matters = (convention.weights, convention.reuse)
        if matters not in bills:
            bills[matters] = [_ann_bill(form, convention, samples) for form in against]
        for form, theirs in zip(against, bills[matters], strict=True):
            found.append(
                {
                    "convention": asdict(convention),
                    "against": form.label,
                    "snn": spiking,
                    "ann": None if None in theirs else total(theirs, form.table, samples),
                    "ratio": ratio(theirs, ours, table, form.table),
                }
            )
    return found


def _ratio_intervals(report: Row, table: Table, against: list[Form], resampled: Resampled) -> list[dict[str, Any]]:
    """ANN/SNN over resampled data at nominal prices, in the reference convention."""
    samples = report["data"]["samples"]
    ours = bill(charges(resampled.report(report), REFERENCE, table), table)
    found = []
    for form in against:
        theirs = _ann_bill(form._replace(ann=resampled.ann(form.ann)), REFERENCE, samples)
        below = total(ours, table, samples)[1]
        known = None not in ours and None not in theirs and bool(np.all(below > 0))
        over = total(theirs, form.table, samples)[1] / below if known else None
        found.append({**form.label, "ci95": None if over is None else interval(over)})
    return found


def _unpriced(report: Row, table: Table, done: list[Charge], samples: int) -> list[dict[str, Any]]:
    """Operations that are done and have no price, per inference, of both sides."""
    sides = {"snn": done}
    if table.scope == "arithmetic":
        sides |= {ann["role"]: ann_charges(ann, "dense", REFERENCE, table, samples) for ann in report["ann"]}
    missing: Counter[tuple[str, str]] = Counter()
    for side, charged in sides.items():
        for charge in charged:
            if table.covering(charge) and not table.key(charge.operation) and charge.number:
                missing[side, charge.operation] += charge.number
    return [
        {"side": side, "operation": operation, "per_inference": number / samples}
        for (side, operation), number in missing.items()
    ]
