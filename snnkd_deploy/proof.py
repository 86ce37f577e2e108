"""Does the written file compute what the simulator computes? Spike for spike, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snnkd_deploy.errors import ProofError
from snnkd_deploy.ir import Array, Graph
from snnkd_deploy.simulate import Record


@dataclass(frozen=True)
class Proof:
    """One way to run a written file: `run(file, inputs, loader)` gives the Record of integer `inputs`.

    `inputs` are `(samples, *shape)` for still pictures, `(time, samples, *shape)` for frames; `loader` is what `write`
    returned. RuntimeMissingError says that the program it needs is not here. `samples`: how many it runs unless told.
    """

    name: str
    run: Callable[[Path, Array, Mapping[str, Any]], Record]
    samples: int
    required: bool = True
    """Whether an export without this proof counts as unverified."""
    native: bool = False
    """Whether it is the native runtime itself that runs, which then is held against the simulator alone."""


@dataclass(frozen=True)
class Difference:
    """The first place where two records part: earliest layer, then earliest step, then lowest sample and neuron."""

    layer: str
    step: int | None
    sample: int
    index: tuple[int, ...]
    expected: int
    met: int
    spikes_differing: int

    def __str__(self) -> str:
        where = f"layer {self.layer}" + ("" if self.step is None else f", step {self.step}")
        return (
            f"{where}, sample {self.sample}, element {self.index}: the simulator has {self.expected}, "
            f"the file {self.met} ({self.spikes_differing} values of that layer differ)"
        )


def first_difference(graph: Graph, expected: Record, met: Record) -> Difference | None:
    """None if every spike of every layer and every logit is the same."""
    for layer in (node.name for node in graph if node.name in expected.spikes):
        if layer not in met.spikes:
            return Difference(layer, None, 0, (), 1, 0, expected.spikes[layer].size)
        if difference := _compare(layer, expected.spikes[layer], met.spikes[layer]):
            return difference
    return _compare(graph.output.name, expected.logits[None], met.logits[None], timed=False)


@dataclass(frozen=True)
class Agreement:
    """How far a file of real numbers (float32) is from the float64 simulation, on the same samples."""

    places: int
    """Neurons times steps times samples."""
    spikes_differing: int
    logit_error: float
    """The largest difference of a logit, as a part of the largest logit, over samples without a differing spike."""

    @property
    def close(self) -> bool:
        """Whether rounding explains it: a membrane at its threshold may fall either way, and what follows from it."""
        return self.spikes_differing <= SPIKES_APART * self.places and self.logit_error <= LOGITS_APART

    def __str__(self) -> str:
        return (
            f"{self.spikes_differing} of {self.places} places differ (accepted: {SPIKES_APART:.1%}); where none does, "
            f"logits are {self.logit_error:.1e} apart (accepted: {LOGITS_APART:g} of the largest)"
        )


SPIKES_APART, LOGITS_APART = 1e-3, 1e-4
"""Float32 keeps 24 bits: sums of some thousand terms are right to 1e-5 or better, spikes to one in many thousand."""


def agree(graph: Graph, expected: Record, met: Record) -> Agreement:
    """Compare records of real numbers. ProofError if they have not the same layers and shapes."""
    places = differing = 0
    same = np.ones(len(expected.logits), dtype=bool)
    for layer, spikes in expected.spikes.items():
        found = met.spikes.get(layer, np.empty(0))
        if found.shape != spikes.shape:
            raise ProofError(f"layer {layer}: the simulator has {spikes.shape} spikes, the file {found.shape}")
        differs = spikes != found
        places, differing = places + spikes.size, differing + int(differs.sum())
        same &= ~differs.any(axis=(0, *range(2, differs.ndim)))
    if met.logits.shape != expected.logits.shape:
        raise ProofError(f"the simulator has {expected.logits.shape} logits, the file {met.logits.shape}")
    errors = np.abs(expected.logits - met.logits)[same]
    largest = float(np.abs(expected.logits).max(initial=0)) or 1.0
    return Agreement(places, differing, float(errors.max(initial=0)) / largest)


def _compare(layer: str, expected: Array, met: Array, timed: bool = True) -> Difference | None:
    if expected.shape != met.shape:
        return Difference(layer, None, 0, met.shape, int(expected.size), int(met.size), int(expected.size))
    differs = expected != met
    if not differs.any():
        return None
    step, sample, *index = (int(place[0]) for place in np.nonzero(differs))
    where = (step, sample, *index)
    values = int(expected[where]), int(met[where])
    return Difference(layer, step if timed else None, sample, tuple(index), *values, int(differs.sum()))
