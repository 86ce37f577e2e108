"""Where anything arrives at a neuron: events, or a bias that is not zero. Kept as small as the geometry allows."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from snnkd_deploy.counts.fan_out import Weighing
from snnkd_deploy.geometry import along, tables
from snnkd_deploy.ir import Add, Array, Flatten, Graph, Linear, Neuron, Node, Pool, Window
from snnkd_deploy.simulate import over_channels


@dataclass(frozen=True, eq=False)
class Reach:
    """`mask`, bool `(time or 1, batch, groups, *sides)`: where an event arrives, the same for all channels of a group.

    `always`, bool `(channels,)`: those with a bias that is not zero.
    """

    mask: Array
    always: Array

    def in_channels(self) -> Array:
        """The mask, one for each channel."""
        return self.mask.repeat(len(self.always) // self.mask.shape[2], axis=2)


def followed(graph: Graph) -> frozenset[str]:
    """What arrives at a neuron, back to the synapses, the input or the neurons that it comes from."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if isinstance(node, Neuron) or (node.name in found and isinstance(node, Pool | Window | Flatten | Add)):
            found.update(node.inputs)
    return frozenset(found)


def reach(node: Node, given: list[Reach], arguments: tuple[Array, ...], value: Array) -> Reach:
    """Where anything leaves `node`, from where it arrives at it."""
    if isinstance(node, Weighing):
        return _read(node, arguments[0], value)
    if isinstance(node, Pool | Window):
        return Reach(_spread(given[0].mask, tables(node, given[0].mask.shape[2:])), given[0].always)
    if isinstance(node, Flatten):
        flat = given[0].in_channels().reshape(*given[0].mask.shape[:2], -1)
        return Reach(flat, given[0].always.repeat(flat.shape[2] // len(given[0].always)))
    if isinstance(node, Add):
        return _together(given)
    return Reach(value != 0, np.zeros(value.shape[2], dtype=bool))


def active(arrived: Reach, spikes: Array) -> Array:
    """Updates of each sample, int64 `(batch,)`, at which something arrives or that fire; `spikes` `(time, batch, ...)`.

    Counted by position, not by neuron: a row of the mask stands for all channels of its group.
    """
    time = len(spikes)
    mask = arrived.mask.reshape(*arrived.mask.shape[:3], -1)
    free = ~arrived.always
    waiting = free.reshape(mask.shape[2], -1).sum(axis=1)
    reached = (mask.sum(axis=3) @ waiting).sum(axis=0) * (time // len(mask))
    biased = int(arrived.always.sum()) * time * mask.shape[3]
    return np.asarray(reached + biased + _lone(arrived, spikes, free), dtype=np.int64)


def _lone(arrived: Reach, spikes: Array, free: Array) -> Array:
    """Spikes where nothing arrived: of what a membrane kept. Looks only at steps of samples with such a place."""
    time, batch = spikes.shape[:2]
    found = np.zeros(batch, dtype=np.int64)
    gaps = ~arrived.mask.reshape(*arrived.mask.shape[:2], -1).all(axis=2)
    if not free.any() or not gaps.any():
        return found
    steps, samples = np.nonzero(np.broadcast_to(gaps, (time, batch)))
    places = arrived.mask[steps if len(arrived.mask) > 1 else 0, samples]
    missed = ~places.repeat(len(free) // places.shape[1], axis=1) & over_channels(free, places.ndim - 1)
    lone = (spikes[steps, samples] != 0) & missed
    np.add.at(found, samples, lone.reshape(len(lone), -1).sum(axis=1))
    return found


def _read(node: Weighing, x: Array, value: Array) -> Reach:
    """Which outputs read at least one event; not looked at where every output has a bias."""
    always = node.bias != 0
    if always.all():
        return Reach(np.zeros((1, x.shape[1], 1, *value.shape[3:]), dtype=bool), always)
    if isinstance(node, Linear):
        return Reach((x != 0).any(axis=2, keepdims=True), always)
    time, batch, channels, *sides = x.shape
    events = (x != 0).reshape(time, batch, node.groups, channels // node.groups, *sides).any(axis=3)
    return Reach(_spread(events, tables(node, x.shape[2:])), always)


def _spread(mask: Array, read: tuple[Array, ...]) -> Array:
    """Whether any tap reads an event; a kernel is the product of its sides, so one side after the other."""
    for axis, table in enumerate(read, start=-len(read)):
        mask = functools.reduce(np.logical_or, (along(mask, positions, axis) for positions in table))
    return mask


def _together(given: list[Reach]) -> Reach:
    """Where at least one term of a sum arrives."""
    alike = len({one.mask.shape[2] for one in given}) == 1
    masks = [one.mask if alike else one.in_channels() for one in given]
    always = np.logical_or.reduce([one.always for one in given])
    return Reach(np.logical_or.reduce(np.broadcast_arrays(*masks)), always)
