"""The integer network of a target as a module: forward what the chip computes, backward the slope of real numbers.

Integers are held in float32, membranes in multiples of `2**-fraction_bits`: what fits a state of 24 bits is exact
there, in any order of summation. Weights are rounded and clipped with a straight-through gradient that ends where
they are clipped (Bengio et al., arXiv 1308.3432; Zhou et al., DoReFa-Net, arXiv 1606.06160); the truncated leak passes
its gradient straight through too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.ir import (
    Add,
    Array,
    Attention,
    AvgPool2d,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
)
from snnkd_deploy.numerics import nearest
from snnkd_deploy.passes.quantize import Scales, edge_unit, rounded, worst_cases
from snnkd_deploy.snn.lif import LIF, spike
from snnkd_deploy.snn.network import SPIKE, Outputs


class _Nearest(torch.autograd.Function):
    """`numerics.nearest` in float64; the slope is that of values / unit, and zero where they are clipped."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, unit: Tensor, limit: float) -> Tensor:
        exact = values.double()
        ctx.save_for_backward(((exact / unit).abs() <= limit + 0.5) / unit)
        whole: Tensor = nearest(exact, unit, limit).to(values.dtype)
        return whole

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (slope,) = ctx.saved_tensors
        return grad * slope.to(grad.dtype), None, None


class _Leak(torch.autograd.Function):
    """v * decay truncated toward zero to multiples of `1 / fraction`; the slope is the decay."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, decay: Tensor, fraction: int) -> Tensor:
        ctx.save_for_backward(decay)
        return ((v.double() * (decay * fraction)).trunc() / fraction).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (decay,) = ctx.saved_tensors
        return grad * decay.to(grad.dtype), None, None


class Synapse(nn.Module):
    """A Linear or Conv2d whose weights and bias are integers; `weight` is a share of the largest real one at the start.

    So a learning rate means the same in every layer, whatever BatchNorm has made of the size of its weights.
    """

    def __init__(self, layer: Linear | Conv2d, graph: Graph, scales: Scales, trained: bool) -> None:
        super().__init__()
        self.layer, self.limits = layer, (scales.limits.weight, scales.limits.bias(layer.name))
        self.size = float(np.abs(layer.weight).max()) or 1.0
        self.weight = nn.Parameter(torch.tensor(layer.weight / self.size).float(), requires_grad=trained)
        self.bias = nn.Parameter(torch.tensor(layer.bias).float(), requires_grad=trained)
        self.register_buffer("step", torch.tensor(scales.weights(graph, layer.name)), persistent=False)
        self.register_buffer("unit", torch.tensor(scales.outputs[layer.name]), persistent=False)
        self.step: Tensor
        self.unit: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Integers (N, in, ...) to integers (N, out, ...)."""
        weight: Tensor = _Nearest.apply(self.weight * self.size, self.step, self.limits[0])  # type: ignore[no-untyped-call]
        bias: Tensor = _Nearest.apply(self.bias, self.unit, self.limits[1])  # type: ignore[no-untyped-call]
        one = self.layer
        if isinstance(one, Linear):
            return functional.linear(x, weight, bias)
        return functional.conv2d(x, weight, bias, one.stride, one.padding, one.dilation, one.groups)

    def real(self) -> Linear | Conv2d:
        """The layer with the weights and the bias behind the integers."""
        weight, bias = (self.weight * self.size).detach(), self.bias.detach()
        return replace(self.layer, weight=weight.double().cpu().numpy(), bias=bias.double().cpu().numpy())

    @torch.no_grad()
    def shrink(self, ratios: Array) -> None:
        """Divide the weights and bias of each channel by its ratio, `(out,)`, or by one for all, `(1,)`."""
        divisor = torch.tensor(ratios, device=self.bias.device)
        self.weight.div_(divisor.view(-1, *[1] * (self.weight.ndim - 1)))
        self.bias.div_(divisor)


class Fire(nn.Module):
    """Integer neurons, step by step; the surrogate sees the membrane in the real numbers that it was trained in."""

    def __init__(self, node: Neuron, real: Neuron, dimensions: int, equation: LIF) -> None:
        super().__init__()
        self.reset, self.fraction, self.equation = node.reset, 1 << node.fraction_bits, equation
        arrays = {"threshold": node.threshold, "worth": real.threshold / node.threshold, "decay": node.decay}
        for name, values in arrays.items():
            along = torch.tensor(np.asarray(values, dtype=np.float64)).view(-1, *[1] * (dimensions - 1))
            self.register_buffer(name, along if name == "decay" else along.float(), persistent=False)
        self.threshold: Tensor
        self.worth: Tensor
        self.decay: Tensor
        self.leaks = bool((self.decay != 1).any())

    def forward(self, current: Tensor) -> Tensor:
        """Spikes (T, B, ...) of the integer current (T, B, ...)."""
        v, train = torch.zeros_like(current[0]), []
        for x in current:
            v = self._leaked(v) + x
            s = spike((v - self.threshold) * self.worth, self.equation.surrogate)
            train.append(s)
            fired = s.detach() if self.equation.detach_reset else s
            v = v - fired * (v if self.reset == "zero" else self.threshold)
        return torch.stack(train)

    def _leaked(self, v: Tensor) -> Tensor:
        if not self.leaks:
            return v
        leaked: Tensor = _Leak.apply(v, self.decay, self.fraction)  # type: ignore[no-untyped-call]
        return leaked


