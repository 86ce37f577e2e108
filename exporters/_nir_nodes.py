"""The graph in NIR's terms.

NIR is written so that all its readers compute the same, which costs four rewritings, none of which moves a spike:

- Add has no node: its inputs become edges into each node that reads it, and several edges into a node are summed.
- Groups become zeros between the groups: nir 1.0.8 takes `weight.shape[1]` for the number of input channels and refuses
  to read anything else; snnTorch and SpikingJelly have no groups either.
- A kernel that is not square gets rows or columns of zeros: nir 1.0.8 computes the width of the output from the height
  of the kernel, and refuses to read the file if that is wrong.
- Thresholds lie half a step of the membrane's grid higher: no membrane can lie between, and readers that fire at
  `v >= threshold` (SpikingJelly) agree with those that fire at `v > threshold`, which is NIR's equation. Where the
  threshold is subtracted (nir up to 1.0.5) it must be the threshold itself.

SumPool2d stays what it is: snnTorch and SpikingJelly read it by nirtorch's own table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import nir
import numpy as np

from snnkd_deploy.bounds import Bounds, bounds, largest
from snnkd_deploy.ir import (
    Add,
    Array,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Pair,
    Shape,
    Stage,
    SumPool2d,
)
from snnkd_deploy.simulate import over_channels

from ._nir_file import DT, NEW, OLD, metadata

KINDS = (Input, Linear, Conv2d, SumPool2d, Flatten, Add, Neuron, Output)
RESETS = {NEW: "zero", OLD: "subtract"}
EXACT_FLOAT32 = 2**24
"""Integers of smaller magnitude are exact in float32, in which the readers compute."""


class Kernel(NamedTuple):
    """A convolution as NIR can say it: weight `(out, in, side, side)`, one group."""

    weight: Array
    padding: Pair


def nir_graph(graph: Graph, dialect: str) -> Any:
    """The nir.NIRGraph of a graph without `refusals`; nodes keep their names."""
    nodes = {node.name: _node(node, graph) for node in graph if not isinstance(node, Add)}
    return nir.NIRGraph(nodes=nodes, edges=edges(graph), metadata=metadata(graph, dialect))


def edges(graph: Graph) -> list[tuple[str, str]]:
    """From each node to its readers, past the Adds."""
    return [
        (source, node.name)
        for node in graph
        if not isinstance(node, Add)
        for name in node.inputs
        for source in summands(graph, name)
    ]


def summands(graph: Graph, name: str) -> list[str]:
    """The nodes whose sum is the value of `name`: itself, or what its Adds add up."""
    node = graph[name]
    return [one for given in node.inputs for one in summands(graph, given)] if isinstance(node, Add) else [name]


def refusals(graph: Graph, dialect: str = NEW) -> Iterator[str]:
    """Every reason why this graph is not a NIR file."""
    if graph.stage != Stage.LEGAL:
        yield f"{graph.name}: a {graph.stage.name.lower()} network; a legal one is needed"
        return
    unknown = [node for node in graph if not isinstance(node, KINDS)]
    yield from (f"{node.name}: NIR has no {type(node).__name__}" for node in unknown)
    both = len({node.reset for node in graph.of(Neuron) if lasting(node, graph)}) > 1
    other = f"--nir-version {NEW if dialect == OLD else OLD} has the other"
    advice = "this network has both, no version does: use 'zero' throughout" if both else other
    for node in graph:
        yield from _node_refusals(node, graph)
        if isinstance(node, Neuron) and lasting(node, graph) and node.reset != RESETS[dialect]:
            met = f"{node.name}: reset {node.reset!r}; a NIR neuron of {dialect} has reset {RESETS[dialect]!r}"
            yield f"{met} ({advice})"
    if not unknown:
        limits = bounds(graph)
        for node in graph:
            if (reach := largest_sum(node, limits)) >= EXACT_FLOAT32:
                yield f"{node.name}: its sums can reach {reach}; readers' float32 is exact below {EXACT_FLOAT32}"


def largest_sum(node: Node, limits: Bounds) -> int:
    """The largest magnitude that any partial sum can have, in any order; of membranes in steps of their grid."""
    given = [largest(limits.values[name]) for name in node.inputs]
    if isinstance(node, Linear | Conv2d):
        rows = np.abs(node.weight).reshape(len(node.weight), -1).sum(axis=1) * given[0]
        return int((rows + np.abs(node.bias)).max())
    if isinstance(node, Neuron | Output):
        return max(largest(limits.membranes[node.name]), largest(limits.currents[node.name]))
    return sum(given) if isinstance(node, Add) else largest(limits.values[node.name])


def square(node: Conv2d, shape: Shape) -> Kernel | None:
    """The same convolution of a picture `(channels, height, width)` with one group and as many rows as columns.

    Zeros in front of a kernel need as much more padding at both ends, and the number of outputs must stay; None if no
    place for the zeros keeps it.
    """
    weight = _ungrouped(node)
    kernel = weight.shape[2:]
    for side in (max(kernel), max(kernel) + 1):
        fronts = [_front(shape[1 + axis], side, axis, node) for axis in (0, 1)]
        if None not in fronts:
            top, left = (front or 0 for front in fronts)
            below, right = side - kernel[0] - top, side - kernel[1] - left
            padding = node.padding[0] + node.dilation[0] * top, node.padding[1] + node.dilation[1] * left
            return Kernel(np.pad(weight, ((0, 0), (0, 0), (top, below), (left, right))), padding)
    return None


def _front(size: int, side: int, axis: int, node: Conv2d) -> int | None:
    """How many zeros go in front of the kernel along this axis; the rest go behind."""
    missing = side - node.weight.shape[2 + axis]
    stride, dilation = node.stride[axis], node.dilation[axis]
    span = size + 2 * node.padding[axis] - dilation * (node.weight.shape[2 + axis] - 1) - 1
    for front in range(missing + 1):
        if (span + dilation * (2 * front - missing)) // stride == span // stride:
            return front
    return None


def _ungrouped(node: Conv2d) -> Array:
    """Weight `(out, in / groups, ...)` as `(out, in, ...)`, with zeros where groups do not meet."""
    groups, (out, per_group, *kernel) = node.groups, node.weight.shape
    each = np.arange(groups)
    dense = np.zeros((groups, out // groups, groups, per_group, *kernel), dtype=node.weight.dtype)
    dense[each, :, each] = node.weight.reshape(groups, out // groups, per_group, *kernel)
    return dense.reshape(out, groups * per_group, *kernel)


def _node_refusals(node: Node, graph: Graph) -> Iterator[str]:
    if node.name in ("", ".") or "/" in node.name or "\0" in node.name:
        yield f"{node.name!r}: not a name in HDF5; accepted is any other without '/'"
    if isinstance(node, Neuron):
        yield from _leak_refusals(node)
    if isinstance(node, Conv2d) and square(node, graph.shapes[node.inputs[0]]) is None:
        yield (
            f"{node.name}: kernel {node.weight.shape[2:]}; nir takes its height for its width, and no square kernel "
            "computes the same here; use sides that are both odd or both even"
        )
    if isinstance(node, Add):
        return
    sources = [source for name in node.inputs for source in summands(graph, name)]
    for source in sorted({one for one in sources if sources.count(one) > 1}):
        yield (
            f"{node.name}: {source} is added {sources.count(source)} times; NIR has one edge between two nodes, put a "
            "layer into the other path"
        )


def _leak_refusals(node: Neuron) -> Iterator[str]:
    if node.keeps_current and (np.any(np.asarray(node.decay) == 1) or np.any(np.asarray(node.current_decay) == 1)):
        yield f"{node.name}: decay 1 with a current that is kept; a NIR CubaLIF leaks twice, keep both decays below 1"
    elif 0 < np.count_nonzero(np.asarray(node.decay) == 1) < np.size(node.decay):
        yield f"{node.name}: decay 1 beside others; a NIR layer leaks (LIF) or does not (IF), keep all below 1"


def _node(node: Node, graph: Graph) -> Any:
    shape = graph.shapes[node.name]
    if isinstance(node, Input):
        return nir.Input(np.array(shape))
    if isinstance(node, Output):
        return nir.Output(np.array(shape))
    if isinstance(node, Neuron):
        return _neuron(node, shape, lasting(node, graph))
    if isinstance(node, Linear):
        return nir.Affine(weight=_floats(node.weight), bias=_floats(node.bias))
    source = graph.shapes[node.inputs[0]]
    if isinstance(node, Conv2d):
        return _convolution(node, source)
    if isinstance(node, SumPool2d):
        return nir.SumPool2d(kernel_size=np.array(node.kernel), stride=np.array(node.stride), padding=np.array((0, 0)))
    assert isinstance(node, Flatten), f"no NIR for {type(node).__name__}"
    return nir.Flatten(input_type={"input": np.array(source)}, start_dim=0, end_dim=-1)


def _convolution(node: Conv2d, source: Shape) -> Any:
    kernel = square(node, source)
    assert kernel is not None
    return nir.Conv2d(
        input_shape=source[1:],
        weight=_floats(kernel.weight),
        stride=node.stride,
        padding=kernel.padding,
        dilation=node.dilation,
        groups=1,
        bias=_floats(node.bias),
    )


def _neuron(node: Neuron, shape: Shape, lasts: bool) -> Any:
    """tau and r are float64: float32 would not give the decay back. r = tau / dt leaves the input as it is, so w_in."""
    step = 0 if node.reset == "subtract" and lasts else 2.0**-node.fraction_bits
    zeros = np.zeros(shape, dtype=np.float32)
    kept = {"decay_numerator": node.decay_numerator}
    kept |= {"current_numerator": node.current_numerator} if node.keeps_current else {}
    parameters = {
        "v_threshold": _floats(over_channels(node.threshold, len(shape)) + step / 2) + zeros,
        "v_reset": zeros,
        "metadata": {
            **{name: values if values.ndim else int(values) for name, values in kept.items()},
            "decay_bits": node.decay_bits,
            "fraction_bits": node.fraction_bits,
        },
    }
    decay = over_channels(np.asarray(node.decay), len(shape))
    if np.all(decay == 1):
        return nir.IF(r=np.full(shape, 1 / DT), **parameters)
    tau = np.broadcast_to(DT / (1 - decay), shape).copy()
    if node.keeps_current:
        current = over_channels(np.asarray(node.current_decay), len(shape))
        slow = np.broadcast_to(DT / (1 - current), shape).copy()
        return nir.CubaLIF(tau_syn=slow, tau_mem=tau, r=tau / DT, w_in=slow / DT, v_leak=zeros, **parameters)
    return nir.LIF(tau=tau, r=tau / DT, v_leak=zeros, **parameters)


def lasting(node: Neuron, graph: Graph) -> bool:
    """Whether the reset matters: something of the membrane reaches another step."""
    return graph.timesteps > 1 and bool(np.any(node.decay != 0))


def _floats(values: Array) -> Array:
    """Float32: exact, since `refusals` keeps everything below 2**24."""
    return values.astype(np.float32)
