"""What became of every part of a network: the node it is, the passes that changed it, or why it was refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from snnkd_deploy.ir import Array, Conv2d, Graph, Input, Linear, Neuron, Node, Pool, canonical_bytes, describe

Trail = tuple[tuple[str, Graph], ...]
"""The traced graph, and what each pass made of it."""


@dataclass(frozen=True)
class Part:
    """A module of the network, or an operation between its modules."""

    place: str
    """Path of the module, or name and line of the operation."""
    kind: str
    became: str
    """The node, in words; empty if it is none."""
    passes: tuple[str, ...] = ()
    """What passes did to it, in order."""
    refused: tuple[str, ...] = ()
    """Every reason why it cannot be compiled."""


@dataclass(frozen=True)
class Coverage:
    """All parts in order, and the reasons that belong to none of them."""

    target: str
    parts: tuple[Part, ...]
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def refusals(self) -> tuple[str, ...]:
        """Every reason there is."""
        return (*(reason for part in self.parts for reason in part.refused), *self.reasons)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest and for scripts."""
        return asdict(self)


def coverage(
    target: str,
    modules: Mapping[str, str],
    origins: Mapping[str, str],
    trail: Trail,
    refusals: Iterable[str] = (),
    notes: Iterable[str] = (),
) -> Coverage:
    """`modules`: type of each module by path, in order; `origins`: where each node of the trail comes from.

    A refusal that begins with the name or the place of a part is that part's.
    """
    reasons = list(refusals)
    parts = [_part(node, origins, modules, trail, reasons) for node in (trail[0][1] if trail else ())]
    met = {part.place for part in parts}
    for place, kind in modules.items():
        if place not in met:
            mine = _claimed(place, reasons)
            parts.append(Part(place, kind, "" if mine or not trail else "nothing in evaluation", (), mine))
    added = [_added(node, name) for name, node in _later(trail)]
    return Coverage(target, (*parts, *added), tuple(reasons), tuple(notes))


def _part(node: Node, origins: Mapping[str, str], modules: Mapping[str, str], trail: Trail, reasons: list[str]) -> Part:
    place = origins.get(node.name, node.name)
    kind = modules.get(place, "")
    passes = tuple(_changes(node.name, trail))
    return Part(place, kind, in_words(node), passes, tuple(dict.fromkeys(_claimed(node.name, reasons))))


def _claimed(name: str, reasons: list[str]) -> tuple[str, ...]:
    """Take the reasons that begin with `name` out of the list."""
    mine = tuple(reason for reason in reasons if reason.split(": ")[0] == name)
    for reason in mine:
        reasons.remove(reason)
    return mine


def in_words(node: Node) -> str:
    """A node with the numbers that decide what a target says about it."""
    kind = type(node).__name__
    if isinstance(node, Linear | Conv2d):
        return f"{kind} {'x'.join(map(str, node.weight.shape))}"
    if isinstance(node, Neuron):
        decay, threshold = _span(np.asarray(node.decay)), _span(node.threshold)
        current = f", keeps {_span(np.asarray(node.current_decay))} of its current" if node.keeps_current else ""
        return f"Neuron, decay {decay}{current}, threshold {threshold}, reset {node.reset}"
    if isinstance(node, Pool):
        return f"{kind} {node.kernel[0]}x{node.kernel[1]}"
    if isinstance(node, Input):
        return f"Input {'x'.join(map(str, node.shape))}, {node.low}..{node.high}, one is {node.scale:.4g}"
    return kind


def _span(values: Array) -> str:
    least, most = float(values.min()), float(values.max())
    return f"{least:g}" if least == most else f"{least:g}..{most:g}"


def _changes(name: str, trail: Trail) -> Iterable[str]:
    """What each pass did to the node of that name."""
    for (_, before), (step, after) in pairwise(trail):
        if name not in before:
            continue
        if name not in after:
            yield f"{step}: folded away"
        elif (old := type(before[name]).__name__) != (new := type(after[name]).__name__):
            yield f"{step}: {old} to {new}"
        elif _content(before[name]) != _content(after[name]):
            yield f"{step}: {after[name].placement}" if before[name].placement != after[name].placement else step


def _later(trail: Trail) -> list[tuple[str, Node]]:
    """Nodes that a pass added and that are still there at the end."""
    if not trail:
        return []
    found = []
    known = {node.name for node in trail[0][1]}
    for step, graph in trail[1:]:
        found += [(step, node) for node in graph if node.name not in known]
        known |= {node.name for node in graph}
    last = trail[-1][1]
    return [(step, node) for step, node in found if node.name in last]


def _added(node: Node, step: str) -> Part:
    return Part(node.name, "", in_words(node), (f"{step}: added",))


def _content(node: Node) -> tuple[str, dict[str, bytes]]:
    """All of a node but what it reads."""
    plain, arrays = describe(node)
    plain.pop("inputs")
    return json.dumps(plain, sort_keys=True), {key: canonical_bytes(value) for key, value in arrays.items()}
