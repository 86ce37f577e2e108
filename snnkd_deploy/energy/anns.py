"""The ANNs to compare with, layer by layer: the teacher, and one of the student's own shape.

A student is often smaller than its teacher, which is no merit of spiking: so both are counted, apart from each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

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
    collapsed,
)
from snnkd_deploy.counts.ann import Collapsed
from snnkd_deploy.ir import Attention, Graph, Weighing

MACS = ("macs_dense", "macs_dense_inrange", "macs_dense_nonzero")
EFFECTIVE = ("macs_effective", "macs_effective_nonzero")
BITS = 8
"""Of weights and activations of an ANN where a price table is about integers; an SNN's weights have their own."""


def anns(graph: Graph, counts: Counts, teacher: Graph | None, taught: Counts | None) -> list[dict[str, Any]]:
    """The teacher, if there is one, and an ANN of the shape of `graph`, with weights of as many bits."""
    bits = max((layer.weight_bits or BITS for layer in counts.synapses()), default=BITS)
    alike = teacher is not None and _signature(teacher) == _signature(graph)
    lent = _effective(taught) if alike and taught is not None else None
    same = {
        "role": "same_shape",
        "name": None,
        "digest": None,
        "is_teacher": alike,
        "activation_bits": BITS,
        **_whole(_merged(list(_same_shape(graph, counts, bits)), lent)),
        "effective_reason": None if lent else "no trained ANN of this shape to take zero activations from",
    }
    if teacher is None or taught is None:
        return [same]
    own = {
        "role": "teacher",
        "name": teacher.name,
        "digest": teacher.digest,
        "is_teacher": False,
        "activation_bits": BITS,
        **_whole(_merged(list(_own(teacher, taught)), _effective(taught))),
        "effective_reason": None,
    }
    return [own, same]


def _whole(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over the layers, and the layers."""
    sums = {key: sum(layer[key] for layer in layers) for key in ("params", *MACS, "adds", "compares")}
    known = all(layer["macs_effective"] is not None for layer in layers)
    effective = {key: sum(layer[key] for layer in layers) if known else None for key in EFFECTIVE}
    return {**sums, **effective, "layers": layers}


def _merged(layers: list[dict[str, Any]], effective: list[tuple[int, int]] | None) -> list[dict[str, Any]]:
    """With the multiply-accumulates whose input is not zero, in the order of the layers that multiply."""
    given = iter(effective or [])
    found = []
    for layer in layers:
        both = next(given) if effective and layer["macs_dense"] else None if layer["macs_dense"] else (0, 0)
        found.append({**layer, **dict(zip(EFFECTIVE, both or (None, None), strict=True))})
    return found


def multiplying(taught: Counts) -> list[Synapses | Products]:
    """The layers of an ANN that multiply, in order."""
    return [layer for layer in taught.layers if isinstance(layer, Synapses | Products)]


def _effective(taught: Counts) -> list[tuple[int, int]]:
    """Multiply-accumulates whose input is not zero, summed over samples, without and with zero weights left out."""
    found = []
    for layer in multiplying(taught):
        if isinstance(layer, Synapses):
            found.append((layer.synops, layer.synops_nonzero))
        else:
            multiplied = layer.attention_and + layer.attention_adds
            found.append((multiplied, multiplied))
    return found


def _own(graph: Graph, counts: Counts) -> Iterator[dict[str, Any]]:
    """The layers of a network that is an ANN itself."""
    for layer in counts.layers:
        macs = [getattr(layer, f"dense_macs{end}", 0) for end in ("", "_inrange", "_nonzero")]
        node = graph[layer.name]
        small = Collapsed(node, graph.shapes[node.inputs[0]], (1, 1)) if isinstance(node, Weighing) else None
        yield _layer(layer, macs, small, BITS)


def _same_shape(graph: Graph, counts: Counts, bits: int) -> Iterator[dict[str, Any]]:
    """The layers of the ANN that has the shape of `graph`: pools in front of layers, no layer in a shortcut."""
    for layer in counts.layers:
        node = graph[layer.name]
        if isinstance(layer, Synapses) and layer.shortcut:
            continue
        macs = [getattr(layer, f"ann_macs{end}", 0) for end in ("", "_inrange", "_nonzero")]
        yield _layer(layer, macs, collapsed(node, graph) if isinstance(node, Weighing) else None, bits)


def _layer(layer: Layer, macs: list[int], small: Collapsed | None, bits: int) -> dict[str, Any]:
    """One dense inference of one layer."""
    adds, compares = _dense_work(layer)
    return {
        "name": layer.name,
        "op": layer.op,
        "inputs": prod(small.shape) if small else 0,
        "outputs": prod(layer.shape),
        "params": small.node.weight.size + small.node.bias.size if small else 0,
        "kernel": kernel(small.node) if small else 0,
        "weight_bits": bits,
        **dict(zip(MACS, macs, strict=True)),
        "bias_adds": layer.bias_adds // layer.evaluations if isinstance(layer, Synapses) else 0,
        "adds": adds + (small.pool_adds if small else 0),
        "compares": compares,
    }


def kernel(node: Weighing) -> int:
    """Output channels times taps; of a matrix, its outputs."""
    return int(node.bias.size * prod(node.weight.shape[2:]))


def _dense_work(layer: Layer) -> tuple[int, int]:
    """Additions (bias, pool, residual) and compares (ReLU for each neuron, maximum) of one evaluation in an ANN."""
    each = layer.evaluations
    if isinstance(layer, Synapses):
        return layer.bias_adds // each, 0
    if isinstance(layer, Neurons | Activations):
        return 0, prod(layer.shape)
    if isinstance(layer, Pools):
        work = layer.pool_ops_dense // each
        return (0, work) if layer.pool_mode == "max" else (work, 0)
    return (layer.residual_adds // each, 0) if isinstance(layer, Sums) else (0, 0)


def _signature(graph: Graph) -> list[tuple[Any, ...]]:
    """What makes two networks the same shape."""
    fields = ("stride", "padding", "dilation", "groups")
    attentions = [(Attention, graph.shapes[one.name], one.heads) for one in graph.of(Attention)]
    return attentions + [
        (type(one.node), one.node.weight.shape, one.shape, *(getattr(one.node, field, None) for field in fields))
        for one in ann_layers(graph)
    ]


def compared(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The ANNs to compare with; one that has the teacher's shape is the teacher, and counts once."""
    return [ann for ann in report["ann"] if not ann["is_teacher"]]


def works(ann: Mapping[str, Any]) -> list[str]:
    """`dense`: every input multiplied; `effective`: inputs that are zero skipped, where they are known."""
    return ["dense"] if ann["macs_effective"] is None else ["dense", "effective"]
