"""Torch functions and tensor methods, by name, as nodes: what a forward does between its modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from snnkd_deploy.frontend.values import At, Series, Sketch, Total, Value
from snnkd_deploy.ir import Add, Array, AvgPool2d, BatchNorm, Flatten, Node, Relu
from snnkd_deploy.trace import MODULES, Refusal


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a torch function: what went in, what came out, where it stands in the user's code."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any
    origin: str

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by position or by name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)


Handler = Callable[[Sketch, Call], Value | tuple[Value, ...] | None]

VALUE_READS = {"__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy", "__array__"}
"""With these a forward looks at values, and another sample may take another way through it."""
CONSTANTS = {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"}
"""Take of a tensor nothing but its shape."""


def first(sketch: Sketch, call: Call) -> Value:
    """What the first tensor stands for."""
    value = sketch.of(call.args[0])
    if value is None:
        raise Refusal(f"{call.name} of a constant")
    return value


def at(sketch: Sketch, call: Call) -> At:
    """The same, of one step."""
    value = first(sketch, call)
    if not isinstance(value, At):
        raise Refusal(f"{call.name} is applied to all steps at once; apply it inside the loop over time")
    return value


def unchanged(sketch: Sketch, call: Call) -> Value:
    """Values stay as they are."""
    if not call.out.is_floating_point():
        raise Refusal(f"{call.name} turns values into {call.out.dtype}")
    return first(sketch, call)


def dropout(sketch: Sketch, call: Call) -> Value:
    """Nothing, in evaluation."""
    if call.get(2, "training", True):
        raise Refusal("drops values in evaluation too; write F.dropout(x, p, training=self.training) or use nn.Dropout")
    return first(sketch, call)


def relu(sketch: Sketch, call: Call) -> Value:
    """max(x, 0)."""
    return sketch.apply(("relu",), "relu", call.origin, lambda: Relu(name="", inputs=()), [at(sketch, call)])


def add(sketch: Sketch, call: Call) -> Value:
    """A residual sum, a sum over steps, or a constant that is added."""
    if call.kwargs.get("alpha", 1) != 1:
        raise Refusal("alpha is not 1")
    one, other = (sketch.of(side) for side in call.args[:2])
    if one is None or other is None:
        return _affine(sketch, call, 1.0, _constant(call.args[0 if one is None else 1]))
    if one.node == other.node and not (isinstance(one, At) and one == other):
        return _total(one, other)
    if not isinstance(one, At) or not isinstance(other, At):
        raise Refusal("adds sums over time of different layers")
    if one.node == other.node:
        raise Refusal("adds a value to itself; use a weight of 2")
    return sketch.apply(("add",), "add", call.origin, lambda: Add(name="", inputs=()), [one, other])


def subtract(sketch: Sketch, call: Call) -> Value:
    """x - constant, or constant - x for `rsub`."""
    swapped = call.name in ("__rsub__", "rsub")
    sides = call.args[1::-1] if swapped else call.args[:2]
    if sketch.of(sides[0]) is None:
        return _affine(sketch, call, -1.0, _constant(sides[0]))
    if sketch.of(sides[1]) is not None:
        raise Refusal("a difference of two values has no node; use a sum with negative weights")
    return _affine(sketch, call, 1.0, -_constant(sides[1]))


def multiply(sketch: Sketch, call: Call) -> Value:
    """A constant factor."""
    one, other = (sketch.of(side) for side in call.args[:2])
    if one is not None and other is not None:
        raise Refusal("a product of two values has no node")
    return _affine(sketch, call, _constant(call.args[0 if one is None else 1]), 0.0)


def divide(sketch: Sketch, call: Call) -> Value:
    """A constant divisor."""
    if sketch.of(call.args[1]) is not None or call.kwargs.get("rounding_mode"):
        raise Refusal("only a division by a constant, without rounding, is accepted")
    return _affine(sketch, call, 1 / _constant(call.args[1]), 0.0)


def negate(sketch: Sketch, call: Call) -> Value:
    """-x."""
    return _affine(sketch, call, -1.0, 0.0)


def reshape(sketch: Sketch, call: Call) -> Value:
    """Flatten, or nothing."""
    before, after = tuple(call.args[0].shape), tuple(call.out.shape)
    if before == after:
        return first(sketch, call)
    value = at(sketch, call)
    features = int(np.prod(before[1:]))
    if after != (before[0], features):
        raise Refusal(
            f"{call.name} makes {after[1:]} of {before[1:]}; accepted is flatten(1), view(x.size(0), -1), and samples "
            "that have the shape the first layer takes"
        )
    return sketch.apply(("flatten",), "flatten", call.origin, lambda: Flatten(name="", inputs=()), [value])


def pool(kind: type[nn.Module], *names: str) -> Handler:
    """A pool of torch.nn.functional, read as its module; `names` of its arguments in order."""

    def handle(sketch: Sketch, call: Call) -> Value:
        given = {**dict(zip(names, call.args[1:], strict=False)), **call.kwargs}
        given.pop("input", None)
        module, value = kind(**given), at(sketch, call)
        make = MODULES[kind]
        return sketch.apply(
            (call.name, str(module)), call.name, call.origin, lambda: make(module, sketch.shapes[value.node]), [value]
        )

    return handle


def mean(sketch: Sketch, call: Call) -> Value:
    """Over time, or over all positions of a picture."""
    value, axes = first(sketch, call), _axes(call)
    if isinstance(value, Series):
        return _over_time(value, axes, 1 / len(value.steps))
    if not isinstance(value, At) or axes != (2, 3) or call.args[0].ndim != 4:
        raise Refusal(f"mean over {axes}; accepted are the time axis, and (2, 3) of pictures")
    side = call.args[0].shape[2:]
    window = (int(side[0]), int(side[1]))
    made = sketch.apply(
        ("mean",), "mean", call.origin, lambda: AvgPool2d(name="", inputs=(), kernel=window, stride=window), [value]
    )
    if call.kwargs.get("keepdim"):
        return made
    return sketch.apply(("flatten",), "mean.flatten", call.origin, lambda: Flatten(name="", inputs=()), [made])


def total(sketch: Sketch, call: Call) -> Value:
    """A sum over time."""
    value = first(sketch, call)
    if not isinstance(value, Series):
        raise Refusal("sum has a node over time alone")
    return _over_time(value, _axes(call), 1.0)


def stack(sketch: Sketch, call: Call) -> Value:
    """The steps of one layer, side by side."""
    parts, axis = [sketch.of(one) for one in call.args[0]], int(call.get(1, "dim", 0)) % call.out.ndim
    series = collected([one for one in parts if one is not None], axis)
    if series is None or len(series.steps) != len(parts):
        raise Refusal("stacks values that are not the steps of one layer")
    return series


def collected(values: list[Value], axis: int = 0) -> Series | None:
    """The series that these make, if they are steps of one node."""
    kept = [one for one in values if isinstance(one, At) and one.step is not None]
    if len(kept) != len(values) or len({(one.node, one.state) for one in kept}) != 1:
        return None
    steps = tuple(one.step for one in kept if one.step is not None)
    return Series(kept[0].node, steps, axis, kept[0].state)


def pick(sketch: Sketch, call: Call) -> Value:
    """One step of a series, or all of a value."""
    value, index = first(sketch, call), call.args[1]
    if isinstance(value, Series):
        places = index if isinstance(index, tuple) else (index,)
        step = places[value.axis] if len(places) > value.axis else None
        if type(step) is int and all(one == slice(None) for one in (*places[: value.axis], *places[value.axis + 1 :])):
            return At(value.node, value.steps[step], value.state)
    if call.out.shape == call.args[0].shape:
        return value
    if value.node == sketch.source.name and isinstance(value, At) and value.step is None:
        raise Refusal(
            f"picks a part of a sample, which is one still picture of shape {sketch.shapes[value.node]}; if that is "
            "(time, ...), say with input_shape (--input-shape) what one step is, and samples are frames"
        )
    raise Refusal("picks a part of a value; accepted is one step of a series, x[step]")


def put(sketch: Sketch, call: Call) -> None:
    """record[step] = value, into a tensor of zeros."""
    record, index, given = call.args[:3]
    value, before = sketch.of(given), sketch.of(record)
    if value is None and before is None:
        return
    steps = before.steps if isinstance(before, Series) else ()
    fits = before is None or (isinstance(before, Series) and value is not None and before.node == value.node)
    if not (fits and isinstance(value, At) and type(index) is int and value.step == index == len(steps)):
        raise Refusal("writes into a tensor; accepted is record[step] = value, in the order of the steps")
    sketch.note(record, Series(value.node, (*steps, index), 0, value.state))


def unbind(sketch: Sketch, call: Call) -> tuple[Value, ...]:
    """The steps of a series, one by one."""
    value = first(sketch, call)
    if not isinstance(value, Series) or int(call.get(1, "dim", 0)) != value.axis:
        raise Refusal("takes a value apart along another axis than time")
    return tuple(At(value.node, step, value.state) for step in value.steps)


def swap(sketch: Sketch, call: Call) -> Value:
    """Time and batch change places."""
    value = first(sketch, call)
    order = list(range(call.args[0].ndim))
    if call.name == "permute":
        given = call.args[1] if isinstance(call.args[1], tuple | list) else call.args[1:]
        order = [one % len(order) for one in given]
    else:
        one, other = (int(place) % len(order) for place in call.args[1:3])
        order[one], order[other] = order[other], order[one]
    if order == sorted(order):
        return value
    if not isinstance(value, Series) or order != [1, 0, *range(2, len(order))]:
        raise Refusal("moves axes; accepted is to swap time and batch")
    return Series(value.node, value.steps, 1 - value.axis, value.state)


def linear(sketch: Sketch, call: Call) -> Value:
    """F.linear with weights that are not computed from the input."""
    weight, bias = call.args[1], call.get(2, "bias")
    module = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    return _with_weights(sketch, call, module, weight, bias)


def conv2d(sketch: Sketch, call: Call) -> Value:
    """F.conv2d with weights that are not computed from the input."""
    weight, bias = call.args[1], call.get(2, "bias")
    names = ("stride", "padding", "dilation", "groups")
    options = {
        **dict(zip(names, call.args[3:], strict=False)),
        **{n: call.kwargs[n] for n in names if n in call.kwargs},
    }
    into = weight.shape[1] * int(options.get("groups", 1))
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    module = nn.utils.skip_init(
        nn.Conv2d, into, weight.shape[0], kernel, bias=bias is not None, dtype=weight.dtype, **options
    )
    return _with_weights(sketch, call, module, weight, bias)


def _with_weights(sketch: Sketch, call: Call, module: Any, weight: Tensor, bias: Tensor | None) -> Value:
    if sketch.of(weight) is not None or (bias is not None and sketch.of(bias) is not None):
        raise Refusal(f"{call.name} with weights that are computed from the input")
    module.weight.data = weight.detach().clone()
    if bias is not None:
        module.bias.data = bias.detach().clone()
    value = at(sketch, call)
    make = MODULES[type(module)]
    content = tuple(one.detach().numpy().tobytes() for one in (weight, bias) if one is not None)
    key = (call.name, str(module), hash(content))
    return sketch.apply(key, call.name, call.origin, lambda: make(module, sketch.shapes[value.node]), [value])


def _affine(sketch: Sketch, call: Call, scale: Array | float, shift: Array | float) -> Value:
    """scale * x + shift with constants: nothing, a factor of a sum over time, or a BatchNorm's equation."""
    given = next(value for one in call.args[:2] if (value := sketch.of(one)) is not None)
    factor, offset = np.asarray(scale, dtype=np.float64), np.asarray(shift, dtype=np.float64)
    if (factor == 1).all() and (offset == 0).all():
        return given
    if isinstance(given, Total) and factor.size == 1 and (offset == 0).all():
        return Total(given.node, given.steps, given.factor * float(factor.flat[0]), given.state)
    if not isinstance(given, At) or given.state:
        raise Refusal(f"{call.name} with a constant is applied to a series of steps or a membrane")
    shape = sketch.shapes[given.node]
    gamma, beta = _per_channel(factor, shape), _per_channel(offset, shape)
    ones = np.ones(shape[0])

    def make() -> Node:
        return BatchNorm(name="", inputs=(), mean=0 * ones, variance=ones, gamma=gamma, beta=beta, eps=0.0)

    return sketch.apply(("affine", gamma.tobytes(), beta.tobytes()), call.name.strip("_"), call.origin, make, [given])


