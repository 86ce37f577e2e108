"""What a graph means: the reference that every file and every faster form is compared with.

Exact on integers, step by step as the node's equation says. Layers have no delay, so a layer can be computed for all
steps before the next one; arrays are `(time, batch, *shape)`, with a time axis of 1 while nothing changes over time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from snnkd_deploy.errors import InputError
from snnkd_deploy.ir import (
    Add,
    Array,
    Attention,
    AvgPool2d,
    BatchNorm,
    BiasedInput,
    Conv,
    Conv2d,
    ConvTranspose,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Output,
    Relay,
    Relu,
    Stage,
    SumPool2d,
    Window,
)
from snnkd_deploy.numerics import attention, conv, conv2d, is_integer, linear, pool, scale_by_fraction, windows

Observer = Callable[[Node, tuple[Array, ...], Array], None]
"""Called for each node with its inputs and its output, `(time or 1, batch, *shape)` each."""
Look = Callable[[Neuron, int, Array, Array], None]
"""Called at each step of a neuron, before its node is observed, with v before the reset and whether it fires."""


@dataclass(frozen=True, eq=False)
class Record:
    """What a network did: `spikes[layer]` uint8 `(time, batch, *shape)`, `logits` `(batch, classes)`.

    Logits are int64 sums over time for integer graphs, float64 means over time before.
    """

    spikes: dict[str, Array]
    logits: Array


def simulate(graph: Graph, inputs: Array, observe: Observer | None = None, look: Look | None = None) -> Record:
    """Run `inputs`: integers `(batch, *shape)` for a still picture, `(time, batch, *shape)` for frames.

    Floats are accepted only by graphs before INTEGER. InputError if the shape or the range does not fit.
    """
    values: dict[str, Array] = {}
    spikes: dict[str, Array] = {}
    last_reader = {name: node.name for node in graph for name in node.inputs}
    for node in graph:
        arguments = tuple(values[name] for name in node.inputs)
        value = entering(graph, inputs) if isinstance(node, Input) else evaluate(node, arguments, graph, look)
        values[node.name] = value
        if isinstance(node, Neuron) and (own := own_channels(node)) != slice(0):
            spikes[node.name] = value[:, :, own].astype(np.uint8)
        if observe is not None:
            observe(node, arguments, value)
        for name in node.inputs:
            if last_reader[name] == node.name:
                values.pop(name, None)
    return Record(spikes, values[graph.output.name])


def batches(
    graph: Graph, inputs: Array, size: int = 64, observe: Observer | None = None, look: Look | None = None
) -> Iterator[Record]:
    """`simulate`, `size` samples at a time."""
    axis = sample_axis(graph)
    for start in range(0, inputs.shape[axis], size):
        part = inputs[start : start + size] if axis == 0 else inputs[:, start : start + size]
        yield simulate(graph, part, observe, look)


def sample_axis(graph: Graph) -> int:
    """The axis of `inputs` that counts samples: 0 for still pictures, 1 for frames."""
    return 0 if graph.input.static else 1


def predictions(graph: Graph, inputs: Array) -> Array:
    """The winning class of each sample, `(batch,)`; the lowest index where logits tie."""
    return np.concatenate([record.logits.argmax(axis=1) for record in batches(graph, inputs)])


def evaluate(node: Node, arguments: tuple[Array, ...], graph: Graph, look: Look | None = None) -> Array:
    """The output of one node, `(time or 1, batch, *shape)`."""
    if isinstance(node, Neuron):
        return _fire(node, arguments[0], graph.timesteps, look)
    if isinstance(node, Output):
        return _read_out(arguments[0], graph)
    if isinstance(node, Add):
        return np.asarray(sum(arguments[1:], start=arguments[0]))
    if isinstance(node, Attention):
        q, k, v = arguments
        return attention(q, k, v, node)
    time, batch = arguments[0].shape[:2]
    merged = _each_step(node, arguments[0].reshape(time * batch, *arguments[0].shape[2:]))
    return merged.reshape(time, batch, *merged.shape[1:])


def _each_step(node: Node, x: Array) -> Array:
    """Nodes without memory, on `(time * batch, *shape)`."""
    if isinstance(node, Linear):
        return linear(x, node)
    if isinstance(node, Conv2d):
        return conv2d(x, node)
    if isinstance(node, Conv | ConvTranspose):
        return conv(x, node)
    if isinstance(node, Window):
        return pool(x, node)
    if isinstance(node, SumPool2d):
        return np.asarray(windows(x, node).sum(axis=(-2, -1)))
    if isinstance(node, AvgPool2d):
        return np.asarray(windows(x, node).mean(axis=(-2, -1)))
    if isinstance(node, MaxPool2d):
        return np.asarray(windows(x, node).max(axis=(-2, -1)))
    if isinstance(node, Flatten):
        return x.reshape(len(x), -1)
    if isinstance(node, Relu):
        return np.maximum(x, 0)
    if isinstance(node, BatchNorm):
        scale, shift = (over_channels(a, x.ndim - 1) for a in affine(node))
        return np.asarray(x * scale + shift)
    raise AssertionError(f"no meaning for {type(node).__name__}")


def affine(norm: BatchNorm) -> tuple[Array, Array]:
    """A BatchNorm in evaluation is y = scale * x + shift, each `(channels,)`."""
    scale = norm.gamma / np.sqrt(norm.variance + norm.eps)
    return scale, norm.beta - norm.mean * scale


def over_channels(values: Array, dimensions: int) -> Array:
    """`()` or `(channels,)` made to broadcast over `(channels, ...)` of so many dimensions."""
    return values.reshape(-1, *[1] * (dimensions - 1)) if values.ndim else values


def own_channels(node: Neuron) -> slice:
    """The channels that are the network's neurons, not relays; `slice(0)` if all are relays."""
    return slice(node.own) if isinstance(node, Relay) else slice(None)


