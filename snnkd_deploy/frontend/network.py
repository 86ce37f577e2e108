"""A user's torch network as a graph: recorded on samples, and compared with the network on those samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snnkd_deploy.errors import ConfigError, InputError, TraceError
from snnkd_deploy.frontend.operations import collected
from snnkd_deploy.frontend.record import Recorder, in_float64
from snnkd_deploy.frontend.values import At, Series, Sketch, Total, Unknown, Value
from snnkd_deploy.ir import Array, Graph, Linear, Neuron
from snnkd_deploy.passes.weight_shortcuts import carries_current
from snnkd_deploy.samples import Samples
from snnkd_deploy.simulate import simulate
from snnkd_deploy.snn import layers
from snnkd_deploy.trace import trace
from snnkd_deploy.user_code import told

COMPARED = 16
"""Samples on which the graph is compared with the network."""
ROUNDING = 1e-3
"""Share of a layer's spikes that may differ: membranes within float64's rounding of the threshold, and what follows."""
TIMED = (layers.Repeat, layers.Frames, layers.Neuron, layers.TimeMean, layers.MeanFrame)


@dataclass(frozen=True, eq=False)
class Read:
    """The graph of a network, and how they belong together."""

    graph: Graph
    origins: dict[str, str]
    """Of each node: the path of its module, or the place of the operation in the user's file."""
    notes: tuple[str, ...]
    """What was found and decided, one line each."""
    factor: float = 1.0
    """The network's own result is the logits times this."""


def read(model: nn.Module, samples: Samples, timesteps: int | None = None, name: str = "network") -> Read:
    """The graph of `model` in evaluation, which is compared with it on the first samples.

    Our own modules, snnTorch's networks (a loop over time of their own, or one step per call, which is then called
    `timesteps` times) and plain networks, whose ReLUs stay. TraceError lists every reason why there is no such graph,
    InputError says that the network cannot take the samples.
    """
    notes = evaluating(model)
    if any(isinstance(one, TIMED) for one in model.modules()):
        graph = trace(model, samples.source, name)
        return Read(graph, {node.name: node.name for node in graph}, tuple(notes))
    run = _recorded(model, samples, timesteps, name)
    graph, value, factor, meaning = _read_out(run, name)
    if reasons := [*run.sketch.problems, *(node.reason for node in graph.of(Unknown))]:
        raise TraceError(f"{name} holds what cannot be compiled:", dict.fromkeys(reasons))
    graph = with_readout(graph)
    notes += [f"the result is read as {meaning}", _compared(graph, run, value, factor, name)]
    origins = {**run.sketch.origins, "readout": "readout", graph.output.name: "result"}
    return Read(graph, origins, tuple(notes), factor)


def evaluating(module: nn.Module) -> list[str]:
    """Put a network into evaluation; what there is to say about that. TraceError lists weights that are not finite."""
    values = [*module.named_parameters(), *module.named_buffers()]
    wrong = [key for key, value in values if value.is_floating_point() and not torch.isfinite(value).all()]
    if wrong:
        raise TraceError(
            "the network cannot be deployed:", [f"{key}: holds values that are not finite" for key in wrong]
        )
    kinds = acting_in_training(module)
    module.eval()
    return [f"was in training mode, is put into evaluation ({', '.join(kinds)})"] if kinds else []


def acting_in_training(module: nn.Module) -> list[str]:
    """Kinds of the layers that are in training mode and compute something else there."""
    kinds = nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd
    return sorted({type(one).__name__ for one in module.modules() if one.training and isinstance(one, kinds)})


@dataclass(frozen=True, eq=False)
class _Run:
    sketch: Sketch
    results: list[tuple[Value | None, Tensor]]
    """What the forward returned: what it stands for, and its values."""
    inputs: Array


def _recorded(model: nn.Module, samples: Samples, timesteps: int | None, name: str) -> _Run:
    """Frames are given to the forward all at once, and if it is one step, one by one."""
    if samples.static:
        return _attempt(model, samples, timesteps, name, whole=True)
    frames = len(samples.values)
    if timesteps not in (None, frames):
        raise ConfigError(f"timesteps {timesteps}: the samples have {frames} frames, one for each step")
    try:
        run = _attempt(model, samples, frames, name, whole=True)
    except (InputError, ConfigError) as error:
        try:
            return _attempt(model, samples, frames, name, whole=False)
        except InputError:
            raise error from None
    return run if not run.sketch.refused else _attempt(model, samples, frames, name, whole=False)


