"""The ONNX nodes of a network, node by node.

Edges carry integers in float32, which is exact while every partial sum stays below 2**24; the worst case of each layer
is computed from its weights, and a layer beyond it is written as ConvInteger or MatMulInteger (int32 sums) instead.
Real numbers (a FOLDED graph) go the same way in plain float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from snnkd_deploy.bounds import Bounds, bounds, largest
from snnkd_deploy.errors import LegalityError
from snnkd_deploy.ir import (
    Add,
    Attention,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Output,
    Pool,
    Shape,
    Stage,
    SumPool2d,
)

from . import _onnx_still
from ._onnx_neuron import EXACT_FLOAT32, LARGEST_INT32, Membrane, membrane
from ._onnx_nodes import CODES, Edge, Nodes, Type, derived

FORMS = ("unrolled", "folded", "one-step")
"""One copy of each layer per step; steps folded into the batch for layers without memory; one step with its states."""


@dataclass(frozen=True)
class Left:
    """Names of what one step leaves to the next; empty where it leaves nothing."""

    membrane: str = ""
    current: str = ""
    taken: str = ""
    """What the spikes of a reset a step late take away, a negative number."""


class Writer:
    """Emits the nodes of a LEGAL graph as integers, of a FOLDED one as real numbers; `edges[node]` is its value."""

    def __init__(self, graph: Graph, form: str) -> None:
        self.graph, self.form = graph, form
        self.steps = 1 if form == "one-step" else graph.timesteps
        self.integer = graph.stage >= Stage.INTEGER
        self.limits: Bounds | None = bounds(graph) if self.integer else None
        self.nodes = Nodes()
        self.edges: dict[str, Edge] = {}
        self.states: list[dict[str, Any]] = []
        """Of one step: names of the tensors that go in and come out, and their shape and type."""
        self.absorbed = {node.inputs[0] for node in graph.of(Neuron) if self._absorbs(node)}
        """Sums that are added to the membrane part by part, so that each part may go into the layer it comes from."""
        self.counted = self._counted()
        """Where steps are summed ahead of the readout, a Linear and a Flatten in front of it."""

    def model(self, metadata: dict[str, str]) -> onnx.ModelProto:
        """The whole model. LegalityError lists what int32 and uint8 cannot hold."""
        limits = self.limits
        problems = [problem for node in self.graph for problem in _too_large(node, limits)] if limits else []
        if problems:
            raise LegalityError("onnx: the numbers do not fit int32:", problems)
        for node in self.graph:
            if isinstance(node, Input):
                self._input(node)
            elif isinstance(node, Neuron):
                self._neuron(node)
            elif isinstance(node, Output):
                self._output(node)
            elif node.name not in self.absorbed:
                self._stateless(node)
        return self.nodes.model(self.graph.name, metadata)

    def _input(self, node: Input) -> None:
        leading = ["batch"] if node.static or self.form == "one-step" else [self.graph.timesteps, "batch"]
        self.nodes.entry("input", input_type(node)[0], [*leading, *node.shape])
        value = self.nodes.op("Cast", ["input"], f"{node.name}/value", to=TensorProto.FLOAT)
        if not self.integer:
            value = self.nodes.op("Mul", [value, self.nodes.number(node.scale, "float")], f"{node.name}/scaled")
        if len(leading) == 1:
            self.edges[node.name] = Edge((value,))
            return
        if self.form == "folded":
            shape = self.nodes.constant(np.array((-1, *node.shape)), f"{node.name}/shape")
            whole = self.nodes.op("Reshape", [value, shape], f"{node.name}/folded")
            self.edges[node.name] = Edge((whole,), folded=True)
            return
        steps = [self.nodes.constant(np.array(t, dtype=np.int64), f"step/{t}") for t in range(self.steps)]
        names = (self.nodes.op("Gather", [value, at], f"{value}/{t}", axis=0) for t, at in enumerate(steps))
        self.edges[node.name] = Edge(tuple(names))

    def _stateless(self, node: Node) -> None:
        """A node without memory: once where its inputs stand still or are folded, else once per step."""
        name, given = f"{node.name}/value", [self.edges[one] for one in node.inputs]
        kind: Type = "int32" if self._needs_int32(node, given) else "float"
        if self.form == "folded" and not all(edge.still for edge in given):
            given = [self._folded(one) for one in node.inputs]
        if node.name in self.counted and len(given[0].names) > 1:
            given = [replace(given[0], names=(self.nodes.sum(list(given[0].names), f"{node.inputs[0]}/counts"),))]
        if isinstance(node, Add | Attention):
            given = [self._typed(self._plain(edge), kind) for edge in given]
        elif not isinstance(node, Flatten):
            given = [self._typed(edge, "float") for edge in given]
        steps = max(len(edge.names) for edge in given)
        names = tuple(
            self._value(node, [_at(edge, t) for edge in given], kind, given[0].scale, f"{name}/{t}" if t else name)
            for t in range(steps)
        )
        self.edges[node.name] = Edge(names, kind, self._scale(node, given[0].scale), given[0].folded)

    def _absorbs(self, node: Neuron) -> bool:
        source = self.graph[node.inputs[0]]
        if self.form == "folded" or not isinstance(source, Add) or source.name in self.graph.static:
            return False
        return len(self.graph.consumers(source.name)) == 1

    def _counted(self) -> frozenset[str]:
        """Logits are linear in the spikes, so these can be counted first: one product instead of one per step."""
        readout = self.graph[self.graph.output.inputs[0]]
        if self.form != "unrolled" or not isinstance(readout, Linear) or not self._reads_spikes(readout):
            return frozenset()
        if len(self.graph.consumers(readout.name)) > 1 or self.steps * self._reach(readout.name) >= EXACT_FLOAT32:
            return frozenset()
        source = self.graph[readout.inputs[0]]
        alone = isinstance(source, Flatten) and len(self.graph.consumers(source.name)) == 1
        return frozenset({readout.name, source.name} if alone else {readout.name})

    def _reads_spikes(self, node: Node) -> bool:
        """Whether its input is spikes, or small sums of them."""
        source = self.graph[node.inputs[0]]
        return isinstance(source, Neuron) or (isinstance(source, Flatten | Pool) and self._reads_spikes(source))

    def _value(self, node: Node, given: list[str], kind: Type, scale: int, name: str) -> str:
        """The tensor of one node from those of its inputs."""
        if isinstance(node, Linear | Conv2d):
            weigh = self._synapse if kind == "float" else self._integer_synapse
            return weigh(node, given[0], scale, name)
        if isinstance(node, Flatten):
            return self.nodes.op("Flatten", given, name, axis=1)
        if isinstance(node, Add):
            return self.nodes.sum(given, name)
        if isinstance(node, Attention):
            return self._attention(node, given, kind, name)
        assert isinstance(node, Pool), f"no ONNX for {type(node).__name__}"
        window = {"kernel_shape": node.kernel, "strides": node.stride}
        if isinstance(node, MaxPool2d):
            return self.nodes.op("MaxPool", given, name, **window)
        if not isinstance(node, SumPool2d) or _exact_mean(node):
            return self.nodes.op("AveragePool", given, name, **window)
        channels = self.graph.shapes[node.name][0]
        ones = self.nodes.constant(np.ones((channels, 1, *node.kernel), dtype=np.float32), f"{node.name}/ones")
        return self.nodes.op("Conv", [*given, ones], name, group=channels, **window)

    def _scale(self, node: Node, scale: int) -> int:
        """What is left for the next weights to take up; a mean over 2**k values is exact in float32, and faster."""
        if isinstance(node, Linear | Conv2d):
            return 1
        return scale * node.kernel[0] * node.kernel[1] if isinstance(node, SumPool2d) and _exact_mean(node) else scale

    def _needs_int32(self, node: Node, given: list[Edge]) -> bool:
        """Whether float32 might not hold a partial sum, or an input already comes as int32."""
        if self.limits is None or isinstance(node, Pool):
            return False
        return any(edge.type == "int32" for edge in given) or self._reach(node.name) >= EXACT_FLOAT32

    def _reach(self, name: str) -> int:
        """What no partial sum of a value exceeds; of real numbers 0."""
        if self.limits is None:
            return 0
        node = self.graph[name]
        if isinstance(node, Add):
            return sum(self._reach(one) for one in node.inputs)
        biases = np.abs(node.bias).max() if isinstance(node, Linear | Conv2d) else 0
        return largest(self.limits.values[name]) + 2 * int(biases)

    def _folded(self, name: str) -> Edge:
        """All steps of a value as one tensor."""
        edge = self.edges[name]
        if edge.folded:
            return edge
        names = edge.names * self.steps if edge.still else edge.names
        whole = self.nodes.once("Concat", names, f"{name}/folded", axis=0)
        return Edge((whole,), edge.type, edge.scale, folded=True)

    def _unfolded(self, name: str) -> Edge:
        """A value with one tensor per step, or one that stands still; taken apart once, for all readers."""
        edge = self.edges[name]
        if edge.folded:
            names = [f"{edge.names[0]}/{t}" for t in range(self.steps)]
            parts = self.nodes.ops("Split", edge.names, names, axis=0) if self.steps > 1 else edge.names
            self.edges[name] = edge = Edge(tuple(parts), edge.type, edge.scale)
        return edge

    def _plain(self, edge: Edge) -> Edge:
        """The same value with nothing left to scale."""
        if edge.scale == 1:
            return edge
        factor = self.nodes.number(float(edge.scale), "float")
        return edge.each(lambda one: self.nodes.once("Mul", [one, factor], derived(one, "sum")), scale=1)

    def _typed(self, edge: Edge, kind: Type) -> Edge:
        return edge if edge.type == kind else edge.each(lambda one: self.nodes.cast(one, kind), type=kind)

    def _synapse(self, node: Linear | Conv2d, x: str, scale: int, name: str) -> str:
        weight, bias = self._weights(node, scale)
        if isinstance(node, Linear):
            return self.nodes.op("Gemm", [x, weight, bias], name, transB=1)
        return self.nodes.op("Conv", [x, weight, bias], name, **_window(node))

    def _weights(self, node: Linear | Conv2d, scale: int) -> tuple[str, str]:
        """The names of weight and bias as float32; what is stored of an integer network is int8 and int32."""
        at, biases = f"{node.name}/weight", node.bias * (self.steps if node.name in self.counted else 1)
        if not self.integer:
            bias = self.nodes.constant(biases.astype(np.float32), f"{node.name}/bias")
            return self.nodes.constant(node.weight.astype(np.float32), at), bias
        stored = self.nodes.constant(node.weight.astype(np.int8), at)
        weight = self.nodes.once("Cast", [stored], f"{at}/float", to=CODES["float"])
        if scale > 1:
            weight = self.nodes.once("Mul", [weight, self.nodes.number(float(scale), "float")], f"{at}/scaled")
        bias = self.nodes.constant(biases.astype(np.int32), f"{node.name}/bias")
        return weight, self.nodes.once("Cast", [bias], f"{node.name}/bias/float", to=CODES["float"])

    def _integer_synapse(self, node: Linear | Conv2d, x: str, scale: int, name: str) -> str:
        """Both factors as uint8 around a zero point, which onnxruntime has had longest."""
        assert self.limits is not None
        x = self._plain(Edge((x,), scale=scale)).names[0]
        signed = self.limits.values[node.inputs[0]][0].min() < 0
        if signed:
            x = self.nodes.op("Add", [x, self.nodes.number(128.0, "float")], f"{name}/shifted")
        codes = self.nodes.op("Cast", [x], f"{name}/codes", to=TensorProto.UINT8)
        points = (128 if signed else 0, 128)
        zeros = [self.nodes.constant(np.array(n, dtype=np.uint8), f"zero_point/{n}") for n in points]
        weight = node.weight.T if isinstance(node, Linear) else node.weight
        stored = self.nodes.constant((weight + 128).astype(np.uint8), f"{node.name}/weight")
        kind = "MatMulInteger" if isinstance(node, Linear) else "ConvInteger"
        window = {} if isinstance(node, Linear) else _window(node)
        sums = self.nodes.op(kind, [codes, stored, *zeros], f"{name}/sums", **window)
        shape = (1, -1) if isinstance(node, Linear) else (1, -1, 1, 1)
        bias = self.nodes.constant(node.bias.astype(np.int32).reshape(shape), f"{node.name}/bias")
        return self.nodes.op("Add", [sums, bias], name)

    def _attention(self, node: Attention, given: list[str], kind: Type, name: str) -> str:
        """scale * (v k^T) q of matrices (channels of a head, tokens); of integers the scale is 1."""
        channels, height, width = self.graph.shapes[node.name]
        form = np.array([0, node.heads, channels // node.heads, height * width])
        split = self.nodes.constant(form, f"{node.name}/by_heads")
        query, key, value = (
            self.nodes.op("Reshape", [one, split], f"{name}/{part}") for part, one in zip("qkv", given, strict=True)
        )
        turned = self.nodes.op("Transpose", [key], f"{name}/k/turned", perm=[0, 1, 3, 2])
        pairs = self.nodes.op("MatMul", [value, turned], f"{name}/vk")
        mixed = self.nodes.op("MatMul", [pairs, query], f"{name}/vkq")
        if node.scale != 1:
            mixed = self.nodes.op("Mul", [mixed, self.nodes.number(node.scale, kind)], f"{name}/weighed")
        whole = self.nodes.constant(np.array([0, channels, height, width]), f"{node.name}/whole")
        return self.nodes.op("Reshape", [mixed, whole], name)

    def _neuron(self, node: Neuron) -> None:
        sources = self.graph[node.inputs[0]].inputs if node.inputs[0] in self.absorbed else node.inputs
        parts = [self._plain(self._unfolded(one)) for one in sorted(sources, key=self._last_of_a_sum)]
        kind: Type = "int32" if any(part.type == "int32" for part in parts) else "float"
        reach = sum(self._reach(one) for one in sources)
        steps = None if self.form == "one-step" else self.steps
        held = membrane(self.nodes, node, self.graph.shapes[node.name], self.limits, kind, reach, steps)
        parts = [self._typed(part, held.type) for part in parts]
        if len(parts) == 1 and parts[0].still and _onnx_still.applies(held, self.steps):
            self.edges[node.name] = Edge(tuple(_onnx_still.spikes(held, parts[0].names[0], self.steps)))
        elif steps is None:
            self._one_step(held, parts)
        else:
            self._unrolled(held, parts)

    def _last_of_a_sum(self, name: str) -> bool:
        """Whether a value can take up the sum of what comes before it: it comes out of a convolution."""
        return isinstance(self.graph[name], Conv2d)

    def _unrolled(self, held: Membrane, parts: list[Edge]) -> None:
        """Every step of the network; nothing is made of the last one but its spikes."""
        node, left, spikes = held.node, Left(), list[str]()
        for step in range(self.steps):
            at = f"{node.name}/{step}"
            v, current = self._membrane(held, parts, step, left, f"{at}/current")
            spikes.append(held.fire(v, at, f"spikes/{at}"))
            if step + 1 < self.steps:
                left = _left(held, Left(v, current), spikes[-1], at, Left(f"{at}/reset", taken=f"{at}/taken"))
        self.edges[node.name] = Edge(tuple(spikes))

    def _one_step(self, held: Membrane, parts: list[Edge]) -> None:
        """The step after any other."""
        node, name, kind, shape = held.node, held.node.name, held.type, held.shape
        after = Left(f"next/{name}", f"next/{name}/current", f"next/{name}/taken")
        late = node.reset == "subtract_late"
        left = Left(
            self._state(f"state/{name}", after.membrane, kind, shape) if held.lasting else "",
            self._state(f"current/{name}", after.current, kind, shape) if node.keeps_current else "",
            self._state(f"taken/{name}", after.taken, kind, shape) if late else "",
        )
        v, current = self._membrane(held, parts, 0, left, after.current)
        spikes = held.fire(v, f"{name}/0", f"spikes/{name}")
        _left(held, Left(v, current), spikes, f"{name}/0", after)
        self.nodes.result(spikes, CODES["float"], ["batch", *shape])
        self.edges[name] = Edge((spikes,))

    def _membrane(self, held: Membrane, parts: list[Edge], step: int, left: Left, name: str) -> tuple[str, str]:
        """v, and the current if it is kept, which is then called `name`: what the last step left, and the parts."""
        at, terms = f"{held.node.name}/{step}", [held.current(_at(part, step)) for part in parts]
        if held.node.keeps_current:
            flowing = left.current and held.leak(left.current, f"{at}/flowing", "current_decay")
            terms = [self.nodes.sum([flowing, *terms], name)]
        kept = left.membrane and held.leak(left.membrane, at)
        return self.nodes.sum([kept, left.taken, *terms], f"{at}/membrane"), terms[0]

    def _state(self, entry: str, result: str, kind: Type, shape: Shape) -> str:
        """An input that holds what the last step left, and the output that the next step is given for it."""
        dtype = "float32" if kind == "float" else kind
        self.states.append({"input": entry, "output": result, "shape": list(shape), "type": dtype})
        self.nodes.result(result, CODES[kind], ["batch", *shape])
        return self.nodes.entry(entry, CODES[kind], ["batch", *shape])

    def _output(self, node: Output) -> None:
        kind: Type = "int32" if self.integer else "float"
        shape, edge = self.graph.shapes[node.name], self._plain(self._unfolded(node.inputs[0]))
        if self.form == "one-step":
            last = self._typed(edge, kind).names[0]
            self.nodes.op("Add", [self._state("logits/before", "logits", kind, shape), last], "logits")
            return
        self.nodes.result("logits", CODES[kind], ["batch", *shape])
        edge = edge if self.counted else self._typed(edge, kind)
        edges = edge.names * self.steps if edge.still and not self.counted else edge.names
        if not self.integer:
            total = self.nodes.sum(list(edges), "sum") if len(edges) > 1 else edges[0]
            self.nodes.op("Mul", [total, self.nodes.number(1 / self.steps, "float")], "logits")
        elif len(edges) > 1:
            self.nodes.sum(list(edges), "logits")
        else:
            self.nodes.op("Cast", edges, "logits", to=CODES[kind])


def _left(held: Membrane, now: Left, spikes: str, at: str, names: Left) -> Left:
    """What a step leaves to the next, under these names."""
    return Left(
        held.reset(now.membrane, spikes, at, names.membrane) if held.lasting else "",
        now.current if held.node.keeps_current else "",
        held.taken(spikes, at, names.taken) if held.node.reset == "subtract_late" else "",
    )


def input_type(node: Input) -> tuple[int, str]:
    """The narrowest type that holds the samples, as ONNX and as numpy call it."""
    if node.low >= 0 and node.high <= 255:
        return TensorProto.UINT8, "uint8"
    if node.low >= -128 and node.high <= 127:
        return TensorProto.INT8, "int8"
    return TensorProto.INT32, "int32"


def _at(edge: Edge, step: int) -> str:
    return edge.names[step if len(edge.names) > 1 else 0]


def _exact_mean(node: Pool) -> bool:
    """Whether the window holds 2**k values, so that their mean times that number is their sum."""
    return (node.kernel[0] * node.kernel[1]).bit_count() == 1


def _too_large(node: Node, limits: Bounds) -> list[str]:
    problems = []
    for name, reached in (("membrane", limits.membranes), ("current", limits.currents)):
        if isinstance(node, Neuron | Output) and largest(reached[node.name]) > LARGEST_INT32:
            problems.append(f"{node.name}: its {name} can reach {largest(reached[node.name])}")
    if isinstance(node, Linear | Conv2d):
        if np.abs(node.weight).max() > 127:
            problems.append(f"{node.name}: weight {np.abs(node.weight).max()} is beyond int8")
        low, high = limits.values[node.inputs[0]]
        codes = (0, 255) if low.min() >= 0 else (-128, 127)
        beyond = low.min() < codes[0] or high.max() > codes[1]
        if beyond and largest(limits.values[node.name]) >= EXACT_FLOAT32:
            problems.append(
                f"{node.name}: its input {low.min()}..{high.max()} is beyond 8 bits and its sums beyond 2**24"
            )
    if isinstance(node, Attention) and largest(limits.values[node.name]) > LARGEST_INT32:
        problems.append(f"{node.name}: its counts can reach {largest(limits.values[node.name])}")
    if isinstance(node, SumPool2d | MaxPool2d) and largest(limits.values[node.name]) >= EXACT_FLOAT32:
        problems.append(f"{node.name}: its sums can reach {largest(limits.values[node.name])}, beyond float32")
    return problems


def _window(node: Conv2d) -> dict[str, Any]:
    return {
        "kernel_shape": node.weight.shape[2:],
        "strides": node.stride,
        "pads": (*node.padding, *node.padding),
        "dilations": node.dilation,
        "group": node.groups,
    }
