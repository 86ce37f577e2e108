"""The graph between the trained network and the file: nodes are equations, stages say what has been done to them.

Shapes are per sample: `(channels, height, width)` or `(features,)`; time and batch are not part of a node.
Nodes and graphs are never changed; a pass builds new ones with `dataclasses.replace`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Pair = tuple[int, int]
Shape = tuple[int, ...]
Reset = Literal["zero", "subtract", "subtract_late", "none"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
N = TypeVar("N", bound="Node")


class Stage(IntEnum):
    """How far a graph has come; each stage keeps the promises of the ones before it."""

    TRACED = 0
    """As trained: real numbers, BatchNorm still there."""
    FOLDED = 1
    """No BatchNorm."""
    INTEGER = 2
    """Every weight, bias and threshold an integer; average pools are sums. This is the network that `digest` names."""
    LEGAL = 3
    """Rewritten into what the target can hold, with the same spikes."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Node:
    """One operation; `inputs` are names of nodes that come before it."""

    name: str
    inputs: tuple[str, ...]
    placement: Literal["chip", "host"] = "chip"
    """Where it runs; the host computes what a spike-only chip cannot take in (the first layer on pixels)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Input(Node):
    """The sample, as integers in `low..high`; one unit is worth `scale` in the units the network was trained in."""

    inputs: tuple[str, ...] = ()
    shape: Shape
    scale: float = 1.0
    low: int = 0
    high: int = 255
    static: bool = True
    """The same picture at each step (direct coding); otherwise one frame per step."""

    @property
    def spikes(self) -> bool:
        """Whether its values are spikes already."""
        return self.low >= 0 and self.high <= 1

    @property
    def sample_shape(self) -> Shape:
        """What a sample brings; `shape` is what the network sees."""
        return self.shape


@dataclass(frozen=True, eq=False, kw_only=True)
class BiasedInput(Input):
    """The sample, and behind its channels those of `constant`, at each step: with their weights they are a bias."""

    constant: Array
    """Messages `(planes, height, width)` or `(features,)`; `shape` counts them too."""

    @property
    def sample_shape(self) -> Shape:
        """What a sample brings: all but the constants."""
        return (self.shape[0] - len(self.constant), *self.shape[1:])


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear(Node):
    """y = weight @ x + bias; weight `(out, in)`, bias `(out,)`. `unit`: real value of the integer 1 in y."""

    weight: Array
    bias: Array
    unit: Array | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv2d(Node):
    """Cross-correlation with zero padding; weight `(out, in / groups, kernel height, kernel width)`, bias `(out,)`."""

    weight: Array
    bias: Array
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    unit: Array | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Node):
    """Cross-correlation of any rank; weight `(out, in / groups, *kernel)`, bias `(out,)`.

    `before` and `after`: padding of each side, with zeros or, in another `mode`, with what lies inside. No target holds
    it; what is a Conv2d is one.
    """

    weight: Array
    bias: Array
    stride: Shape
    before: Shape
    after: Shape
    dilation: Shape
    groups: int = 1
    mode: PaddingMode = "zeros"


@dataclass(frozen=True, eq=False, kw_only=True)
class ConvTranspose(Node):
    """Each input adds its kernel's weights to outputs `stride` apart; weight `(in, out / groups, *kernel)`.

    `padding` is cut off at both ends of each side, `output_padding` not at the far one. No target holds it.
    """

    weight: Array
    bias: Array
    stride: Shape
    padding: Shape
    output_padding: Shape
    dilation: Shape
    groups: int = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchNorm(Node):
    """y = (x - mean) / sqrt(variance + eps) * gamma + beta, each `(channels,)`, over the channel axis."""

    mean: Array
    variance: Array
    gamma: Array
    beta: Array
    eps: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool(Node):
    """A window of `kernel` moved by `stride`; rows and columns that do not fill a window are dropped."""

    kernel: Pair
    stride: Pair


@dataclass(frozen=True, eq=False, kw_only=True)
class AvgPool2d(Pool):
    """Mean over the window."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SumPool2d(Pool):
    """Sum over the window: an average pool whose 1 / (kernel area) has moved into the next layer's scale."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool2d(Pool):
    """Maximum over the window; on spikes, OR at each step."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Window(Node):
    """A pool of any rank, with padding; what is a Pool is one. No target holds it."""

    kernel: Shape
    stride: Shape
    padding: Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class AvgPool(Window):
    """Mean over the window, the zeros of its padding among it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Window):
    """Maximum over what of the window is no padding."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Flatten(Node):
    """`(channels, height, width)` to `(features,)`, channel slowest (torch's order)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Node):
    """Sum of its inputs, which have one shape."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Attention(Node):
    """y = scale * v (k^T q), head by head; inputs q, k, v and the output are `(channels, height, width)`.

    The positions are the tokens; head h has the channels from h * channels / heads on. Spikes are multiplied, so from
    INTEGER on y counts coincidences: `scale` is 1, what it was has moved into the threshold behind.
    """

    heads: int
    scale: float = 1.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Relu(Node):
    """max(x, 0): the activation of a teacher; no spiking target has it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Neuron(Node):
    """v = decay * v + x[t];  s[t] = v > threshold;  v = 0 where s[t] (zero), or v - threshold * s[t] (subtract).

    snnTorch's Leaky subtracts behind the next leak: v = decay * v + x[t] - threshold * s[t - 1] (subtract_late), which
    differs from subtract where decay < 1. Or nothing is taken away (none).
    With a `current_decay` it is u = current_decay * u + x[t] that is added to v, and no reset touches u: snnTorch's
    Synaptic, Loihi's CUBA.
    v and u are zero at the start of each sample. From INTEGER on, they are held in units of `2**-fraction_bits` weight
    units, and decays are multiples of `2**-decay_bits` whose product is truncated toward zero (Loihi: 12 bits, 6 bits).
    """

    decay: float | Array
    """One for all, a number, or one per channel, `(channels,)`."""
    threshold: Array
    """One for all, shape `()`, or one per channel, `(channels,)`."""
    reset: Reset = "zero"
    decay_bits: int = 0
    fraction_bits: int = 0
    current_decay: float | Array = 0.0
    """As `decay`; 0 where the current has no memory."""

    @property
    def decay_numerator(self) -> Array:
        """`decay * 2**decay_bits`, integers from INTEGER on, `()` or `(channels,)`."""
        return _numerator(self.decay, self.decay_bits)

    @property
    def current_numerator(self) -> Array:
        """The same of `current_decay`."""
        return _numerator(self.current_decay, self.decay_bits)

    @property
    def leak(self) -> tuple[Array, int]:
        """From INTEGER on decay = numerator / 2**m: the numerators, `()` or `(channels,)`, and the least m for all."""
        return _lowest_terms(self.decay_numerator, self.decay_bits)

    @property
    def current_leak(self) -> tuple[Array, int]:
        """The same of `current_decay`."""
        return _lowest_terms(self.current_numerator, self.decay_bits)

    @property
    def keeps_current(self) -> bool:
        """Whether anything of a current reaches the next step."""
        return bool(np.any(np.asarray(self.current_decay) != 0))


def _numerator(decay: float | Array, bits: int) -> Array:
    return np.asarray(np.rint(np.asarray(decay) * 2**bits).astype(np.int64))


def _lowest_terms(numerator: Array, bits: int) -> tuple[Array, int]:
    common = math.gcd(2**bits, *numerator.ravel().tolist())
    return np.asarray(numerator // common), (2**bits // common).bit_length() - 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Relay(Neuron):
    """Neurons whose channels from `own` on fire exactly when a spike of an earlier layer is to be carried on.

    So a network with shortcuts becomes a row of layers. Records hold the first `own` channels, under its name.
    """

    own: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Output(Node):
    """logits: mean over time of its input; from INTEGER on the sum over time, one unit being worth `unit` of a sum."""

    unit: float = 1.0


Weighing = Linear | Conv2d | Conv | ConvTranspose
"""Every layer of synapses."""
Synaptic = (Linear, Conv2d)
"""Those that targets hold."""
General = (Conv, ConvTranspose, AvgPool, MaxPool)
"""What only the simulator and the counter know: of every rank and padding, beside the kinds that targets hold."""
KINDS: dict[str, type[Node]] = {
    kind.__name__: kind
    for kind in (
        *(Input, Linear, Conv2d, BatchNorm, AvgPool2d, SumPool2d, MaxPool2d, Flatten, Add, Attention, Relu, Neuron),
        *(BiasedInput, Relay, Output, *General),
    )
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Graph:
    """Nodes in an order in which each comes after its inputs; one Input, one Output."""

    nodes: tuple[Node, ...]
    timesteps: int
    stage: Stage = Stage.TRACED
    name: str = "network"
    origin: str = ""
    """From LEGAL on: digest of the integer network that it was rewritten from."""

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def of(self, *kinds: type[N]) -> tuple[N, ...]:
        """The nodes of these kinds, in order."""
        return tuple(node for node in self.nodes if isinstance(node, kinds))

    def consumers(self, name: str) -> tuple[Node, ...]:
        """The nodes that read the output of `name`."""
        return tuple(node for node in self.nodes if name in node.inputs)

    @property
    def input(self) -> Input:
        """The only Input."""
        return self.of(Input)[0]

    @property
    def output(self) -> Output:
        """The only Output."""
        return self.of(Output)[0]

    @property
    def input_neurons(self) -> Neuron | None:
        """The neurons that read the input itself, one for each of its values; None if a layer with weights comes first.

        Only where nothing else reads it.
        """
        readers = self.consumers(self.input.name)
        return readers[0] if len(readers) == 1 and isinstance(readers[0], Neuron) else None

    @property
    def counts_spikes(self) -> bool:
        """Whether logits are numbers of spikes of the last neurons, and not sums of what a layer weighs."""
        return isinstance(self[self.output.inputs[0]], Neuron)

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The output shape of each node, by name; ValueError where shapes do not fit."""
        shapes: dict[str, Shape] = {}
        for node in self.nodes:
            shapes[node.name] = output_shape(node, [shapes[name] for name in node.inputs])
        return shapes

    @cached_property
    def static(self) -> frozenset[str]:
        """Names of the nodes whose value is the same at each step: the still picture and what depends on it alone."""
        names: set[str] = set()
        for node in self.nodes:
            still = node.static if isinstance(node, Input) else all(name in names for name in node.inputs)
            if still and not isinstance(node, Neuron):
                names.add(node.name)
        return frozenset(names)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that decides the spikes: kinds, wiring, numbers. Name and origin are left out."""
        state = hashlib.sha256(f"{self.timesteps} {self.stage.name}".encode())
        for node in self.nodes:
            description, arrays = describe(node)
            state.update(json.dumps(description, sort_keys=True).encode())
            for name in sorted(arrays):
                for part in _canonical_parts(arrays[name]):
                    state.update(part)
        return state.hexdigest()


LATER: dict[str, Any] = {"current_decay": 0.0}
"""Fields that earlier graphs lack, left out while they hold this: digests and files of networks without them stay."""


def describe(node: Node) -> tuple[dict[str, Any], dict[str, Array]]:
    """A node as plain values and arrays: what is hashed and what is stored."""
    plain: dict[str, Any] = {"kind": type(node).__name__}
    arrays: dict[str, Array] = {}
    for field in fields(node):
        value = getattr(node, field.name)
        if field.name in LATER and not np.any(value != LATER[field.name]):
            continue
        if isinstance(value, np.ndarray | np.generic):  # arithmetic on a `()` array gives a numpy scalar
            arrays[field.name] = np.asarray(value)
        else:
            plain[field.name] = list(value) if isinstance(value, tuple) else value
    return plain, arrays


HASHED = 2**20  # values that are widened at a time


def canonical_bytes(array: Array) -> bytes:
    """Shape and values as little-endian int64 or float64, so that the stored width does not matter."""
    return b"".join(_canonical_parts(array))


def _canonical_parts(array: Array) -> Iterator[bytes | memoryview]:
    """`canonical_bytes` piece by piece: the weights of a large layer are never wide all at once."""
    yield repr(array.shape).encode()
    wide = "<i8" if np.issubdtype(array.dtype, np.integer) else "<f8"
    values = np.ascontiguousarray(array).reshape(-1)
    for start in range(0, values.size, HASHED):
        yield values[start : start + HASHED].astype(wide).data.cast("B")


def ancestors(graph: Graph, name: str) -> set[str]:
    """Names of all nodes that `name` depends on, itself left out."""
    found: set[str] = set()
    waiting = list(graph[name].inputs)
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting.extend(graph[one].inputs)
    return found


def output_shape(node: Node, inputs: list[Shape]) -> Shape:
    """Shape of the node's output; ValueError says what does not fit."""
    if isinstance(node, Input):
        return node.shape
    first = inputs[0]
    if isinstance(node, Linear):
        if first != (node.weight.shape[1],):
            raise ValueError(f"{node.name} takes {node.weight.shape[1]} features, met shape {first}")
        return (node.weight.shape[0],)
    if isinstance(node, Conv2d | Conv | ConvTranspose):
        return _conv_shape(node, first)
    if isinstance(node, Pool | Window):
        return _pool_shape(node, first)
    if isinstance(node, Flatten):
        return (int(np.prod(first)),)
    if isinstance(node, Add) and any(shape != first for shape in inputs):
        raise ValueError(f"{node.name} adds different shapes: {', '.join(map(str, inputs))}")
    if isinstance(node, Attention):
        return _attention_shape(node, inputs)
    return first


