"""ONNX, for onnxruntime and whatever else reads opset 10: any batch size, no custom operator.

form      unrolled (default)  one copy of each layer per step; the fastest in onnxruntime, at any batch size
          folded              layers without memory see all steps in one batch: fewer, larger nodes
          one-step            one time step: input and states in, logits so far, spikes and states out
numbers   integer (default)   int8 weights; every sum is exact, in float32 below 2**24 and in int32 beyond
          float               the folded network in float32, for those who want no quantisation

A layer that sees a still picture is computed once in every form but one-step, which keeps nothing but its states; if
its neurons are reset to zero, comparisons with that one sum give their spikes at every step.
`logits` is the int32 sum over the steps, of real numbers the float32 mean (one-step: the sum so far).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx

from snnkd_deploy.ir import Graph, Input, Neuron, Stage
from snnkd_deploy.proof import Proof
from snnkd_deploy.target import Target

from ._onnx_nodes import OPSET
from ._onnx_runtime import run
from ._onnx_writer import FORMS, Writer, input_type

suffix = ".onnx"
EXAMPLE = Path(__file__).with_name("_run_onnx.py")
"""Goes beside the file: how to run it without this package."""
options = {"form": FORMS, "numbers": ("integer", "float")}
proofs = (Proof("onnxruntime", run, samples=1000),)


def write(graph: Graph, target: Target, path: Path, form: str = FORMS[0], numbers: str = "integer") -> dict[str, Any]:
    """Write a LEGAL graph, of real numbers a FOLDED one. LegalityError lists what int32 and uint8 cannot hold."""
    assert (graph.stage == Stage.FOLDED) == (numbers == "float"), f"{numbers} numbers, met {graph.stage.name}"
    writer = Writer(graph, form)
    model = writer.model(_metadata(graph, form, numbers))
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    shutil.copyfile(EXAMPLE, path.with_name("run_onnx.py"))
    source = graph.input
    loader = {
        "opset": OPSET,
        "form": form,
        "numbers": numbers,
        "timesteps": graph.timesteps,
        "input": {"name": "input", "type": input_type(source)[1], "axes": _axes(source, form)},
        "output": {
            "name": "logits",
            "type": "int32" if numbers == "integer" else "float32",
            "axes": ["batch", "class"],
            "meaning": _meaning(form, numbers),
        },
    }
    if form == "one-step":
        spikes = "spikes/LAYER, float32 0 or 1"
        return {**loader, "spikes": spikes, "states": writer.states, "first_state": "zeros, for each sample anew"}
    return {**loader, "spikes": "spikes/LAYER/STEP, float32 0 or 1, inside the graph"}


def _axes(node: Input, form: str) -> list[str]:
    sample = ["channel", "height", "width"] if len(node.shape) == 3 else ["feature"]
    return ["batch", *sample] if node.static or form == "one-step" else ["timestep", "batch", *sample]


def _meaning(form: str, numbers: str) -> str:
    if form == "one-step":
        return "sum over the timesteps so far"
    return "sum over timesteps" if numbers == "integer" else "mean over timesteps"


def _metadata(graph: Graph, form: str, numbers: str) -> dict[str, str]:
    return {
        "snnkd_deploy.format": "1",
        "snnkd_deploy.form": form,
        "snnkd_deploy.numbers": numbers,
        "snnkd_deploy.timesteps": str(graph.timesteps),
        "snnkd_deploy.input_scale": repr(graph.input.scale),
        "snnkd_deploy.input_coding": "the same picture at each step" if graph.input.static else "one frame per step",
        "snnkd_deploy.logit_unit": repr(graph.output.unit),
        "snnkd_deploy.reset": ",".join(sorted({node.reset for node in graph.of(Neuron)})),
        "snnkd_deploy.digest": graph.origin or graph.digest,
    }