def _attempt(model: nn.Module, samples: Samples, timesteps: int | None, name: str, whole: bool) -> _Run:
    count = min(COMPARED, len(samples))
    if not samples.static and count == len(samples.values) and count > 1:
        count -= 1  # so that time and batch cannot be taken for one another
    inputs = samples.integers(slice(count))
    values = torch.from_numpy(inputs * samples.scale)
    sketch = Sketch(samples.source, timesteps or 1)
    network = in_float64(model, name)
    with torch.no_grad(), Recorder(network, sketch):
        if samples.static:
            sketch.note(values, At(samples.source.name))
            found = [_called(network, values, name)]
            if sketch.calls and _single_step(sketch, timesteps, name):
                found += [_called(network, values, name) for _ in range(sketch.timesteps - 1)]
        elif whole:
            sketch.note(values, Series(samples.source.name, tuple(range(len(values)))))
            found = [_called(network, values, name)]
        else:
            frames = [values[step].clone() for step in range(len(values))]
            for step, frame in enumerate(frames):
                sketch.note(frame, At(samples.source.name, step))
            found = [_called(network, frame, name) for frame in frames]
    _same_length(sketch, timesteps, name)
    return _Run(sketch, list(_results(found, sketch)), inputs)


def _called(network: nn.Module, values: Tensor, name: str) -> Any:
    try:
        return network(values)
    except Exception as error:
        raise InputError(
            f"{name} cannot take samples of shape {tuple(values.shape)}: {told(error)}. Is that the shape its first "
            "layer takes? Does the forward name a batch size (write x.size(0)), or take states (keep them inside)?"
        ) from error


def _single_step(sketch: Sketch, timesteps: int | None, name: str) -> bool:
    """Whether the forward is one step, to be called for each; ConfigError if nobody says how many there are."""
    if {len(calls) for calls in sketch.calls.values()} != {1} or sketch.refused:
        return False
    if timesteps is None:
        raise ConfigError(f"{name}: its forward is one step; say with timesteps how many there are")
    sketch.timesteps = timesteps
    return timesteps > 1


def _same_length(sketch: Sketch, timesteps: int | None, name: str) -> None:
    counts = {neuron: len(calls) for neuron, calls in sketch.calls.items()}
    if not counts or sketch.refused:
        sketch.timesteps = max([timesteps or 1, *counts.values()])
        return
    if len({*counts.values()}) > 1:
        listed = ", ".join(f"{neuron} {count}" for neuron, count in counts.items())
        sketch.problems[f"its neurons run different numbers of steps: {listed}"] = None
        return
    met = next(iter(counts.values()))
    if timesteps not in (None, met):
        raise ConfigError(f"timesteps {timesteps}: the forward of {name} runs {met} steps itself; change it there")
    sketch.timesteps = met


def _results(found: list[Any], sketch: Sketch) -> Iterator[tuple[Value | None, Tensor]]:
    """Each part of what the forward returned; of several calls, the parts of all steps side by side."""
    parts = [list(_parts(one, sketch)) for one in found]
    if len(parts) == 1:
        yield from parts[0]
        return
    for steps in zip(*parts, strict=True):
        values = [value for value, _ in steps if value is not None]
        tensors = [tensor for _, tensor in steps]
        yield (collected(values) if len(values) == len(steps) else None), torch.stack(tensors)


def _parts(found: Any, sketch: Sketch) -> Iterator[tuple[Value | None, Tensor]]:
    if isinstance(found, Tensor):
        yield sketch.of(found), found
    elif isinstance(found, dict):
        for one in found.values():
            yield from _parts(one, sketch)
    elif isinstance(found, tuple | list):
        tensors = [one for one in found if isinstance(one, Tensor)]
        values = [value for one in tensors if (value := sketch.of(one)) is not None]
        series = collected(values) if len(values) == len(found) > 1 else None
        if series is not None and isinstance(found, list):
            yield series, torch.stack(tensors)
        else:
            for one in found:
                yield from _parts(one, sketch)


def _read_out(run: _Run, name: str) -> tuple[Graph, tuple[Value, Tensor], float, str]:
    """The graph behind the first result that is a mean over time; TraceError says why none is."""
    reasons = []
    for place, (value, tensor) in enumerate(run.results, start=1):
        which = f", {place}. of {len(run.results)} values returned" if len(run.results) > 1 else ""
        found = "it does not come from the input" if value is None else _meaning(run.sketch, value)
        if isinstance(found, str):
            reasons.append(f"result {place}: {found}")
            continue
        node, factor, meaning = found
        assert value is not None
        return run.sketch.graph(node, name), (value, tensor), factor, meaning + which
    unknown = [node.reason for node in run.sketch.nodes.values() if isinstance(node, Unknown)]
    problems = [*run.sketch.problems, *(unknown or reasons or ["its forward returns no tensor"])]
    raise TraceError(f"{name} holds what cannot be compiled:", dict.fromkeys(problems))


