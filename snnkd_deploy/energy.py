"""The energy report: exact counts of one network on one data set, and what they cost under several price tables.

The counted part never mentions a price, so a report can be priced again without the model. Each total is per inference,
in pJ, as [low, nominal, high] of its price table. No single ratio is stated: it is given for every price table, every
way of counting that makes a difference on this network, and every ANN to compare with.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from snnkd_deploy import __version__
from snnkd_deploy.counts import (
    Activations,
    Counts,
    Layer,
    Neurons,
    Pools,
    Products,
    Sums,
    Synapses,
    ann_layers,
    count,
)
from snnkd_deploy.errors import BundleError, GraphError, InputError
from snnkd_deploy.files import read_json, write_json
from snnkd_deploy.ir import Array, Attention, BiasedInput, Graph, Relay, Stage, canonical_bytes
from snnkd_deploy.prices import Charge, Table, bill, ratio, split, total

Report = dict[str, Any]

SCHEMA = "snnkd-deploy/energy"
SCHEMA_VERSION = 1
DERIVED = ("literature", "energy", "headline", "counts_sha256")
"""What `price` writes anew, and the hash itself; the hash covers the rest."""

LITERATURE_MAC_PJ, LITERATURE_AC_PJ = 4.6, 0.9
FORMULA = "E = 4.6 pJ x FLOPs(layer 1) + 0.9 pJ x sum over the other layers of rate x T x FLOPs"
EXCLUDED = (
    "memory: reading weights, reading and writing membranes",
    "moving spikes between cores, which depends on a mapping",
    "static power, control, clock and host",
    "reading the picture in and the result out, the readout's sum over time included",
)


@dataclass(frozen=True)
class Convention:
    """A way of counting. The defaults charge all that is done without cleverness of the hardware."""

    encoder: str = "per_step"
    """Layers that see a still picture alone: `per_step`, or `once` if their result is kept."""
    pixels: str = "all"
    """Whether layers on pixels multiply `all` of them, or only those that are `nonzero`."""
    sums: str = "graded"
    """Sums of spikes: one multiply-accumulate each, or one accumulate for each `unit`."""
    weights: str = "all"
    """Whether pairs of weight zero are done: `all`, or only `nonzero`; on both sides."""


def build(
    *,
    graph: Graph,
    inputs: Array,
    labels: Array | None,
    teacher: Graph | None,
    uncounted: Iterable[str] = (),
    data: Mapping[str, Any],
    accuracy: Mapping[str, float | None],
    name: str,
    target: str,
    pictures: Array | None = None,
    unrelayed: Graph | None = None,
) -> Report:
    """Count `graph` (INTEGER or LEGAL) and the folded `teacher` on integer `inputs`; no prices yet.

    The teacher sees `pictures`, or if there are none what `inputs` tell of them; without its graph `uncounted` says why
    there is none. If `graph` has relays or constant inputs, the ANN of its shape is that of `unrelayed`, the network
    before they were added.
    """
    if graph.stage < Stage.INTEGER:
        raise GraphError(f"{graph.name} has no energy:", [f"it is {graph.stage.name}; the integer network is counted"])
    counts = count(graph, inputs)
    if labels is not None and len(labels) != counts.samples:
        raise InputError(f"{len(labels)} labels for {counts.samples} samples")
    seen = pictures if pictures is not None or teacher is None else _seen_by(teacher, graph, inputs)
    shape, shaped = graph, counts
    if unrelayed is not None and graph.of(Relay, BiasedInput):
        shape, shaped = unrelayed, count(unrelayed, inputs)
        counts = replace(counts, layers=tuple(_of_plain(layer, shaped) for layer in counts.layers))
    taught = count(teacher, seen) if teacher is not None and seen is not None else None
    report: Report = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "snnkd-deploy", "version": __version__},
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "estimate": True,
        "measured": False,
        "model": _model(graph, counts, name, target),
        "data": _data(graph, inputs, counts.samples, data),
        "accuracy": _accuracy(counts, taught, labels, accuracy),
        "layers": [_row(layer, counts) for layer in counts.layers],
        "totals": _totals(counts),
        "ann": _anns(shape, shaped, teacher, taught),
        "warnings": _warnings(graph, counts, teacher, taught, tuple(uncounted)),
        "excluded": list(EXCLUDED),
    }
    plain = _plain(report)
    return price({**plain, "counts_sha256": digest(plain)}, ())


def price(report: Mapping[str, Any], tables: Iterable[Table]) -> Report:
    """The same counts under these tables: a new report, with what `read` needs and nothing of the old prices."""
    counted = {key: value for key, value in report.items() if key not in DERIVED}
    given = tuple(tables)
    entries = [_entry(counted, table) for table in given]
    return {
        **counted,
        "literature": literature(counted, given),
        "energy": entries,
        "headline": _headline(counted, entries),
        "counts_sha256": report["counts_sha256"],
    }


def digest(report: Mapping[str, Any]) -> str:
    """SHA-256 over all of a report that prices do not touch."""
    counted = {key: value for key, value in report.items() if key not in DERIVED}
    return hashlib.sha256(json.dumps(counted, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write(path: Path, report: Mapping[str, Any]) -> None:
    """Write the report as JSON, whole or not at all."""
    write_json(path, report)


def read(path: Path) -> Report:
    """The report in `path`. BundleError if it is another kind of file, another version, or was changed by hand."""
    report = read_json(path, "report", BundleError)
    if report.get("schema") != SCHEMA:
        raise BundleError(f"{path} is not an energy report: its schema is {report.get('schema')!r}, not {SCHEMA!r}")
    if report.get("schema_version") != SCHEMA_VERSION:
        met = report.get("schema_version")
        raise BundleError(f"{path}: energy report of version {met!r}; this program reads version {SCHEMA_VERSION}")
    if report.get("counts_sha256") != digest(report):
        raise BundleError(f"{path}: its counts are not those that were written (counts_sha256 differs); count again")
    return report


def charges(report: Mapping[str, Any], convention: Convention, scope: str) -> list[Charge]:
    """All operations of the spiking network; what runs on the host has no price on a chip."""
    timesteps = report["model"]["timesteps"]
    found: list[Charge] = []
    for row in report["layers"]:
        repeats = timesteps if row["static"] and convention.encoder == "per_step" else 1
        away = "host " if scope == "chip" and row["placement"] == "host" else ""
        for group, operation, number in _operations(row, convention, scope):
            found.append(Charge(row["name"], group, away + operation, number * repeats))
    return [charge for charge in found if charge.number]


def _operations(row: Mapping[str, Any], convention: Convention, scope: str) -> Iterator[tuple[str, str, int]]:
    """Group, operation and number of all that one layer does."""
    if row["op"] in ("Linear", "Conv2d"):
        yield from _synaptic(row, convention)
    elif row["op"] == "Neuron":
        yield from _neural(row, scope)
    elif row["op"] == "Add":
        yield "residual", "add", row["residual_adds"]
    elif row["op"] == "Attention":
        yield "attention", "add", row["attention_and"] + row["attention_adds"]
    else:
        yield "pooling", "compare" if row["pool_mode"] == "max" else "add", row["pool_ops"]


def _synaptic(row: Mapping[str, Any], convention: Convention) -> Iterator[tuple[str, str, int]]:
    suffix = "_nonzero" if convention.weights == "nonzero" else ""
    unit = row["input_kind"] == "sums" and convention.sums == "unit"
    macs = 0 if unit else row[f"event_macs{suffix}"]
    accumulates = row[f"synops_unit{suffix}"] if unit else row[f"synops{suffix}"] - macs
    if row["input_kind"] == "picture" and convention.pixels == "all":
        macs = row[f"dense_macs{suffix or '_inrange'}"] * row["evaluations"]
    encoder = row["static"] or row["input_kind"] == "picture"
    yield "encoder" if encoder else "graded", "mac", macs
    yield (
        "encoder" if encoder else "synapses",
        "synop_conv" if row["op"] == "Conv2d" else "synop_linear",
        accumulates,
    )
    yield "bias", "add", row["bias_adds"]


def _neural(row: Mapping[str, Any], scope: str) -> Iterator[tuple[str, str, int]]:
    if scope == "chip":
        yield "neurons", "neuron_active", row["updates_active"]
        yield "neurons", "neuron_inactive", row["updates_inactive"]
        yield "spikes", "spike", row["spikes_out"]
    else:
        yield "neurons", "leak_multiply", row["leak_multiplies"]
        yield "neurons", "add", row["membrane_adds"] + row["reset_adds"]
        yield "neurons", "compare", row["compares"]


def ann_charges(ann: Mapping[str, Any], work: str, weights: str, samples: int) -> list[Charge]:
    """All operations of an ANN: `dense`, or `effective` (inputs that are zero skipped)."""
    suffix = "_nonzero" if weights == "nonzero" else "_inrange" if work == "dense" else ""
    macs = ann[f"macs_{work}{suffix}"] * (samples if work == "dense" else 1)
    parts = {"mac": macs, **{key: ann[f"{key}s"] * samples for key in ("add", "compare")}}
    return [Charge(ann["role"], "ann", operation, number) for operation, number in parts.items() if number]


def conventions(report: Mapping[str, Any]) -> list[Convention]:
    """The ways of counting that make a difference on this network, the reference first."""
    layers = [row for row in report["layers"] if row["op"] in ("Linear", "Conv2d")]
    still = report["model"]["timesteps"] > 1 and any(row["static"] for row in layers)
    pictures = (row for row in layers if row["input_kind"] == "picture")
    black = any(row["events_in"] < row["inputs"] * row["evaluations"] for row in pictures)
    graded = any(row["input_kind"] == "sums" for row in layers)
    zeros = any(row["zero_weights"] for row in layers)
    weights = ("nonzero",) if report["model"].get("relays") else ("all", "nonzero") if zeros else ("all",)
    return [
        Convention(*one)
        for one in product(
            ("per_step", "once") if still else ("per_step",),
            ("all", "nonzero") if black else ("all",),
            ("graded", "unit") if graded else ("graded",),
            weights,
        )
    ]


def literature(report: Mapping[str, Any], tables: Iterable[Table] = ()) -> dict[str, Any]:
    """What the formula of most papers gives for this network, pJ, with its first layer charged once and at each step.

    FLOPs are textbook, on the shapes of the ANN; the rate of a layer is that of the neurons in front of it, pools
    ignored. A layer that reads anything but spikes counts as a first layer. `ratio_exact_over_literature` needs a table
    with the formula's own prices.
    """
    timesteps = report["model"]["timesteps"]
    rates = {row["name"]: row["rate"] for row in report["layers"] if row["op"] == "Neuron"}
    first, others, all_flops = 0, 0.0, 0
    for row in report["layers"]:
        if row["op"] in ("Linear", "Conv2d", "Attention"):
            rate = _literature_rate(row, rates)
            first += row["ann_macs"] if rate is None else 0
            others += row["ann_macs"] * (rate or 0.0)
            all_flops += row["ann_macs"]
    spiking = LITERATURE_AC_PJ * timesteps * others
    energy = {"once": LITERATURE_MAC_PJ * first + spiking, "per_step": LITERATURE_MAC_PJ * first * timesteps + spiking}
    exact = next((one for one in tables if _literature_prices(one)), None)
    return {
        "formula": FORMULA,
        "source": "Horowitz, ISSCC 2014, as used by most papers on spiking networks",
        "unit": "pJ",
        "snn": energy,
        "ann": LITERATURE_MAC_PJ * all_flops,
        "exact_under": exact.name if exact else None,
        "ratio_exact_over_literature": _over_literature(report, exact, energy) if exact else None,
    }


def _literature_rate(row: Mapping[str, Any], rates: Mapping[str, float]) -> float | None:
    """Events per input and step, of an attention the mean of q, k and v; None where it charges multiply-accumulates."""
    if row["op"] == "Attention":
        return float(row["events_in"] / (3 * np.prod(row["shape"]) * row["evaluations"]))
    if row["fed_by"]:
        return sum(rates[name] for name in row["fed_by"])
    if row["input_kind"] == "spikes" and not row["static"]:
        return float(row["events_in"] / (row["inputs"] * row["evaluations"]))
    return None


def _literature_prices(table: Table) -> bool:
    prices = {"mac": LITERATURE_MAC_PJ, "synop": LITERATURE_AC_PJ}
    return all(key in table.prices and table.prices[key][1] == value for key, value in prices.items())


def _over_literature(report: Mapping[str, Any], table: Table, energy: Mapping[str, float]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for encoder, pj in energy.items():
        due = bill(charges(report, Convention(encoder), table.scope), table)
        found[encoder] = total(due, table, report["data"]["samples"])[1] / pj if pj else None
    return found


def _entry(report: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """What one table says: the reference convention in detail, then every comparison."""
    samples, done = report["data"]["samples"], charges(report, Convention(), table.scope)
    cases = [
        _case(report, table, convention, ann, work)
        for convention in conventions(report)
        for ann in compared(report)
        for work in _works(ann)
    ]
    return {
        **_described(table),
        "unit": "pJ",
        "snn": {
            "convention": asdict(Convention()),
            "by_class": split(done, table, samples, "group"),
            "by_layer": split(done, table, samples, "layer"),
            "total": total(bill(done, table), table, samples),
        },
        "ann": [
            {"role": ann["role"], "work": work, "total": _ann_total(ann, work, table, samples)}
            for ann in compared(report)
            for work in _works(ann)
        ],
        "cases": cases,
        **_range(cases),
        "unpriced": _unpriced(report, table, done, samples),
    }


def compared(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The ANNs to compare with; one that has the teacher's shape is the teacher, and counts once."""
    return [ann for ann in report["ann"] if not ann["is_teacher"]]


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """What would be read back had it been written."""
    return dict(json.loads(json.dumps(value, allow_nan=False)))


