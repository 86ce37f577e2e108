"""What a legal graph is, at each stage and for each target. Every function returns all reasons at once."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from snnkd_deploy.bounds import Bounds, bounds, largest
from snnkd_deploy.errors import GraphError, LegalityError
from snnkd_deploy.ir import (
    Add,
    Array,
    Attention,
    AvgPool2d,
    BatchNorm,
    BiasedInput,
    Conv2d,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Output,
    Pool,
    Relu,
    Stage,
    Synaptic,
    ancestors,
    describe,
)
from snnkd_deploy.numerics import is_integer
from snnkd_deploy.target import Target

ARITY: dict[type[Node], tuple[int, float]] = {Input: (0, 0), BiasedInput: (0, 0), Add: (2, math.inf), Attention: (3, 3)}
"""Fewest and most inputs of a node, where that is not one."""


def verify(graph: Graph, target: Target) -> None:
    """GraphError, or from LEGAL on LegalityError, that lists every rule of its stage that the graph breaks."""
    if problems := graph_problems(graph):
        raise GraphError(f"{graph.name} is not a {graph.stage.name.lower()} network:", problems)
    if graph.stage == Stage.LEGAL and (problems := target_problems(graph, target)):
        raise LegalityError(f"{target.name} cannot run this network:", problems)


def graph_problems(graph: Graph) -> list[str]:
    """The rules of the graph's own stage that it breaks."""
    problems = list(_wiring_problems(graph))
    if problems:
        return problems
    try:
        shapes = graph.shapes
    except ValueError as error:
        return [str(error)]
    for node in graph:
        problems += _stage_problems(node, graph.stage)
        problems += _array_problems(node, shapes[node.name][0])
    return problems + (attention_problems(graph) if graph.stage >= Stage.INTEGER else [])


def attention_problems(graph: Graph) -> list[str]:
    """What an attention multiplies that is no spike, so that its products are no counts."""
    return [
        f"{node.name}: multiplies {name} ({type(graph[name]).__name__}); only spikes are accepted; put neurons there"
        for node in graph.of(Attention)
        for name in node.inputs
        if not _spikes(graph, name)
    ]


def _spikes(graph: Graph, name: str) -> bool:
    node = graph[name]
    if isinstance(node, MaxPool2d):
        return _spikes(graph, node.inputs[0])
    return node.spikes if isinstance(node, Input) else isinstance(node, Neuron)


def target_problems(graph: Graph, target: Target) -> list[str]:
    """The target's rules that an integer graph breaks, worst cases included."""
    problems = [
        f"{node.name}: no {type(node).__name__} on this target; it has {', '.join(target.nodes)}{_hint(node)}"
        for node in graph
        if type(node).__name__ not in target.nodes and node.placement == "chip"
    ]
    if problems:  # wiring and ranges would change with what takes their place, neurons would not
        return [*problems, *(one for node in graph.of(Neuron) for one in _neuron_problems(node, target))]
    if target.layout.wiring == "chain":
        problems += chain_problems(graph)
    problems += leak_problems(graph, target)
    limits = bounds(graph)
    for node in graph:
        if node.placement == "chip":
            problems += _number_problems(node, target)
        if isinstance(node, Neuron | Output):
            problems += range_problems(node, limits, target)
    behind = target.current is not None and target.current.bias == "membrane"
    return problems + (list(bias_problems(graph)) if behind else [])


def _hint(node: Node) -> str:
    """What to do instead."""
    if isinstance(node, MaxPool2d):
        return "; a max pool right behind a neuron is an OR, which neurons compute: move it there and train again"
    return "; export a network with self-attention to onnx" if isinstance(node, Attention) else ""


def range_problems(node: Neuron | Output, limits: Bounds, target: Target) -> list[str]:
    """Whether the worst case of a layer's current and membrane stays within the target's state."""
    maximum = target.state.maximum >> target.state.fraction_bits
    unit = 2**node.fraction_bits if isinstance(node, Neuron) else 1
    kept = isinstance(node, Neuron) and node.keeps_current
    reached = {
        "current" if kept else "input": largest(limits.currents[node.name]),
        "membrane" if isinstance(node, Neuron) else "sum over time": largest(limits.membranes[node.name]),
    }
    return [
        f"{node.name}: its {what} can reach {most // unit}, the state holds {maximum}"
        for what, most in reached.items()
        if most > maximum * unit
    ]


