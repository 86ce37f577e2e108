"""The door from torch to the graph: torch.fx walks, known modules become nodes, the rest is refused by name."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from snnkd_deploy.data import DataSet
from snnkd_deploy.errors import TraceError
from snnkd_deploy.ir import (
    Add,
    Attention,
    BatchNorm,
    Flatten,
    Graph,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Relu,
    Shape,
    output_shape,
)
from snnkd_deploy.snn import layers, transformer
from snnkd_deploy.torch_layers import CONVERTERS, array, convolution
from snnkd_deploy.torch_layers import Refusal as Refusal  # for those who trace


def student_source(data: DataSet) -> Input:
    """What a student sees of a sample: a still picture, or one frame for each step."""
    shape = data.input_shape[-3:]
    if data.encoding:
        return Input(name="input", shape=shape, scale=1.0, low=0, high=1, static=False)
    return Input(name="input", shape=shape, scale=data.scale, low=0, high=data.high, static=not data.frames)


def teacher_source(data: DataSet) -> Input:
    """What its teacher sees: the same picture, also where the student sees it encoded, or the mean of the frames.

    The integers of the mean are the sum of the frames.
    """
    steps = data.input_shape[0] if data.frames and not data.encoding else 1
    scale, high = data.scale / steps, data.high * steps
    return Input(name="input", shape=data.input_shape[-3:], scale=scale, low=0, high=high, static=True)


def trace(model: nn.Module, source: Input, name: str = "network") -> Graph:
    """The graph of `model` in evaluation, fed by `source`. TraceError lists every operation that has no node.

    Known are torch's Linear, convolutions, BatchNorms, average and max pools of every rank, Flatten, ReLU, Dropout and
    Identity, additions, the modules of `snn.layers` and `snn.transformer.Attention`. The mean over time must come last.
    """
    try:
        traced = _Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError) as error:
        raise TraceError(f"{name} cannot be traced:", [f"its forward depends on values: {error}"]) from error
    walk = _Walk(model, source)
    for step in traced.nodes:
        walk.visit(step)
    if walk.problems:
        raise TraceError(f"{name} holds what cannot be compiled:", walk.problems)
    return Graph(nodes=tuple(walk.nodes), timesteps=walk.timesteps, name=name)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, THROUGH) or type(m) in MODULES or super().is_leaf_module(m, module_qualified_name)


class _Walk:
    """Visits fx nodes in order; an fx node becomes the name of the graph node that holds its value."""

    def __init__(self, model: nn.Module, source: Input) -> None:
        self.modules = dict(model.named_modules())
        self.nodes: list[Node] = [source]
        self.shapes: dict[str, Shape] = {source.name: source.shape}
        self.values: dict[fx.Node, str] = {}
        self.problems: list[str] = []
        self.averaged: set[str] = set()
        self.steps: set[int] = set()

    @property
    def timesteps(self) -> int:
        return next(iter(self.steps), 1)

    def visit(self, step: fx.Node) -> None:
        """Add what `step` does, or the reason why it cannot be added."""
        try:
            self.values[step] = self._value(step)
        except Refusal as reason:
            self.problems.append(f"{_place(step)}: {reason}")
        except KeyError:
            pass  # it reads something that was refused before

    def _value(self, step: fx.Node) -> str:
        if step.op == "placeholder":
            if self.values:
                raise Refusal("a second input; one is accepted")
            return self.nodes[0].name
        arguments = [self.values[one] for one in step.all_input_nodes]
        if step.op == "output":
            return self._finish(step, arguments)
        if any(name in self.averaged for name in arguments):
            raise Refusal("comes after the mean over time, which must be last")
        if step.op == "call_module":
            given = [self.values[one] for one in step.args if isinstance(one, fx.Node)]
            return self._module(str(step.target), given or arguments)
        if step.op in ("call_function", "call_method") and step.target in FUNCTIONS:
            return self._add(FUNCTIONS[step.target](step, self._fresh(step.name), arguments))
        what = getattr(step.target, "__name__", step.target)
        raise Refusal(f"{step.op.removeprefix('call_')} {what!r} has no node; known are add, flatten and relu")

    def _module(self, path: str, arguments: list[str]) -> str:
        module = self.modules[path]
        if isinstance(module, layers.Neuron | layers.Repeat | layers.Frames | layers.TimeMean):
            self._steps(module.timesteps)
        if isinstance(module, layers.TimeMean):
            self.averaged.add(arguments[0])
        if isinstance(module, THROUGH):
            return arguments[0]
        if type(module) not in MODULES:
            known = ", ".join(sorted(kind.__name__ for kind in (*MODULES, *THROUGH)))
            raise Refusal(f"{type(module).__name__} has no node; known are {known}")
        if self._by_name(path) and (isinstance(module, layers.Neuron) or any(True for _ in module.parameters())):
            raise Refusal("is used twice; give each use a module of its own")
        node = MODULES[type(module)](module, self.shapes[arguments[0]])
        return self._add(replace(node, name=self._fresh(path), inputs=tuple(arguments)))

    def _finish(self, step: fx.Node, arguments: list[str]) -> str:
        if len(arguments) != 1:
            raise Refusal(f"the network returns {len(arguments)} values; one is accepted")
        if self.steps - {1} and arguments[0] not in self.averaged:
            raise Refusal("the mean over time (TimeMean) is missing")
        return self._add(Output(name="output", inputs=tuple(arguments)))

    def _steps(self, timesteps: int) -> None:
        if self.steps and timesteps not in self.steps:
            raise Refusal(f"runs {timesteps} steps, others run {self.timesteps}")
        self.steps.add(timesteps)

    def _add(self, node: Node) -> str:
        try:
            self.shapes[node.name] = output_shape(node, [self.shapes[name] for name in node.inputs])
        except ValueError as error:
            raise Refusal(str(error)) from error
        self.nodes.append(node)
        return node.name

    def _by_name(self, name: str) -> bool:
        return any(node.name == name for node in self.nodes)

    def _fresh(self, name: str) -> str:
        """`name`, or with a number if it is taken (a module without parameters that is used again)."""
        number, fresh = 1, name
        while self._by_name(fresh):
            number, fresh = number + 1, f"{name}.{number + 1}"
        return fresh


def _place(step: fx.Node) -> str:
    return str(step.target) if step.op == "call_module" else step.name


def _linear(module: nn.Linear, shape: Shape) -> Node:
    bias = np.zeros(module.out_features) if module.bias is None else array(module.bias)
    return Linear(name="", inputs=(), weight=array(module.weight), bias=bias)


def _batchnorm(module: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, shape: Shape) -> Node:
    if module.running_mean is None or module.running_var is None:
        raise Refusal("has no running statistics (track_running_stats=False), so it cannot be folded")
    ones = torch.ones_like(module.running_mean)
    return BatchNorm(
        name="",
        inputs=(),
        mean=array(module.running_mean),
        variance=array(module.running_var),
        gamma=array(module.weight if module.affine else ones),
        beta=array(module.bias if module.affine else 0 * ones),
        eps=module.eps,
    )


def _flatten(module: nn.Flatten, shape: Shape) -> Node:
    if module.start_dim != 1 or module.end_dim not in (-1, len(shape)):
        raise Refusal("only Flatten(start_dim=1, end_dim=-1) is accepted")
    return Flatten(name="", inputs=())


def _neuron(module: layers.Neuron, shape: Shape) -> Node:
    learned = module.decays
    several = learned is not None and len(learned) > 1
    decay = array(learned) if several else float(module.decay if learned is None else learned.detach())
    threshold = np.asarray(float(module.threshold))
    if isinstance(module, layers.InputNeuron):
        threshold = np.asarray(float(module.threshold / module.gain.detach().double()))
    return Neuron(name="", inputs=(), decay=decay, threshold=threshold, reset=module.reset)


def _attention(module: transformer.Attention, shape: Shape) -> Node:
    return Attention(name="", inputs=(), heads=module.heads, scale=float(module.scale))


def _relu(module: nn.ReLU, shape: Shape) -> Node:
    return Relu(name="", inputs=())


def _add_function(step: fx.Node, name: str, arguments: list[str]) -> Node:
    terms = [one for one in step.args if isinstance(one, fx.Node)]
    if len(terms) != len(step.args) or len(terms) != 2 or step.kwargs:
        raise Refusal("only the sum of two values of the network is accepted")
    if len(arguments) == 1:
        raise Refusal("adds a value to itself; use a weight of 2")
    return Add(name=name, inputs=tuple(arguments))


def _flatten_function(step: fx.Node, name: str, arguments: list[str]) -> Node:
    if (*step.args[1:], *step.kwargs.values()) not in ((1,), (1, -1)):
        raise Refusal("only flatten from dimension 1 is accepted")
    return Flatten(name=name, inputs=tuple(arguments))


def _relu_function(step: fx.Node, name: str, arguments: list[str]) -> Node:
    return Relu(name=name, inputs=tuple(arguments))


FRAMES = (layers.Repeat, layers.Frames, layers.MeanFrame, layers.Picture)
THROUGH = (*FRAMES, layers.TimeMean, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
"""Modules that leave the values of an evaluation as they are; Input and Output mean what these do with time."""

MODULES: dict[type[nn.Module], Callable[[Any, Shape], Node]] = {
    nn.Linear: _linear,
    **CONVERTERS,
    layers.Pointwise: convolution,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _batchnorm),
    nn.Flatten: _flatten,
    nn.ReLU: _relu,
    layers.Neuron: _neuron,
    layers.InputNeuron: _neuron,
    transformer.Attention: _attention,
}

FUNCTIONS: dict[Any, Callable[[fx.Node, str, list[str]], Node]] = {
    operator.add: _add_function,
    operator.iadd: _add_function,
    torch.add: _add_function,
    "add": _add_function,
    torch.flatten: _flatten_function,
    "flatten": _flatten_function,
    torch.relu: _relu_function,
    functional.relu: _relu_function,
    "relu": _relu_function,
}
