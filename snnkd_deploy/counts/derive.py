"""From what was watched to the counts of each layer: functions of arrays, graph and weights."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from snnkd_deploy.counts.ann import collapsed, is_shortcut
from snnkd_deploy.counts.fan_out import dense, pairs
from snnkd_deploy.counts.kinds import ORDER, fed_by, feeds, pool_mode, pooled_by
from snnkd_deploy.counts.layers import Activations, Layer, Neurons, Pools, Products, Sums, Synapses
from snnkd_deploy.counts.watch import Watch, order
from snnkd_deploy.ir import Add, Attention, Conv2d, Graph, Linear, Neuron, Node, Pool, Relu, Stage
from snnkd_deploy.numerics import windows


def layer(node: Node, watch: Watch) -> Layer | None:
    """The counts of one node; None if it does no work."""
    static = node.name in watch.graph.static
    evaluations = watch.samples * (1 if static else watch.graph.timesteps)
    common: dict[str, Any] = {
        "name": node.name,
        "op": "Neuron" if isinstance(node, Neuron) else type(node).__name__,
        "placement": node.placement,
        "shape": watch.graph.shapes[node.name],
        "static": static,
        "evaluations": evaluations,
    }
    size = prod(common["shape"])
    if isinstance(node, Linear | Conv2d):
        work = _work(node, watch, evaluations)
        return Synapses(**common, **work, **_wiring(node, watch), **_shape(node, watch.graph))
    if isinstance(node, Neuron):
        return Neurons(**common, **_updates(node, watch, size))
    if isinstance(node, Relu):
        return Activations(**common, compares=size * evaluations)
    if isinstance(node, Pool):
        return Pools(**common, **_pooling(node, watch, size * evaluations))
    if isinstance(node, Attention):
        return Products(**common, **_attended(node, watch))
    if isinstance(node, Add):
        return Sums(**common, residual_adds=size * (len(node.inputs) - 1) * evaluations)
    return None


def _wiring(node: Linear | Conv2d, watch: Watch) -> dict[str, Any]:
    graph, reached = watch.graph, feeds(watch.graph, node)
    return {
        "input_kind": watch.kinds[node.inputs[0]],
        "fed_by": fed_by(graph, node.inputs[0]),
        "feeds": reached,
        "spikes_out": int(watch.spikes[reached].sum()) if reached in watch.spikes else None,
        "inputs": prod(graph.shapes[node.inputs[0]]),
    }


def _work(node: Linear | Conv2d, watch: Watch, evaluations: int) -> dict[str, Any]:
    events, sums = watch.events[node.name], watch.sums[node.name]
    kind = watch.kinds[node.inputs[0]]
    every, nonzero = pairs(node, events), pairs(node, events, nonzero=True)
    units = {"spikes": (every, nonzero), "sums": (pairs(node, sums), pairs(node, sums, nonzero=True))}
    unit = units.get(kind, (None, None))
    places = prod(watch.graph.shapes[node.name]) // len(node.bias)
    return {
        "events_in": int(events.sum()),
        "synops": every,
        "synops_nonzero": nonzero,
        "event_macs": 0 if kind == "spikes" else every,
        "event_macs_nonzero": 0 if kind == "spikes" else nonzero,
        "synops_unit": unit[0],
        "synops_unit_nonzero": unit[1],
        "bias_adds": int(np.count_nonzero(node.bias)) * places * evaluations,
    }


def _shape(node: Linear | Conv2d, graph: Graph) -> dict[str, Any]:
    """What follows from shapes and weights alone, per evaluation."""
    small, shortcut = collapsed(node, graph), is_shortcut(node, graph)
    macs = dense(node, graph.shapes[node.inputs[0]])
    ann = (0, 0, 0) if shortcut else dense(small.node, small.shape)
    whole = graph.stage >= Stage.INTEGER
    return {
        "shortcut": shortcut,
        "pool_mode": "folded" if prod(small.window) > 1 else pooled_by(graph, node),
        "pool_window": small.window,
        "params": node.weight.size + node.bias.size,
        "weights": node.weight.size,
        "zero_weights": int(np.count_nonzero(node.weight == 0)),
        "weight_bits": int(np.abs(node.weight).max()).bit_length() + 1 if whole else None,
        **dict(zip(("dense_macs", "dense_macs_inrange", "dense_macs_nonzero"), macs, strict=True)),
        **dict(zip(("ann_macs", "ann_macs_inrange", "ann_macs_nonzero"), ann, strict=True)),
        "ann_pool_adds": small.pool_adds,
    }


def _updates(node: Neuron, watch: Watch, size: int) -> dict[str, Any]:
    per_step, active = watch.spikes[node.name], watch.active[node.name]
    updates = size * watch.samples * watch.graph.timesteps
    spikes = int(per_step.sum())
    leaky = (np.asarray(node.decay) != 0) & (np.asarray(node.decay) != 1)
    return {
        "updates_active": active,
        "updates_inactive": updates - active,
        "leak_multiplies": updates * int(np.count_nonzero(leaky)) // leaky.size,
        "membrane_adds": active,
        "compares": updates,
        "reset_adds": spikes if node.reset in ("subtract", "subtract_late") else 0,
        "spikes_out": spikes,
        "spikes_per_step": tuple(per_step.tolist()),
        "rate": spikes / updates,
        "rate_per_step": tuple((per_step / (size * watch.samples)).tolist()),
    }


def _attended(node: Attention, watch: Watch) -> dict[str, Any]:
    channels, *sides = watch.graph.shapes[node.name]
    each, tokens = channels // node.heads, prod(sides)
    macs = 2 * channels * tokens * min(each, tokens)
    kinds = [f"{side}_macs{suffix}" for side in ("dense", "ann") for suffix in ("", "_inrange", "_nonzero")]
    return {
        "input_kind": max((watch.kinds[name] for name in node.inputs), key=ORDER.index),
        "order": order(each, tokens),
        **dict(zip(("events_in", "attention_and", "attention_adds"), watch.products[node.name].tolist(), strict=True)),
        **dict.fromkeys(kinds, macs),
    }


def _pooling(node: Pool, watch: Watch, outputs: int) -> dict[str, Any]:
    return {
        "input_kind": watch.kinds[node.inputs[0]],
        "pool_mode": pool_mode(node, watch.kinds[node.inputs[0]]),
        "pool_ops": int(windows(watch.events[node.name][None], node).sum()),
        "pool_ops_dense": outputs * prod(node.kernel),
    }
