"""What a network did on a data set, as a report keeps it: exact counts, and no price.

Counts are sums over samples; `per_inference` holds the same as means.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timezone
from math import prod
from typing import Any

import numpy as np

from snnkd_deploy import __version__
from snnkd_deploy.counts import Counts, Layer, Neurons, Synapses, count
from snnkd_deploy.counts.kinds import SPIKING
from snnkd_deploy.energy import memory, sampling
from snnkd_deploy.energy.accuracy import accuracies, guessing
from snnkd_deploy.energy.anns import anns, kernel
from snnkd_deploy.energy.noise import is_noise
from snnkd_deploy.energy.operations import REFERENCE, pairs
from snnkd_deploy.energy.stored import SCHEMA, SCHEMA_VERSION, Report
from snnkd_deploy.errors import GraphError, InputError
from snnkd_deploy.ir import Array, BiasedInput, Graph, Neuron, Relay, Stage, Weighing, canonical_bytes
from snnkd_deploy.mapping import Mapping as CoreMapping
from snnkd_deploy.neurobench import neurobench_block
from snnkd_deploy.placement import as_dict, place

FEW = 100
"""Samples below which a report says that they are few."""
REAL_BITS = 32
"""Of weights and states in real numbers, float32, in which networks are trained and run."""


def counted(
    *,
    graph: Graph,
    inputs: Array,
    labels: Array | None,
    teacher: Graph | None,
    uncounted: Iterable[str] = (),
    data: Mapping[str, Any],
    accuracy: Mapping[str, float | None],
    name: str,
    target: str | None = None,
    pictures: Array | None = None,
    unrelayed: Graph | None = None,
    mapping: CoreMapping | None = None,
    state_bits: int | None = None,
    training: Mapping[str, Any] | None = None,
    footprint: int | None = None,
) -> Report:
    """Count `graph` (from FOLDED on) and the folded `teacher` on integer `inputs`; no prices, no hash.

    `target`: what it was compiled for, None if for nothing. Before INTEGER it is counted in real numbers, of which a
    state has `REAL_BITS`.

    The teacher sees `pictures`, or if there are none what `inputs` tell of them; without its graph `uncounted` says why
    there is none. If `graph` has relays or constant inputs, the ANN of its shape is that of `unrelayed`, the network
    before they were added. `training` is told, not used; `footprint`, in bytes, goes into the block for NeuroBench.
    """
    if graph.stage < Stage.INTEGER and not graph.of(Neuron):
        raise GraphError(
            f"{graph.name} has no energy:", ["it has no spiking neurons; an ANN is what one is compared with"]
        )
    counts = count(graph, inputs)
    if labels is not None and len(labels) != counts.samples:
        raise InputError(f"{len(labels)} labels for {counts.samples} samples")
    seen = pictures if pictures is not None or teacher is None else _seen_by(teacher, graph, inputs)
    shape, shaped = graph, counts
    if unrelayed is not None and graph.of(Relay, BiasedInput):
        shape, shaped = unrelayed, count(unrelayed, inputs)
        counts = replace(counts, layers=tuple(_of_plain(layer, shaped) for layer in counts.layers))
    taught = count(teacher, seen) if teacher is not None and seen is not None else None
    placed = as_dict(mapping, place(graph, counts, mapping)) if mapping is not None else None
    if graph.stage < Stage.INTEGER:
        state_bits = REAL_BITS
    model = {**_model(graph, counts, name, target), "state_bits": state_bits, "training": dict(training or {})}
    right = accuracies(counts, taught, labels, accuracy)
    kept = sampling.grouped(counts, taught)
    intervals = sampling.layer_intervals(kept, counts.samples)
    return plain(
        {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "tool": {"name": "snnkd-deploy", "version": __version__},
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "estimate": True,
            "measured": False,
            "model": model,
            "data": _data(graph, inputs, counts.samples, data),
            "accuracy": right,
            "layers": [{**_row(layer, counts, graph), "ci95": intervals[layer.name]} for layer in counts.layers],
            "totals": _totals(counts),
            "neurobench": neurobench_block(counts, graph, footprint),
            "ann": anns(shape, shaped, teacher, taught),
            "mapping": placed,
            "sampling": kept,
            "warnings": [
                *_of_data(inputs, graph, counts, right),
                *_warnings(graph, counts, teacher, taught, tuple(uncounted)),
            ],
        }
    )


def plain(value: dict[str, Any]) -> dict[str, Any]:
    """What would be read back had it been written."""
    return dict(json.loads(json.dumps(value, allow_nan=False)))


def _model(graph: Graph, counts: Counts, name: str, target: str | None) -> dict[str, Any]:
    synapses = counts.synapses()
    weights = sum(layer.weights for layer in synapses)
    relays = {"relays": _relays(graph)} if graph.of(Relay) else {}
    bits = max((layer.weight_bits or 0 for layer in synapses), default=None)
    return {
        "name": name,
        "target": target,
        "digest": graph.digest,
        "graph_stage": counts.stage,
        "simulator": counts.simulator,
        "timesteps": graph.timesteps,
        "neurons": sum(prod(layer.shape) for layer in counts.layers if isinstance(layer, Neurons)),
        **relays,
        "params": sum(layer.params for layer in synapses),
        "weight_bits": REAL_BITS if graph.stage < Stage.INTEGER else bits,
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


def _row(layer: Layer, counts: Counts, graph: Graph) -> dict[str, Any]:
    """A layer as JSON: sums over samples, and the same per inference."""
    row = asdict(layer)
    if isinstance(layer, Synapses):
        node = graph[layer.name]
        assert isinstance(node, Weighing)
        row |= {**_derived(layer, counts.timesteps), "kernel": kernel(node)}
    work = sum(pairs(row, REFERENCE)) if isinstance(layer, Synapses) else 0
    accesses = {
        kind: memory.of_layer(row, work, counts.samples, ideal)
        for kind, ideal in (("without_reuse", False), ("ideal_reuse", True))
    }
    means = {key: row[key] / counts.samples for key in layer.counted if row[key] is not None}
    return {**row, "memory": accesses, "per_inference": means}


def _derived(layer: Synapses, timesteps: int) -> dict[str, Any]:
    """`encoder_macs`: of a layer on a still picture, both conventions. `spikes_per_synapse`: per inference."""
    spiking = layer.input_kind in SPIKING
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


def _of_plain(layer: Layer, plain: Counts) -> Layer:
    """A layer of a rewritten network, its ANN counts those of the layers that it stands for, of none for copies."""
    if not isinstance(layer, Synapses):
        return layer
    meant = [one for one in plain.synapses() if layer.name == one.name or (layer.feeds and layer.feeds == one.feeds)]
    fields = ("ann_macs", "ann_macs_inrange", "ann_macs_nonzero", "ann_pool_adds")
    return replace(layer, **{field: sum(getattr(one, field) for one in meant) for field in fields})


def _relays(graph: Graph) -> int:
    """Neurons that only carry spikes."""
    shapes = [(graph.shapes[one.name], one.own) for one in graph.of(Relay)]
    return sum((shape[0] - own) * prod(shape[1:]) for shape, own in shapes)


def _of_data(inputs: Array, graph: Graph, counts: Counts, right: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the samples, or with what the network makes of them."""
    if doubt := guessing(right):
        yield doubt
    if is_noise(inputs, graph.input.static):
        yield "the samples are noise: counts on them say nothing about data"
    if counts.samples < FEW:
        yield f"only {counts.samples} samples were counted"


def _warnings(
    graph: Graph, counts: Counts, teacher: Graph | None, taught: Counts | None, uncounted: tuple[str, ...]
) -> list[str]:
    found = list(counts.warnings)
    if graph.stage < Stage.INTEGER:
        found.append(
            "counted in real numbers, before any rounding: tables of integers price it as if rounding moved no spike; "
            "an export is counted as the integers that run"
        )
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
