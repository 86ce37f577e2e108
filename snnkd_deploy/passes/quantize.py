"""Turn weights, biases and thresholds into integers, layer by layer on one scale each.

A neuron compares a weighted sum with its threshold, so only their ratio counts: the real value `unit` of the integer 1
is shared by the weights, the bias and the threshold of a layer and drops out of the spikes. `unit` is chosen as
threshold / n, so the threshold is exact; n is the largest integer for which everything fits the target, worst cases of
the membrane included. Layers that are added before a neuron (residual networks) share the unit of that neuron.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from snnkd_deploy.bounds import bounds, reach
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.check import attention_problems, decay_problems, first_neurons
from snnkd_deploy.errors import ConfigError, GraphError, LegalityError
from snnkd_deploy.ir import (
    Add,
    Array,
    Attention,
    AvgPool2d,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Pool,
    Stage,
    SumPool2d,
    Synaptic,
    ancestors,
)
from snnkd_deploy.numerics import nearest, round_half_even
from snnkd_deploy.passes.bias_planes import carried_by_planes
from snnkd_deploy.simulate import batches
from snnkd_deploy.target import Target

CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
"""Candidates of the "mse" calibration: the largest weight that is kept, as a part of the largest weight there is."""

Moments = dict[str, tuple[Array, Array]]
"""Mean and variance of each synaptic layer's input, `(channels,)` each."""


@dataclass(eq=False)
class Group:
    """Synaptic layers whose outputs meet in a sum: unit of a member's output = unit of the group * ratio."""

    members: dict[str, float] = field(default_factory=dict)
    neurons: dict[str, float] = field(default_factory=dict)
    per_channel: bool = True
    """False where the unit must be one number: at the readout, behind Flatten, in front of another layer."""


@dataclass(frozen=True, eq=False)
class Limits:
    """What the integers of this network may be."""

    weight: int
    target: Target
    free: frozenset[str]
    """Layers whose bias is not the chip's register: the host computes them, or constant inputs carry it."""
    per_channel: bool
    clips: tuple[float, ...]
    percentile: float
    moments: Moments
    errors: dict[tuple[str, bytes], Array] = field(default_factory=dict)
    """What has been computed so far, by layer and unit."""

    def bias(self, name: str) -> float:
        """The largest bias of a layer; the host's has no limit."""
        return np.inf if name in self.free else self.target.bias.maximum


@dataclass(frozen=True, eq=False)
class Scales:
    """What the integer 1 is worth in each group of layers, `()` or `(channels,)`, and what the integers may be."""

    groups: list[Group]
    units: list[Array]
    limits: Limits

    @cached_property
    def outputs(self) -> dict[str, Array]:
        """Real value of the integer 1 in the output of each synaptic layer, which its bias shares."""
        pairs = zip(self.groups, self.units, strict=True)
        return {name: np.asarray(unit * ratio) for group, unit in pairs for name, ratio in group.members.items()}

    def weights(self, graph: Graph, name: str) -> Array:
        """Real value of the integer 1 among the weights of a layer, in a shape that broadcasts to them."""
        source = _input_unit(graph, name, self.outputs)
        assert source is not None
        return np.asarray(self.outputs[name] / source).reshape(-1, *[1] * (_layer(graph, name).weight.ndim - 1))


def quantize(graph: Graph, target: Target, calibration: Calibration) -> Graph:
    """The integer network. LegalityError lists each layer whose threshold would be less than one unit.

    GraphError if an attention multiplies anything but spikes.
    """
    return rounded(graph, choose_scales(graph, target, calibration))


def choose_scales(graph: Graph, target: Target, calibration: Calibration) -> Scales:
    """Scales that let every worst case of this network fit the target; refuses what `quantize` refuses."""
    if problems := attention_problems(graph):
        raise GraphError(f"{graph.name} has products that are no counts:", problems)
    if problems := [
        *_uncounted(graph),
        *_unweighed(graph),
        *(one for node in graph.of(Neuron) for one in decay_problems(node, target)),
    ]:
        raise LegalityError(f"{target.name} cannot hold {graph.name}:", problems)
    limits = _limits(graph, target, calibration)
    groups = find_groups(graph)
    floors = [np.zeros(1) for _ in groups]
    for _ in range(30):
        scales = Scales(groups, _units(graph, groups, limits, floors), limits)
        integer = rounded(graph, scales)
        if not (excess := worst_cases(integer, scales)):
            _refuse_silence(graph, integer, target)
            return scales
        for index, ratios in excess.items():
            floors[index] = np.atleast_1d(scales.units[index] * max(float(ratios.max()), 1.001))
    raise LegalityError(f"{target.name} cannot hold {graph.name}:", [f"{groups[i].neurons}: range" for i in excess])


