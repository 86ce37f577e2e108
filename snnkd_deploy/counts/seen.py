"""The values that arrive at layers: kept to be told, and to be held against what the graph says."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from snnkd_deploy.counts.kinds import SPIKING, Carried
from snnkd_deploy.ir import Array
from snnkd_deploy.numerics import is_integer

MOST_VALUES = 16
"""Different values of an input that are told one by one."""
SAMPLED = 1000
"""Values that are looked at first, to see whether there are many."""
ROUNDING = 1e-6
"""Of a spike's worth, in real numbers."""


@dataclass(eq=False)
class Seen:
    """The values that arrived at a layer: all of them if they are few, in any case the range."""

    values: set[float] | None = field(default_factory=set)
    low: float = np.inf
    high: float = -np.inf

    def add(self, x: Array, unit: float = 1.0) -> None:
        """These too; `unit`: what they are multiples of, if they are."""
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        if self.values is not None:
            self._join(_different(x.reshape(-1), unit))

    def meet(self, values: Array) -> None:
        """The same of different whole numbers, at least one."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self._join({float(one) for one in values})

    def _join(self, met: set[float] | None) -> None:
        both = None if met is None or self.values is None else self.values | met
        self.values = both if both is not None and len(both) <= MOST_VALUES else None


def _different(x: Array, unit: float) -> set[float] | None:
    """The different values of a row, None if there are many; quick where they are few multiples of `unit`."""
    if len(np.unique(x[:: max(1, len(x) // SAMPLED)])) > MOST_VALUES:
        return None
    whole = x if unit == 1 and is_integer(x) else np.rint(x / unit).astype(np.int64)
    least = whole.min()
    if whole.max() - least < SAMPLED and (whole is x or np.abs(whole * unit - x).max() <= ROUNDING * unit):
        return {float(one * unit) for one in np.flatnonzero(np.bincount(whole - least)) + least}
    return {float(one) for one in np.unique(x)}


def contradiction(name: str, seen: Seen, carried: Carried) -> str | None:
    """What to say of values that are other than the graph says, or that would hide it; nothing is decided by them."""
    if seen.values is None:
        return None
    met = ", ".join(f"{one:g}" for one in sorted(seen.values)) or "no value"
    sizes = {abs(one) for one in seen.values} - {0.0}
    if carried.kind in SPIKING:
        whole = all(abs(one / carried.unit - round(one / carried.unit)) < ROUNDING for one in sizes)
        if whole and (carried.multiplied or all(one <= carried.unit * (1 + ROUNDING) for one in sizes)):
            return None
        return f"{name}: met {met}, where the graph says {carried.kind} of {carried.unit:g}"
    if len(sizes) > 1:
        return None
    return (
        f"{name}: met only {met}, where the graph says {carried.kind}: a counter that looks at values would take its "
        "multiplications for additions"
    )
