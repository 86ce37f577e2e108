"""The file that the native runtime reads: an integer network as little-endian bytes, with a checksum.

`SNNKDNET`, version, CRC-32 and length of what follows; then steps, name and digest, and the nodes in their order. Each
says between which integers its values lie, whatever the sample, so that the runtime knows where narrow numbers will do.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from snnkd_deploy.bounds import Bounds, Interval, bounds, largest
from snnkd_deploy.ir import (
    Add,
    Array,
    Attention,
    BiasedInput,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Output,
    Pair,
    Pool,
    Relay,
    Reset,
    Shape,
    Stage,
    SumPool2d,
)

MAGIC, VERSION = b"SNNKDNET", 1
CODES: dict[type[Node], int] = {
    **{Input: 0, BiasedInput: 0, Linear: 1, Conv2d: 1, SumPool2d: 2, MaxPool2d: 3, Flatten: 4, Add: 5},
    **{Attention: 6, Neuron: 7, Relay: 7, Output: 8},
}
RESETS: tuple[Reset, ...] = ("zero", "subtract", "subtract_late", "none")
LARGEST_INT32, LARGEST_INT8 = 2**31 - 1, 127
LEAK_BITS, FRACTION_BITS = 15, 16
LARGEST_SIDE, LARGEST_DILATION = 65536, 16384
ONE: Pair = (1, 1)


def refusals(graph: Graph) -> Iterator[str]:
    """Every reason why the runtime, which counts in 32 bits, cannot hold a network."""
    if graph.stage < Stage.INTEGER:
        yield f"{graph.name}: not in integers yet (it is {graph.stage.name.lower()})"
        return
    unknown = [node for node in graph if type(node) not in CODES]
    if unknown:
        yield from (f"{node.name}: no {type(node).__name__} in the native runtime" for node in unknown)
        return
    limits = bounds(graph)
    for node in graph:
        yield from _beyond(node, limits)


def _beyond(node: Node, limits: Bounds) -> Iterator[str]:
    met = largest(limits.values[node.name])
    if isinstance(node, Linear | Conv2d):
        met = max(met, int(np.abs(node.bias).max()))
        if np.abs(node.weight).max(initial=0) > LARGEST_INT8:
            yield f"{node.name}: weights {node.weight.min()}..{node.weight.max()}, an int8_t holds -127..127"
    if isinstance(node, Conv2d | Pool):
        yield from _too_far(node)
    if isinstance(node, Neuron):
        held = (limits.membranes, limits.currents)
        met = max(*(largest(one[node.name]) for one in held), int(node.threshold.max()) << node.fraction_bits)
        bits = max(node.leak[1], node.current_leak[1])
        shares = np.concatenate([np.atleast_1d(one) for one in (node.leak[0] / 2 ** node.leak[1], node.current_decay)])
        if node.threshold.min() < 1 or shares.min() < 0 or shares.max() > 1:
            found = f"a threshold of {node.threshold.min()}, {shares.min():g}..{shares.max():g} kept"
            yield f"{node.name}: {found}; 1.. and 0..1 are accepted"
        if bits > LEAK_BITS or node.fraction_bits > FRACTION_BITS:
            kept = f"a leak over 2**{bits}, {node.fraction_bits} fraction bits"
            yield f"{node.name}: {kept}; 2**{LEAK_BITS} and {FRACTION_BITS} are accepted"
    if met > LARGEST_INT32:
        yield f"{node.name}: its sums can reach {met}, an int32_t ends at {LARGEST_INT32}"


def _too_far(node: Conv2d | Pool) -> Iterator[str]:
    kernel = node.kernel if isinstance(node, Pool) else node.weight.shape[2:]
    padding, dilation = ((0, 0), ONE) if isinstance(node, Pool) else (node.padding, node.dilation)
    if max(*kernel, *node.stride, *padding) > LARGEST_SIDE or max(dilation) > LARGEST_DILATION:
        met = f"kernel {kernel}, stride {node.stride}, padding {padding}, dilation {dilation}"
        yield f"{node.name}: {met}; up to {LARGEST_SIDE} are accepted, of a dilation {LARGEST_DILATION}"


def pack(graph: Graph) -> bytes:
    """The file of an integer graph of which `refusals` finds nothing."""
    limits = bounds(graph)
    places = {node.name: place for place, node in enumerate(graph)}
    parts = [_int(graph.timesteps), _text(graph.name), _text(graph.origin or graph.digest), _int(len(graph.nodes))]
    for node in graph:
        parts += [_int(CODES[type(node)]), _text(node.name), _int(len(node.inputs))]
        parts += [_int(places[name]) for name in node.inputs]
        shape = graph.shapes[node.name]
        parts += [_int(len(shape)), _shape(shape), _range(limits.values[node.name]), *_own(node, limits)]
    body = b"".join(parts)
    return MAGIC + struct.pack("<IIQ", VERSION, zlib.crc32(body), len(body)) + body


def _own(node: Node, limits: Bounds) -> Iterator[bytes]:
    """What only this kind of node has."""
    if isinstance(node, Input):
        constant = node.constant if isinstance(node, BiasedInput) else np.empty(0, np.int32)
        yield _int(int(node.static)) + _shape(node.sample_shape) + _array(constant, "<i4")
    elif isinstance(node, Linear):
        yield _window(ONE, ONE) + _pair((0, 0)) + _pair(ONE) + _int(1) + _synapses(node)
    elif isinstance(node, Conv2d):
        rows, columns = node.weight.shape[2:]
        yield _window((rows, columns), node.stride) + _pair(node.padding) + _pair(node.dilation)
        yield _int(node.groups) + _synapses(node)
    elif isinstance(node, Pool):
        yield _window(node.kernel, node.stride)
    elif isinstance(node, Attention):
        yield _int(node.heads)
    elif isinstance(node, Neuron):
        numerators, bits = node.leak
        own = node.own if isinstance(node, Relay) else limits.values[node.name][0].size
        yield b"".join(map(_int, (RESETS.index(node.reset), bits, node.fraction_bits, own)))
        yield _int(largest(limits.membranes[node.name])) + _array(numerators, "<i4") + _array(node.threshold, "<i4")
        numerators, bits = node.current_leak
        yield _int(bits) + _array(numerators, "<i4")


def _synapses(node: Linear | Conv2d) -> bytes:
    return _array(node.weight, "<i1") + _array(node.bias, "<i4")


def _int(value: int) -> bytes:
    return struct.pack("<i", value)


def _text(text: str) -> bytes:
    content = text.encode()
    return _int(len(content)) + content


def _array(values: Array, kind: str) -> bytes:
    return _int(values.size) + np.ascontiguousarray(values, dtype=kind).tobytes()


def _pair(values: Pair) -> bytes:
    return struct.pack("<ii", *values)


def _window(kernel: Pair, stride: Pair) -> bytes:
    return _pair(kernel) + _pair(stride)


def _shape(shape: Shape) -> bytes:
    return struct.pack("<iii", *shape, *[1] * (3 - len(shape)))  # features are channels of one place


def _range(interval: Interval) -> bytes:
    return _int(int(interval[0].min())) + _int(int(interval[1].max()))