def _uncounted(graph: Graph) -> Iterator[str]:
    """Neurons behind an attention that a part of one coincidence would make fire."""
    for node in graph.of(Neuron):
        source = graph[node.inputs[0]]
        if isinstance(source, Attention) and node.threshold.min() < source.scale:
            least, one = float(node.threshold.min()), source.scale
            yield f"{node.name}: its threshold {least:g} is below {one:g}, which one product of spikes is worth"


def _unweighed(graph: Graph) -> Iterator[str]:
    """Neurons that the input itself fires however little it is, since no weights scale it."""
    for node in graph.of(Neuron):
        source = graph[node.inputs[0]]
        if isinstance(source, Input) and node.threshold.min() < source.scale:
            least, one = float(node.threshold.min()), source.scale
            yield (
                f"{node.name}: its threshold {least:g} is below {one:g}, one unit of the input, so that any value "
                "but 0 fires it at once; use a higher threshold, or weights in front"
            )


def _refuse_silence(graph: Graph, integer: Graph, target: Target) -> None:
    """LegalityError lists the layers all of whose weights were rounded to 0."""
    lost = [
        f"{node.name}: every weight rounds to 0: its inputs are wide sums, and the state must hold the worst case; "
        "let neurons stand in front of it, and normalise samples outside of the network"
        for node in integer
        if isinstance(node, Linear | Conv2d) and not node.weight.any() and _layer(graph, node.name).weight.any()
    ]
    if lost:
        raise LegalityError(f"{target.name} cannot hold {graph.name}:", lost)


def _limits(graph: Graph, target: Target, calibration: Calibration) -> Limits:
    widest = min(-target.weights.minimum, target.weights.maximum)
    bits = calibration.weight_bits
    if bits is not None and not 2 <= bits <= widest.bit_length() + 1:
        raise ConfigError(f"weight bits {bits}: {target.name} takes 2..{widest.bit_length() + 1}")
    if calibration.granularity not in target.weights.granularity:
        accepted = " or ".join(target.weights.granularity)
        raise ConfigError(f"granularity {calibration.granularity!r}: {target.name} takes {accepted}")
    return Limits(
        weight=widest if bits is None else 2 ** (bits - 1) - 1,
        target=target,
        free=host_layers(graph, target) | carried_by_planes(graph, target),
        per_channel=calibration.granularity == "channel",
        clips=CLIPS if calibration.method == "mse" else (1.0,),
        percentile=calibration.percentile if calibration.method == "percentile" else 100.0,
        moments=input_moments(graph, calibration.samples),
    )


def host_layers(graph: Graph, target: Target) -> frozenset[str]:
    """Names of the nodes in front of the first neurons, where the host computes them for this target."""
    if target.entry.mode != "host" or graph.input.spikes:
        return frozenset()
    names = set().union(*(ancestors(graph, neuron.name) for neuron in first_neurons(graph)))
    return frozenset(names - {graph.input.name})


def find_groups(graph: Graph) -> list[Group]:
    """Which layers share a unit. An average pool behind a layer divides its unit by the window's area."""
    groups: list[Group] = []
    carried: dict[str, tuple[Group, float]] = {}
    for node in graph:
        sources = [carried[name] for name in node.inputs if name in carried]
        if isinstance(node, Synaptic):
            for group, _ in sources:
                group.per_channel = False
            groups.append(Group(members={node.name: 1.0}))
            carried[node.name] = groups[-1], 1.0
        elif sources and isinstance(node, Neuron):
            group, factor = sources[0]
            group.neurons[node.name] = factor
        elif sources and isinstance(node, Add):
            carried[node.name] = _merge(sources, groups, carried)
        elif sources:
            group, factor = sources[0]
            group.per_channel &= not isinstance(node, Output | Flatten)
            carried[node.name] = group, factor / (_area(node) if isinstance(node, AvgPool2d) else 1)
    return groups


