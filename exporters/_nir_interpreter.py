"""Run a NIR file by NIR's own equations, in numpy: what the file means, with no framework in between.

Forward Euler with the file's step, float64, nodes in the order of the edges, several edges into a node summed. A layer
has no delay, so it is computed for all steps before the next one: values are `(time or 1, samples, *shape)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nir
import numpy as np

from snnkd_deploy.errors import BundleError
from snnkd_deploy.ir import Array
from snnkd_deploy.simulate import Record, over_channels

from ._nir_file import DT, OLD, Network, read, samples_in, whole

SAMPLES_AT_A_TIME = 16
TOLERANCE = 1e-9
"""Of decay and gain, both near 1, computed back from tau and r in float64."""


def run(path: Path, inputs: Array, loader: Mapping[str, Any]) -> Record:
    """The Record of integers `(samples, *shape)` or `(time, samples, *shape)`. BundleError if the file is damaged."""
    network = read(path)
    count = samples_in(network, inputs, path)
    frames = inputs[None] if network.static else inputs
    parts = [frames[:, start : start + SAMPLES_AT_A_TIME] for start in range(0, count, SAMPLES_AT_A_TIME)]
    records = [_interpret(network, part.astype(np.float64), path) for part in parts]
    spikes = {name: np.concatenate([one.spikes[name] for one in records], axis=1) for name in network.neurons}
    return Record(spikes, np.concatenate([one.logits for one in records]))


def _interpret(network: Network, frames: Array, path: Path) -> Record:
    values: dict[str, Array] = {}
    spikes: dict[str, Array] = {}
    last_reader = {source: name for name in network.nodes for source in network.sources[name]}
    for name, node in network.nodes.items():
        sources = network.sources[name]
        current = np.asarray(sum(values[source] for source in sources)) if sources else frames
        try:
            values[name] = _value(node, current, network)
        except ValueError as error:
            raise BundleError(f"{path}: {name}: {error}") from None
        if name in network.neurons:
            spikes[name] = values[name].astype(np.uint8)
        for source in sources:
            if last_reader[source] == name:
                del values[source]
    steps = values[network.of(nir.Output)[0]]
    return Record(spikes, whole(np.broadcast_to(steps, (network.timesteps, *steps.shape[1:])).sum(axis=0)))


def _value(node: Any, current: Array, network: Network) -> Array:
    """The output of one node; ValueError if it has no meaning in a file of this package."""
    if isinstance(node, nir.Input | nir.Output):
        return current
    if isinstance(node, nir.IF | nir.LIF | nir.CubaLIF):
        return _fire(node, current, network)
    if isinstance(node, nir.Affine):
        return np.asarray(current @ node.weight.T.astype(np.float64) + node.bias)
    if isinstance(node, nir.Flatten):
        first = 2 + int(node.start_dim)
        return current.reshape(*current.shape[:first], -1)
    if isinstance(node, nir.Conv2d):
        return _convolve(node, current)
    if isinstance(node, nir.SumPool2d):
        return np.asarray(_windows(current, node.padding, node.kernel_size, node.stride, (1, 1)).sum(axis=(-2, -1)))
    raise ValueError(f"this package writes no {type(node).__name__}")


def _convolve(node: Any, x: Array) -> Array:
    """`(time, samples, in, height, width)` to `(time, samples, out, height, width)`."""
    if node.groups != 1:
        raise ValueError(f"{node.groups} groups; this package writes one")
    taps = _windows(x, node.padding, node.weight.shape[2:], node.stride, node.dilation)
    sums = np.tensordot(taps, node.weight.astype(np.float64), axes=((2, 5, 6), (1, 2, 3)))
    return np.moveaxis(sums + node.bias, -1, 2)


def _windows(x: Array, padding: Any, kernel: Any, stride: Any, dilation: Any) -> Array:
    """`(time, samples, channels, height, width)` to `(..., out height, out width, kernel height, kernel width)`."""
    padded = np.pad(x, ((0, 0), (0, 0), (0, 0), *((int(pad), int(pad)) for pad in padding)))
    rows, columns = ((int(one) - 1) * int(apart) + 1 for one, apart in zip(kernel, dilation, strict=True))
    view: Array = np.lib.stride_tricks.sliding_window_view(padded, (rows, columns), axis=(3, 4))  # type: ignore[call-overload]
    return view[:, :, :, :: int(stride[0]), :: int(stride[1]), :: int(dilation[0]), :: int(dilation[1])]


def _fire(node: Any, current: Array, network: Network) -> Array:
    """tau dv/dt = (v_leak - v) + r I, or dv/dt = r I; a spike where v > v_threshold, which sets v to v_reset.

    Up to nir 1.0.5 it subtracts v_threshold instead. Of a CubaLIF, tau_syn dI/dt = -I + w_in S comes first.

    What is kept is truncated toward zero to the grid that the metadata name, as the integer network does it.
    """
    dimensions, grid = current.ndim - 2, 2 ** int(_metadata(node, "fraction_bits"))
    decay, flowing = _decay(node, dimensions), _current_decay(node, dimensions)
    potential = kept = np.zeros(current.shape[1:])
    spikes = np.empty((network.timesteps, *potential.shape))
    for step in range(network.timesteps):
        kept = np.trunc(flowing * kept * grid) / grid + current[step if len(current) > 1 else 0]
        potential = np.trunc(decay * potential * grid) / grid + kept
        spikes[step] = potential > node.v_threshold
        after = potential - node.v_threshold if network.dialect == OLD else node.v_reset
        potential = np.where(spikes[step], after, potential)
    return spikes


def _decay(node: Any, dimensions: int) -> Array:
    """What the metadata name, for `(channels, ...)` of so many dimensions; one number, or one per channel.

    ValueError unless the equation says the same and adds the input as it is.
    """
    exact = _named(node, "decay_numerator", dimensions)
    tau = node.tau_mem if isinstance(node, nir.CubaLIF) else getattr(node, "tau", None)
    rate = np.zeros_like(node.r) if tau is None else DT / tau
    gain = node.r * (DT if tau is None else rate)
    _same(1 - rate, exact, "membrane")
    if np.abs(gain - 1).max() > TOLERANCE or np.any(getattr(node, "v_leak", 0)):
        raise ValueError(f"its equation scales the input by {gain.flat[0]:g} or has a resting potential")
    return exact


def _current_decay(node: Any, dimensions: int) -> Array:
    """The same of the current, of which only a CubaLIF keeps any."""
    if not isinstance(node, nir.CubaLIF):
        return np.zeros(())
    exact, rate = _named(node, "current_numerator", dimensions), DT / node.tau_syn
    _same(1 - rate, exact, "current")
    if np.abs(node.w_in * rate - 1).max() > TOLERANCE:
        raise ValueError(f"its equation scales what arrives by {(node.w_in * rate).flat[0]:g}")
    return exact


def _named(node: Any, numerator: str, dimensions: int) -> Array:
    """numerator / 2**decay_bits of the metadata."""
    return over_channels(np.asarray(_metadata(node, numerator) / 2 ** int(_metadata(node, "decay_bits"))), dimensions)


def _metadata(node: Any, key: str) -> Any:
    if key not in node.metadata:
        raise ValueError(f"its metadata lack {key}")
    return node.metadata[key]


def _same(met: Array, exact: Array, what: str) -> None:
    off = np.abs(met - exact)
    if off.max() > TOLERANCE:
        kept, said = (np.broadcast_to(one, off.shape).flat[off.argmax()] for one in (met, exact))
        raise ValueError(f"its equation keeps {kept:g} of the {what}, its metadata say {said:g}")
