"""How much a figure depends on the samples that happened to be counted: a bootstrap, kept apart from prices.

The counts of each sample are kept in at most `GROUPS` groups of samples, drawn once; resampling the groups with
replacement gives intervals for any price table later, without the network. Up to that many samples each one is a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from snnkd_deploy.counts import Counts
from snnkd_deploy.ir import Array

GROUPS = 100
RESAMPLES = 1000
SEED = 0
LEVEL = 0.95

Row = Mapping[str, Any]


def grouped(counts: Counts, taught: Counts | None) -> dict[str, Any]:
    """Sums of every count over each group of samples, as a report keeps them."""
    owner = _owners(counts.samples)
    sizes = np.bincount(owner)
    return {
        "method": "bootstrap over samples",
        "level": LEVEL,
        "resamples": RESAMPLES,
        "seed": SEED,
        "group_sizes": sizes.tolist(),
        "layers": {layer.name: _fields(layer.name, counts, owner) for layer in counts.layers},
        "teacher": None
        if taught is None
        else {layer.name: _fields(layer.name, taught, owner) for layer in taught.layers},
    }


def _owners(samples: int) -> Array:
    """The group of each sample; groups differ by one sample at most."""
    order = np.random.default_rng(SEED).permutation(samples)
    owner = np.empty(samples, dtype=np.int64)
    owner[order] = np.arange(samples) % min(samples, GROUPS)
    return owner


def _fields(name: str, counts: Counts, owner: Array) -> dict[str, list[int]]:
    groups = int(owner.max()) + 1
    found = {}
    for field, values in counts.per_sample[name].items():
        sums = np.zeros(groups, dtype=np.int64)
        np.add.at(sums, owner, values)
        found[field] = sums.tolist()
    return found


class Resampled:
    """Resamplings of the data: the rows of a report with, for each count that varies, an array of its sums."""

    def __init__(self, report: Row) -> None:
        kept = report["sampling"]
        self.sizes = np.asarray(kept["group_sizes"], dtype=np.int64)
        self.weights = _multiplicities(len(self.sizes))
        self.samples = self.weights @ self.sizes
        self.total = report["data"]["samples"]
        self.rows = [self._row(row, kept["layers"].get(row["name"], {})) for row in report["layers"]]
        self.kept = kept

    def sums(self, groups: Any) -> Array:
        """Of a count given for each group, scaled to as many samples as there are."""
        return np.asarray((self.weights @ np.asarray(groups, dtype=np.float64)) * (self.total / self.samples))

    def report(self, report: Row) -> dict[str, Any]:
        """The report with resampled rows, for everything that is linear in them."""
        return {**report, "layers": self.rows}

    def ann(self, ann: Row) -> dict[str, Any]:
        """An ANN with its inputs that are not zero resampled, where it has any."""
        kept = self.kept["teacher"]
        if kept is None or ann["macs_effective"] is None:
            return dict(ann)
        counted = iter([fields for fields in kept.values() if "synops" in fields or "attention_and" in fields])
        return {**ann, "layers": [self._layer(layer, counted) for layer in ann["layers"]]}

    def _layer(self, layer: Row, counted: Any) -> dict[str, Any]:
        if not layer["macs_dense"]:
            return dict(layer)
        fields = next(counted)
        if "synops" not in fields:
            both = self.sums(fields["attention_and"]) + self.sums(fields["attention_adds"])
            return {**layer, "macs_effective": both, "macs_effective_nonzero": both}
        found = {"macs_effective": "synops", "macs_effective_nonzero": "synops_nonzero"}
        return {**layer, **{key: self.sums(fields[field]) for key, field in found.items()}}

    def _row(self, row: Row, fields: Mapping[str, Any]) -> dict[str, Any]:
        varied: dict[str, Any] = {field: self.sums(groups) for field, groups in fields.items()}
        if "updates_active" in varied:
            updates = row["updates_active"] + row["updates_inactive"]
            varied |= {"updates_inactive": updates - varied["updates_active"], "membrane_adds": varied["updates_active"]}
            varied["reset_adds"] = varied["spikes_out"] if row["reset_adds"] else 0
        for macs in ("event_macs", "event_macs_nonzero"):
            if "synops" in varied:
                varied[macs] = varied[macs.replace("event_macs", "synops")] if row[macs] else 0
        return {**row, **varied}


def _multiplicities(groups: int) -> Array:
    """How often each group is drawn, `(resamples, groups)`."""
    drawn = np.random.default_rng(SEED).integers(groups, size=(RESAMPLES, groups))
    return np.stack([np.bincount(one, minlength=groups) for one in drawn])


def interval(values: Array) -> list[float]:
    """The middle 95 % of resampled values."""
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(values, [tail, 100 - tail])
    return [float(low), float(high)]


def layer_intervals(kept: Row, samples: int) -> dict[str, dict[str, list[float]]]:
    """The interval of each count of each layer, per inference."""
    draws = _multiplicities(len(kept["group_sizes"]))
    sizes = draws @ np.asarray(kept["group_sizes"])
    return {
        name: {field: interval((draws @ np.asarray(groups)) / sizes) for field, groups in fields.items()}
        for name, fields in kept["layers"].items()
    }