def _merge(
    sources: list[tuple[Group, float]], groups: list[Group], carried: dict[str, tuple[Group, float]]
) -> tuple[Group, float]:
    """Make all sources of a sum one group, with one unit at the sum."""
    first, at_sum = sources[0]
    for group, factor in sources[1:]:
        if group is first:
            continue
        ratio = at_sum / factor
        first.members.update({name: one * ratio for name, one in group.members.items()})
        first.neurons.update({name: one * ratio for name, one in group.neurons.items()})
        first.per_channel &= group.per_channel
        for name, (owner, value) in carried.items():
            if owner is group:
                carried[name] = first, value * ratio
        groups.remove(group)
    return first, at_sum


def input_moments(graph: Graph, samples: Array) -> Moments:
    """Mean and variance over samples, steps and positions of each synaptic layer's input, per channel."""
    sums: dict[str, list[Array]] = {}

    def note(node: Node, arguments: tuple[Array, ...], value: Array) -> None:
        if isinstance(node, Synaptic):
            x = arguments[0]
            axes = (0, 1, *range(3, x.ndim))
            mean = x.mean(axis=axes, dtype=np.float64)
            square = mean if _bits(graph, node) else np.square(x, dtype=np.float64).mean(axis=axes)
            sums.setdefault(node.name, []).append(np.stack([mean, square]))

    for _ in batches(graph, samples, observe=note):
        pass
    means = {name: np.mean(parts, axis=0) for name, parts in sums.items()}
    return {name: (first, np.maximum(second - first**2, 0)) for name, (first, second) in means.items()}


def _bits(graph: Graph, layer: Node) -> bool:
    """Whether a layer reads nothing but spikes, which are their own squares."""
    source = graph[layer.inputs[0]]
    while isinstance(source, Flatten):
        source = graph[source.inputs[0]]
    return isinstance(source, Neuron)


def _units(graph: Graph, groups: list[Group], limits: Limits, floors: list[Array]) -> list[Array]:
    """The unit of each group, `()` or `(channels,)`."""
    problems: list[str] = []
    known: dict[str, Array] = {}
    units: dict[int, Array] = {}
    while len(units) < len(groups):
        for index, group in enumerate(groups):
            found = {name: _input_unit(graph, name, known) for name in group.members}
            sources = {name: value for name, value in found.items() if value is not None}
            if index not in units and len(sources) == len(found):
                units[index] = _unit(graph, group, sources, limits, floors[index], problems)
                known |= {name: units[index] * ratio for name, ratio in group.members.items()}
    if problems:
        raise LegalityError(f"{limits.target.name} cannot hold {graph.name}:", problems)
    return [units[index] for index in range(len(groups))]


def edge_unit(graph: Graph, name: str, units: Mapping[str, Array]) -> Array | None:
    """Real value of the integer 1 in the output of `name`, `()` or `(channels,)`, given those of synaptic layers.

    None where these hold none yet.
    """
    node = graph[name]
    if isinstance(node, Input | Attention):
        return np.asarray(node.scale)
    if isinstance(node, Neuron):
        return np.asarray(1.0)
    if isinstance(node, Synaptic):
        return units.get(name)
    inner = edge_unit(graph, node.inputs[0], units)
    return np.asarray(inner / _area(node)) if inner is not None and isinstance(node, AvgPool2d) else inner


def _input_unit(graph: Graph, name: str, units: Mapping[str, Array]) -> float | None:
    """Real value of the integer 1 on the edge into `name`, which is one number for all channels."""
    unit = edge_unit(graph, graph[name].inputs[0], units)
    return None if unit is None else float(unit)