def bias_problems(graph: Graph) -> Iterator[str]:
    """Biases that mean something else where a chip adds them to the membrane and not to the current that is kept.

    A channel without weights whose bias fires it at every step spikes alike either way; the host adds what it should.
    """
    for neuron in graph.of(Neuron):
        layer = graph[neuron.inputs[0]]
        if not neuron.keeps_current or layer.placement == "host" or not isinstance(layer, Linear | Conv2d):
            continue
        silent = ~layer.weight.reshape(len(layer.weight), -1).any(axis=1)
        wrong = (layer.bias != 0) & ~(silent & (layer.bias > neuron.threshold))
        if wrong.any():
            yield (
                f"{layer.name}: a bias of {layer.bias[wrong][0]} in front of {neuron.name}, which keeps its current; "
                "this target adds biases behind the current, so leave it out (bias=False) and train again"
            )


def chain_problems(graph: Graph) -> Iterator[str]:
    """Layers one after the other: a synaptic layer, then its neuron, the readout last."""
    for node in graph:
        readers = graph.consumers(node.name)
        if len(readers) > 1:
            yield f"{node.name}: {len(readers)} nodes read it; this target runs layers in a row"
        if isinstance(node, Synaptic) and not all(isinstance(reader, Neuron | Output) for reader in readers):
            yield f"{node.name}: must feed a Neuron or the Output directly"
        if isinstance(node, Neuron | Output) and not isinstance(graph[node.inputs[0]], Synaptic):
            yield f"{node.name}: must be fed by a Linear or Conv2d directly"
    readout = graph[graph.output.inputs[0]]
    if not isinstance(readout, Linear):
        yield f"{readout.name}: the readout must be a Linear"
    elif not graph.of(Neuron):
        yield f"{readout.name}: a network without neurons has nothing to run on this target"


def _wiring_problems(graph: Graph) -> Iterator[str]:
    seen: set[str] = set()
    for node in graph:
        if node.name in seen:
            yield f"{node.name}: two nodes have this name"
        for name in node.inputs:
            if name not in seen:
                yield f"{node.name}: its input {name!r} does not come before it"
        least, most = ARITY.get(type(node), (1, 1))
        if not least <= len(node.inputs) <= most:
            yield f"{node.name}: {type(node).__name__} has {len(node.inputs)} inputs"
        seen.add(node.name)
    inputs, outputs = graph.of(Input), graph.of(Output)
    if len(inputs) != 1 or graph.nodes[0] is not inputs[0]:
        yield f"the first node must be the only Input; met {len(inputs)} of them"
    if len(outputs) != 1 or graph.nodes[-1] is not outputs[0]:
        yield f"the last node must be the only Output; met {len(outputs)} of them"
    if graph.timesteps < 1:
        yield f"timesteps must be at least 1, met {graph.timesteps}"
    read = {name for node in graph for name in node.inputs}
    yield from (f"{node.name}: nothing reads it" for node in graph.nodes[:-1] if node.name not in read)


def _stage_problems(node: Node, stage: Stage) -> Iterator[str]:
    if stage >= Stage.FOLDED and isinstance(node, BatchNorm):
        yield f"{node.name}: a BatchNorm is left"
    if stage < Stage.INTEGER:
        return
    if isinstance(node, AvgPool2d | Relu):
        yield f"{node.name}: {type(node).__name__} is not an integer operation"
    if isinstance(node, Attention) and node.scale != 1:
        yield f"{node.name}: scale {node.scale} is not 1"
    for name, array in describe(node)[1].items():
        if name not in ("unit", *DECAYS) and not is_integer(array):
            yield f"{node.name}: {name} is not integer"
    if isinstance(node, Neuron):
        for name, decays in _decays(node):
            off = decays[decays * 2**node.decay_bits != np.rint(decays * 2**node.decay_bits)]
            if node.decay_bits == 0 or off.size:
                met = (off if off.size else decays)[0]
                yield f"{node.name}: {name} {met} is not a multiple of 2**-{node.decay_bits}"
        if node.threshold.min() < 1:
            yield f"{node.name}: threshold {node.threshold.min()} is below 1"


def _array_problems(node: Node, channels: int) -> Iterator[str]:
    for name, array in describe(node)[1].items():
        if not np.isfinite(array).all():
            yield f"{node.name}: {name} holds a value that is not finite"
    for name, values in _per_channel(node):
        if values.shape != (channels,) and not (values.ndim == 0 and name in ("threshold", *DECAYS)):
            yield f"{node.name}: {name} has shape {values.shape}, {channels} channels need ({channels},)"
    if isinstance(node, Neuron):
        for name, decays in _decays(node):
            beyond = decays[(decays < 0) | (decays > 1)]
            yield from (f"{node.name}: {name} {one} is not in 0..1" for one in beyond[:1])


DECAYS = ("decay", "current_decay")


def _decays(node: Neuron) -> list[tuple[str, Array]]:
    """What of the membrane is kept, and of the current where any is, by name."""
    return [(name, np.atleast_1d(getattr(node, name))) for name in (DECAYS if node.keeps_current else DECAYS[:1])]