def _described(table: Table) -> dict[str, Any]:
    """All that the table says of itself; `hash` names this state of it."""
    words = _plain(asdict(table))
    return {"table": words.pop("name"), "hash": table.digest, **words}


def _case(
    report: Mapping[str, Any], table: Table, convention: Convention, ann: Mapping[str, Any], work: str
) -> dict[str, Any]:
    """One comparison; its ratio is None unless all operations of both sides have a price."""
    samples = report["data"]["samples"]
    ours = bill(charges(report, convention, table.scope), table)
    theirs = bill(ann_charges(ann, work, convention.weights, samples), table)
    return {
        "convention": asdict(convention),
        "against": {"role": ann["role"], "work": work},
        "snn": total(ours, table, samples),
        "ann": None if None in theirs else total(theirs, table, samples),
        "ratio": ratio(theirs, ours, table),
    }


def _works(ann: Mapping[str, Any]) -> list[str]:
    return ["dense"] if ann["macs_effective"] is None else ["dense", "effective"]


def _ann_total(ann: Mapping[str, Any], work: str, table: Table, samples: int) -> list[float] | None:
    due = bill(ann_charges(ann, work, Convention().weights, samples), table)
    return None if None in due else total(due, table, samples)


def _unpriced(report: Mapping[str, Any], table: Table, done: list[Charge], samples: int) -> list[dict[str, Any]]:
    """Operations that are done and have no price, per inference, of both sides."""
    sides = {"snn": done}
    sides |= {ann["role"]: ann_charges(ann, "dense", "all", samples) for ann in report["ann"]}
    missing: Counter[tuple[str, str]] = Counter()
    for side, charged in sides.items():
        for charge in charged:
            if charge.group not in table.included and not table.key(charge.operation):
                missing[side, charge.operation] += charge.number
    return [
        {"side": side, "operation": operation, "per_inference": number / samples}
        for (side, operation), number in missing.items()
    ]


