"""Plain integer tensors and a manifest, for whoever builds the network in hardware or by hand.

`network.npz` holds the arrays in the smallest integer types, without pickles, and the manifest as UTF-8 bytes under the
name `manifest`; `network.json` beside it is the same manifest to read, `run_npz.py` the interpreter that proves it.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from snnkd_deploy.bounds import Bounds, Interval, bounds
from snnkd_deploy.errors import BundleError
from snnkd_deploy.ir import (
    Add,
    Array,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Output,
    Pool,
    SumPool2d,
)
from snnkd_deploy.proof import Proof
from snnkd_deploy.simulate import Record
from snnkd_deploy.target import Target

from . import _npz_interpreter

suffix = ".npz"
FORMAT = "snnkd-deploy/npz 1"
INTERPRETER = Path(_npz_interpreter.__file__)
OPERATIONS: dict[type[Node], str] = {
    Input: "the sample: the same integers at each step, or one frame per step (`input.coding`)",
    Linear: "y[o] = bias[o] + sum over i of weight[o, i] * x[i]",
    Conv2d: (
        "cross-correlation (the kernel is not flipped), zeros outside the picture: y[o, r, c] = bias[o] + sum over i, "
        "k, l of weight[o, i, k, l] * x[g * I + i, r * stride[0] + k * dilation[0] - padding[0], c * stride[1] + "
        "l * dilation[1] - padding[1]]; I = in / groups, g = o // (out / groups)"
    ),
    SumPool2d: "sum over each window; windows do not leave the picture, what does not fill one is dropped",
    MaxPool2d: "maximum over each window, of each step on its own; windows as in SumPool2d",
    Flatten: "axes merged in their order: index = (channel * height + row) * width + column",
    Add: "sum of the inputs, element by element",
    Neuron: (
        "v is kept from step to step and is 0 before the first; v counts 2**-fraction_bits of the integer 1. At each "
        "step, in this order: v = sign(v) * ((|v| * decay_numerator) >> decay_bits), a truncation toward zero; "
        "v = v + x * 2**fraction_bits; where the step before spiked, v = v - threshold * 2**fraction_bits (reset "
        "subtract_late alone); spike = 1 if v > threshold * 2**fraction_bits (strictly), else 0; where it spikes, v = "
        "0 (reset zero) or v = v - threshold * 2**fraction_bits (reset subtract); otherwise v stays. With a "
        "current_numerator, u is kept too, in the units of v, 0 before the first step and never reset: u = sign(u) * "
        "((|u| * current_numerator) >> decay_bits) + x * 2**fraction_bits, and v = v + u in place of v = v + x * "
        "2**fraction_bits"
    ),
    Output: "logits = sum of x over all steps; the class is the largest, the lowest index where they tie",
}
RULES = (
    "All values are integers; nothing is rounded but the leak of a neuron, and nothing may saturate or wrap: `range`, "
    "`membrane_range` and `current_range` are the least and the largest integer that can occur, whatever the sample.",
    "Nodes are listed in an order in which each comes after its inputs; all are computed once per step, without delay "
    "between layers. Nodes that depend on a still picture alone may be computed once.",
    "Shapes and axes are those of one sample. Arrays are in row-major (C) order, the last axis fastest.",
    "`threshold` has one value for all neurons of a layer, or one per channel (its first axis).",
    "`decay_numerator` and `current_numerator` are numbers for all neurons of a layer, or stand among its arrays: one "
    "per channel.",
    "`scale` is the real value of the integer 1, for information; no operation needs it.",
)


def write(graph: Graph, target: Target, path: Path) -> dict[str, Any]:
    """Write a LEGAL graph."""
    arrays: dict[str, Any] = {}
    limits = bounds(graph)
    nodes = [_entry(node, graph, limits, arrays) for node in graph]
    manifest = {**_head(graph), "nodes": nodes}
    text = readable(manifest)
    with path.open("wb") as file:  # a file, so that numpy adds no suffix
        np.savez_compressed(file, manifest=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    shutil.copyfile(INTERPRETER, path.with_name("run_npz.py"))
    return {
        "format": FORMAT,
        "manifest": path.with_suffix(".json").name,
        "interpreter": "run_npz.py",
        "input": manifest["input"],
    }


def run(path: Path, inputs: Array, loader: Mapping[str, Any]) -> Record:
    """Run the file alone; BundleError if it is not one."""
    try:
        manifest, arrays = _npz_interpreter.read(path)
        named = [entry["array"] for node in manifest["nodes"] for entry in node.get("arrays", {}).values()]
    except (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} is not a network of plain tensors: {error}") from error
    if missing := sorted({*named} - {*arrays}):
        raise BundleError(f"{path} lacks the arrays {', '.join(missing)}")
    return Record(*_npz_interpreter.run(path, inputs))


proofs = (Proof("npz-interpreter", run, samples=1000),)


def _head(graph: Graph) -> dict[str, Any]:
    source = graph.input
    kinds = {type(node) for node in graph}
    return {
        "format": FORMAT,
        "digest": graph.origin or graph.digest,
        "timesteps": graph.timesteps,
        "input": {
            "axes": [
                "batch" if source.static else "timestep",
                *([] if source.static else ["batch"]),
                *_axes(source.shape),
            ],
            "shape": list(source.shape),
            "low": source.low,
            "high": source.high,
            "scale": source.scale,
            "coding": "the same picture at each step" if source.static else "one frame per step",
        },
        "rules": list(RULES),
        "operations": {kind.__name__: text for kind, text in OPERATIONS.items() if kind in kinds},
    }


def _entry(node: Node, graph: Graph, limits: Bounds, arrays: dict[str, Array]) -> dict[str, Any]:
    """One node of the manifest; its arrays are added to `arrays`."""
    shape = graph.shapes[node.name]
    entry: dict[str, Any] = {"name": node.name, "operation": type(node).__name__, "inputs": list(node.inputs)}
    entry |= {"shape": list(shape), "axes": _axes(shape), **_settings(node)}
    if isinstance(node, Neuron):
        entry["membrane_range"] = _range(limits.membranes[node.name])
        entry |= {"current_range": _range(limits.currents[node.name])} if node.keeps_current else {}
    entry["range"] = _range(limits.values[node.name])
    if own := _arrays(node):
        entry["arrays"] = {key: _store(node, key, values, axes, arrays) for key, (values, axes) in own.items()}
    return entry


def _settings(node: Node) -> dict[str, Any]:
    if isinstance(node, Conv2d):
        sides = {"stride": node.stride, "padding": node.padding, "dilation": node.dilation}
        return {**{name: list(pair) for name, pair in sides.items()}, "groups": node.groups, **_scale(node)}
    if isinstance(node, Linear):
        return _scale(node)
    if isinstance(node, Pool):
        return {"kernel": list(node.kernel), "stride": list(node.stride)}
    if isinstance(node, Neuron):
        own = {name: int(values) for name, values in _numerators(node).items() if not values.ndim}
        return {**own, **{name: getattr(node, name) for name in ("decay_bits", "fraction_bits", "reset")}}
    return {"scale": node.unit} if isinstance(node, Output) else {}


def _scale(node: Linear | Conv2d) -> dict[str, Any]:
    return {} if node.unit is None else {"scale": np.asarray(node.unit).tolist()}


def _arrays(node: Node) -> dict[str, tuple[Array, list[str]]]:
    """The arrays of a node with the names of their axes."""
    if isinstance(node, Conv2d):
        axes = ["out channel", "in channel of the group", "kernel row", "kernel column"]
        return {"weight": (node.weight, axes), "bias": (node.bias, axes[:1])}
    if isinstance(node, Linear):
        return {"weight": (node.weight, ["out feature", "in feature"]), "bias": (node.bias, ["out feature"])}
    if isinstance(node, Neuron):
        found = {"threshold": (node.threshold, ["channel"] if node.threshold.ndim else [])}
        return found | {name: (values, ["channel"]) for name, values in _numerators(node).items() if values.ndim}
    return {}


def _numerators(node: Neuron) -> dict[str, Array]:
    """What is kept of the membrane, and of the current if any is."""
    kept = {"current_numerator": node.current_numerator} if node.keeps_current else {}
    return {"decay_numerator": node.decay_numerator, **kept}


def _store(node: Node, key: str, values: Array, axes: list[str], arrays: dict[str, Array]) -> dict[str, Any]:
    name = f"{node.name}/{key}"
    arrays[name] = smallest(values)
    return {"array": name, "type": arrays[name].dtype.name, "shape": list(values.shape), "axes": axes}


def smallest(values: Array) -> Array:
    """The same integers in the smallest signed type that holds them, little-endian, row-major."""
    least, most = int(values.min()), int(values.max())
    kind = next(
        kind for kind in ("<i1", "<i2", "<i4", "<i8") if np.iinfo(kind).min <= least and most <= np.iinfo(kind).max
    )
    return np.array(values, dtype=kind, order="C")


def readable(manifest: Mapping[str, Any]) -> str:
    """JSON of two spaces, short lists on one line."""
    text = json.dumps(manifest, indent=2, allow_nan=False) + "\n"
    return re.sub(
        r"\[\n[^][{}]*\]", lambda found: re.sub(r"\s*\n\s*", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text
    )


def _range(interval: Interval) -> list[int]:
    return [int(interval[0].min()), int(interval[1].max())]


def _axes(shape: tuple[int, ...]) -> list[str]:
    return ["channel", "row", "column"] if len(shape) == 3 else ["feature"]
