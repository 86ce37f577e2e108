"""How much a figure depends on the samples that happened to be counted: a bootstrap, kept apart from prices.

The counts of each sample are kept in at most `GROUPS` groups of samples, drawn once; resampling the groups with
replacement gives intervals for any price table later, without the network. Up to that many samples each one is a group.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from snnkd_deploy.counts import Counts, Products, Synapses
from snnkd_deploy.energy.anns import EFFECTIVE, multiplying
from snnkd_deploy.ir import Array

GROUPS = 100
RESAMPLES = 1000
SEED = 0
LEVEL = 0.95

Row = Mapping[str, Any]

FIELDS = (
    *("events_in", "synops", "synops_nonzero", "synops_unit", "synops_unit_nonzero", "updates_active", "spikes_out"),
    *("pool_ops", "attention_and", "attention_adds"),
)
"""Counts that other counts follow from; those that are the same for every sample are not kept."""


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
        "teacher": None if taught is None else [_multiplied(one, taught, owner) for one in multiplying(taught)],
    }


def _multiplied(layer: Synapses | Products, taught: Counts, owner: Array) -> dict[str, list[int]]:
    """Inputs of a layer of the teacher that are not zero, as `anns` counts them."""
    found = taught.per_sample[layer.name]
    if isinstance(layer, Products):
        both = found["attention_and"] + found["attention_adds"]
        return {field: _sums(both, owner) for field in EFFECTIVE}
    return {field: _sums(found[key], owner) for field, key in zip(EFFECTIVE, ("synops", "synops_nonzero"), strict=True)}


def _owners(samples: int) -> Array:
    """The group of each sample; groups differ by one sample at most."""
    order = np.random.default_rng(SEED).permutation(samples)
    owner = np.empty(samples, dtype=np.int64)
    owner[order] = np.arange(samples) % min(samples, GROUPS)
    return owner


def _fields(name: str, counts: Counts, owner: Array) -> dict[str, list[int]]:
    given = {field: values for field, values in counts.per_sample[name].items() if field in FIELDS}
    return {field: _sums(values, owner) for field, values in given.items() if (values != values[0]).any()}


def _sums(values: Array, owner: Array) -> list[int]:
    sums = np.zeros(int(owner.max()) + 1, dtype=np.int64)
    np.add.at(sums, owner, values)
    return list(sums.tolist())


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
        counted = iter(kept)
        return {**ann, "layers": [self._layer(one, counted) if one["macs_dense"] else one for one in ann["layers"]]}

    def _layer(self, layer: Row, counted: Iterator[Row]) -> dict[str, Any]:
        """Layers that multiply come in the order of those of the teacher."""
        fields = next(counted)
        return {**layer, **{field: self.sums(groups) for field, groups in fields.items()}}

    def _row(self, row: Row, fields: Mapping[str, Any]) -> dict[str, Any]:
        varied: dict[str, Any] = {field: self.sums(groups) for field, groups in fields.items()}
        if "updates_active" in varied:
            updates = row["updates_active"] + row["updates_inactive"]
            active = varied["updates_active"]
            varied |= {"updates_inactive": updates - active, "membrane_adds": active}
        if "spikes_out" in varied and "reset_adds" in row:
            varied["reset_adds"] = varied["spikes_out"] if row["reset_adds"] else 0
        for macs, synops in (("event_macs", "synops"), ("event_macs_nonzero", "synops_nonzero")):
            if synops in varied:
                varied[macs] = varied[synops] if row[macs] else 0
        return {**row, **varied}


@functools.cache
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