def _per_channel(values: Array, shape: tuple[int, ...]) -> Array:
    """`()`, `(1, C, 1, 1)` and the like as `(C,)`; Refusal if values differ within a channel."""
    sized = values.reshape(values.shape[1:]) if values.ndim == len(shape) + 1 and len(values) == 1 else values
    try:
        whole = np.broadcast_to(sized, shape).reshape(shape[0], -1)
    except ValueError as error:
        raise Refusal(f"a constant of shape {values.shape} beside a value of shape {shape}") from error
    if (whole != whole[:, :1]).any():
        raise Refusal("a constant that differs within a channel")
    return whole[:, 0].copy()


def _constant(side: Any) -> Array:
    return np.asarray(side.detach().cpu().double().numpy() if isinstance(side, Tensor) else side, dtype=np.float64)


def _total(one: Value, other: Value) -> Total:
    """The sum of two sums over time."""
    parts = [_as_total(side) for side in (one, other)]
    if len({(part.factor, part.state) for part in parts}) > 1 or {*parts[0].steps} & {*parts[1].steps}:
        raise Refusal("a sum over time in which steps have different weights")
    return Total(one.node, (*parts[0].steps, *parts[1].steps), parts[0].factor, parts[0].state)


def _as_total(value: Value) -> Total:
    if isinstance(value, Total):
        return value
    if isinstance(value, At) and value.step is not None:
        return Total(value.node, (value.step,), 1.0, value.state)
    raise Refusal("adds a series of steps to itself")