def _unit(
    graph: Graph, group: Group, sources: dict[str, float], limits: Limits, floor: Array, problems: list[str]
) -> Array:
    """The unit with the smallest error among the candidates of the calibration, `()` or `(channels,)`."""
    layers = {name: _layer(graph, name) for name in group.members}
    thresholds = {name: (_threshold(graph, name), ratio) for name, ratio in group.neurons.items()}
    least = _largest(_least_unit(group, layers, thresholds, limits), floor)
    separate = group.per_channel and limits.per_channel
    full = [
        _widest(layer, limits.percentile, separate) * sources[name] / (limits.weight * group.members[name])
        for name, layer in layers.items()
    ]
    candidates = []
    for clip in limits.clips:
        unit = _at_least(_largest(least, *(clip * one for one in full)), thresholds, separate)
        if unit is not None:
            errors = [_known_error(layers[n], unit * group.members[n] / sources[n], n, limits) for n in layers]
            candidates.append((unit, _total(errors) if separate else _total(errors).sum(keepdims=True)))
    if not candidates:
        smallest = min(float(value.min()) for value, _ in thresholds.values())
        problems.append(
            f"{', '.join(group.neurons)}: with weights of {limits.weight.bit_length() + 1} bits a threshold of "
            f"{smallest:g} is less than one unit; use more bits, a higher threshold or smaller weights"
        )
        return np.asarray(1.0)
    units, error = (np.stack(np.broadcast_arrays(*side)) for side in zip(*candidates, strict=True))
    chosen = np.take_along_axis(units, np.broadcast_to(error, units.shape).argmin(axis=0)[None], axis=0)[0]
    return np.asarray(chosen[0]) if len(chosen) == 1 else chosen


def _widest(layer: Linear | Conv2d, percentile: float, separate: bool) -> Array:
    """The magnitude that the largest integer shall stand for, `(out,)` or `(1,)`: of all weights or so many percent."""
    rows = np.abs(_rows(layer))
    if percentile >= 100:
        return np.asarray(rows.max(axis=1))
    return np.asarray(np.percentile(rows if separate else rows.reshape(1, -1), percentile, axis=1))


def _at_least(wanted: Array, thresholds: dict[str, tuple[Array, float]], separate: bool) -> Array | None:
    """The smallest unit not below `wanted` that divides the first threshold; None if the threshold is below it."""
    if not thresholds:
        return np.full(1, wanted.max() or 1.0)
    anchor, ratio = next(iter(thresholds.values()))
    counts = np.floor(anchor / np.maximum(wanted * ratio, np.finfo(float).tiny))
    counts = counts if separate else counts.min(keepdims=True)
    return anchor / (counts * ratio) if counts.min() >= 1 else None


def _least_unit(
    group: Group, layers: dict[str, Linear | Conv2d], thresholds: dict[str, tuple[Array, float]], limits: Limits
) -> Array:
    """Below this unit a bias or a threshold would not fit."""
    parts = [value / (limits.target.threshold.maximum * ratio) for value, ratio in thresholds.values()]
    parts += [
        np.abs(layer.bias) / (limits.target.bias.maximum * group.members[name])
        for name, layer in layers.items()
        if name not in limits.free
    ]
    return _largest(np.zeros(1), *parts)


def _known_error(layer: Linear | Conv2d, unit: Array, name: str, limits: Limits) -> Array:
    """`_error`, computed once: when one group's unit has to grow, most others are asked about again."""
    key = name, unit.tobytes()
    if key not in limits.errors:
        limits.errors[key] = _error(layer, unit, name, limits)
    return limits.errors[key]


