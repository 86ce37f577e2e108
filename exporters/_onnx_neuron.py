"""A neuron's membrane in ONNX: float32 wherever float32 is exact on the integers, which is also fastest.

Every membrane is a multiple of `2**-fraction_bits`, so it is an integer in those units, and float32 holds integers
below 2**24, and so it is with a current that is kept. What decides are the leaks, n / 2**k in lowest terms (k for all
channels, n for each), which are truncated to that grid:

    Membrane            nothing is ever truncated, since k * (steps - 1) <= fraction_bits: a product in weight units
    TruncatedMembrane   the product with n stays below 2**24: float32 in units of the grid, Cast truncates
    IntegerMembrane     everything else: int32, integer Div truncates

A spike is a HardSigmoid, max(0, min(1, alpha * v + beta)), steep enough to jump within one step of the grid: one pass
over the membrane in onnxruntime, where Greater and Cast are two, and `Where` is slow.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from snnkd_deploy.bounds import Bounds, largest
from snnkd_deploy.ir import Array, Neuron

from ._onnx_nodes import CODES, Edge, Nodes, Type, derived

Decay = Literal["decay", "current_decay"]
EXACT_FLOAT32 = 2**24
LARGEST_INT32 = 2**31 - 1


def membrane(
    nodes: Nodes, node: Neuron, ranks: int, limits: Bounds | None, current: Edge, steps: int | None
) -> Membrane:
    """How this neuron is written; `limits` is None for real numbers, `steps` None where they have no end."""
    if limits is None:
        return RealMembrane(nodes, node, ranks)
    reach, limit = largest(limits.membranes[node.name]), int(node.threshold.max()) << node.fraction_bits
    reach = reach + limit if node.reset == "subtract_late" else max(reach, limit)  # it is taken away in a second sum
    (numerators, shift), flowing = node.leak, largest(limits.currents[node.name])
    grown, reach = reach * int(numerators.max()), max(reach, flowing)
    if node.keeps_current:
        (numerators, other) = node.current_leak
        grown, shift = max(grown, flowing * int(numerators.max())), max(shift, other)
    if current.type == "float" and reach < EXACT_FLOAT32:
        if shift == 0 or (steps is not None and shift * (steps - 1) <= node.fraction_bits):
            return Membrane(nodes, node, ranks)
        if grown < EXACT_FLOAT32:
            return TruncatedMembrane(nodes, node, ranks)
    return IntegerMembrane(nodes, node, ranks, narrow=grown <= LARGEST_INT32)


class Membrane:
    """Float32 in weight units."""

    type: Type = "float"

    def __init__(self, nodes: Nodes, node: Neuron, ranks: int) -> None:
        self.nodes, self.node, self.ranks = nodes, node, ranks
        self.grid = 2.0**node.fraction_bits
        """Steps of the membrane's grid in one of its units."""
        self.limit = _over_channels(node.threshold, ranks)

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
        if np.all(decay == 1):
            return v
        return self.nodes.op("Mul", [v, self._each(decay, of, "float")], f"{at}/leaked")

    def fire(self, v: str, at: str, spikes: str) -> str:
        """The tensor of spikes, float32 0 or 1."""
        if self.limit.ndim:
            return self._greater(v, at, spikes)
        beta = -self.grid * float(self.limit)
        return self.nodes.op("HardSigmoid", [v], spikes, alpha=self.grid, beta=beta)

    def reset(self, v: str, spikes: str, at: str, name: str) -> str:
        """v after the spikes."""
        if self.node.reset in ("none", "subtract_late"):
            return v if name == f"{at}/reset" else self.nodes.op("Identity", [v], name)
        if self.node.reset == "subtract":
            return self.nodes.op("Sub", [v, self.taken(spikes, at, f"{at}/taken")], name)
        if self.limit.ndim:
            fired = self.nodes.op("Mul", [v, spikes], f"{at}/fired")
            return self.nodes.op("Sub", [v, fired], name)
        beta = self.grid * float(self.limit) + 1
        quiet = self.nodes.op("HardSigmoid", [v], f"{at}/quiet", alpha=-self.grid, beta=beta)
        return self.nodes.op("Mul", [v, quiet], name)

    def taken(self, spikes: str, at: str, name: str) -> str:
        """The threshold of those that fired."""
        return self.nodes.op("Mul", [spikes, self._threshold()], name)

    def _greater(self, v: str, at: str, spikes: str) -> str:
        fires = self.nodes.op("Greater", [v, self._threshold()], f"{at}/fires")
        return self.nodes.op("Cast", [fires], spikes, to=CODES["float"])

    def _each(self, values: Array, what: str, kind: Type) -> str:
        """A number that all neurons share, or one per channel."""
        if not values.ndim:
            return self.nodes.number(values.item(), kind)
        dtype = "float32" if kind == "float" else "int32"
        return self.nodes.constant(_over_channels(values, self.ranks).astype(dtype), f"{self.node.name}/{what}")

    def _threshold(self) -> str:
        kind = "float32" if self.type == "float" else "int32"
        return self.nodes.constant(self.limit.astype(kind), f"{self.node.name}/threshold")


