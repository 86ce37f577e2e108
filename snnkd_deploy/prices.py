"""What operations cost: price tables, and sums under them. What nobody has published is absent, never zero."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np

Price = tuple[float, float, float]
"""Low, nominal, high."""

Scope = Literal["arithmetic", "chip", "device"]
_ARITHMETIC = ("mac", "synop", "add", "leak_multiply", "compare")
_CHIP = (
    *("synop", "synop_conv", "synop_linear", "neuron_active", "neuron_inactive", "spike"),
    *("message", "hop_east_west", "hop_north_south", "mac", "add", "compare"),
)
OPERATIONS: dict[str, tuple[str, ...]] = {"arithmetic": _ARITHMETIC, "chip": _CHIP, "device": ("mac",)}
"""What a table may price. `arithmetic`: a neuron is its multiplications, additions and compares, and nothing is charged
for the way of a spike. `chip`: a neuron update, a spike and its messages have prices of their own. `device`: a
multiply-accumulate of a processor at full load, for ANNs alone."""

TIMES = ("synop", "synop_conv", "synop_linear", "neuron_active", "neuron_inactive", "spike", "barrier")
"""What may take time on a core; `barrier`: once a step, of the whole chip."""

GROUPS = ("bias", "pooling", "residual", "neurons", "spikes", "routing", "static")
"""Groups of operations that the price of another operation may include."""
COVERED = {
    "neurons": ("neuron_active", "neuron_inactive"),
    "spikes": ("spike",),
    "routing": ("message", "hop_east_west", "hop_north_south"),
}
"""Prices that a table cannot have once another of its prices includes their group: they would be charged twice."""

MEMORY = ("weight_read", "state_read", "state_write", "input_read", "output_write")
FALLBACKS = {"synop_conv": "synop", "synop_linear": "synop", "address_add": "add", "address_multiply": "leak_multiply"}
EVIDENCE = ("measured", "simulated", "published", "derived", "datasheet", "secondary", "abstract")


@dataclass(frozen=True)
class Memory:
    """On-chip memories; one access of a word costs what its size says, linear between `sizes_bytes`, clamped outside.

    `values`: "packed", where a value pays for its share of a word, or "whole", where it pays for all words that it
    touches. `value_bits`: the width of every value, None for the network's own.
    """

    word_bits: int
    sizes_bytes: tuple[int, ...]
    access_pj: tuple[float, ...]
    values: Literal["packed", "whole"]
    value_bits: int | None
    event_bits: int
    fifo_entries: int
    scale: Price
    """Bounds of the accesses, as factors of `access_pj`."""
    evidence: str
    source: str

    def access(self, size_bits: float, bits: int) -> float:
        """Nominal pJ of reading or writing `bits` bits in a memory of `size_bits` bits."""
        words = bits / self.word_bits if self.values == "packed" else -(-bits // self.word_bits)
        return words * float(np.interp(size_bits / 8, self.sizes_bytes, self.access_pj))


@dataclass(frozen=True)
class Static:
    """Power that a chip draws whatever it computes."""

    mw_per_chip: Price
    volt: float | str
    evidence: str
    source: str


@dataclass(frozen=True)
class Capacity:
    """How the price of a multiply-accumulate falls with the bits of the activation: one row of the array each."""

    activation_bits: int
    multiply_pj: float


@dataclass(frozen=True)
class Anchor:
    """A whole network measured on the chip, to hold an estimate against."""

    network: str
    neurons: tuple[int, int]
    """Without and with the input layer."""
    timesteps: int
    dynamic_mj: float
    total_mj: float
    source: str


@dataclass(frozen=True)
class Table:
    """One price list. `prices[operation]` as in OPERATIONS; `synop` stands in for `synop_conv` and `synop_linear`."""

    name: str
    title: str
    scope: Scope
    node_nm: float | str
    volt: float | str
    evidence: str
    source: str
    checked: str
    """Against what its constants were checked, beyond `source`; empty if they were not."""
    covers: str
    excludes: tuple[str, ...]
    included: tuple[str, ...]
    lower_bounds: tuple[str, ...]
    """Prices that their source states as least ones: totals with them are lower bounds."""
    mapped: tuple[str, ...]
    """Targets whose mapping to cores is that of this chip."""
    prices: Mapping[str, Price]
    origins: Mapping[str, tuple[str, str]]
    """Evidence and source of the prices that have their own."""
    memory: Memory | None
    static: Static | None
    times: Mapping[str, Price]
    capacity: Capacity | None
    anchors: tuple[Anchor, ...]

    def key(self, operation: str) -> str | None:
        """The entry that prices `operation`; None if it is unpriced."""
        if operation in MEMORY:
            return "memory" if self.memory else None
        return next((one for one in (operation, FALLBACKS.get(operation)) if one in self.prices), None)

    def price(self, key: str) -> Price:
        """Of an entry that `key` names; of memory the bounds of its nominal pJ."""
        return self.memory.scale if key == "memory" and self.memory else self.prices[key]

    def covering(self, charge: Charge) -> bool:
        """Whether this table has to price the operation at all; what another price includes costs nothing more."""
        if charge.operation in MEMORY or charge.operation.startswith("address"):
            return self.memory is not None
        return charge.group not in self.included

    def quantized(self, bits: int) -> Table | None:
        """The same prices for activations of fewer bits; None where that says nothing new or is not published."""
        if self.capacity is None or bits >= self.capacity.activation_bits or "mac" not in self.prices:
            return None
        less = self.capacity.multiply_pj * (1 - bits / self.capacity.activation_bits)
        low, nominal, high = self.prices["mac"]
        return replace(self, prices={**self.prices, "mac": (low - less, nominal - less, high - less)})

    @property
    def digest(self) -> str:
        """SHA-256 over everything the table says; comments and layout of its file do not matter."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Charge:
    """`number` operations of one kind that a layer does, summed over samples; `group` names what they are for.

    `number` may be an array: one entry for each resampling of the data. Of memory: its size, and the bits of a value.
    """

    layer: str
    group: str
    operation: str
    number: Any
    size_bits: float = 0
    bits: int = 0

    @property
    def happens(self) -> bool:
        """Whether it is done at all."""
        return bool(self.number.any() if isinstance(self.number, np.ndarray) else self.number)


