"""A network of somebody else as a teacher: where its features are tapped, and the blocks it falls into there."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from snnkd_deploy.errors import ConfigError, UnknownNameError
from snnkd_deploy.snn.layers import RowMajor
from snnkd_deploy.snn.network import Network, Outputs, Plan, Shape

ACTIVATIONS = {
    *("relu", "relu6", "leakyrelu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardtanh"),
    *("tanh", "sigmoid", "softplus", "add"),
}
"""What ends a layer; a sum does in a network that normalises ahead of its layers."""
FOLLOWED = {"avgpool2d", "maxpool2d", "lppool2d", "dropout", "dropout2d", "identity"}
"""What still belongs to the layer ahead of it, as the pools of our own networks do."""
UNTRACEABLE = (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError)
"""What code raises that meets a symbol in place of a tensor."""
AXES = (1, 3)  # of a feature without the batch: (C,) or (C, H, W)


class Step(NamedTuple):
    """One value on the way through a network."""

    name: str
    kind: str
    shape: Shape  # without the batch


@dataclass(frozen=True, eq=False)
class Foreign:
    """A network that somebody else wrote, `module`, behind what is put in front of it: all of it is `whole`."""

    whole: nn.Module
    module: nn.Module
    prefix: str  # of the names of `module` within `whole`


class ForeignNetwork(Network):
    """A teacher with the features that methods look at: cut into blocks where its taps are, or else watched by hooks.

    `uncut` says why there are no blocks; a method that needs them refuses with it.
    """

    def __init__(self, foreign: Foreign, names: Sequence[str], blocks: list[nn.Module], head: nn.Module) -> None:
        super().__init__(Plan((0, 0, 0), 0, 1, 1), blocks, head)
        self.foreign, self.names = foreign, tuple(names)

    def outputs(self, images: Tensor, *, membranes: bool = False) -> Outputs:
        """Logits (B, classes) and the taps, of images (B, C, H, W), or the mean of frames (B, T, C, H, W)."""
        if not self.uncut:
            return super().outputs(images)
        with _watched(self.foreign.module, self.names) as seen:
            logits: Tensor = self.head(images)
        return Outputs(logits, logits[None], tuple(seen[name] for name in self.names))


@torch.no_grad()
def tapped(foreign: Foreign, images: Tensor, names: Sequence[str] | None = None) -> ForeignNetwork:
    """The teacher with taps at the modules `names`, or (None) at those that `choose` finds when it sees `images`.

    In eval mode. UnknownNameError for a name that is no module, ConfigError for one whose value is no feature.
    """
    try:
        cut = _Cut(foreign, images)
    except UNTRACEABLE as error:
        return _hooked(foreign, images, names, f"its forward cannot be followed: {_first_line(error)}")
    if names is None:
        return cut.network(choose(cut.passes))
    chosen = _checked(names, cut.steps)
    around = [name for name in chosen if cut.values[name] not in cut.narrow]
    if around:
        return _hooked(foreign, images, chosen, f"values pass around {', '.join(around)}")
    return cut.network(chosen)


def choose(steps: Sequence[Step]) -> list[str]:
    """The last activation, pools behind it included, ahead of each change of resolution and of the readout.

    The maps of a network, dense layers behind them being its head, as in our own; without maps each hidden layer.
    A pool down to one position belongs to the readout. Steps are in the order in which they are computed.
    """
    active = [place for place, step in enumerate(steps[:-1]) if step.kind in ACTIVATIONS]
    maps = [place for place in active if len(steps[place].shape) == 3]
    if not maps:
        return [steps[place].name for place in active if len(steps[place].shape) == 1]
    sizes = [steps[place].shape[1:] for place in maps]
    last = [place for place, size, following in zip(maps, sizes, [*sizes[1:], ()], strict=True) if size != following]
    return [_with_pools(steps, place).name for place in last]


def _with_pools(steps: Sequence[Step], place: int) -> Step:
    """The step at `place`, or the pool behind it."""
    end = steps[place]
    for step in steps[place + 1 : -1]:
        if step.kind not in FOLLOWED or (max(step.shape[1:], default=1) == 1 < max(end.shape[1:], default=1)):
            break
        end = step
    return end


def _checked(names: Sequence[str], steps: Sequence[Step]) -> list[str]:
    """The names in the order of computation. Refuses those that are no step, and values that are no feature."""
    known = {step.name: step.shape for step in steps}
    for name in names:
        if name not in known:
            raise UnknownNameError("module to tap in the teacher", name, known)
    wrong = [f"{name} gives {known[name]}" for name in names if len(known[name]) not in AXES]
    if wrong:
        raise ConfigError(f"teacher_taps: {', '.join(wrong)}; a feature is (channels, height, width) or (features,)")
    return [name for name in known if name in names]


class _Tracer(fx.Tracer):
    """Notes where the value of each module comes from, those that are followed into included."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, fx.Node] = {}

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        value = super().call_module(m, forward, args, kwargs)
        if isinstance(value, fx.Proxy):
            self.values[self.path_of_module(m)] = value.node
        return value


