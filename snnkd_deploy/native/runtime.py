"""A network in the native runtime: what `simulate` computes, in a fraction of its time."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from snnkd_deploy.errors import BundleError, InputError, LegalityError
from snnkd_deploy.ir import Array, Graph, Shape
from snnkd_deploy.native import library
from snnkd_deploy.native.network_file import pack, refusals
from snnkd_deploy.numerics import is_integer
from snnkd_deploy.simulate import Record


@dataclass(frozen=True, eq=False)
class Wanted:
    """What `watch` shall count, by the names of nodes whose values are kept; what nobody asks for costs nothing."""

    nonzero: Collection[str] = ()
    sums: Collection[str] = ()
    events: Mapping[str, Array] = field(default_factory=dict)
    """Of each node tables of factors, int32 `(tables, *shape)`, maybe none."""
    amounts: Collection[str] = ()
    """Of those in `events`."""
    met: Collection[str] = ()
    """Of those with `Layer.bits`."""
    step_spikes: bool = False
    reached: bool = False
    changes: bool = False
    reach: bool = False


@dataclass(frozen=True, eq=False)
class Watched:
    """What a run did; int64. A node that does not change over time is evaluated once a sample, others once a step.

    Sums over samples and evaluations: `nonzero`, `sums`, `step_spikes`. Of each sample: `events`, `amounts`, `reached`,
    `changes`.
    """

    logits: Array
    """`(samples, classes)`."""
    nonzero: Mapping[str, Array]
    """How often each value was not zero, in the node's shape."""
    sums: Mapping[str, Array]
    """The same of their sums."""
    step_spikes: Mapping[str, Array]
    """Of each layer of neurons, spikes per step, `(timesteps,)`."""
    events: Mapping[str, Array]
    """`(samples, 1 + tables)`: how often any value was not zero, and the sums of its factor at each such time."""
    amounts: Mapping[str, Array]
    """`(samples, 1 + tables)`: the sum of the values, and of their products with the factors."""
    met: Mapping[str, Array]
    """The values that were met, in order."""
    reached: Mapping[str, Array]
    """Of each layer of neurons, how often an event or a bias arrived, or a neuron fired, `(samples,)`."""
    changes: Mapping[str, Array]
    """Of each layer of neurons, how often v before the reset was another than a step earlier, the first step always."""
    reach: Mapping[str, int]
    """Of each layer of neurons the largest |v| before the reset in units of its state; of the output, |sum|."""


@dataclass(frozen=True, eq=False)
class Observed:
    """What each sample of a batch did."""

    logits: Array
    spikes: Mapping[str, Array]
    """Of each layer of neurons, uint8 `(time, samples, *shape)`."""
    changes: Mapping[str, Array]
    """How often v before the reset was another than at the step before, the first step always; int64 `(samples,)`."""