Bill = Mapping[str | None, Any]
"""How many operations fall to each entry of a table (of "memory": their nominal pJ); None collects those without."""


def bill(charges: Iterable[Charge], table: Table) -> Bill:
    """Put operations on the entries of a table; groups that another price includes cost nothing more."""
    due: Counter[str | None] = Counter()
    for charge in charges:
        if table.covering(charge) and charge.happens:
            key = table.key(charge.operation)
            worth = table.memory.access(charge.size_bits, charge.bits) if key == "memory" and table.memory else 1
            due[key] += charge.number * worth
    return due


def total(due: Bill, table: Table, samples: int) -> list[Any]:
    """Low, nominal and high pJ per sample of what has a price; arrays where the numbers are."""
    priced = [(table.price(key), number) for key, number in due.items() if key is not None]
    return [sum(three[at] * number for three, number in priced) / samples for at in range(3)]


def split(charges: Iterable[Charge], table: Table, samples: int, what: str) -> dict[str, list[float]]:
    """`total` by "group" or "layer"; where nothing has a price there is no entry."""
    parts: dict[str, list[Charge]] = {}
    for charge in charges:
        if table.covering(charge) and table.key(charge.operation) and charge.happens:
            parts.setdefault(getattr(charge, what), []).append(charge)
    return {name: total(bill(part, table), table, samples) for name, part in parts.items()}


def ratio(over: Bill, under: Bill, table: Table, other: Table | None = None) -> list[float] | None:
    """Least, nominal and largest over / under; None if an operation has no price or `under` may cost nothing.

    Both sides pay the same price out of its range, so the least and the largest lie at corners of the ranges.
    `other` prices `over` where `table` does not; its prices then move along with those of `table`.
    """
    if None in over or None in under:
        return None
    keys = [key for key in {**over, **under} if key is not None]
    moving = [key for key in keys if table.price(key)[0] < table.price(key)[2]]
    pairs = []
    for corner in ((), *product((0, 2), repeat=len(moving))):
        at = dict(zip(moving, corner, strict=False))
        pairs.append((_cost(over, other or table, at), _cost(under, table, at)))
    if any(below == 0 for _, below in pairs):
        return None
    ratios = [above / below for above, below in pairs]
    return [min(ratios), ratios[0], max(ratios)]


def _cost(due: Bill, table: Table, at: Mapping[str, int]) -> float:
    """Nominal prices but for those that `at` puts at their low (0) or high (2) bound."""
    return float(sum(number * table.price(key)[at.get(key, 1)] for key, number in due.items() if key is not None))