class _Shapes(fx.Interpreter):
    """Notes the shape of each value."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[str, Shape] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n.name] = tuple(value.shape[1:])
        return value


class _Cut:
    """A network as a row of operations, which can be cut where one value alone leads on."""

    def __init__(self, foreign: Foreign, images: Tensor) -> None:
        self.foreign, tracer = foreign, _Tracer()
        graph = tracer.trace(foreign.whole)
        _without_overwriting(graph)
        self.nodes = list(graph.nodes)
        self.places = {node: place for place, node in enumerate(self.nodes)}
        walk = _Shapes(fx.GraphModule(foreign.whole, graph))
        if not torch.equal(walk.run(images), foreign.whole(images)):
            raise ValueError("followed operation by operation it computes something else")
        inner = {path: node for path, node in tracer.values.items() if path.startswith(foreign.prefix)}
        named = {path.removeprefix(foreign.prefix): node for path, node in inner.items()}
        named |= {f"{node.name}()": node for node in self.nodes if node.op in ("call_function", "call_method")}
        found = [(name, node) for name, node in named.items() if node.name in walk.shapes]
        self.values = dict(sorted(found, key=lambda one: self.places[one[1]]))
        self.steps = [Step(name, self._kind(node), walk.shapes[node.name]) for name, node in self.values.items()]
        self.narrow = self._narrow()

    @property
    def passes(self) -> list[Step]:
        """One step for each value that all that follows depends on."""
        first = {self.values[step.name]: step for step in reversed(self.steps)}
        return [first[node] for node in self.nodes if node in first and node in self.narrow]

    def network(self, names: Sequence[str]) -> ForeignNetwork:
        """Blocks from tap to tap, and what is behind the last as the readout."""
        ends = [self.values[name] for name in names]
        starts = [next(node for node in self.nodes if node.op == "placeholder"), *ends]
        blocks = [self._block(start, end) for start, end in zip(starts, ends, strict=False)]
        head = self._block(starts[-1], self.nodes[-1].all_input_nodes[0])
        return ForeignNetwork(self.foreign, names, blocks, head)

    def _block(self, start: fx.Node, end: fx.Node) -> nn.Module:
        """What lies behind `start`, in its order of memory also where it is given features of a student."""
        segment = self._segment(start, end)
        ordered = any(isinstance(one, RowMajor) for one in self.foreign.whole.children())
        return nn.Sequential(RowMajor(), segment) if ordered else segment

    def _kind(self, node: fx.Node) -> str:
        target = type(self.foreign.whole.get_submodule(str(node.target))) if node.op == "call_module" else node.target
        return str(getattr(target, "__name__", target)).lower().replace("_", "")

    def _narrow(self) -> set[fx.Node]:
        """The values that nothing computed earlier is read behind; parameters are there at any time."""
        found, reach = set(), 0
        for place, node in enumerate(self.nodes):
            if node.op != "get_attr" and reach <= place:
                found.add(node)
            if node.op != "get_attr":
                reach = max([reach, *(self.places[user] for user in node.users)])
        return found

    def _segment(self, start: fx.Node, end: fx.Node) -> fx.GraphModule:
        """What lies behind `start` up to `end`, as a module; layers and parameters are those of the network."""
        graph = fx.Graph()
        values = {start: graph.placeholder("features")}
        inside = self.nodes[self.places[start] + 1 : self.places[end] + 1]
        needed = {one for node in inside for one in node.all_input_nodes if one.op == "get_attr"}
        for node in [*(one for one in self.nodes if one in needed), *inside]:
            if node not in values:
                values[node] = graph.node_copy(node, values.__getitem__)
        graph.output(values[end])
        return fx.GraphModule(self.foreign.whole, graph)


def _without_overwriting(graph: fx.Graph) -> None:
    """No operation writes over a value that may be tapped."""
    for node in graph.nodes:
        if node.kwargs.get("inplace"):
            node.update_kwarg("inplace", False)
        if node.target is operator.iadd:
            node.target = operator.add


def _hooked(foreign: Foreign, images: Tensor, names: Sequence[str] | None, reason: str) -> ForeignNetwork:
    """The teacher as it is, with hooks on the modules whose values are tapped."""
    steps: list[Step] = []
    modules = {name: module for name, module in foreign.module.named_modules() if name}
    with _watched(foreign.module, list(modules)) as seen:
        foreign.whole(images)
    for name, value in seen.items():
        steps.append(Step(name, type(modules[name]).__name__.lower(), tuple(value.shape[1:])))
    leaves = [step for step in steps if not list(modules[step.name].children())]
    chosen = choose(leaves) if names is None else _checked(names, steps)
    network = ForeignNetwork(foreign, chosen, [], foreign.whole)
    network.uncut = reason
    return network


@contextmanager
def _watched(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that fills with what these submodules return, if it is a tensor, in the order of their last call."""
    seen: dict[str, Tensor] = {}

    def look(name: str, module: nn.Module, inputs: object, value: object) -> None:
        seen.pop(name, None)
        if isinstance(value, Tensor):
            seen[name] = value

    hooks = [module.get_submodule(name).register_forward_hook(partial(look, name)) for name in names]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
