"""Run network.npz with numpy alone: python run_npz.py samples.npy

samples.npy: integers (batch, ...) for a still picture, (timestep, batch, ...) for frames; the manifest says which.
This file is the reference for whoever builds the network elsewhere: one step after the other, one node after the other,
each as the manifest's `operations` say. It uses nothing but the file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BATCH = 64


def read(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """The manifest and the arrays of a file."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    return json.loads(arrays.pop("manifest").tobytes()), arrays


def run(path: Path, samples: Array) -> tuple[dict[str, Array], Array]:
    """Spikes of each neuron layer, uint8 (timestep, batch, ...), and logits, int64 (batch, class)."""
    manifest, arrays = read(path)
    axis = manifest["input"]["axes"].index("batch")
    parts = np.array_split(samples, range(BATCH, samples.shape[axis], BATCH), axis=axis)
    answers = [present(manifest, arrays, part) for part in parts]
    spikes = {name: np.concatenate([fired[name] for fired, _ in answers], axis=1) for name in answers[0][0]}
    return spikes, np.concatenate([logits for _, logits in answers])


def present(manifest: dict[str, Any], arrays: dict[str, Array], samples: Array) -> tuple[dict[str, Array], Array]:
    """One batch through all timesteps, from empty membranes."""
    frames = manifest["input"]["axes"][0] == "timestep"
    state: dict[str, Any] = {}
    fired: dict[str, list[Array]] = {node["name"]: [] for node in manifest["nodes"] if node["operation"] == "Neuron"}
    logits: Any = 0
    for step in range(manifest["timesteps"]):
        values: dict[str, Array] = {}
        for node in manifest["nodes"]:
            operation, name = node["operation"], node["name"]
            given = [values[source] for source in node["inputs"]]
            own = {key: arrays[entry["array"]] for key, entry in node.get("arrays", {}).items()}
            if operation == "Input":
                values[name] = (samples[step] if frames else samples).astype(np.int64)
            elif operation == "Neuron":
                values[name], state[name] = neuron(node, own, given[0], state.get(name, (0, 0)))
                fired[name].append(values[name].astype(np.uint8))
            elif operation == "Output":
                logits = logits + given[0]
            else:
                values[name] = compute(node, own, given)
    return {name: np.stack(steps) for name, steps in fired.items()}, logits


def neuron(node: dict[str, Any], own: dict[str, Array], current: Array, state: Any) -> tuple[Array, Any]:
    """Spikes and the new state: membrane behind the reset and kept current, in units of 2**-fraction_bits."""
    unit, (membrane, kept) = 2 ** node["fraction_bits"], state
    arriving = leaked(node, own, "current_numerator", kept, current) + unit * current
    limit = unit * along(own["threshold"], current)
    late = (membrane > limit) * limit if node["reset"] == "subtract_late" else 0  # above the limit: it has just spiked
    membrane = leaked(node, own, "decay_numerator", membrane, current) + arriving - late
    spikes = membrane > limit
    after = {"zero": 0, "subtract": membrane - limit}.get(node["reset"], membrane)
    return spikes.astype(np.int64), (np.where(spikes, after, membrane), arriving)


def leaked(node: dict[str, Any], own: dict[str, Array], name: str, value: Any, like: Array) -> Array:
    """value * numerator / 2**decay_bits, truncated toward zero; nothing without a numerator of that name."""
    if name not in own and name not in node:
        return np.zeros_like(like)
    numerator = along(own.get(name, node.get(name)), like)
    return np.asarray(np.sign(value) * ((np.abs(value) * numerator) >> node["decay_bits"]))


def along(values: Any, like: Array) -> Array:
    """One value, or one per channel, so that it broadcasts over (batch, channel, ...)."""
    return np.asarray(values, dtype=np.int64).reshape(-1, *[1] * (like.ndim - 2))


def compute(node: dict[str, Any], own: dict[str, Array], given: list[Array]) -> Array:
    """A node without memory, (batch, ...)."""
    operation, x = node["operation"], given[0]
    if operation == "Linear":
        return multiply(x, own["weight"].T) + own["bias"]
    if operation == "Conv2d":
        return convolve(node, own["weight"], x) + own["bias"].astype(np.int64)[:, None, None]
    if operation == "SumPool2d":
        return np.asarray(windows(x, node["kernel"], node["stride"]).sum(axis=(-2, -1)))
    if operation == "MaxPool2d":
        return np.asarray(windows(x, node["kernel"], node["stride"]).max(axis=(-2, -1)))
    if operation == "Flatten":
        return x.reshape(len(x), -1)
    if operation == "Add":
        return np.asarray(sum(given))
    raise ValueError(f"no operation {operation!r}")


def convolve(node: dict[str, Any], weight: Array, x: Array) -> Array:
    """Cross-correlation with zero padding, group by group."""
    (up, left), (rows, columns), dilation = node["padding"], weight.shape[2:], node["dilation"]
    padded = np.pad(x, ((0, 0), (0, 0), (up, up), (left, left)))
    spread = [(side - 1) * step + 1 for side, step in zip((rows, columns), dilation, strict=True)]
    seen = windows(padded, spread, node["stride"])[..., :: dilation[0], :: dilation[1]]
    batch, channels, height, width = seen.shape[:4]
    groups = node["groups"]
    taps = seen.reshape(batch, groups, channels // groups, height, width, rows, columns)
    taps = taps.transpose(0, 1, 3, 4, 2, 5, 6).reshape(batch, groups, height * width, -1)
    kernels = weight.reshape(groups, len(weight) // groups, -1).transpose(0, 2, 1)
    return multiply(taps, kernels).transpose(0, 1, 3, 2).reshape(batch, len(weight), height, width)


def windows(x: Array, kernel: list[int], stride: list[int]) -> Array:
    """(batch, channel, row, column) to (batch, channel, out row, out column, kernel row, kernel column)."""
    view = np.lib.stride_tricks.sliding_window_view(x, tuple(kernel), axis=(2, 3))
    return np.asarray(view[:, :, :: stride[0], :: stride[1]])


def multiply(left: Array, right: Array) -> Array:
    """An integer product, by float64 for speed: exact, because every sum here stays far below 2**53."""
    return np.asarray((left.astype(np.float64) @ right.astype(np.float64)).astype(np.int64))


if __name__ == "__main__":
    fired, logits = run(Path(__file__).with_name("network.npz"), np.load(sys.argv[1]))
    print("classes:", logits.argmax(axis=1).tolist())
    for name, spikes in fired.items():
        print(f"{name}: {spikes.mean():.4f} spikes per neuron and step")