def _per_channel(node: Node) -> list[tuple[str, Array]]:
    if isinstance(node, Linear | Conv2d):
        return [("bias", node.bias)]
    if isinstance(node, BatchNorm):
        return [(name, getattr(node, name)) for name in ("mean", "variance", "gamma", "beta")]
    if not isinstance(node, Neuron):
        return []
    return [("threshold", node.threshold), *((name, np.asarray(getattr(node, name))) for name in DECAYS)]


def _number_problems(node: Node, target: Target) -> Iterator[str]:
    if isinstance(node, Linear | Conv2d):
        yield from _beyond(node, "weight", node.weight, target.weights.minimum, target.weights.maximum)
        yield from _beyond(node, "bias", node.bias, target.bias.minimum, target.bias.maximum)
    if isinstance(node, Conv2d | Pool):
        sizes = (
            (*node.weight.shape[2:], *node.stride, *node.padding, *node.dilation, node.groups)
            if isinstance(node, Conv2d)
            else (*node.kernel, *node.stride)
        )
        if max(sizes) > target.layout.maximum_side:
            yield f"{node.name}: kernel, stride or groups {max(sizes)} is above {target.layout.maximum_side}"
    if isinstance(node, Neuron):
        yield from _neuron_problems(node, target)


def _neuron_problems(node: Neuron, target: Target) -> Iterator[str]:
    yield from _beyond(node, "threshold", node.threshold, target.threshold.minimum, target.threshold.maximum)
    if node.threshold.ndim and "channel" not in target.weights.granularity:
        yield f"{node.name}: one threshold per channel; this target has one per layer, so train it with one"
    if node.reset not in target.resets:
        yield f"{node.name}: reset {node.reset!r}; this target resets by {_resets(target)}"
    if node.decay_numerator.min() < target.decay.minimum_numerator:
        least = np.min(node.decay)
        yield f"{node.name}: decay {least} is below {target.decay.minimum_numerator} / 2**{target.decay.bits}"
    yield from decay_problems(node, target)


def decay_problems(node: Neuron, target: Target) -> Iterator[str]:
    """A current that is kept where the target has none, decays per channel where it has one per layer; any stage."""
    if node.keeps_current and target.current is None:
        yield f"{node.name}: keeps a current (snnTorch's Synaptic); this target's neurons keep none, use snn.Leaky"
    parts = {"decay": target.decay.granularity, "current_decay": target.current.granularity if target.current else ()}
    for name, decays in _decays(node):
        if np.ndim(getattr(node, name)) and "channel" not in parts[name] and parts[name]:
            yield (
                f"{node.name}: {name} {decays.min():.4g}..{decays.max():.4g}, one per channel; this target has one "
                "per layer of neurons; train with one (--learn-decay layer)"
            )


def _resets(target: Target) -> str:
    known = " or ".join(map(repr, target.resets))
    how = " (snnTorch: reset_mechanism='zero'; here: --reset zero)" if "zero" in target.resets else ""
    return f"{known}; train it with that{how}"


def leak_problems(graph: Graph, target: Target) -> Iterator[str]:
    """Where the format's readers would compute another leak than the integers do.

    The integer leak drops what falls below `2**-fraction_bits`. With decay = odd / 2**m nothing does while
    m * (timesteps - 1) <= fraction_bits; then the real-valued equation has the same value, and float32 holds it.
    """
    if not target.decay.exact_in_float32:
        return
    for node in graph.of(Neuron):
        if leak_shift(node) * (graph.timesteps - 1) > node.fraction_bits:
            yield (
                f"{node.name}: {_spelt(node)} over {graph.timesteps} steps needs rounding, which this format cannot "
                f"say; accepted are 1 (no leak), 0.5 up to {node.fraction_bits + 1} steps, 0.25 or 0.75 up to "
                f"{node.fraction_bits // 2 + 1}"
            )


def leak_shift(node: Neuron) -> int:
    """m of the neuron's decays = odd / 2**m, the most of them: fraction bits that each step of a leak adds."""
    return max(node.leak[1], node.current_leak[1])


def _spelt(node: Neuron) -> str:
    return " and ".join(
        f"{name} {decays[0]:g}"
        if decays.size == 1
        else f"{name} {decays.min():.4g}..{decays.max():.4g}, one per channel,"
        for name, decays in _decays(node)
    )


def _beyond(node: Node, what: str, values: Array, minimum: int, maximum: int) -> Iterator[str]:
    if values.min() < minimum or values.max() > maximum:
        yield f"{node.name}: {what} {values.min()}..{values.max()} leaves {minimum}..{maximum}"


def first_neurons(graph: Graph) -> tuple[Neuron, ...]:
    """The neurons that no other neuron comes before: those that the input's own layer feeds."""
    neurons = {node.name for node in graph.of(Neuron)}
    return tuple(node for node in graph.of(Neuron) if not ancestors(graph, node.name) & neurons)
