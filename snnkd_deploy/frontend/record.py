"""Run the user's forward once and write down what it does: modules by hooks, everything between by torch's own mode.

Loops, lists, helper functions and shapes are Python's business; what is recorded is what ran. It runs in float64, so
that the graph, which counts in float64 too, can be compared with it spike for spike.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from snnkd_deploy.errors import TraceError
from snnkd_deploy.frontend.operations import CONSTANTS, HANDLERS, VALUE_READS, Call
from snnkd_deploy.frontend.snntorch import Mapped, emptied, given_states, is_snntorch, mapped, state_kinds
from snnkd_deploy.frontend.values import At, Series, Sketch, State, Value, step_of
from snnkd_deploy.ir import BatchNorm
from snnkd_deploy.trace import MODULES, THROUGH, Refusal

LIBRARIES = ("torch", "snntorch", "snnkd_deploy")
NEITHER = {torch.float32: torch.float64, torch.float16: torch.float64, torch.bfloat16: torch.float64}
HALVES = {"float": "double", "half": "double", "bfloat16": "double"}
OTHERS = "known are the modules and functions of a convolutional or dense network (see the README)"


class Recorder(TorchFunctionMode):
    """While it is entered, each module and each function that runs is added to `sketch`."""

    def __init__(self, model: nn.Module, sketch: Sketch) -> None:
        super().__init__()
        self.sketch = sketch
        self.places: list[str] = []
        self.inside = 0
        """How many leaf modules are running; what they do themselves is not recorded."""
        self.hidden: dict[str, str] = {}
        """The neuron whose state a module keeps."""
        self.hooks = [hook for path, one in model.named_modules() for hook in self._listen(path, one)]

    def __exit__(self, *problem: object) -> None:
        super().__exit__(*problem)  # type: ignore[no-untyped-call]
        for hook in self.hooks:
            hook.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        if name in HALVES and args:
            func = getattr(torch.Tensor, HALVES[name])
        args, kwargs = _widened(args), _widened(kwargs)
        out = func(*args, **kwargs)
        if not self.inside and name != "__get__":
            self._function(Call(name, args, kwargs, out, ""))
        elif not self.inside and isinstance(out, Tensor):
            self._attribute(args[0], out)
        return out

    def _attribute(self, owner: Tensor, out: Tensor) -> None:
        """x.data is x; other tensors that hang on one, such as x.T, have no node."""
        value = self.sketch.of(owner)
        if value is None:
            return
        if (out.shape, out.stride(), out.data_ptr()) == (owner.shape, owner.stride(), owner.data_ptr()):
            self.sketch.note(out, value)
        else:
            origin = self._origin("attribute")
            self._note((origin,), origin, out, [value], _refusing(Refusal("x.T and the like have no node")))

    def _listen(self, path: str, module: nn.Module) -> tuple[Any, Any]:
        leaf = is_leaf(module)

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.places.append(path)
            self.inside += leaf

        def leave(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            self.inside -= leaf
            if leaf and not self.inside:
                self._module(path, module, args, kwargs, out)
            self.places.pop()

        return (
            module.register_forward_pre_hook(enter, with_kwargs=True),
            module.register_forward_hook(leave, with_kwargs=True),
        )

    def _module(self, path: str, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        """A leaf module has run."""
        given = [*args, *kwargs.values()]
        value = self.sketch.of(given[0]) if given else None
        if value is None:
            return
        if is_snntorch(module):
            self._neuron(path, module, value, given_states(module, args, kwargs), out)
        elif isinstance(module, (*THROUGH, nn.modules.dropout._DropoutNd)):
            self.sketch.note(out, value)
        else:
            self._note(("module", path), path, out, [value], lambda: self._layer(path, module, value))

    def _layer(self, path: str, module: nn.Module, value: Value) -> At:
        if not isinstance(value, At):
            raise Refusal("is applied to all steps at once; apply it inside the loop over time")
        kind = type(module)
        if kind not in MODULES:
            known = ", ".join(sorted(one.__name__ for one in MODULES if one.__module__.startswith("torch.")))
            raise Refusal(f"{kind.__name__} has no node; known are {known}, snnTorch's Leaky, Lapicque and Synaptic")
        make = MODULES[kind]
        return self.sketch.apply(
            ("module", path), path, path, lambda: make(module, self.sketch.shapes[value.node]), [value]
        )

    def _note(
        self, key: tuple[Any, ...], origin: str, out: Any, values: Sequence[Value], make: Callable[[], Any]
    ) -> None:
        """Let `out` stand for what `make` gives; a Refusal becomes an Unknown."""
        try:
            made = make()
        except Refusal as reason:
            tensors = list(_tensors(out))
            made = [self.sketch.refuse(key, origin, str(reason), values, tuple(one.shape[1:])) for one in tensors]
            out = tensors
        if made is None:
            return
        if isinstance(made, At | Series) or not isinstance(made, tuple | list):
            self.sketch.note(out, made)
            return
        for tensor, value in zip(out, made, strict=True):
            self.sketch.note(tensor, value)

    def _function(self, call: Call) -> None:
        """A torch function or tensor method has run outside of every leaf module."""
        values = [value for one in _tensors((call.args, call.kwargs)) if (value := self.sketch.of(one)) is not None]
        if not values or call.name in CONSTANTS:
            return
        origin = self._origin(call.name)
        if call.name in VALUE_READS:
            self.sketch.problems[
                f"{origin}: the forward looks at values of the network, so other samples may run otherwise; write it "
                "without that"
            ] = None
        if not _tensors(call.out) and call.name != "__setitem__":
            return
        placed = Call(call.name, call.args, call.kwargs, call.out, origin)
        handler = HANDLERS.get(call.name)

        def make() -> Any:
            if handler is None:
                raise Refusal(f"{call.name} has no node; {OTHERS}")
            return handler(self.sketch, placed)

        self._note((origin,), origin, call.out if call.name != "__setitem__" else call.args[0], values, make)

    def _origin(self, name: str) -> str:
        """`name` and the line of the user's file that called it."""
        frame = sys._getframe(2)
        while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in LIBRARIES:
            frame = frame.f_back
        inner = f" in {self.places[-1]}" if self.places and self.places[-1] else ""
        return f"{name}{inner} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"

    def _neuron(self, path: str, module: nn.Module, value: Value, given: Mapping[State, Any], out: Any) -> None:
        """A neuron of snnTorch has run one step: the state it was given says which neuron, and which step."""
        spikes, *states = out if isinstance(out, tuple) else (out,)
        try:
            made = self._advance(path, module, value, given)
        except Refusal as reason:
            self._note(("module", path), path, out, [value], _refusing(reason))
            return
        step = len(self.sketch.calls[made])
        self.sketch.calls[made].append(spikes)
        worth = f"{made}.worth"
        self.sketch.note(spikes, At(worth if worth in self.sketch.nodes else made, step))
        for kind, state in zip(reversed(state_kinds(module)), reversed(states), strict=False):
            self.sketch.note(state, At(made, step, kind))
        self.hidden[path] = made

    def _advance(self, path: str, module: nn.Module, value: Value, given: Mapping[State, Any]) -> str:
        """The neuron that this call belongs to; a new one if it starts from an empty state."""
        if not isinstance(value, At):
            raise Refusal("is given all steps at once; call it once for each step")
        known = {self._known(kind, state) for kind, state in given.items() if isinstance(state, Tensor)}
        if len(known) > 1:
            raise Refusal("is given states that do not belong together; hand on those of the step before")
        name, before = known.pop() if known else (self.hidden.get(path), None)
        if name is None:
            return self._begin(mapped(module, path, self.sketch.shapes[value.node]), value)
        step = len(self.sketch.calls[name])
        if before is not None and before != step - 1:
            raise Refusal(f"step {step} is given the membrane of step {before}; hand on that of the step before")
        self._same_input(name, step, value)
        return name

    def _known(self, kind: State, given: Tensor) -> tuple[str | None, int | None]:
        """The neuron that left this state, and at which step; neither if it is empty."""
        value = self.sketch.of(given)
        if isinstance(value, At) and value.state == kind:
            return value.node, value.step
        if value is not None:
            raise Refusal(f"its {kind} is computed outside of the neuron; hand on what it returned")
        if given.numel() and bool((given != 0).any()):
            raise Refusal(f"starts from a {kind} that is not zero; start with reset_mem()")
        return None, None

    def _begin(self, neuron: Mapped, value: At) -> str:
        step_of([value])
        if value.step not in (0, None):
            raise Refusal(f"runs first at step {value.step}; every neuron must run from step 0")
        made = self.sketch.neuron(neuron.node, neuron.node.name, value)
        if neuron.worth != 1:
            ones = np.ones(self.sketch.shapes[made][0])
            worth = BatchNorm(
                name=f"{made}.worth", inputs=(made,), mean=0 * ones, variance=ones, gamma=neuron.worth * ones,
                beta=0 * ones, eps=0.0,
            )  # fmt: skip
            self.sketch.add(worth, neuron.node.name)
        return made

    def _same_input(self, name: str, step: int, value: At) -> None:
        before = self.sketch.nodes[name].inputs[0]
        if value.node != before:
            raise Refusal(
                f"reads {value.node} at step {step}, {before} before; every step must compute the same (a neuron that "
                "is used in two places needs a module, or a state, for each)"
            )
        if value.step not in (step, None):
            raise Refusal(
                f"its call {step} reads step {value.step}: it is called several times in one step, or reads late"
            )


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is one operation: of torch's own kinds, or a neuron."""
    built_in = type(module).__module__.startswith("torch.nn.modules") and not any(True for _ in module.children())
    known = is_snntorch(module) or isinstance(module, THROUGH) or type(module) in MODULES
    return known or (built_in and not isinstance(module, _CONTAINERS))


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def in_float64(model: nn.Module, name: str) -> nn.Module:
    """A copy of the network for recording, its neurons empty. TraceError if it cannot be copied."""
    emptied(model)
    try:
        copied = copy.deepcopy(model).double().cpu()
    except (RuntimeError, TypeError) as error:
        raise TraceError(
            f"{name} cannot be copied:", [f"{error}; keep no results of a forward in its modules"]
        ) from error
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
    return copied


def _refusing(reason: Refusal) -> Callable[[], Any]:
    def refuse() -> Any:
        raise reason

    return refuse


def _tensors(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    if isinstance(found, Mapping):
        return [one for value in found.values() for one in _tensors(value)]
    return [one for value in found for one in _tensors(value)] if isinstance(found, tuple | list) else []


def _widened(given: Any) -> Any:
    """The same arguments with float64 for every narrower type of real numbers."""
    if isinstance(given, torch.dtype):
        return NEITHER.get(given, given)
    if isinstance(given, dict):
        return {key: _widened(value) for key, value in given.items()}
    return tuple(_widened(one) for one in given) if type(given) is tuple else given
