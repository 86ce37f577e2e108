"""ONNX with integer weights: int8 tensors, int32 membranes, the steps unrolled, any batch size, no custom operator.

Edges carry integers in float32, which is exact while every partial sum stays below 2**24; the worst case of each layer
is computed from its weights, and a layer beyond it is written as ConvInteger or MatMulInteger (int32 sums) instead. The
membrane is int32 in units of `2**-fraction_bits` weight units, its leak an integer division, which ONNX truncates
toward zero. `logits` is the int32 sum over the steps.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from snnkd_deploy.bounds import Bounds, bounds, largest
from snnkd_deploy.errors import BundleError, LegalityError
from snnkd_deploy.ir import (
    Add,
    Array,
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
    SumPool2d,
)
from snnkd_deploy.proof import Proof
from snnkd_deploy.simulate import Record
from snnkd_deploy.target import Target

suffix = ".onnx"
EXAMPLE = Path(__file__).with_name("_run_onnx.py")
"""Goes beside the file: how to run it without this package."""
OPSET, IR_VERSION = 17, 8
EXACT_FLOAT32 = 2**24
LARGEST_INT32 = 2**31 - 1
BATCH = 64
Type = Literal["float", "int32"]


def write(graph: Graph, target: Target, path: Path) -> dict[str, Any]:
    """Write a LEGAL graph. LegalityError lists what int32 and uint8 cannot hold."""
    model = _Writer(graph).model()
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    shutil.copyfile(EXAMPLE, path.with_name("run_onnx.py"))
    source = graph.input
    return {
        "opset": OPSET,
        "input": {"name": "input", "type": _input_type(source)[1], "axes": _axes(source)},
        "output": {"name": "logits", "type": "int32", "axes": ["batch", "class"], "meaning": "sum over timesteps"},
        "spikes": "spikes/LAYER/STEP, float32 0 or 1, inside the graph",
    }


def run(path: Path, inputs: Array, loader: Mapping[str, Any]) -> Record:
    """Run the file in onnxruntime; the spikes inside are made outputs of the loaded copy, the file stays as it is."""
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and onnx raise many kinds for a damaged file
        raise BundleError(f"{path} is not an ONNX file: {error}") from error
    names = [name for node in model.graph.node for name in node.output if name.startswith("spikes/")]
    for name in names:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    axis = 0 if loader["input"]["axes"][0] == "batch" else 1
    typed = inputs.astype(helper.tensor_dtype_to_np_dtype(getattr(TensorProto, loader["input"]["type"].upper())))
    parts = np.array_split(typed, range(BATCH, typed.shape[axis], BATCH), axis=axis)
    results = [session.run(["logits", *names], {entry.name: part}) for part in parts]
    logits, *spikes = (np.concatenate(column) for column in zip(*results, strict=True))
    layers: dict[str, list[Array]] = {}
    for name, values in zip(names, spikes, strict=True):
        layers.setdefault(name.split("/")[1], []).append(values.astype(np.uint8))
    return Record({layer: np.stack(steps) for layer, steps in layers.items()}, logits.astype(np.int64))


proofs = (Proof("onnxruntime", run, samples=1000),)


class _Writer:
    """Emits the ONNX nodes of a graph; `edges[node]` names its tensor at each step (one name if it is static)."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.limits: Bounds = bounds(graph)
        self.nodes: list[onnx.NodeProto] = []
        self.made: set[str] = set()
        self.constants: dict[str, onnx.TensorProto] = {}
        self.edges: dict[str, list[str]] = {}
        self.types: dict[str, Type] = {}

    def model(self) -> onnx.ModelProto:
        problems = [problem for node in self.graph for problem in _too_large(node, self.limits)]
        if problems:
            raise LegalityError("onnx: the numbers do not fit int32:", problems)
        for node in self.graph:
            self._emit(node)
        source, classes = self.graph.input, self.graph.shapes[self.graph.output.name][0]
        leading = ["batch"] if source.static else [self.graph.timesteps, "batch"]
        entry = helper.make_tensor_value_info("input", _input_type(source)[0], [*leading, *source.shape])
        logits = helper.make_tensor_value_info("logits", TensorProto.INT32, ["batch", classes])
        body = helper.make_graph(self.nodes, self.graph.name, [entry], [logits], list(self.constants.values()))
        model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="snnkd-deploy")
        model.ir_version = IR_VERSION
        helper.set_model_props(model, _metadata(self.graph))
        return model

    def op(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        self.made.add(name)
        return name

    def constant(self, values: Array, name: str) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.array(values, order="C"), name)
        return name

    def _emit(self, node: Node) -> None:
        if isinstance(node, Input):
            self._input(node)
        elif isinstance(node, Neuron):
            self._neuron(node)
        elif isinstance(node, Output):
            self._output(node)
        else:
            steps = max(len(self.edges[name]) for name in node.inputs)
            self.types[node.name] = "int32" if self._needs_int32(node) else "float"
            self.edges[node.name] = [self._stateless(node, step, steps) for step in range(steps)]

    def _needs_int32(self, node: Node) -> bool:
        """Whether float32 might not hold a partial sum, or an input already comes as int32."""
        if any(self.types[name] == "int32" for name in node.inputs):
            return True
        biases = np.abs(node.bias).max() if isinstance(node, Linear | Conv2d) else 0
        return largest(self.limits.values[node.name]) + 2 * int(biases) >= EXACT_FLOAT32

    def _input(self, node: Input) -> None:
        whole = self.op("Cast", ["input"], f"{node.name}/value", to=TensorProto.FLOAT)
        if node.static:
            self.edges[node.name] = [whole]
        else:
            steps = [self.constant(np.array(t, dtype=np.int64), f"step/{t}") for t in range(self.graph.timesteps)]
            self.edges[node.name] = [
                self.op("Gather", [whole, step], f"{node.name}/value/{t}", axis=0) for t, step in enumerate(steps)
            ]
        self.types[node.name] = "float"

    def _stateless(self, node: Node, step: int, steps: int) -> str:
        name = f"{node.name}/value" + (f"/{step}" if steps > 1 else "")
        arguments = [self._at(one, step) for one in node.inputs]
        if isinstance(node, Linear | Conv2d):
            exact = self.types[node.name] == "float"
            return self._synapse(node, arguments[0], name) if exact else self._integer_synapse(node, arguments[0], name)
        if isinstance(node, Flatten):
            return self.op("Flatten", arguments, name, axis=1)
        if isinstance(node, Add):
            return self._sum([self._cast(one, self.types[node.name], node, i) for i, one in enumerate(arguments)], name)
        if isinstance(node, Attention):
            return self._attention(node, arguments, name)
        assert isinstance(node, Pool), f"no ONNX for {type(node).__name__}"
        window = {"kernel_shape": node.kernel, "strides": node.stride}
        return (
            self.op("MaxPool", arguments, name, **window)
            if isinstance(node, MaxPool2d)
            else self._sum_pool(node, arguments[0], name)
        )

    def _at(self, name: str, step: int) -> str:
        edges = self.edges[name]
        return edges[step if len(edges) > 1 else 0]

    def _cast(self, edge: str, to: Type, node: Node, index: int) -> str:
        """`edge` as `to`, if the edges into `node` have different types."""
        if to == "float" or self.types[node.inputs[index]] == "int32":
            return edge
        return self._cast_int32(edge)

    def _cast_int32(self, edge: str) -> str:
        name = f"{edge.removeprefix('spikes/')}/int32"
        if name not in self.made:
            self.op("Cast", [edge], name, to=TensorProto.INT32)
        return name

    def _sum(self, edges: list[str], name: str) -> str:
        total = edges[0]
        for index, edge in enumerate(edges[1:], start=2):
            total = self.op("Add", [total, edge], name if index == len(edges) else f"{name}/{index}")
        return total

    def _weights(self, node: Linear | Conv2d) -> tuple[str, str]:
        """The names of weight and bias as float32; what is stored is int8 and int32."""
        wide = f"{node.name}/weight/float"
        if wide not in self.made:
            weight = self.constant(node.weight.astype(np.int8), f"{node.name}/weight")
            bias = self.constant(node.bias.astype(np.int32), f"{node.name}/bias")
            self.op("Cast", [weight], wide, to=TensorProto.FLOAT)
            self.op("Cast", [bias], f"{node.name}/bias/float", to=TensorProto.FLOAT)
        return wide, f"{node.name}/bias/float"

    def _synapse(self, node: Linear | Conv2d, x: str, name: str) -> str:
        weight, bias = self._weights(node)
        if isinstance(node, Linear):
            return self.op("Gemm", [x, weight, bias], name, transB=1)
        return self.op("Conv", [x, weight, bias], name, **_window(node))

    def _integer_synapse(self, node: Linear | Conv2d, x: str, name: str) -> str:
        """Both factors as uint8 around a zero point, which onnxruntime has had longest."""
        low, _ = self.limits.values[node.inputs[0]]
        signed = low.min() < 0
        if signed:
            x = self.op("Add", [x, self.constant(np.array(128, dtype=np.float32), "offset")], f"{name}/shifted")
        codes = self.op("Cast", [x], f"{name}/codes", to=TensorProto.UINT8)
        zeros = [self.constant(np.array(n, dtype=np.uint8), f"zero_point/{n}") for n in (128 if signed else 0, 128)]
        weight = node.weight.T if isinstance(node, Linear) else node.weight
        stored = self.constant((weight + 128).astype(np.uint8), f"{node.name}/weight")
        sums = (
            self.op("MatMulInteger", [codes, stored, *zeros], f"{name}/sums")
            if isinstance(node, Linear)
            else self.op("ConvInteger", [codes, stored, *zeros], f"{name}/sums", **_window(node))
        )
        shape = (1, -1, 1, 1) if isinstance(node, Conv2d) else (1, -1)
        bias = self.constant(node.bias.astype(np.int32).reshape(shape), f"{node.name}/bias")
        return self.op("Add", [sums, bias], name)

    def _attention(self, node: Attention, arguments: list[str], name: str) -> str:
        """(v k^T) q of matrices (channels of a head, tokens); in int32 where float32 might not hold a count."""
        channels, height, width = self.graph.shapes[node.name]
        form = np.array([0, node.heads, channels // node.heads, height * width])
        split = self.constant(form, f"{node.name}/by_heads")
        matrices = []
        for part, edge in zip("qkv", arguments, strict=True):
            exact = edge if self.types[node.name] == "float" else self._cast_int32(edge)
            matrices.append(self.op("Reshape", [exact, split], f"{name}/{part}"))
        query, key, value = matrices
        turned = self.op("Transpose", [key], f"{name}/k/turned", perm=[0, 1, 3, 2])
        pairs = self.op("MatMul", [value, turned], f"{name}/vk")
        mixed = self.op("MatMul", [pairs, query], f"{name}/vkq")
        whole = self.constant(np.array([0, channels, height, width]), f"{node.name}/whole")
        return self.op("Reshape", [mixed, whole], name)

    def _sum_pool(self, node: Pool, x: str, name: str) -> str:
        """A mean over 2**k values times 2**k is exact in float32; other windows are a convolution with ones."""
        area = node.kernel[0] * node.kernel[1]
        if area & (area - 1):
            channels = self.graph.shapes[node.name][0]
            ones = self.constant(np.ones((channels, 1, *node.kernel), dtype=np.float32), f"{node.name}/ones")
            return self.op("Conv", [x, ones], name, group=channels, kernel_shape=node.kernel, strides=node.stride)
        mean = self.op("AveragePool", [x], f"{name}/mean", kernel_shape=node.kernel, strides=node.stride)
        return self.op("Mul", [mean, self.constant(np.array(area, dtype=np.float32), f"{node.name}/area")], name)

    def _neuron(self, node: Neuron) -> None:
        unit = 1 if node.decay == 1 else 2**node.fraction_bits
        ranks = len(self.graph.shapes[node.name])
        threshold = (node.threshold * unit).astype(np.int32)
        threshold = threshold.reshape(1, -1, *[1] * (ranks - 1)) if threshold.ndim else threshold
        limit = self.constant(threshold, f"{node.name}/threshold")
        membrane, self.edges[node.name], self.types[node.name] = "", [], "float"
        for step in range(self.graph.timesteps):
            at = f"{node.name}/{step}"
            membrane = self._integrate(node, membrane, self._current(node, step, unit), at)
            fires = self.op("Greater", [membrane, limit], f"{at}/fires")
            self.edges[node.name].append(self.op("Cast", [fires], f"spikes/{at}", to=TensorProto.FLOAT))
            if step + 1 < self.graph.timesteps:
                membrane = self._reset(node, membrane, fires, limit, at)

    def _current(self, node: Neuron, step: int, unit: int) -> str:
        edge = self._at(node.inputs[0], step)
        current = edge if self.types[node.inputs[0]] == "int32" else self._cast_int32(edge)
        if unit == 1:
            return current
        name = f"{current}/fine"
        if name not in self.made:
            self.op("Mul", [current, self.constant(np.array(unit, dtype=np.int32), f"unit/{unit}")], name)
        return name

    def _integrate(self, node: Neuron, membrane: str, current: str, at: str) -> str:
        if not membrane or node.decay_numerator == 0:
            return current
        return self.op("Add", [self._leak(node, membrane, at), current], f"{at}/membrane")

    def _leak(self, node: Neuron, membrane: str, at: str) -> str:
        """trunc(v * numerator / denominator) without leaving int32.

        Where the product might, v is split at the denominator: v = high * d + low with both of v's sign, so that
        trunc(v * n / d) = high * n + trunc(low * n / d).
        """
        part = Fraction(node.decay_numerator, 2**node.decay_bits)
        if part == 1:
            return membrane
        above, below = (
            self.constant(np.array(n, dtype=np.int32), f"integer/{n}") for n in (part.numerator, part.denominator)
        )
        if largest(self.limits.membranes[node.name]) * part.numerator <= LARGEST_INT32:
            grown = membrane if part.numerator == 1 else self.op("Mul", [membrane, above], f"{at}/grown")
            return self.op("Div", [grown, below], f"{at}/leaked")
        high = self.op("Div", [membrane, below], f"{at}/high")
        whole = self.op("Mul", [high, below], f"{at}/whole")
        low = self.op("Sub", [membrane, whole], f"{at}/low")
        fine = self.op("Div", [self.op("Mul", [low, above], f"{at}/low/grown"), below], f"{at}/low/leaked")
        return self.op("Add", [self.op("Mul", [high, above], f"{at}/high/grown"), fine], f"{at}/leaked")

    def _reset(self, node: Neuron, membrane: str, fires: str, limit: str, at: str) -> str:
        """By multiplication: Where is slow in onnxruntime's CPU provider."""
        if node.reset == "zero":
            quiet = self.op("Cast", [self.op("Not", [fires], f"{at}/quiet")], f"{at}/keep", to=TensorProto.INT32)
            return self.op("Mul", [membrane, quiet], f"{at}/reset")
        fired = self.op("Cast", [fires], f"{at}/fired", to=TensorProto.INT32)
        return self.op("Sub", [membrane, self.op("Mul", [fired, limit], f"{at}/taken")], f"{at}/reset")

    def _output(self, node: Output) -> None:
        edges = self.edges[node.inputs[0]]
        edges = edges if len(edges) > 1 else edges * self.graph.timesteps
        if self.types[node.inputs[0]] == "float":
            edges = [self._cast_int32(edge) for edge in edges]
        total = self._sum(edges, "logits") if len(edges) > 1 else edges[0]
        if total != "logits":
            self.op("Identity", [total], "logits")


def _too_large(node: Node, limits: Bounds) -> list[str]:
    problems = []
    if isinstance(node, Neuron | Output) and largest(limits.membranes[node.name]) > LARGEST_INT32:
        problems.append(f"{node.name}: its membrane can reach {largest(limits.membranes[node.name])}")
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


def _input_type(node: Input) -> tuple[int, str]:
    if node.low >= 0 and node.high <= 255:
        return TensorProto.UINT8, "uint8"
    if node.low >= -128 and node.high <= 127:
        return TensorProto.INT8, "int8"
    return TensorProto.INT32, "int32"


def _axes(node: Input) -> list[str]:
    sample = ["channel", "height", "width"] if len(node.shape) == 3 else ["feature"]
    return ["batch", *sample] if node.static else ["timestep", "batch", *sample]


def _metadata(graph: Graph) -> dict[str, str]:
    return {
        "snnkd_deploy.format": "1",
        "snnkd_deploy.timesteps": str(graph.timesteps),
        "snnkd_deploy.input_scale": repr(graph.input.scale),
        "snnkd_deploy.input_coding": "the same picture at each step" if graph.input.static else "one frame per step",
        "snnkd_deploy.logit_unit": repr(graph.output.unit),
        "snnkd_deploy.reset": ",".join(sorted({node.reset for node in graph.of(Neuron)})),
        "snnkd_deploy.digest": graph.origin or graph.digest,
    }
