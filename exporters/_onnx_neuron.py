"""A neuron's membrane in ONNX: float32 wherever float32 is exact on the integers, which is also fastest.

Every membrane is a multiple of `2**-fraction_bits` weight units, and float32 holds multiples of `2**-b` up to
`2**(24 - b)`; so it is with a current that is kept. What decides are the leaks, n / 2**k in lowest terms (k for all
channels, n for each):

    Membrane            nothing is ever truncated, since k * (steps - 1) <= fraction_bits: a product
    TruncatedMembrane   the product with n stays below 2**24 steps of the grid: Cast truncates
    IntegerMembrane     everything else: int32 in steps of the grid, integer Div truncates

In float32 a spike is a HardSigmoid, max(0, min(1, alpha * v + beta)), steep enough to jump within one step of the
grid; of real numbers the grid is float32 itself. onnxruntime computes pictures in blocks of channels and leaves them
so through Conv, Add, Mul of two tensors, HardSigmoid and pools; whatever else comes between (`Where`, Greater, Cast,
Sub, a product with a number) costs two copies of the tensor. So a factor is a depthwise convolution, and a sum goes
into the convolution in front of it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from snnkd_deploy.bounds import Bounds, largest
from snnkd_deploy.ir import Array, Neuron, Shape

from ._onnx_nodes import CODES, Nodes, Type, derived

Decay = Literal["decay", "current_decay"]
EXACT_FLOAT32 = 2**24
LARGEST_INT32 = 2**31 - 1
BLOCK = 16
"""Channels that onnxruntime computes together, or a multiple of them."""
STEEPEST = 2.0**100
"""As good as infinite, for what has been compared with the threshold already."""


def membrane(
    nodes: Nodes, node: Neuron, shape: Shape, limits: Bounds | None, current: Type, reach: int, steps: int | None
) -> Membrane:
    """How this neuron is written.

    `limits` is None for real numbers, `steps` None where they have no end. `reach`: what no partial sum of the current
    exceeds, in weight units.
    """
    if limits is None:
        return RealMembrane(nodes, node, shape)
    (numerators, shift), worst, limit = node.leak, largest(limits.membranes[node.name]), int(node.threshold.max())
    grown, kept = worst * int(numerators.max()), 0
    if node.keeps_current:
        (numerators, other), kept = node.current_leak, largest(limits.currents[node.name])
        grown, shift = max(grown, kept * int(numerators.max())), max(shift, other)
    bits = node.fraction_bits if steps is None and shift else shift * ((steps or 1) - 1)
    truncates = bits > node.fraction_bits or (steps is None and shift > 0)
    bits = min(bits, node.fraction_bits)
    taken = limit if node.reset == "subtract_late" else 0  # in a sum of its own
    farthest = (max(reach + taken, limit) + 1) * 2**bits + ((worst + kept) >> (node.fraction_bits - bits))
    if current == "float" and farthest < EXACT_FLOAT32:
        if not truncates:
            return Membrane(nodes, node, shape, bits)
        if grown < EXACT_FLOAT32:
            return TruncatedMembrane(nodes, node, shape, bits)
    return IntegerMembrane(nodes, node, shape, narrow=grown <= LARGEST_INT32)


class Membrane:
    """Float32 in weight units, a multiple of `2**-bits`; thresholds are positive."""

    type: Type = "float"

    def __init__(self, nodes: Nodes, node: Neuron, shape: Shape, bits: int) -> None:
        self.nodes, self.node, self.shape = nodes, node, shape
        self.steepness = 2.0**bits
        """The least that a membrane is above its threshold, times this, is 1."""
        self.limit = np.asarray(node.threshold)
        self.blocked = len(shape) == 3 and shape[0] % BLOCK == 0

    @property
    def lasting(self) -> bool:
        """Whether anything of it reaches the next step."""
        return bool(np.any(self.node.decay != 0))

    def current(self, edge: str) -> str:
        """The input in units of the membrane."""
        return edge

    def leak(self, v: str, at: str, of: Decay = "decay") -> str:
        """What is kept of v, or of the current."""
        decay = np.asarray(getattr(self.node, of))
        return v if np.all(decay == 1) else self.scaled(v, decay, of, f"{at}/leaked")

    def fire(self, v: str, at: str, spikes: str) -> str:
        """The tensor of spikes, float32 0 or 1."""
        above, alpha, beta = self._above(v, at)
        return self.nodes.op("HardSigmoid", [above], spikes, alpha=alpha, beta=beta)

    def reset(self, v: str, spikes: str, at: str, name: str) -> str:
        """v after the spikes."""
        if self.node.reset in ("none", "subtract_late"):
            return v if name == f"{at}/reset" else self.nodes.op("Identity", [v], name)
        if self.node.reset == "subtract":
            return self.nodes.op("Add", [self.taken(spikes, at, f"{at}/taken"), v], name)
        above, alpha, beta = self._above(v, at)
        quiet = self.nodes.op("HardSigmoid", [above], f"{at}/quiet", alpha=-alpha, beta=1 - beta)
        return self.nodes.op("Mul", [v, quiet], name)

    def taken(self, spikes: str, at: str, name: str) -> str:
        """What is added to those that fired: minus their threshold."""
        return self.scaled(spikes, -self.limit, "taken", name)

    def scaled(self, x: str, factor: Array, what: str, name: str) -> str:
        """x times a number, or one per channel, which are then called `what`."""
        if not self.blocked:
            return self.nodes.op("Mul", [x, self._each(factor, what)], name)
        weight = self._depthwise(factor, what)
        return self.nodes.op("Conv", [x, weight], name, group=self.shape[0], kernel_shape=(1, 1))

    @property
    def plain(self) -> bool:
        """Whether all channels have one threshold, which a HardSigmoid can compare with."""
        return not self.limit.ndim

    def jump(self, limit: float) -> tuple[float, float]:
        """Alpha and beta of the HardSigmoid that is 1 above `limit`, which is on the grid, and else 0."""
        return self.steepness, -self.steepness * limit

    def _above(self, v: str, at: str) -> tuple[str, float, float]:
        """A tensor, alpha and beta: alpha * tensor + beta is at least 1 where v fires, and at most 0 elsewhere."""
        if self.plain:
            return v, *self.jump(float(self.limit))
        return self._excess(v, at), STEEPEST, 0.0

    def _excess(self, v: str, at: str) -> str:
        """V minus its threshold; in float32 this is positive exactly where v is larger."""
        name = f"{at}/excess"
        if not self.blocked:
            return self.nodes.once("Sub", [v, self._each(self.limit, "threshold")], name)
        below = np.broadcast_to(-self.limit, self.shape[:1]).astype(np.float32)
        inputs = [v, self._depthwise(np.ones(()), ""), self.nodes.constant(below, f"{self.node.name}/below")]
        return self.nodes.once("Conv", inputs, name, group=self.shape[0], kernel_shape=(1, 1))

    def _depthwise(self, factor: Array, what: str) -> str:
        weight = np.broadcast_to(factor, self.shape[:1]).astype(np.float32).reshape(-1, 1, 1, 1)
        name = f"{self.node.name}/{what}" if factor.ndim else f"{self.shape[0]} times {factor.item()!r}"
        return self.nodes.constant(weight, name)

    def _each(self, values: Array, what: str) -> str:
        """A number that all neurons share, or one per channel."""
        if not values.ndim:
            return self.nodes.number(values.item(), self.type)
        over_channels = values.reshape(1, -1, *[1] * (len(self.shape) - 1))
        dtype = "float32" if self.type == "float" else "int32"
        return self.nodes.constant(over_channels.astype(dtype), f"{self.node.name}/{what}")


class RealMembrane(Membrane):
    """Real numbers: above a positive threshold, float32 itself is the grid."""

    def __init__(self, nodes: Nodes, node: Neuron, shape: Shape) -> None:
        super().__init__(nodes, node, shape, 0)
        self.limit = self.limit.astype(np.float32)

    @property
    def plain(self) -> bool:
        """Likewise, and the threshold is positive and neither tiny nor huge."""
        return super().plain and 2.0**-60 < float(self.limit) < 2.0**60

    def jump(self, limit: float) -> tuple[float, float]:
        """The next float32 above a positive `limit` is 1 / alpha away."""
        near = np.float32(limit)
        alpha = 2.0 ** (24 - int(np.frexp(near)[1]))
        return alpha, -alpha * float(near)


class TruncatedMembrane(Membrane):
    """What the leak leaves is truncated toward zero, to a multiple of `2**-bits`."""

    def leak(self, v: str, at: str, of: Decay = "decay") -> str:
        """Through int32, in steps of the grid; the last factor brings it back into blocks of channels."""
        decay = np.asarray(getattr(self.node, of))
        if np.all(decay == 1):
            return v
        fine = self.scaled(v, decay * self.steepness, f"{of}/fine", f"{at}/leaked")
        whole = self.nodes.op("Cast", [fine], f"{at}/whole", to=CODES["int32"])
        back = self.nodes.op("Cast", [whole], f"{at}/steps", to=CODES["float"])
        return self.scaled(back, np.asarray(1 / self.steepness), "grid", f"{at}/kept")


class IntegerMembrane(Membrane):
    """Int32 in units of the grid; `narrow`: v times the leak's numerator stays in int32."""

    type: Type = "int32"

    def __init__(self, nodes: Nodes, node: Neuron, shape: Shape, narrow: bool) -> None:
        super().__init__(nodes, node, shape, 0)
        self.narrow, self.blocked = narrow, False
        whole = np.all(node.decay == 1) and np.all(np.isin(node.current_decay, (0, 1)))
        self.unit = 1 if whole else 2**node.fraction_bits
        self.limit = self.limit * self.unit

    def current(self, edge: str) -> str:
        """One weight unit is so many steps of the grid."""
        if self.unit == 1:
            return edge
        return self.nodes.once("Mul", [edge, self.nodes.number(self.unit, "int32")], derived(edge, "fine"))

    def leak(self, v: str, at: str, of: Decay = "decay") -> str:
        """trunc(v * n / d) without leaving int32.

        Where the product might, v is split at the denominator: v = high * d + low with both of v's sign, so that
        trunc(v * n / d) = high * n + trunc(low * n / d).
        """
        (numerators, bits), op = self.node.leak if of == "decay" else self.node.current_leak, self.nodes.op
        if bits == 0 and np.all(numerators == 1):
            return v
        below = self.nodes.number(2**bits, "int32")
        if np.all(numerators == 1):
            return op("Div", [v, below], f"{at}/leaked")
        above = self._each(numerators, f"{of}/numerators")
        if self.narrow:
            grown = op("Mul", [v, above], f"{at}/grown")
            return op("Div", [grown, below], f"{at}/leaked")
        high = op("Div", [v, below], f"{at}/high")
        whole = op("Mul", [high, below], f"{at}/high/whole")
        low = op("Sub", [v, whole], f"{at}/low")
        fine = op("Div", [op("Mul", [low, above], f"{at}/low/grown"), below], f"{at}/low/leaked")
        return op("Add", [op("Mul", [high, above], f"{at}/high/grown"), fine], f"{at}/leaked")

    def fire(self, v: str, at: str, spikes: str) -> str:
        """By comparison."""
        fires = self.nodes.op("Greater", [v, self._each(self.limit, "threshold")], f"{at}/fires")
        return self.nodes.op("Cast", [fires], spikes, to=CODES["float"])

    def reset(self, v: str, spikes: str, at: str, name: str) -> str:
        """In integers."""
        if self.node.reset != "zero":
            return super().reset(v, spikes, at, name)
        return self.nodes.op("Sub", [v, self.nodes.op("Mul", [v, self._fired(spikes, at)], f"{at}/taken")], name)

    def taken(self, spikes: str, at: str, name: str) -> str:
        """In integers."""
        return super().taken(self._fired(spikes, at), at, name)

    def _fired(self, spikes: str, at: str) -> str:
        return self.nodes.op("Cast", [spikes], f"{at}/fired", to=CODES["int32"])