class RealMembrane(Membrane):
    """Real numbers: there is no grid within which a HardSigmoid could jump."""

    def fire(self, v: str, at: str, spikes: str) -> str:
        """By comparison."""
        return self._greater(v, at, spikes)

    def reset(self, v: str, spikes: str, at: str, name: str) -> str:
        """By the spikes themselves."""
        if self.node.reset != "zero":
            return super().reset(v, spikes, at, name)
        return self.nodes.op("Sub", [v, self.nodes.op("Mul", [v, spikes], f"{at}/taken")], name)


class TruncatedMembrane(Membrane):
    """Float32 in units of the grid."""

    def __init__(self, nodes: Nodes, node: Neuron, ranks: int) -> None:
        super().__init__(nodes, node, ranks)
        self.unit, self.grid = 2**node.fraction_bits, 1.0
        self.limit = self.limit * self.unit

    def current(self, edge: str) -> str:
        """One weight unit is so many steps of the grid."""
        return self.nodes.once("Mul", [edge, self.nodes.number(float(self.unit), "float")], derived(edge, "fine"))

    def leak(self, v: str, at: str, of: Decay = "decay") -> str:
        """Cast truncates toward zero."""
        if (leaked := super().leak(v, at, of)) == v:
            return v
        whole = self.nodes.op("Cast", [leaked], f"{at}/whole", to=CODES["int32"])
        return self.nodes.op("Cast", [whole], f"{at}/kept", to=CODES["float"])


class IntegerMembrane(Membrane):
    """Int32 in units of the grid; `narrow`: v times the leak's numerator stays in int32."""

    type: Type = "int32"

    def __init__(self, nodes: Nodes, node: Neuron, ranks: int, narrow: bool) -> None:
        super().__init__(nodes, node, ranks)
        self.narrow = narrow
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
        above = self._each(numerators, f"{of}/numerators", "int32")
        if self.narrow:
            grown = op("Mul", [v, above], f"{at}/grown")
            return op("Div", [grown, below], f"{at}/leaked")
        high = op("Div", [v, below], f"{at}/high")
        whole = op("Mul", [high, below], f"{at}/whole")
        low = op("Sub", [v, whole], f"{at}/low")
        fine = op("Div", [op("Mul", [low, above], f"{at}/low/grown"), below], f"{at}/low/leaked")
        return op("Add", [op("Mul", [high, above], f"{at}/high/grown"), fine], f"{at}/leaked")

    def fire(self, v: str, at: str, spikes: str) -> str:
        """By comparison."""
        return self._greater(v, at, spikes)

    def reset(self, v: str, spikes: str, at: str, name: str) -> str:
        """In integers."""
        if self.node.reset != "zero":
            return super().reset(v, spikes, at, name)
        return self.nodes.op("Sub", [v, self.nodes.op("Mul", [v, self._fired(spikes, at)], f"{at}/taken")], name)

    def taken(self, spikes: str, at: str, name: str) -> str:
        """The threshold of those that fired."""
        return super().taken(self._fired(spikes, at), at, name)

    def _fired(self, spikes: str, at: str) -> str:
        return self.nodes.op("Cast", [spikes], f"{at}/fired", to=CODES["int32"])


def _over_channels(values: Array, ranks: int) -> Array:
    """`()`, or `(1, channels, 1...)` for a tensor with a batch in front."""
    return values.reshape(1, -1, *[1] * (ranks - 1)) if values.ndim else values
