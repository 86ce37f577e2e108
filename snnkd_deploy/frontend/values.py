"""What a tensor of the user's forward stands for, and the graph that grows while the forward runs.

A loop over time calls each layer once per step. The steps are folded while they are recorded: an operation on the
same inputs is the same node, whatever the step, so a loop whose steps differ gives a second node and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from snnkd_deploy.ir import Graph, Input, Neuron, Node, Output, Shape, ancestors, output_shape
from snnkd_deploy.trace import Refusal

State = Literal["", "membrane", "current"]
"""What of a node a value is: its output, or a state that its neurons keep."""


@dataclass(frozen=True)
class At:
    """The output (or a state) of a node at one step; step None: the same at every step."""

    node: str
    step: int | None = None
    state: State = ""


@dataclass(frozen=True)
class Series:
    """Several steps of a node along one axis of a tensor."""

    node: str
    steps: tuple[int, ...]
    axis: int = 0
    state: State = ""


@dataclass(frozen=True)
class Total:
    """factor * the sum of these steps of a node."""

    node: str
    steps: tuple[int, ...]
    factor: float = 1.0
    state: State = ""


Value = At | Series | Total


@dataclass(frozen=True, eq=False, kw_only=True)
class Unknown(Node):
    """An operation that has no node; the graph that holds one is never handed out."""

    reason: str
    shape: Shape


class Sketch:
    """The nodes so far, and the value of each tensor that is alive."""

    def __init__(self, source: Input, timesteps: int) -> None:
        self.source, self.timesteps = source, timesteps
        self.nodes: dict[str, Node] = {source.name: source}
        self.shapes: dict[str, Shape] = {source.name: source.shape}
        self.problems: dict[str, None] = {}
        """Reasons that belong to no node, in order."""
        self.origins: dict[str, str] = {source.name: "input"}
        """Where each node comes from: the path of a module, or the place of an operation."""
        self.calls: dict[str, list[Tensor]] = {}
        """Spikes of each neuron, one tensor per step."""
        self._keys: dict[tuple[Any, ...], str] = {}
        self._values: dict[int, Value] = {}
        self._alive: list[Tensor] = []

    @property
    def refused(self) -> bool:
        """Whether anything has no node."""
        return any(isinstance(node, Unknown) for node in self.nodes.values())

    def of(self, tensor: object) -> Value | None:
        """What a tensor stands for; None for constants and everything else."""
        return self._values.get(id(tensor)) if isinstance(tensor, Tensor) else None

    def note(self, tensor: Tensor, value: Value) -> None:
        """From now on `tensor` stands for `value`."""
        self._alive.append(tensor)  # its id stays its own
        self._values[id(tensor)] = value

    def apply(self, key: tuple[Any, ...], name: str, origin: str, make: Callable[[], Node], inputs: Sequence[At]) -> At:
        """The node of this operation on these inputs, made when it is met first. Refusal if it cannot be."""
        if any(one.state for one in inputs):
            raise Refusal(
                "computes with a membrane; only spikes leave a neuron (a membrane can be read out, at the end)"
            )
        at = step_of(inputs)
        full = (*key, *(one.node for one in inputs))
        if full not in self._keys:
            names = tuple(one.node for one in inputs)
            self._keys[full] = self.add(replace(make(), name=self._fresh(name), inputs=names), origin)
        return At(self._keys[full], at)

    def refuse(self, key: tuple[Any, ...], origin: str, reason: str, inputs: Sequence[Value], shape: Shape) -> At:
        """An Unknown in place of what cannot be expressed, so that the search for further reasons goes on."""
        steps = [one.step for one in inputs if isinstance(one, At) and one.step is not None]
        full = ("unknown", *key, *(one.node for one in inputs))
        if full not in self._keys:
            names = tuple(dict.fromkeys(one.node for one in inputs))
            node = Unknown(name=self._fresh(origin), inputs=names, reason=f"{origin}: {reason}", shape=shape)
            self._keys[full] = self.add(node, origin)
        return At(self._keys[full], max(steps, default=None))

    def add(self, node: Node, origin: str) -> str:
        """Append a node. Refusal if its inputs do not fit."""
        try:
            given = [self.shapes[name] for name in node.inputs]
            self.shapes[node.name] = node.shape if isinstance(node, Unknown) else output_shape(node, given)
        except ValueError as error:
            raise Refusal(str(error)) from error
        self.nodes[node.name] = node
        self.origins[node.name] = origin
        return node.name

    def neuron(self, node: Neuron, origin: str, source: At) -> str:
        """A new neuron fed by `source`, whose state is empty."""
        name = self.add(replace(node, name=self._fresh(node.name), inputs=(source.node,)), origin)
        self.calls[name] = []
        return name

    def graph(self, result: str, name: str) -> Graph:
        """What `result` depends on, with an Output behind it."""
        output = Output(name=self._fresh("output"), inputs=(result,))
        nodes = (*self.nodes.values(), output)
        whole = Graph(nodes=nodes, timesteps=self.timesteps, name=name)
        needed = {*ancestors(whole, output.name), output.name}
        return replace(whole, nodes=tuple(node for node in nodes if node.name in needed))

    def _fresh(self, name: str) -> str:
        number, fresh = 1, name
        while fresh in self.nodes:
            number, fresh = number + 1, f"{name}.{number + 1}"
        return fresh


def step_of(inputs: Sequence[At]) -> int | None:
    """The step of a value computed from these. Refusal if they belong to different steps."""
    steps = {one.step for one in inputs if one.step is not None}
    if len(steps) > 1:
        raise Refusal(
            f"takes values of steps {', '.join(map(str, sorted(steps)))} together; layers have no delay here: let each"
            " read what the step itself computed"
        )
    return next(iter(steps), None)
