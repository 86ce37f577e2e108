"""What a netx file computes, in numpy: lava-dl's fixed-point step, rule by rule, from nothing but the HDF5 file.

Integers throughout, in units of 1/64 weight. Of block k, at step t:

    trunc(x, d) = sign(x) * ((|x| * (4096 - d)) >> 12)
    u[t] = wrap24(trunc(u[t-1], iDecay) + 64 * a[t])                a[t]: the weighted input, or for an input block x[t]
    v[t] = clip24(trunc(v[t-1], vDecay) + u[t] + 64 * bias)
    s[t] = v[t] > 64 * vThMant;  v[t] = 0 where s[t]

Measured against lava-dl 0.6.0 on lava-nc 0.10.0: no difference. There a synaptic block answers one step later; here all
blocks answer in the same step, which is the same once each block's delay is taken out and each sample starts from zero.
Arrays are in torch's order, `(samples, steps, channels, height, width)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from snnkd_deploy.errors import BundleError, ProofError
from snnkd_deploy.ir import Array, Pair, Shape

UNIT = 64
"""One weight is this many units of the membrane."""
HALF = 2**23
"""Current and membrane have 24 bits."""
INT8 = 127
"""Largest stride, padding, dilation, group count and kernel side: lava keeps them in int8, and wraps."""
BIAS = 2**15 - 1
"""Largest bias mantissa: lava keeps it in int16, and wraps."""
THRESHOLD = 2**25 - 1
"""Largest vThMant whose 64-fold fits into lava's 32 bits."""
SUM = 2**25
"""A weighted sum this large leaves 32 bits once lava has multiplied it by 64."""
PIECE = 2**24
"""Values that a convolution unrolls at a time, to bound memory."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a file did: `spikes[block]` uint8 `(samples, steps, *shape)`, `potential` int64 `(samples, neurons)`.

    The potential is the membrane of the last block at the end of each sample, in units of 1/64 weight.
    """

    spikes: tuple[Array, ...]
    potential: Array