def _error(layer: Linear | Conv2d, unit: Array, name: str, limits: Limits) -> Array:
    """Mean squared error of the layer's output that rounding and clipping its weights brings, `(out,)`."""
    mean, variance = limits.moments[name]
    groups = layer.groups if isinstance(layer, Conv2d) else 1
    weight = layer.weight.reshape(len(layer.weight), layer.weight.shape[1], -1)
    step = unit.reshape(-1, 1, 1)
    change = weight / step
    np.clip(np.rint(change, out=change), -limits.weight, limits.weight, out=change)
    np.subtract(np.multiply(change, step, out=change), weight, out=change)
    over_taps, squares = change.sum(axis=2), np.square(change, out=change).sum(axis=2)
    means, variances = (np.repeat(a.reshape(groups, -1), len(weight) // groups, axis=0) for a in (mean, variance))
    return np.asarray((over_taps * means).sum(axis=1) ** 2 + (squares * variances).sum(axis=1))


def rounded(graph: Graph, scales: Scales) -> Graph:
    """The integer network of a folded graph at these scales."""
    return replace(graph, nodes=tuple(_integer_node(node, graph, scales) for node in graph), stage=Stage.INTEGER)


def _integer_node(node: Node, graph: Graph, scales: Scales) -> Node:
    if isinstance(node, Linear | Conv2d):
        return _integer_layer(node, graph, scales)
    if isinstance(node, Neuron):
        return _integer_neuron(node, graph, scales)
    if isinstance(node, AvgPool2d):
        return SumPool2d(name=node.name, inputs=node.inputs, kernel=node.kernel, stride=node.stride)
    if isinstance(node, Attention):
        return replace(node, scale=1.0)
    if isinstance(node, Output):
        unit = _input_unit(graph, node.name, scales.outputs)
        assert unit is not None
        return replace(node, unit=unit)
    return node


def _integer_layer(layer: Linear | Conv2d, graph: Graph, scales: Scales) -> Linear | Conv2d:
    unit, limits = scales.outputs[layer.name], scales.limits
    weight = nearest(layer.weight, scales.weights(graph, layer.name), limits.weight).astype(np.int64)
    bias = nearest(layer.bias, unit, limits.bias(layer.name)).astype(np.int64)
    return replace(layer, weight=weight, bias=bias, unit=unit)


def _integer_neuron(node: Neuron, graph: Graph, scales: Scales) -> Neuron:
    target = scales.limits.target
    return replace(
        node,
        threshold=_integer_threshold(node, graph, scales),
        decay=_rounded(node.decay, target.decay.bits),
        current_decay=_rounded(node.current_decay, target.decay.bits),
        decay_bits=target.decay.bits,
        fraction_bits=target.state.fraction_bits,
    )


def _rounded(decay: float | Array, bits: int) -> float | Array:
    """The nearest multiples of 2**-bits."""
    multiples = round_half_even(np.asarray(decay) * 2**bits) / 2**bits
    return multiples if multiples.ndim else float(multiples)


def _integer_threshold(node: Neuron, graph: Graph, scales: Scales) -> Array:
    pairs = zip(scales.groups, scales.units, strict=True)
    fed = [unit * group.neurons[node.name] for group, unit in pairs if node.name in group.neurons]
    ratio = np.asarray(node.threshold / (fed[0] if fed else _input_unit(graph, node.name, scales.outputs)))
    whole = np.rint(ratio)
    threshold = np.where(np.isclose(ratio, whole, rtol=1e-9), whole, np.floor(ratio)).astype(np.int64)
    return np.asarray(threshold.flat[0]) if threshold.ndim and np.ptp(threshold) == 0 else threshold


def worst_cases(integer: Graph, scales: Scales) -> dict[int, Array]:
    """By how much the worst case of a group leaves the target's state, for those where it does.

    Ratios, one for each channel of the neurons or the readout, 1 and less where it fits.
    """
    target, limits = scales.limits.target, bounds(integer)
    maximum = target.state.maximum >> target.state.fraction_bits
    readers = {name: index for index, group in enumerate(scales.groups) for name in group.neurons}
    for index, group in enumerate(scales.groups):
        if _feeds_output(integer, group):
            readers[integer.output.name] = index
    excess: dict[int, Array] = {}
    for name, index in readers.items():
        node = integer[name]
        unit = 2**node.fraction_bits if isinstance(node, Neuron) else 1
        most = np.maximum(reach(limits.currents[name]), reach(limits.membranes[name])) / unit
        if most.max() > maximum:
            excess[index] = _either(most / maximum, excess.get(index, np.ones(1)))
    return excess


def _either(one: Array, other: Array) -> Array:
    """The larger, channel by channel; as one number where the channels are not the same (behind a Flatten)."""
    if len(one) == len(other) or 1 in (len(one), len(other)):
        return np.asarray(np.maximum(one, other))
    return np.asarray(max(one.max(), other.max())).reshape(1)


def _feeds_output(graph: Graph, group: Group) -> bool:
    return not group.neurons and bool(ancestors(graph, graph.output.name) & set(group.members))


def _largest(*arrays: Array) -> Array:
    return np.asarray(np.max(np.broadcast_arrays(*arrays), axis=0))


def _total(arrays: list[Array]) -> Array:
    return np.asarray(np.sum(np.broadcast_arrays(*arrays), axis=0))


def _rows(layer: Linear | Conv2d) -> Array:
    return layer.weight.reshape(len(layer.weight), -1)


def _layer(graph: Graph, name: str) -> Linear | Conv2d:
    node = graph[name]
    assert isinstance(node, Linear | Conv2d)
    return node


def _threshold(graph: Graph, name: str) -> Array:
    """`(1,)` or `(channels,)`."""
    node = graph[name]
    assert isinstance(node, Neuron)
    return np.atleast_1d(node.threshold)


def _area(node: Node) -> int:
    assert isinstance(node, Pool)
    return node.kernel[0] * node.kernel[1]