def _over_time(value: Series, axes: tuple[int, ...], factor: float) -> Total:
    if axes != (value.axis,):
        raise Refusal(f"over {axes or 'everything'} of a series; accepted is its time axis, {value.axis}")
    return Total(value.node, value.steps, factor, value.state)


def _axes(call: Call) -> tuple[int, ...]:
    given = call.get(1, "dim", call.kwargs.get("axis"))
    listed = () if given is None else given if isinstance(given, tuple | list) else (given,)
    return tuple(sorted(int(one) % call.args[0].ndim for one in listed))


_ADD = ("add", "add_", "__add__", "__radd__", "__iadd__")
_SUB = ("sub", "sub_", "subtract", "__sub__", "__rsub__", "rsub", "__isub__")
_MUL = ("mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__")
_DIV = ("div", "div_", "divide", "true_divide", "__truediv__", "__itruediv__")
_SAME = ("detach", "detach_", "clone", "contiguous", "to", "float", "double", "type", "cpu", "cuda", "requires_grad_")
_SHAPE = ("flatten", "view", "reshape", "squeeze", "squeeze_", "view_as", "reshape_as")

HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(_ADD, add),
    **dict.fromkeys(_SUB, subtract),
    **dict.fromkeys(_MUL, multiply),
    **dict.fromkeys(_DIV, divide),
    **dict.fromkeys(_SAME, unchanged),
    **dict.fromkeys(_SHAPE, reshape),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d"), dropout),
    **dict.fromkeys(("relu", "relu_"), relu),
    **dict.fromkeys(("neg", "negative", "__neg__"), negate),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims", "permute"), swap),
    "avg_pool2d": pool(nn.AvgPool2d, "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
    "max_pool2d": pool(nn.MaxPool2d, "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    "adaptive_avg_pool2d": pool(nn.AdaptiveAvgPool2d, "output_size"),
    "mean": mean,
    "sum": total,
    "stack": stack,
    "__getitem__": pick,
    "__setitem__": put,
    "unbind": unbind,
    "linear": linear,
    "conv2d": conv2d,
}
