"""What is counted, layer by layer: exact integers, summed over samples and evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from snnkd_deploy.counts.kinds import SPIKING, InputKind, PoolMode
from snnkd_deploy.ir import Array, Pair, Shape


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A node that does work. `shape`: of its output, per sample."""

    counted: ClassVar[tuple[str, ...]] = ()
    """The fields that are sums over samples."""

    name: str
    op: str
    placement: str
    shape: Shape
    static: bool
    evaluations: int
    """Samples, or samples times steps where it is not static."""


@dataclass(frozen=True)
class FanOut:
    """Outputs that read an input of a layer, over all of its inputs."""

    min: int
    mean: float
    max: int


@dataclass(frozen=True, kw_only=True)
class Synapses(Layer):
    """A Linear or a convolution. An event is an input that is not zero; a pair is an event and an output that reads it.

    Taps on padding are no pairs. `*_nonzero` leaves out pairs whose weight is zero. `dense_*` and `ann_*` are counts of
    one evaluation, not sums over samples.
    """

    counted = (
        *("events_in", "synops", "synops_nonzero", "event_macs", "event_macs_nonzero", "synops_unit"),
        *("synops_unit_nonzero", "bias_adds", "spikes_out"),
    )

    input_kind: InputKind
    fed_by: tuple[str, ...]
    """Neurons whose spikes arrive here, through pools and sums."""
    feeds: str | None
    """The neuron that its output alone or in a sum arrives at, if it is one."""
    pool_mode: PoolMode | None
    pool_window: Pair
    """The window that its kernel sums over before weighting; (1, 1) if it does not."""
    shortcut: bool
    """One weight per channel in front of a residual sum: an ANN adds there without a layer."""
    inputs: int
    fan_out: FanOut
    values_seen: tuple[float, ...] | None
    """All different values that arrived, if they are few; None where they are not, or nobody looked."""
    value_range: tuple[float, float] | None
    """The least and the largest of them."""
    params: int
    """Weights and biases."""
    weights: int
    zero_weights: int
    weight_bits: int | None
    """Of its largest weight, with sign; None before INTEGER."""
    events_in: int
    synops: int
    synops_nonzero: int
    event_macs: int
    """The pairs that need a multiply: all or none of `synops`."""
    event_macs_nonzero: int
    synops_unit: int | None
    """Pairs if a sum of n spikes came as n events; `synops` behind single spikes, None behind pixels and values."""
    synops_unit_nonzero: int | None
    dense_macs: int
    """Textbook: outputs times taps, taps on padding included."""
    dense_macs_inrange: int
    """Without taps on padding."""
    dense_macs_nonzero: int
    """Without taps on padding and zero weights."""
    ann_macs: int
    """`dense_macs` of an ANN of this shape, which pools in front of the layer and has no layer in a shortcut."""
    ann_macs_inrange: int
    ann_macs_nonzero: int
    ann_pool_adds: int
    """Additions of the pools that went into the kernel."""
    bias_adds: int
    """Outputs with a bias that is not zero."""
    spikes_out: int | None
    """Spikes of `feeds`."""

    @property
    def spikes_per_synapse(self) -> float | None:
        """Pairs per synapse and evaluation, borders exact; None where anything but spikes arrives."""
        dense = self.dense_macs_inrange * self.evaluations
        return self.synops / dense if self.input_kind in SPIKING and dense else None


@dataclass(frozen=True, kw_only=True)
class Neurons(Layer):
    """A population of neurons; one update is one neuron at one step.

    An update is active if at least one event or a bias that is not zero arrives, or if it fires.
    """

    counted = (
        *("updates_active", "updates_inactive", "leak_multiplies", "membrane_adds", "compares", "reset_adds"),
        *("membrane_changes", "spikes_out"),
    )

    updates_active: int
    updates_inactive: int
    leak_multiplies: int
    """One an update of a neuron whose decay is neither 0 nor 1."""
    membrane_adds: int
    """The current is added to the membrane: one an active update."""
    compares: int
    """With the threshold: one an update."""
    reset_adds: int
    """One a spike where the reset subtracts, none where it sets to zero."""
    membrane_changes: int | None
    """Updates at a first step, or after which v before reset is another than a step ago; None if nobody looked."""
    spikes_out: int
    spikes_per_step: tuple[int, ...]
    rate: float
    """Spikes per neuron and step."""
    rate_per_step: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Activations(Layer):
    """The ReLUs of an ANN: one compare an element."""

    counted = ("compares", "nonzero_out")

    compares: int
    nonzero_out: int | None
    """Outputs that are not zero; None if nobody looked."""


@dataclass(frozen=True, kw_only=True)
class Pools(Layer):
    """A pool: additions, or compares for a maximum. The mean's division is taken to be in the weights behind it."""

    counted = ("pool_ops", "pool_ops_dense")

    input_kind: InputKind
    pool_mode: PoolMode
    pool_ops: int
    """Inputs that are not zero times the windows that they lie in."""
    pool_ops_dense: int
    """Outputs times the window's area."""


@dataclass(frozen=True, kw_only=True)
class Sums(Layer):
    """A residual sum of n terms: n - 1 additions an element."""

    counted = ("residual_adds",)

    residual_adds: int


@dataclass(frozen=True, kw_only=True)
class Products(Layer):
    """An attention: q, k and v multiplied head by head, in the order that takes fewer multiplications.

    `context`: v k^T first, then q reads the result; `scores`: k^T q first, then v reads the result. The ANN of this
    shape has no softmax either and takes the same order. `dense_*` and `ann_*` are counts of one evaluation.
    """

    counted = ("events_in", "attention_and", "attention_adds")

    input_kind: InputKind
    order: Literal["context", "scores"]
    events_in: int
    attention_and: int
    """Coincidences in the first product: both factors are not zero; an accumulate each where they are spikes."""
    attention_adds: int
    """In the second product, events of the factor that came from neurons times the results that each reads."""
    dense_macs: int
    dense_macs_inrange: int
    dense_macs_nonzero: int
    ann_macs: int
    ann_macs_inrange: int
    ann_macs_nonzero: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Counts:
    """What a graph did on `samples` samples. `events`: each synaptic layer's event map, int64 of its input's shape."""

    samples: int
    timesteps: int
    stage: str
    """Of the graph that was counted: FOLDED, INTEGER or LEGAL."""
    simulator: str
    """Who ran it."""
    layers: tuple[Layer, ...]
    predictions: Array
    events: dict[str, Array]
    per_sample: Mapping[str, Mapping[str, Array]]
    """Of each layer, by field of `counted`: the count of each sample, int64 `(samples,)`; they add up to the field."""
    warnings: tuple[str, ...] = field(default=())
    """Where the values that were met contradict, or would hide, what the graph says of a layer."""

    def __getitem__(self, name: str) -> Layer:
        return next(layer for layer in self.layers if layer.name == name)

    def synapses(self) -> tuple[Synapses, ...]:
        """The synaptic layers, in order."""
        return tuple(layer for layer in self.layers if isinstance(layer, Synapses))

    def total(self, field: str) -> int:
        """Sum of one count over the layers that have it."""
        return sum(getattr(layer, field, None) or 0 for layer in self.layers)