def _meaning(sketch: Sketch, value: Value) -> tuple[str, float, str] | str:
    """The node whose mean over time a result is, the factor, and in words; or why it is none."""
    steps, every = sketch.timesteps, tuple(range(sketch.timesteps))
    node = sketch.nodes[value.node]
    if value.state:
        return _membrane(sketch, value, node)
    if isinstance(value, At):
        if value.step is None or steps == 1:
            return value.node, 1.0, f"the output of {value.node}"
        return (
            f"step {value.step} of {value.node} alone; return the sum or the record of all steps, "
            "torch.stack(record), from which the count is taken"
        )
    if tuple(sorted(value.steps)) != every:
        return f"steps {value.steps} of {value.node}; accepted are all {steps} steps"
    kind = "spikes" if isinstance(node, Neuron) else "output"
    if isinstance(value, Total):
        return (
            value.node,
            value.factor * steps,
            f"the sum over time of the {kind} of {value.node}, times {value.factor:g}",
        )
    return value.node, 1.0, f"the {kind} of {value.node} at each step, whose mean counts"


def _membrane(sketch: Sketch, value: Value, node: Any) -> tuple[str, float, str] | str:
    """The last membrane of a neuron without reset and without leak is the sum of its currents."""
    if value.state == "current":
        return f"the synaptic current of {value.node}; return its spikes, or read out by a dense layer without neurons"
    last = isinstance(value, At) and value.step == sketch.timesteps - 1
    sums = isinstance(node, Neuron) and node.reset == "none" and np.all(node.decay == 1) and not node.keeps_current
    if sums and last:
        source = node.inputs[0]
        return source, float(sketch.timesteps), f"the last membrane of {node.name}, the sum of its currents"
    return (
        f"the membrane of {value.node}, which leaks, is reset, or counts at other steps than the last; return its "
        "spikes, or use snn.Leaky(beta=1, reset_mechanism='none') and its last membrane"
    )


def with_readout(graph: Graph) -> Graph:
    """Spikes of neurons are counted as they are; pools of spikes by a dense layer of weights 1."""
    output = graph.output
    source = output.inputs[0]
    shape = graph.shapes[source]
    if len(shape) != 1:
        raise TraceError(
            f"{graph.name} holds what cannot be compiled:",
            [f"its result has shape {shape}; one number per class is needed"],
        )
    if carries_current(graph, source) or graph.counts_spikes or not graph.of(Neuron):
        return graph
    identity = Linear(name="readout", inputs=(source,), weight=np.eye(shape[0]), bias=np.zeros(shape[0]))
    return replace(graph, nodes=(*graph.nodes[:-1], identity, replace(output, inputs=("readout",))))


def _compared(graph: Graph, run: _Run, result: tuple[Value, Tensor], factor: float, name: str) -> str:
    """What to say about the comparison. TraceError if the graph does not do what the network did."""
    record = simulate(graph, run.inputs)
    total = 0
    wrong: list[str] = []
    for neuron, spikes in record.spikes.items():
        met: Array = np.stack([np.asarray(one.numpy() != 0) for one in run.sketch.calls[neuron]])
        differing = int((met != spikes).sum())
        total += differing
        if differing > ROUNDING * spikes.size:
            wrong.append(f"{neuron}: {differing} of {spikes.size} spikes differ; does the forward reset states itself?")
    expected = _value(*result)
    size = float(np.abs(expected).max())
    if not total and not np.allclose(record.logits * factor, expected, rtol=1e-6, atol=1e-6 * max(size, 1e-30)):
        largest = np.abs(record.logits * factor - expected).max()
        wrong.append(f"its result differs by {largest:.3g} from that of the network")
    if wrong:
        raise TraceError(f"the graph that was read from {name} does not compute what it computes:", wrong)
    samples = run.inputs.shape[0 if graph.input.static else 1]
    fired = sum(int(one.sum()) for one in record.spikes.values())
    return f"the graph and the network, in float64 on {samples} samples: {total} of {fired} spikes differ"


def _value(value: Value, tensor: Tensor) -> Array:
    """The result as one tensor `(samples, classes)`."""
    return np.asarray((tensor.mean(value.axis) if isinstance(value, Series) else tensor).numpy())