def processors() -> int:
    """Threads that a run takes if not told: OMP_NUM_THREADS, or the processors that this process may use."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Layer:
    """A node as the runtime has it."""

    name: str
    shape: Shape
    neurons: bool
    own: int
    """Of neurons the first channels, which are no relays."""
    kept: bool
    """Whether its values are kept, and can be counted; if not, its reader computes them on the way."""
    bits: int
    """Of each value, where it is kept as so many bits, never negative; else 0."""


class Native:
    """A network that is ready to run; `load` makes one. It takes inputs as `simulate` does.

    `instructions`: the instruction set in use, `avx512`, `avx2` or `portable`; all compute the same integers.
    """

    def __init__(
        self, content: bytes, origin: str, threads: int | None = None, instructions: str | None = None
    ) -> None:
        self._library = library.build()
        message = ctypes.create_string_buffer(library.ROOM)
        asked = None if instructions is None else instructions.encode()
        handle = self._library.snnkd_open(content, len(content), asked, message, library.ROOM)
        if not handle:
            raise BundleError(f"{origin}: {message.value.decode(errors='replace')}")
        self._handle = ctypes.c_void_p(handle)
        weakref.finalize(self, self._library.snnkd_close, self._handle)
        about = self._library.snnkd_describe(self._handle)
        self.name, self.digest = (one.decode(errors="replace") for one in (about.name, about.digest))
        self.instructions = about.instructions.decode()
        self.timesteps, self.classes = about.timesteps, about.classes
        self.static = bool(about.still)
        self.range = (about.low, about.high)
        self.threads = threads or processors()
        self.layers = tuple(self._layer(index) for index in range(about.nodes))
        self._type = np.dtype(np.uint8 if about.input_bytes == 1 else np.int32)
        self._shape: Shape = tuple(about.input_shape[: about.input_dimensions])

    def run(self, inputs: Array) -> Array:
        """Logits `(samples, classes)`, int64: sums over the steps."""
        return self._run(self._samples(inputs))

    def record(self, inputs: Array) -> Record:
        """Spikes of every layer, and logits."""
        samples = self._samples(inputs)
        neurons = {layer.name: layer for layer in self.layers if layer.neurons and layer.own}
        spikes = self._places(len(samples), neurons.values())
        logits = self._run(samples, spikes=self._pointers(spikes))
        return Record({name: found[:, :, : neurons[name].own] for name, found in spikes.items()}, logits)

    def observe(self, inputs: Array) -> Observed:
        """What each sample did, relays included."""
        samples = self._samples(inputs)
        neurons = [layer for layer in self.layers if layer.neurons]
        spikes, changes = (
            self._places(len(samples), neurons),
            np.zeros((len(samples), len(self.layers)), dtype=np.int64),
        )
        logits = self._run(samples, spikes=self._pointers(spikes), changes=changes.ctypes.data)
        of = {layer.name: place for place, layer in enumerate(self.layers)}
        return Observed(logits, spikes, {name: changes[:, of[name]] for name in spikes})

    def fired(self, inputs: Array) -> tuple[Array, dict[str, Array]]:
        """Logits, and how often each neuron fired over samples and steps, relays included; in the layer's shape."""
        found = {layer.name: np.zeros(layer.shape, dtype=np.int64) for layer in self.layers if layer.neurons}
        return self._run(self._samples(inputs), sums=self._pointers(found)), found

    def watch(self, inputs: Array, wanted: Wanted) -> Watched:
        """What the layers did, without keeping a spike."""
        samples = self._samples(inputs)
        count, of = len(samples), {layer.name: layer for layer in self.layers}
        neurons = [layer.name for layer in self.layers if layer.neurons]
        nonzero, sums = (
            {name: np.zeros(of[name].shape, dtype=np.int64) for name in names}
            for names in (wanted.nonzero, wanted.sums)
        )
        tables = {name: np.ascontiguousarray(one, dtype=np.int32) for name, one in wanted.events.items()}
        events = {name: np.empty((count, 1 + len(one)), dtype=np.int64) for name, one in tables.items()}
        amounts = {name: np.empty_like(events[name]) for name in wanted.amounts}
        met = {name: np.zeros(2 ** of[name].bits, dtype=np.uint8) for name in wanted.met}
        steps = {name: np.zeros(self.timesteps, dtype=np.int64) for name in neurons if wanted.step_spikes}
        each = np.array([len(tables.get(layer.name, ())) for layer in self.layers], dtype=np.int32)
        reached, changes = np.zeros((2, count, len(self.layers)), dtype=np.int64)
        reach = np.zeros(len(self.layers), dtype=np.int64)
        logits = self._run(
            samples,
            **{
                name: self._pointers(arrays)
                for name, arrays in {
                    **{"nonzero": nonzero, "sums": sums, "step_spikes": steps, "tables": tables},
                    **{"events": events, "amounts": amounts, "met": met},
                }.items()
            },
            table_counts=each.ctypes.data,
            reached=reached.ctypes.data if wanted.reached else None,
            changes=changes.ctypes.data if wanted.changes else None,
            reach=reach.ctypes.data if wanted.reach else None,
        )
        at = {layer.name: place for place, layer in enumerate(self.layers)}
        return Watched(
            logits, nonzero, sums, steps, events, amounts,
            met={name: np.flatnonzero(one) for name, one in met.items()},
            reached={name: reached[:, at[name]] for name in neurons if wanted.reached},
            changes={name: changes[:, at[name]] for name in neurons if wanted.changes},
            reach={name: int(reach[at[name]]) for name in (*neurons, self.layers[-1].name) if wanted.reach},
        )  # fmt: skip

    def _places(self, samples: int, layers: Iterable[Layer]) -> dict[str, Array]:
        """Room for the spikes of layers."""
        leading = (self.timesteps, samples)
        return {layer.name: np.empty((*leading, *layer.shape), dtype=np.uint8) for layer in layers}

    def _run(self, samples: Array, **results: Any) -> Array:
        logits = np.empty((len(samples), self.classes), dtype=np.int32)
        message = ctypes.create_string_buffer(library.ROOM)
        wanted = library.Results(logits=logits.ctypes.data, **results)
        given = (self._handle, samples.ctypes.data, len(samples), self.threads, ctypes.byref(wanted))
        if self._library.snnkd_run(*given, message, library.ROOM):
            raise InputError(f"{self.name}: {message.value.decode(errors='replace')}")
        return logits.astype(np.int64)

    def _samples(self, inputs: Array) -> Array:
        """`(samples, ...)` of the type that the library reads, each sample in one piece."""
        leading = 1 if self.static else 2
        if inputs.shape[leading:] != self._shape or (not self.static and len(inputs) != self.timesteps):
            wanted = ("samples",) if self.static else (self.timesteps, "samples")
            raise InputError(f"{self.name} takes {(*wanted, *self._shape)}, met {inputs.shape}")
        if not is_integer(inputs):
            raise InputError(f"{self.name} takes integers, met {inputs.dtype}")
        low, high = self.range
        if inputs.dtype != self._type and inputs.size and (inputs.min() < low or inputs.max() > high):
            raise InputError(f"{self.name} takes {low}..{high}, met {inputs.min()}..{inputs.max()}")
        samples = inputs if self.static else inputs.swapaxes(0, 1)
        return np.ascontiguousarray(samples, dtype=self._type)

    def _pointers(self, arrays: Mapping[str, Array]) -> Any:
        """One pointer for each node, null where there is no array."""
        addresses = [arrays[layer.name].ctypes.data if layer.name in arrays else None for layer in self.layers]
        return (ctypes.c_void_p * len(addresses))(*addresses)

    def _layer(self, index: int) -> Layer:
        node = self._library.snnkd_node_of(self._handle, index)
        shape = tuple(node.shape[: node.dimensions])
        name = node.name.decode(errors="replace")
        return Layer(name, shape, bool(node.neurons), node.own, bool(node.kept), node.bits)


def load(source: Graph | Path | str, *, threads: int | None = None, instructions: str | None = None) -> Native:
    """The network of an integer graph, or of a `network.snn` file.

    LegalityError lists what 32 bits cannot hold, BundleError says what is wrong with a file, RuntimeMissingError that
    there is no C++ compiler to build the runtime with.
    """
    if isinstance(source, Graph):
        if problems := list(refusals(source)):
            raise LegalityError(f"the native runtime cannot hold {source.name}:", problems)
        return Native(pack(source), source.name, threads, instructions)
    try:
        content = Path(source).read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {source}: {error.strerror}") from error
    return Native(content, str(source), threads, instructions)