@dataclass(frozen=True, eq=False, kw_only=True)
class Block:
    """One population with its synapses, as lava sees it; every array broadcasts over `shape`."""

    name: str
    shape: Shape
    current_decay: Array
    voltage_decay: Array
    threshold: Array
    bias: Array

    def current(self, x: Array) -> Array:
        """The weighted input `(steps, *shape)` of `x`, `(steps, *input shape)`."""
        return x


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Block):
    """Sums with weights shifted up to fill 8 bits, then shifts down; `weight` is what lava holds, `(out, in)`."""

    weight: Array
    shift: int

    def current(self, x: Array) -> Array:
        return _multiply(x.reshape(len(x), -1), self.weight) >> self.shift


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Block):
    """Cross-correlation, weight `(out, in / groups, kernel height, kernel width)`; sums wrap into 24 bits."""

    weight: Array
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def current(self, x: Array) -> Array:
        total = np.empty((len(x), *self.shape), np.int64)
        size = max(1, PIECE // (self.weight[0].size * self.groups * self.shape[1] * self.shape[2]))
        for start in range(0, len(x), size):
            total[start : start + size] = self._correlate(x[start : start + size])
        return (total + HALF) % (2 * HALF) - HALF

    def _correlate(self, x: Array) -> Array:
        windows = _windows(x, self)
        per_group = self.weight.shape[1]
        parts = []
        for index, weight in enumerate(np.split(self.weight, self.groups)):
            patches = windows[:, index * per_group : (index + 1) * per_group].transpose(0, 2, 3, 1, 4, 5)
            flat = patches.reshape(-1, per_group * weight[0, 0].size)
            parts.append(_multiply(flat, weight.reshape(len(weight), -1)).reshape(len(x), *self.shape[1:], len(weight)))
        return np.concatenate(parts, axis=-1).transpose(0, 3, 1, 2)


def replay(path: Path, inputs: Array, *, steps: int, message_bits: int) -> Answer:
    """Run every sample from zero state.

    `inputs` are integers `(samples, steps, *shape)`, or `(samples, 1, *shape)` where each step sees the same. With no
    message bits a synaptic first block takes any value but zero for one spike, as lava does. BundleError if the file is
    damaged or holds what lava-dl does not run; ProofError where a sum leaves 32 bits.
    """
    blocks = read(path, inputs.shape[2:])
    x = inputs.astype(bool) if message_bits == 0 and isinstance(blocks[0], Dense | Conv) else inputs
    spikes, potential = [], np.zeros(0, np.int64)
    for block in blocks:
        x, potential = fire(block, _currents(block, x), steps)
        spikes.append(x)
    return Answer(tuple(spikes), potential.reshape(len(inputs), -1))


def fire(block: Block, current: Array, steps: int) -> tuple[Array, Array]:
    """Spikes `(samples, steps, *shape)` and the last membrane, of a current `(samples, steps or 1, *shape)`."""
    u = v = np.zeros((len(current), *block.shape), np.int64)
    spikes = np.empty((len(current), steps, *block.shape), np.uint8)
    for step in range(steps):
        u = _wrap(_decayed(u, block.current_decay) + UNIT * current[:, step if current.shape[1] > 1 else 0])
        v = np.clip(_decayed(v, block.voltage_decay) + u + UNIT * block.bias, 1 - HALF, HALF - 1)
        spikes[:, step] = fires = v > UNIT * block.threshold
        v[fires] = 0
    return spikes, v


def lava_weights(weight: Array) -> tuple[Array, int]:
    """What a dense synapse of lava makes of integers in -256..255: the matrix it holds, the right shift of its sums.

    netx shifts the weights up until the largest fills 8 bits, lava clips them and cuts the low bits by a sign mode that
    it works out anew. Where both disagree on the sign (no positive entry) or the limit (exactly -2**k), weights change.
    """
    low, high = int(weight.min()), int(weight.max())
    signed = low < 0 <= high
    held = np.clip(weight, -256, 254) if signed else weight
    low, high = int(held.min()), int(held.max())
    positive = (127 if signed else 255) / high if high > 0 else np.inf
    negative = (-128 if signed else -256) / low if low < 0 else np.inf
    shift = int(np.floor(np.log2(min(positive, negative)))) + signed
    zeros = next((n for n in range(8, 0, -1) if not np.any(held % 2**n)), 0)
    mixed = low < 0 < high
    held = held.astype(np.int32) << shift
    held = np.clip(held, -256 if mixed else -255, 255)
    return _cut(held, shift + zeros - signed + mixed), shift


def read(path: Path, input_shape: Shape) -> tuple[Block, ...]:
    """The blocks of a netx file for inputs of this shape, in torch's order; BundleError says what is wrong where."""
    blocks: list[Block] = []
    shape, flat = input_shape, False
    with opened(path) as file:
        layers = member(file, "layer", h5py.Group)
        if not len(layers):
            raise BundleError(f"{path}: no layers")
        for index in range(len(layers)):
            layer = member(layers, str(index), h5py.Group)
            kind = _text(layer, "type")
            if kind == "flatten":
                flat = True
            elif kind == "input" and "neuron" not in layer:
                _same(layer, "shape", _shape(layer), shape)
            else:
                block = _block(layer, kind, shape, bool(blocks) and not flat)
                shape, flat = block.shape, False
                blocks.append(block)
    if not blocks:
        raise BundleError(f"{path}: no layer with neurons")
    return tuple(blocks)


def _currents(block: Block, x: Array) -> Array:
    samples, steps = x.shape[:2]
    current = block.current(x.reshape(samples * steps, *x.shape[2:]))
    largest = max(-int(current.min(initial=0)), int(current.max(initial=0)))
    if largest >= SUM:
        raise ProofError(f"{block.name}: a weighted sum of magnitude {largest}; lava's 32 bits end at {SUM}")
    return current.reshape(samples, steps, *block.shape)


def _decayed(x: Array, decay: Array) -> Array:
    if np.all(decay == 0):
        return x
    return np.asarray(np.sign(x) * ((np.abs(x) * (4096 - decay)) >> 12))


def _wrap(u: Array) -> Array:
    """Into 24 bits, -2**23 excluded and 2**23 included, by one turn at most, as lava does."""
    return np.asarray(np.where(u > HALF, u - 2 * HALF, np.where(u <= -HALF, u + 2 * HALF, u)))


def _cut(weight: Array, bits: int) -> Array:
    """Weights without their low bits, counted from zero if all are <= 0; for bits < 0 nothing is left, as in lava."""
    if bits < 0:
        return np.zeros_like(weight)
    sign = -1 if weight.max() <= 0 else 1
    return sign * (((sign * weight) >> bits) << bits)


def _multiply(x: Array, weight: Array) -> Array:
    """x @ weight.T as int64, computed in the smallest float that is exact."""
    bound = int(np.abs(weight).sum(axis=1).max(initial=0)) * int(np.abs(x.astype(np.int64)).max(initial=0))
    if bound >= 2**53:
        raise ProofError(f"sums of up to {bound}; lava's 32 bits end at {SUM}")
    kind = np.float32 if bound < 2**24 else np.float64
    total: Array = (x.astype(kind) @ weight.T.astype(kind)).astype(np.int64)
    return total


def _windows(x: Array, conv: Conv) -> Array:
    """`(N, in, out height, out width, kernel height, kernel width)`, a view of the padded input."""
    up, left = conv.padding
    padded = np.pad(x, ((0, 0), (0, 0), (up, up), (left, left)))
    span = _span(conv.weight.shape[2:], conv.dilation)
    view: Array = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(2, 3))  # type: ignore[call-overload]
    return view[:, :, :: conv.stride[0], :: conv.stride[1], :: conv.dilation[0], :: conv.dilation[1]]


