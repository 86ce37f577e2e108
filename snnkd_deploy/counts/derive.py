"""From a tally to the counts of each layer: functions of arrays, graph and weights, without running anything."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from snnkd_deploy.counts.ann import collapsed, is_shortcut
from snnkd_deploy.counts.attention import order
from snnkd_deploy.counts.fan_out import dense, fan_out
from snnkd_deploy.counts.kinds import ORDER, fed_by, feeds, is_pool, pool_mode, pooled_by
from snnkd_deploy.counts.layers import Activations, FanOut, Layer, Neurons, Pools, Products, Sums, Synapses
from snnkd_deploy.counts.tally import Tally
from snnkd_deploy.ir import Add, Array, Attention, Graph, Neuron, Node, Pool, Relu, Stage, Weighing, Window


@dataclass(frozen=True, eq=False)
class Derived:
    """A layer, and each of its counts by sample, int64 `(samples,)`."""

    layer: Layer
    per_sample: dict[str, Array]


def derive(node: Node, tally: Tally) -> Derived | None:
    """The counts of one node; None if it does no work."""
    for kinds, kind, find in PARTS:
        if isinstance(node, kinds):
            work, rest = find(node, tally)
            sums: dict[str, Any] = {what: None if one is None else int(one.sum()) for what, one in work.items()}
            told = {what: one for what, one in work.items() if one is not None and len(one) == tally.samples}
            return Derived(kind(**_common(node, tally), **sums, **rest), told)
    return None


Work = dict[str, Array | None]
"""Counts by sample, or of several samples at once; None for what has no meaning here or was not counted."""
Found = tuple[Work, dict[str, Any]]


def _common(node: Node, tally: Tally) -> dict[str, Any]:
    return {
        "name": node.name,
        "op": "Neuron" if isinstance(node, Neuron) else type(node).__name__,
        "placement": node.placement,
        "shape": tally.graph.shapes[node.name],
        "static": node.name in tally.graph.static,
        "evaluations": tally.samples * _evaluations(node, tally),
    }


def _evaluations(node: Node, tally: Tally) -> int:
    """Of one sample."""
    return 1 if node.name in tally.graph.static else tally.graph.timesteps


def _each(number: int, tally: Tally) -> Array:
    """What every sample does alike."""
    return np.full(tally.samples, number, dtype=np.int64)


def _synapses(node: Weighing, tally: Tally) -> Found:
    graph, name = tally.graph, node.name
    carried, fed = tally.carried[node.inputs[0]], feeds(graph, node)
    pairs = {f"synops{suffix}": tally.count(name, f"synops{suffix}") for suffix in ("", "_nonzero")}
    none = _each(0, tally)
    biased = int(np.count_nonzero(node.bias)) * prod(graph.shapes[name]) // len(node.bias)
    work: Work = {
        "events_in": tally.count(name, "events_in"),
        **pairs,
        **{what.replace("synops", "event_macs"): one if carried.multiplied else none for what, one in pairs.items()},
        **_units(name, carried.kind, pairs, tally),
        "bias_adds": _each(biased * _evaluations(node, tally), tally),
        "spikes_out": tally.count(fed, "spikes_out") if fed else None,
    }
    seen = tally.seen.get(name)
    rest = {
        "input_kind": carried.kind,
        "fed_by": fed_by(graph, node.inputs[0]),
        "feeds": fed,
        "inputs": prod(graph.shapes[node.inputs[0]]),
        "values_seen": tuple(sorted(seen.values)) if seen and seen.values is not None else None,
        "value_range": (seen.low, seen.high) if seen else None,
        **_shape(node, graph),
    }
    return work, rest


def _units(name: str, kind: str, pairs: Work, tally: Tally) -> Work:
    """Pairs if a sum of n spikes came as n events."""
    return {
        f"synops_unit{suffix}": pairs[f"synops{suffix}"]
        if kind in ("spikes", "ternary")
        else tally.count(name, f"synops_unit{suffix}")
        for suffix in ("", "_nonzero")
    }


def _shape(node: Weighing, graph: Graph) -> dict[str, Any]:
    """What follows from shapes and weights alone, per evaluation."""
    shape = graph.shapes[node.inputs[0]]
    small, shortcut = collapsed(node, graph), is_shortcut(node, graph)
    ann = (0, 0, 0) if shortcut else dense(small.node, small.shape)
    reads, suffixes = fan_out(node, shape), ("", "_inrange", "_nonzero")
    whole = graph.stage >= Stage.INTEGER
    return {
        "fan_out": FanOut(int(reads.min()), float(reads.mean()), int(reads.max())),
        "shortcut": shortcut,
        "pool_mode": _pool_mode(node, graph, prod(small.window) > 1),
        "pool_window": small.window,
        "params": node.weight.size + node.bias.size,
        "weights": node.weight.size,
        "zero_weights": int(np.count_nonzero(node.weight == 0)),
        "weight_bits": int(np.abs(node.weight).max()).bit_length() + 1 if whole else None,
        **{f"dense_macs{suffix}": macs for suffix, macs in zip(suffixes, dense(node, shape), strict=True)},
        **{f"ann_macs{suffix}": macs for suffix, macs in zip(suffixes, ann, strict=True)},
        "ann_pool_adds": small.pool_adds,
    }


def _pool_mode(node: Weighing, graph: Graph, folded: bool) -> str | None:
    if is_pool(node) and isinstance(graph[node.inputs[0]], Neuron):
        return "own_layer"
    return "folded" if folded else pooled_by(graph, node)


def _neurons(node: Neuron, tally: Tally) -> Found:
    size, steps = prod(tally.graph.shapes[node.name]), tally.graph.timesteps
    updates, per_step = _each(size * steps, tally), tally.per_step[node.name]
    active, spikes = tally.count(node.name, "updates_active"), tally.count(node.name, "spikes_out")
    assert spikes is not None
    leaks = [np.atleast_1d(~np.isin(decay, (0, 1))) for decay in (node.decay, node.current_decay)]
    work: Work = {
        "updates_active": active,
        "updates_inactive": None if active is None else _sum(updates, -active),
        "leak_multiplies": sum(
            (updates * int(np.count_nonzero(leaky)) // leaky.size for leaky in leaks), start=0 * updates
        ),
        "membrane_adds": None if active is None else _sum(active, updates * node.keeps_current),
        "compares": updates,
        "reset_adds": spikes * (node.reset in ("subtract", "subtract_late")),
        "membrane_changes": tally.count(node.name, "membrane_changes"),
        "spikes_out": spikes,
    }
    rest = {
        "spikes_per_step": tuple(per_step.tolist()),
        "rate": int(spikes.sum()) / (size * steps * tally.samples),
        "rate_per_step": tuple((per_step / (size * tally.samples)).tolist()),
    }
    return work, rest


def _sum(one: Array, other: Array) -> Array:
    """Sample by sample where both are; where one is of whole batches, of all samples."""
    return one + other if len(one) == len(other) else one.sum(keepdims=True) + other.sum()


def _activations(node: Relu, tally: Tally) -> Found:
    compares = prod(tally.graph.shapes[node.name]) * _evaluations(node, tally)
    return {"compares": _each(compares, tally), "nonzero_out": tally.count(node.name, "nonzero_out")}, {}


def _pools(node: Pool | Window, tally: Tally) -> Found:
    kind = tally.carried[node.inputs[0]].kind
    outputs = prod(tally.graph.shapes[node.name]) * _evaluations(node, tally)
    work: Work = {
        "pool_ops": tally.count(node.name, "synops"),
        "pool_ops_dense": _each(outputs * prod(node.kernel), tally),
    }
    return work, {"input_kind": kind, "pool_mode": pool_mode(node, kind)}


def _sums(node: Add, tally: Tally) -> Found:
    adds = prod(tally.graph.shapes[node.name]) * (len(node.inputs) - 1) * _evaluations(node, tally)
    return {"residual_adds": _each(adds, tally)}, {}


def _products(node: Attention, tally: Tally) -> Found:
    channels, *sides = tally.graph.shapes[node.name]
    each, tokens = channels // node.heads, prod(sides)
    macs = 2 * channels * tokens * min(each, tokens)
    kinds = [f"{side}_macs{suffix}" for side in ("dense", "ann") for suffix in ("", "_inrange", "_nonzero")]
    work = {what: tally.count(node.name, what) for what in ("events_in", "attention_and", "attention_adds")}
    kind = max((tally.carried[name].kind for name in node.inputs), key=ORDER.index)
    return work, {"input_kind": kind, "order": order(each, tokens), **dict.fromkeys(kinds, macs)}


PARTS: tuple[tuple[Any, type[Layer], Any], ...] = (
    (Weighing, Synapses, _synapses),
    (Neuron, Neurons, _neurons),
    (Relu, Activations, _activations),
    (Pool | Window, Pools, _pools),
    (Attention, Products, _products),
    (Add, Sums, _sums),
)
"""What each kind of node becomes, and how."""
