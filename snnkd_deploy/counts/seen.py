"""The values that arrive at layers: kept to be told, and to be held against what the graph says."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from snnkd_deploy.counts.kinds import SPIKING, Carried
from snnkd_deploy.ir import Array

MOST_VALUES = 16
"""Different values of an input that are told one by one."""
ROUNDING = 1e-6
"""Of a spike's worth, in real numbers."""


@dataclass(eq=False)
class Seen:
    """The values that arrived at a layer: all of them if they are few, in any case the range."""

    values: set[float] | None = field(default_factory=set)
    low: float = np.inf
    high: float = -np.inf

    def add(self, x: Array) -> None:
        """These too."""
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        if self.values is not None:
            self.values |= {float(one) for one in np.unique(x)[: MOST_VALUES + 1]}
            self.values = self.values if len(self.values) <= MOST_VALUES else None


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