def _headline(report: Mapping[str, Any], entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Ranges over all comparisons, against each ANN and in all; wins are counted at nominal prices."""
    cases = [case for entry in entries for case in entry["cases"]]
    against = {ann["role"]: [one for one in cases if one["against"]["role"] == ann["role"]] for ann in compared(report)}
    return {
        "all": _range(cases),
        "against": {role: _range(part) for role, part in against.items()},
        "conventions": [asdict(one) for one in conventions(report)],
        "tables": [entry["table"] for entry in entries],
        "tables_without_ratio": [entry["table"] for entry in entries if not entry["of"]],
        "statement": _statement(_range(cases)),
    }


def _range(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the cases that have a ratio."""
    ratios = [case["ratio"] for case in cases if case["ratio"]]
    return {
        "ratio": [min(one[0] for one in ratios), max(one[2] for one in ratios)] if ratios else None,
        "wins": sum(one[1] > 1 for one in ratios),
        "of": len(ratios),
    }


def _statement(found: Mapping[str, Any]) -> str:
    if not found["of"]:
        return "no comparison: no price table prices all operations of both the spiking network and an ANN"
    low, high = found["ratio"]
    return (
        f"the spiking network wins in {found['wins']} of {found['of']} comparisons; "
        f"ANN/SNN energy is {low:.3g} to {high:.3g}"
    )


def _model(graph: Graph, counts: Counts, name: str, target: str) -> dict[str, Any]:
    synapses = counts.synapses()
    weights = sum(layer.weights for layer in synapses)
    relays = {"relays": _relays(graph)} if graph.of(Relay) else {}
    return {
        "name": name,
        "target": target,
        "digest": graph.digest,
        "graph_stage": graph.stage.name,
        "timesteps": graph.timesteps,
        "neurons": sum(int(np.prod(layer.shape)) for layer in counts.layers if isinstance(layer, Neurons)),
        **relays,
        "params": sum(layer.params for layer in synapses),
        "weight_bits": max((layer.weight_bits or 0 for layer in synapses), default=None),
        "zero_weight_fraction": sum(layer.zero_weights for layer in synapses) / max(weights, 1),
    }


def _data(graph: Graph, inputs: Array, samples: int, data: Mapping[str, Any]) -> dict[str, Any]:
    """`sha256` is the data set's own if given; `inputs_sha256` is that of the samples counted."""
    counted = hashlib.sha256(canonical_bytes(inputs)).hexdigest()
    return {
        "name": None,
        "sha256": None,
        "encoding": "direct" if graph.input.static else "frames",
        **data,
        "samples": samples,
        "inputs_sha256": counted,
    }


def _accuracy(
    counts: Counts, taught: Counts | None, labels: Array | None, accuracy: Mapping[str, float | None]
) -> dict[str, float | None]:
    """`snn` and `ann` as given; on the counted samples, of the graphs counted; and how often the two agree."""
    return {
        "snn": accuracy.get("snn"),
        "ann": accuracy.get("ann"),
        "snn_counted": None if labels is None else float(np.mean(counts.predictions == labels)),
        "ann_counted": None if taught is None or labels is None else float(np.mean(taught.predictions == labels)),
        "agreement": None if taught is None else float(np.mean(taught.predictions == counts.predictions)),
    }


def _row(layer: Layer, counts: Counts) -> dict[str, Any]:
    """A layer as JSON: sums over samples, and the same per inference."""
    row = {**asdict(layer), **(_derived(layer, counts.timesteps) if isinstance(layer, Synapses) else {})}
    means = {key: row[key] / counts.samples for key in layer.counted if row[key] is not None}
    return {**row, "per_inference": means}


def _derived(layer: Synapses, timesteps: int) -> dict[str, Any]:
    """`encoder_macs`: of a layer on a still picture, both conventions. `spikes_per_synapse`: per inference."""
    spiking = layer.input_kind in ("spikes", "sums")
    encoder = None
    if layer.static and not spiking:
        once = {"dense": layer.dense_macs_inrange * layer.evaluations, "events": layer.event_macs}
        encoder = {"once": once, "per_step": {key: number * timesteps for key, number in once.items()}}
    samples = layer.evaluations if layer.static else layer.evaluations // timesteps
    synapses = samples * layer.dense_macs_inrange
    return {
        "encoder_macs": encoder,
        "spikes_per_synapse": layer.synops / synapses if spiking and synapses else None,
    }


def _totals(counts: Counts) -> dict[str, Any]:
    fields = dict.fromkeys(field for layer in counts.layers for field in layer.counted)
    totals: dict[str, Any] = {field: counts.total(field) for field in fields}
    dense = ("dense_macs", "dense_macs_inrange", "dense_macs_nonzero", "ann_macs", "ann_macs_inrange")
    return {
        **totals,
        **{field: counts.total(field) for field in dense},
        "per_inference": {field: number / counts.samples for field, number in totals.items()},
    }


def _seen_by(teacher: Graph, graph: Graph, inputs: Array) -> Array | None:
    """The samples of `graph` for its teacher: the same pictures, or the sum of the frames; None if it takes others."""
    ours, theirs = graph.input, teacher.input
    if ours.sample_shape != theirs.shape or not theirs.static:
        return None
    if ours.static:
        return inputs
    return np.asarray(inputs.sum(axis=0)) if theirs.high == ours.high * graph.timesteps else None


def _anns(graph: Graph, counts: Counts, teacher: Graph | None, taught: Counts | None) -> list[dict[str, Any]]:
    """The teacher, and an ANN of the student's own shape; a smaller student is no merit of spiking."""
    alike = teacher is not None and _signature(teacher) == _signature(graph)
    same = {
        "role": "same_shape",
        "name": None,
        "digest": None,
        "is_teacher": alike,
        **_ann(counts, graph, own=False),
        **_effective(taught if alike else None, "no trained ANN of this shape to take zero activations from"),
    }
    if teacher is None or taught is None:
        return [same]
    own = {
        "role": "teacher",
        "name": teacher.name,
        "digest": teacher.digest,
        "is_teacher": False,
        **_ann(taught, teacher, own=True),
    }
    return [{**own, **_effective(taught, "")}, same]


def _ann(counts: Counts, graph: Graph, own: bool) -> dict[str, Any]:
    """Operations of one dense inference; `own`: of the graph itself, else of the ANN that has its shape."""
    kind = "dense_macs" if own else "ann_macs"
    names = ("macs_dense", "macs_dense_inrange", "macs_dense_nonzero")
    macs = {
        name: counts.total(f"{kind}{suffix}") for name, suffix in zip(names, ("", "_inrange", "_nonzero"), strict=True)
    }
    adds, compares = (sum(each) for each in zip(*map(_dense_work, counts.layers), strict=True))
    if own:
        return {"params": counts.total("params"), **macs, "adds": adds, "compares": compares}
    params = sum(one.node.weight.size + one.node.bias.size for one in ann_layers(graph))
    return {"params": params, **macs, "adds": adds + counts.total("ann_pool_adds"), "compares": compares}


def _dense_work(layer: Layer) -> tuple[int, int]:
    """Additions (bias, pool, residual) and compares (ReLU for each neuron, maximum) of one evaluation in an ANN."""
    each = layer.evaluations
    if isinstance(layer, Synapses):
        return layer.bias_adds // each, 0
    if isinstance(layer, Neurons | Activations):
        return 0, int(np.prod(layer.shape))
    if isinstance(layer, Pools):
        work = layer.pool_ops_dense // each
        return (0, work) if layer.pool_mode == "max" else (work, 0)
    if isinstance(layer, Products):
        return 0, 0
    assert isinstance(layer, Sums)
    return layer.residual_adds // each, 0


def _effective(taught: Counts | None, reason: str) -> dict[str, Any]:
    """Multiply-accumulates whose input is not zero, summed over samples; None with the reason."""
    if taught is None:
        return {"macs_effective": None, "macs_effective_nonzero": None, "effective_reason": reason}
    multiplied = taught.total("attention_and") + taught.total("attention_adds")
    return {
        "macs_effective": taught.total("synops") + multiplied,
        "macs_effective_nonzero": taught.total("synops_nonzero") + multiplied,
        "effective_reason": None,
    }


def _of_plain(layer: Layer, plain: Counts) -> Layer:
    """A layer of a rewritten network, its ANN counts those of the layers that it stands for, of none for copies."""
    if not isinstance(layer, Synapses):
        return layer
    meant = [one for one in plain.synapses() if layer.name == one.name or (layer.feeds and layer.feeds == one.feeds)]
    fields = ("ann_macs", "ann_macs_inrange", "ann_macs_nonzero", "ann_pool_adds")
    return replace(layer, **{field: sum(getattr(one, field) for one in meant) for field in fields})


def _signature(graph: Graph) -> list[tuple[Any, ...]]:
    """What makes two networks the same shape."""
    fields = ("stride", "padding", "dilation", "groups")
    attentions = [(Attention, graph.shapes[one.name], one.heads) for one in graph.of(Attention)]
    return attentions + [
        (type(one.node), one.node.weight.shape, one.shape, *(getattr(one.node, field, None) for field in fields))
        for one in ann_layers(graph)
    ]


def _relays(graph: Graph) -> int:
    """Neurons that only carry spikes."""
    shapes = [(graph.shapes[one.name], one.own) for one in graph.of(Relay)]
    return sum((shape[0] - own) * int(np.prod(shape[1:])) for shape, own in shapes)


def _warnings(
    graph: Graph, counts: Counts, teacher: Graph | None, taught: Counts | None, uncounted: tuple[str, ...]
) -> list[str]:
    found = []
    if counts.samples < 100:
        found.append(f"only {counts.samples} samples were counted")
    for layer in counts.layers:
        if isinstance(layer, Neurons) and layer.rate in (0, 1):
            found.append(
                f"{layer.name}: {'no neuron ever fires' if layer.rate == 0 else 'every neuron fires at each step'}"
            )
    if relays := _relays(graph):
        found.append(
            f"{relays:,} relay neurons carry spikes past layers; their kernels' zeros are counted nowhere, and the ANN "
            "of the same shape has none of them"
        )
    for source in graph.of(BiasedInput):
        found.append(
            f"{np.count_nonzero(source.constant):,} constant inputs carry a bias: their messages are events, their "
            "weights synapses; the ANN of the same shape has none of them"
        )
    if host := [node.name for node in graph if node.placement == "host"]:
        found.append(f"{', '.join(host)}: computed by the host, which no chip's price table covers")
    if uncounted:
        found.append(f"teacher not counted: {'; '.join(uncounted)}; compared with an ANN of the same shape alone")
    elif teacher is None:
        found.append("no teacher: compared with an ANN of the same shape alone")
    elif taught is None:
        found.append(f"the teacher takes {teacher.input.shape}, the network other samples: it was not counted")
    return found