def _span(kernel: Shape, dilation: Pair) -> Pair:
    return dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1


def _block(layer: h5py.Group, kind: str, shape: Shape, needs_flatten: bool) -> Block:
    if kind == "input":
        _same(layer, "shape", _shape(layer), shape)
        return Block(**_neuron(layer, shape), bias=np.zeros((), np.int64))
    if kind == "dense":
        return _dense(layer, shape, needs_flatten)
    if kind == "conv":
        return _conv(layer, shape)
    raise BundleError(f"{_where(layer)}: type {kind!r}; lava-dl runs input, conv, dense and flatten")


def _dense(layer: h5py.Group, shape: Shape, needs_flatten: bool) -> Dense:
    if needs_flatten and len(shape) > 1:
        raise BundleError(f"{_where(layer)}: dense on {shape}; a flatten layer is needed before it")
    if "delay" in layer:
        raise BundleError(f"{_where(layer)}: a synaptic delay; none is accepted")
    out = _shape(layer)
    weight = _integers(layer, "weight", -256, 255)
    weight = weight.reshape(out[0], -1) if weight.ndim == 1 and weight.size % out[0] == 0 else weight
    _same(layer, "weight", weight.shape, (out[0], int(np.prod(shape))))
    if not weight.any():
        raise BundleError(f"{_where(layer)}: every weight is zero, which netx cannot scale")
    held, shift = lava_weights(weight)
    return Dense(**_neuron(layer, out), bias=_bias(layer, out), weight=held, shift=shift)


