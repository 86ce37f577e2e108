"""Small netx files, written group by group."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from snnkd_deploy.ir import Array

Layer = dict[str, Any]


def neuron(threshold: Any = 2**17, leak: Any = 0, current_leak: Any = 4096) -> Layer:
    """By default one that adds up, without memory of the current, and stays silent."""
    return {"type": np.bytes_("CUBA"), "iDecay": current_leak, "vDecay": leak, "vThMant": threshold}


def dense(weight: Any, **other: Any) -> Layer:
    weight = np.asarray(weight)
    return {"type": np.bytes_("dense"), "shape": [len(weight)], "weight": weight, "neuron": neuron(), **other}


def conv(weight: Any, shape: tuple[int, ...], **other: Any) -> Layer:
    geometry = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    numbers = {"shape": shape, "weight": np.asarray(weight), "neuron": neuron()}
    return {"type": np.bytes_("conv"), **geometry, **numbers, **other}


def fed(shape: tuple[int, ...], **other: Any) -> Layer:
    """Neurons that take in a current."""
    return {"type": np.bytes_("input"), "shape": shape, "neuron": neuron(), **other}


FLATTEN: Layer = {"type": np.bytes_("flatten"), "shape": [1]}


def save(path: Path, *layers: Layer) -> Path:
    with h5py.File(path, "w") as file:
        _fill(file, {"layer": {str(index): layer for index, layer in enumerate(layers)}})
    return path


def _fill(group: h5py.Group, content: Mapping[str, Any]) -> None:
    for name, value in content.items():
        if isinstance(value, Mapping):
            _fill(group.create_group(name), value)
        else:
            group[name] = value


def frames(*rows: Any) -> Array:
    """One sample, one row per step: `(1, steps, ...)`."""
    return np.asarray([rows], np.int64)