def sides(node: Conv2d | Conv | ConvTranspose | Pool | Window, shape: Shape) -> Shape:
    """Lengths of the sides of its output; below 1 where its kernel does not fit into `shape`."""
    if isinstance(node, Pool | Window):
        spans: list[int] = [one - 1 for one in node.kernel]
    else:
        spans = [far * (taps - 1) for far, taps in zip(node.dilation, node.weight.shape[2:], strict=True)]
    lengths = zip(shape[1:], _padded(node), spans, node.stride, strict=True)
    if isinstance(node, ConvTranspose):
        return tuple((size - 1) * stride + span + more + 1 for size, more, span, stride in lengths)
    return tuple((size + more - span - 1) // stride + 1 for size, more, span, stride in lengths)


def _padded(node: Conv2d | Conv | ConvTranspose | Pool | Window) -> list[int]:
    """How much longer padding makes each side, of the input or, transposed, of the output."""
    if isinstance(node, Pool):
        return [0] * len(node.kernel)
    if isinstance(node, Conv):
        return [before + after for before, after in zip(node.before, node.after, strict=True)]
    if isinstance(node, ConvTranspose):
        return [after - 2 * cut for cut, after in zip(node.padding, node.output_padding, strict=True)]
    return [2 * one for one in node.padding]


def _conv_shape(node: Conv2d | Conv | ConvTranspose, shape: Shape) -> Shape:
    first, second, *kernel = node.weight.shape
    into, out = (first, second * node.groups) if isinstance(node, ConvTranspose) else (second * node.groups, first)
    if len(shape) != 1 + len(kernel) or shape[0] != into or first % node.groups:
        picture = "a picture" if len(kernel) == 2 else f"{len(kernel)} sides"
        raise ValueError(f"{node.name} takes {into} channels of {picture}, met shape {shape}")
    if min(found := sides(node, shape)) < 1:
        raise ValueError(f"{node.name}: its kernel does not fit into {shape}")
    return (out, *found)


def _attention_shape(node: Attention, inputs: list[Shape]) -> Shape:
    if len(inputs) != 3 or len(set(inputs)) != 1 or len(inputs[0]) != 3:
        met = ", ".join(map(str, inputs))
        raise ValueError(f"{node.name} takes three pictures q, k and v of one shape, met {met}")
    if node.heads < 1 or inputs[0][0] % node.heads:
        raise ValueError(f"{node.name}: {inputs[0][0]} channels do not divide into {node.heads} heads")
    return inputs[0]


def _pool_shape(node: Pool | Window, shape: Shape) -> Shape:
    if len(shape) != 1 + len(node.kernel) or min(found := sides(node, shape)) < 1:
        raise ValueError(f"{node.name}: its window {node.kernel} does not fit into {shape}")
    return (shape[0], *found)