def _conv(layer: h5py.Group, shape: Shape) -> Conv:
    if len(shape) != 3:
        raise BundleError(f"{_where(layer)}: conv on {shape}; (channels, height, width) is needed")
    out, groups = _shape(layer), int(_integers(layer, "groups", 1, INT8))
    weight = _kernels(layer, shape[0], groups)
    conv = Conv(
        **_neuron(layer, out),
        bias=_bias(layer, out),
        weight=weight,
        stride=_pair(layer, "stride", 1),
        padding=_pair(layer, "padding", 0),
        dilation=_pair(layer, "dilation", 1),
        groups=groups,
    )
    spans = _span(weight.shape[2:], conv.dilation)
    geometry = zip(shape[1:], conv.padding, spans, conv.stride, strict=True)
    sides = ((size + 2 * pad - span) // step + 1 for size, pad, span, step in geometry)
    _same(layer, "shape", out, (len(weight), *sides))
    return conv


def _kernels(layer: h5py.Group, channels: int, groups: int) -> Array:
    """`(out, in / groups, kernel height, kernel width)`, without the depth of 1 that slayer writes behind."""
    weight = _integers(layer, "weight", -HALF, HALF)
    weight = weight[..., 0] if weight.ndim == 5 and weight.shape[4] == 1 else weight
    sizes: Shape = weight.shape
    if len(sizes) != 4 or channels != sizes[1] * groups or sizes[0] % groups or max(sizes[2:]) > INT8:
        raise BundleError(
            f"{_where(layer)}/weight: shape {sizes} in {groups} groups; {channels} channels need (out, "
            f"{channels} / groups, height, width), sides up to {INT8}"
        )
    return weight


def _neuron(layer: h5py.Group, shape: Shape) -> dict[str, Any]:
    """The fields that all blocks share, but for the bias."""
    neuron = member(layer, "neuron", h5py.Group)
    if (kind := _text(neuron, "type")) not in ("CUBA", "LOIHI"):
        raise BundleError(f"{_where(neuron)}/type: {kind!r}; CUBA and LOIHI are accepted")
    if "messageBits" in neuron:
        raise BundleError(f"{_where(neuron)}: holds messageBits, at which lava hangs")
    limits = {"iDecay": (0, 4096), "vDecay": (0, 4096), "vThMant": (0, THRESHOLD)}
    values = [_spread(neuron, key, _integers(neuron, key, *limit), shape) for key, limit in limits.items()]
    current, voltage, threshold = values
    return {
        "name": _where(layer),
        "shape": shape,
        "current_decay": current,
        "voltage_decay": voltage,
        "threshold": threshold,
    }


def _bias(layer: h5py.Group, shape: Shape) -> Array:
    """Per channel, or per neuron in lava's (width, height, channels); broadcasts over the torch order."""
    if "bias" not in layer:
        return np.zeros((), np.int64)
    bias = _integers(layer, "bias", -BIAS, BIAS)
    if len(shape) == 3 and bias.shape == shape[::-1]:
        return bias.transpose(2, 1, 0)
    _same(layer, "bias", bias.shape, shape[:1])
    return _spread(layer, "bias", bias, shape)


def _spread(group: h5py.Group, key: str, values: Array, shape: Shape) -> Array:
    """One value for all, or one per channel, so that it broadcasts over `shape`."""
    if values.size == 1:
        return values.reshape(())
    _same(group, key, values.shape, shape[:1])
    return values.reshape(-1, *[1] * (len(shape) - 1))


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file, to read; BundleError if it is absent, no HDF5, or turns out to be damaged while it is read."""
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise BundleError(f"no netx file at {path}") from None
    except OSError as problem:
        raise BundleError(f"{path} is not a netx file: {problem}") from problem
    with file:
        try:
            yield file
        except (OSError, RuntimeError, TypeError, ValueError) as problem:  # h5py's words for bytes that make no sense
            raise BundleError(f"{path} is damaged: {problem}") from problem


def member(group: h5py.Group, key: str, kind: type) -> Any:
    """The dataset or group `key`; BundleError if it is absent or of the other kind."""
    try:
        found = group[key]
    except KeyError:
        raise BundleError(f"{_where(group)}: no {key}; it holds {', '.join(map(str, group)) or 'nothing'}") from None
    if not isinstance(found, kind):
        raise BundleError(f"{_where(group)}/{key}: a {type(found).__name__}, a {kind.__name__} is needed")
    return found


def _text(group: h5py.Group, key: str) -> str:
    value = np.ravel(member(group, key, h5py.Dataset)[()])
    if value.size != 1 or not isinstance(value[0], bytes):
        raise BundleError(f"{_where(group)}/{key}: {value!r}; one ASCII string is needed")
    return value[0].decode("ascii", "replace")


def _integers(group: h5py.Group, key: str, low: int, high: int) -> Array:
    """A dataset as int64, reals cut toward zero as netx does."""
    values = np.asarray(member(group, key, h5py.Dataset)[()])
    if values.dtype.kind not in "iuf" or not np.all(np.isfinite(values)) or not values.size:
        raise BundleError(f"{_where(group)}/{key}: {values.dtype} {values.shape}; finite numbers are needed")
    if values.min() < low or values.max() > high:
        raise BundleError(f"{_where(group)}/{key}: {values.min()}..{values.max()}; {low}..{high} is accepted")
    return values.astype(np.int64)


def _pair(layer: h5py.Group, key: str, low: int) -> Pair:
    values = _integers(layer, key, low, INT8).ravel()
    if values.size > 2:
        raise BundleError(f"{_where(layer)}/{key}: {values.size} values; one, or height and width, are needed")
    return int(values[0]), int(values[-1])


def _shape(layer: h5py.Group) -> Shape:
    return tuple(int(side) for side in _integers(layer, "shape", 1, HALF).ravel())


def _same(group: h5py.Group, key: str, met: Shape, wanted: Shape) -> None:
    if met != wanted:
        raise BundleError(f"{_where(group)}/{key}: shape {met}, {wanted} is needed")


def _where(group: h5py.Group) -> str:
    return f"{Path(group.file.filename).name}:{group.name.lstrip('/')}"
