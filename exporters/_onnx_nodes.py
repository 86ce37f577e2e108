"""ONNX nodes and constants as they are collected, and how a value goes from layer to layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from snnkd_deploy.ir import Array

OPSET, IR_VERSION = 10, 5
"""The oldest with ConvInteger and MatMulInteger, and its file format (ONNX 1.5, 2019); all else is older still."""
Type = Literal["float", "int32"]
CODES = {"float": TensorProto.FLOAT, "int32": TensorProto.INT32}


@dataclass(frozen=True)
class Edge:
    """The value of a node: one tensor `(batch, ...)` per step, or one alone where it is the same at each step."""

    names: tuple[str, ...]
    type: Type = "float"
    scale: int = 1
    """The value is the tensor times this power of two, which the next weights take up."""
    folded: bool = False
    """One tensor `(timesteps * batch, ...)`, the first step in front."""

    @property
    def still(self) -> bool:
        """Whether it is the same at each step."""
        return len(self.names) == 1 and not self.folded

    def each(self, change: Callable[[str], str], **fields: Any) -> Edge:
        """The edge whose tensors are those of this one, changed."""
        return replace(self, names=tuple(map(change, self.names)), **fields)


def derived(edge: str, what: str) -> str:
    """The name of what is made from a tensor; names that begin with spikes/ are left to spikes."""
    return f"{edge.removeprefix('spikes/')}/{what}"


class Nodes:
    """What a model is made of; the name of a node is the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.made: set[str] = set()

    def op(self, kind: str, inputs: Iterable[str], name: str, **attributes: Any) -> str:
        """A node with one output."""
        return self.ops(kind, inputs, [name], **attributes)[0]

    def ops(self, kind: str, inputs: Iterable[str], names: list[str], **attributes: Any) -> list[str]:
        """A node with several outputs."""
        self.nodes.append(helper.make_node(kind, list(inputs), names, names[0], **attributes))
        self.made.update(names)
        return names

    def once(self, kind: str, inputs: Iterable[str], name: str, **attributes: Any) -> str:
        """A node that several readers share."""
        return name if name in self.made else self.op(kind, inputs, name, **attributes)

    def cast(self, edge: str, to: Type) -> str:
        """`edge` as another type."""
        return self.once("Cast", [edge], derived(edge, to), to=CODES[to])

    def constant(self, values: Array, name: str) -> str:
        """A stored tensor."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.array(values, order="C"), name)
        return name

    def number(self, value: float, kind: Type) -> str:
        """A stored scalar, shared by all that read it."""
        return self.constant(np.array(value, dtype="float32" if kind == "float" else "int32"), f"{kind}/{value!r}")

    def sum(self, edges: list[str], name: str) -> str:
        """The sum of tensors, of which some may be missing; a convolution takes up the sum of those before it."""
        total, *others = [edge for edge in edges if edge]
        for index, edge in enumerate(others, start=2):
            total = self.op("Add", [edge, total], name if index > len(others) else f"{name}/{index}")
        return total

    def entry(self, name: str, kind: int, shape: Iterable[str | int]) -> str:
        """An input of the model."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def result(self, name: str, kind: int, shape: Iterable[str | int]) -> None:
        """An output of the model."""
        self.outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))

    def model(self, name: str, metadata: dict[str, str]) -> onnx.ModelProto:
        """All of it."""
        body = helper.make_graph(self.nodes, name, self.inputs, self.outputs, list(self.constants.values()))
        model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="snnkd-deploy")
        model.ir_version = IR_VERSION
        helper.set_model_props(model, metadata)
        return model
