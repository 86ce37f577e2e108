"""Run an ONNX file in onnxruntime and collect its spikes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from snnkd_deploy.errors import BundleError
from snnkd_deploy.ir import Array
from snnkd_deploy.simulate import Record

BATCH = 64


def run(path: Path, inputs: Array, loader: Mapping[str, Any]) -> Record:
    """The Record of integer `inputs`; of a file of real numbers, logits are float64 means over the steps."""
    session, names = _session(path)
    axis = inputs.ndim - len([one for one in loader["input"]["axes"] if one not in ("batch", "timestep")]) - 1
    typed = inputs.astype(loader["input"]["type"])
    parts = np.array_split(typed, range(BATCH, typed.shape[axis], BATCH), axis=axis)
    if "states" in loader:
        answers = [_stream(session, part, axis == 1, loader) for part in parts]
    else:
        answers = [_present(session, part, names, loader) for part in parts]
    logits = np.concatenate([one.logits for one in answers])
    spikes = {layer: np.concatenate([one.spikes[layer] for one in answers], axis=1) for layer in answers[0].spikes}
    return Record(spikes, logits.astype(np.float64 if logits.dtype == np.float32 else np.int64))


def _session(path: Path) -> tuple[Any, list[str]]:
    """The file with its spikes as outputs, and their names; they are made outputs of the copy, the file stays."""
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and onnx raise many kinds for a damaged file
        raise BundleError(f"{path} is not an ONNX file: {error}") from error
    names = [name for node in model.graph.node for name in node.output if name.startswith("spikes/")]
    for name in set(names) - {one.name for one in model.graph.output}:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]), names


def _present(session: Any, part: Array, names: list[str], loader: Mapping[str, Any]) -> Record:
    """All steps in one call."""
    logits, *spikes = session.run(["logits", *names], {loader["input"]["name"]: part})
    layers: dict[str, list[Array]] = {}
    for name, values in zip(names, spikes, strict=True):
        layers.setdefault(_layer(name).rpartition("/")[0], []).append(values.astype(np.uint8))
    return Record({layer: np.stack(steps) for layer, steps in layers.items()}, logits)


def _stream(session: Any, part: Array, frames: bool, loader: Mapping[str, Any]) -> Record:
    """One call per step; what the states say goes in again."""
    count, timesteps = part.shape[1 if frames else 0], loader["timesteps"]
    held = {one["input"]: np.zeros((count, *one["shape"]), dtype=one["type"]) for one in loader["states"]}
    names = [one.name for one in session.get_outputs()]
    layers: dict[str, list[Array]] = {_layer(name): [] for name in names if name.startswith("spikes/")}
    found: dict[str, Array] = {}
    for step in range(timesteps):
        sample = part[step] if frames else part
        found = dict(zip(names, session.run(names, {loader["input"]["name"]: sample, **held}), strict=True))
        held = {one["input"]: found[one["output"]] for one in loader["states"]}
        for layer, steps in layers.items():
            steps.append(found[f"spikes/{layer}"].astype(np.uint8))
    logits = found["logits"]
    spikes = {layer: np.stack(steps) for layer, steps in layers.items()}
    return Record(spikes, logits / timesteps if logits.dtype == np.float32 else logits)


def _layer(name: str) -> str:
    return name.removeprefix("spikes/")