def _fire(node: Neuron, current: Array, timesteps: int, look: Look | None) -> Array:
    spikes = np.empty((timesteps, *current.shape[1:]), dtype=np.int64)
    for step, (potential, fires) in enumerate(membranes(node, current, timesteps)):
        spikes[step] = fires
        if look is not None:
            look(node, step, potential, fires)
    return spikes


def membranes(node: Neuron, current: Array, timesteps: int) -> Iterator[tuple[Array, Array]]:
    """The neuron's equation over time: at each step v before the reset, and whether it fires.

    int64 in units of `2**-fraction_bits` from INTEGER on, float64 before.
    """
    exact = _exact(node, current)
    threshold = over_channels(node.threshold, current.ndim - 2) * (2**node.fraction_bits if exact else 1)
    potential: Array = np.zeros(current.shape[1:], dtype=np.int64 if exact else np.float64)
    fires = np.zeros(current.shape[1:], dtype=bool)
    for arriving in kept_currents(node, current, timesteps):
        potential = _leaked(potential, node.decay, node.decay_bits if exact else None) + arriving
        if node.reset == "subtract_late":
            potential = potential - threshold * fires
        fires = potential > threshold
        yield potential, fires
        if node.reset in ("zero", "subtract"):
            potential = np.where(fires, 0 if node.reset == "zero" else potential - threshold, potential)


def kept_currents(node: Neuron, current: Array, timesteps: int) -> Iterator[Array]:
    """What each step adds to v: its current, and what is left of those before; in the units of `membranes`."""
    exact = _exact(node, current)
    kept: Array = np.zeros_like(current[0])
    for step in range(timesteps):
        arriving = current[step if len(current) > 1 else 0] * (2**node.fraction_bits if exact else 1)
        if node.keeps_current:
            arriving = _leaked(kept, node.current_decay, node.decay_bits if exact else None) + arriving
        yield (kept := arriving)


def _exact(node: Neuron, current: Array) -> bool:
    return is_integer(current) and is_integer(node.threshold)


def _leaked(value: Array, decay: float | Array, bits: int | None) -> Array:
    """decay * value of a layer, `(batch, *shape)`; with so many bits, of integers, truncated toward zero."""
    along = over_channels(np.asarray(decay), value.ndim - 1)
    if bits is None:
        return along * value
    return scale_by_fraction(value, np.rint(along * 2**bits).astype(np.int64), bits)


def _read_out(value: Array, graph: Graph) -> Array:
    steps = np.broadcast_to(value, (graph.timesteps, *value.shape[1:]))
    return np.asarray(steps.sum(axis=0) if graph.stage >= Stage.INTEGER else steps.mean(axis=0))


def entering(graph: Graph, inputs: Array) -> Array:
    """What `inputs` are to the network, `(time or 1, batch, *shape)`. InputError if they do not fit."""
    node = graph.input
    leading = 1 if node.static else 2
    if inputs.shape[leading:] != node.sample_shape or (not node.static and len(inputs) != graph.timesteps):
        wanted = ("samples",) if node.static else (graph.timesteps, "samples")
        raise InputError(f"{graph.name} takes {(*wanted, *node.sample_shape)}, met {inputs.shape}")
    if inputs.size and (inputs.min() < node.low or inputs.max() > node.high):
        raise InputError(f"{graph.name} takes {node.low}..{node.high}, met {inputs.min()}..{inputs.max()}")
    value = inputs[None] if node.static else inputs
    if graph.stage < Stage.INTEGER:
        return np.asarray(value * node.scale)
    if not is_integer(inputs):
        raise InputError(f"{graph.name} takes integers, met {inputs.dtype}")
    value = value.astype(np.int64)
    return with_constant(value, node.constant) if isinstance(node, BiasedInput) else value


def with_constant(x: Array, constant: Array) -> Array:
    """Constant channels `(planes, ...)` behind those of `x`, `(time, batch, channels, ...)`, at each step."""
    return np.concatenate([x, np.broadcast_to(constant, (*x.shape[:2], *constant.shape))], axis=2)