class IntegerNetwork(nn.Module):
    """A folded graph, run as the integers that it becomes at `scales`; its parameters are the real numbers behind them.

    `equation` gives the surrogate and whether the reset is detached, `taps` names the nodes that a method looks at,
    layers in `fixed` are not trained.
    """

    def __init__(
        self,
        graph: Graph,
        scales: Scales,
        equation: LIF,
        taps: tuple[str, ...] = (),
        fixed: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.scales, self.taps, self.timesteps = scales, taps, graph.timesteps
        self._start, integer = graph, rounded(graph, scales)
        layers = [node for node in graph if isinstance(node, Linear | Conv2d)]
        pairs = zip(graph.of(Neuron), integer.of(Neuron), strict=True)
        dimensions = {name: len(shape) for name, shape in graph.shapes.items()}
        self.synapses = _by_node({one.name: Synapse(one, graph, scales, one.name not in fixed) for one in layers})
        self.neurons = _by_node({real.name: Fire(one, real, dimensions[real.name], equation) for real, one in pairs})

    @property
    def graph(self) -> Graph:
        """The folded graph with the weights of now."""
        layers = {name: self._synapse(name).real() for name in self.scales.outputs}
        return replace(self._start, nodes=tuple(layers.get(node.name, node) for node in self._start))

    @property
    def integer(self) -> Graph:
        """The integer graph that the forward pass computes."""
        return rounded(self.graph, self.scales)

    def settle(self) -> None:
        """Shrink the weights of each channel whose worst case the target's state would not hold, until all do.

        Synapses that are not trained stay as they are.
        """
        while excess := worst_cases(self.integer, self.scales):
            for index, ratios in excess.items():
                more = np.where(ratios > 1, np.maximum(ratios, 1.001), 1.0)
                for synapse in map(self._synapse, self.scales.groups[index].members):
                    if synapse.weight.requires_grad:
                        synapse.shrink(more if len(more) == len(synapse.bias) else more.max(keepdims=True))

    def _synapse(self, name: str) -> Synapse:
        synapse = self.synapses[_key(name)]
        assert isinstance(synapse, Synapse)
        return synapse

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images as the student takes them: each the same multiple of an integer."""
        return self._logits(self._values(images))

    def sums(self, images: Tensor) -> Tensor:
        """The integer logits (B, classes), sums over time."""
        return self._sums(self._values(images))

    def outputs(self, images: Tensor) -> Outputs:
        """What a distillation method may look at, in real numbers."""
        values, worth = self._values(images), SPIKE if self._start.counts_spikes else 1.0
        steps = worth * self._real(values, self._start.output.inputs[0]).expand(self.timesteps, -1, -1)
        return Outputs(
            worth * self._logits(values), steps, tuple(self._real(values, name).mean(0) for name in self.taps)
        )

    def _sums(self, values: dict[str, Tensor]) -> Tensor:
        return values[self._start.output.inputs[0]].expand(self.timesteps, -1, -1).sum(0)

    def _logits(self, values: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self._sums(values) * (self._unit(self._start.output.inputs[0]) / self.timesteps)
        return logits

    def _real(self, values: dict[str, Tensor], name: str) -> Tensor:
        real: Tensor = values[name] * self._unit(name)
        return real

    def _unit(self, name: str) -> Any:
        """Real value of the integer 1 in the output of a node, made to broadcast to (T, B, ...)."""
        unit = edge_unit(self._start, name, self.scales.outputs)
        assert unit is not None
        if unit.ndim == 0:
            return float(unit)
        trailing = [1] * (len(self._start.shapes[name]) - 1)
        return torch.tensor(unit, dtype=torch.float32, device=next(self.parameters()).device).view(-1, *trailing)

    def _values(self, images: Tensor) -> dict[str, Tensor]:
        """The output of each node, (T or 1, B, ...)."""
        values: dict[str, Tensor] = {}
        for node in self._start.nodes[:-1]:
            arguments = [values[name] for name in node.inputs]
            values[node.name] = self._sample(images) if isinstance(node, Input) else self._evaluate(node, arguments)
        return values

    def _sample(self, images: Tensor) -> Tensor:
        source = self._start.input
        whole = (images / source.scale).round().clamp(source.low, source.high)
        return whole[None] if source.static else whole[:, -self.timesteps :].transpose(0, 1)

    def _evaluate(self, node: Node, arguments: list[Tensor]) -> Tensor:
        first = arguments[0]
        if isinstance(node, Neuron):
            spikes: Tensor = self.neurons[_key(node.name)](first.expand(self.timesteps, *first.shape[1:]))
            return spikes
        if isinstance(node, Add):
            return torch.stack(torch.broadcast_tensors(*arguments)).sum(0)
        if isinstance(node, Attention):
            return _attention(arguments, node.heads)
        merged = self._each_step(node, first.flatten(0, 1))
        unfolded: Tensor = merged.unflatten(0, first.shape[:2])
        return unfolded

    def _each_step(self, node: Node, x: Tensor) -> Tensor:
        if isinstance(node, Linear | Conv2d):
            weighted: Tensor = self.synapses[_key(node.name)](x)
            return weighted
        if isinstance(node, AvgPool2d):
            return functional.avg_pool2d(x, node.kernel, node.stride, divisor_override=1)
        if isinstance(node, MaxPool2d):
            return functional.max_pool2d(x, node.kernel, node.stride)
        assert isinstance(node, Flatten), f"no integer form of {type(node).__name__}"
        return x.flatten(1)


def _attention(arguments: list[Tensor], heads: int) -> Tensor:
    q, k, v = (one.flatten(3).unflatten(2, (heads, -1)) for one in arguments)
    counts: Tensor = (v @ k.transpose(-1, -2) @ q).reshape(arguments[0].shape)
    return counts


def _by_node(modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    return nn.ModuleDict({_key(name): module for name, module in modules.items()})


def _key(name: str) -> str:
    """A node's name without the dots that torch keeps for itself."""
    return name.replace(".", "/")
