"""A .nir file as a graph. NIR's neurons are equations in time; here they take steps of `dt` seconds, forward Euler.

    LIF   tau dv/dt = (v_leak - v) + r I   becomes   v = (1 - dt / tau) * v + (dt / tau) * (r I + v_leak)
    IF    dv/dt = r I                      becomes   v = v + dt * r I
    CubaLIF   tau_syn dI/dt = -I + w_in S  becomes   I = (1 - dt / tau_syn) * I + (dt / tau_syn) * w_in S

of which v takes the new I, as snnTorch and SpikingJelly do; NIR does not say. A spike comes where v > v_threshold, its
equation (readers that fire at v >= v_threshold differ where v meets it). It sets v to v_reset in files of NIR 1.0.6 and
later; neurons without v_reset are of 1.0.5 or before, where it subtracts the threshold. The factors of the current move
into the weights in front. Files of this package hold integers already: they come back as the integer network that was
written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import nir
import numpy as np

from snnkd_deploy.errors import ConfigError, InputError, TraceError
from snnkd_deploy.exporters._nir_file import DT, PREFIX, without_reset
from snnkd_deploy.frontend.network import Read, with_readout
from snnkd_deploy.ir import (
    Add,
    Array,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Pair,
    Shape,
    Stage,
    SumPool2d,
    output_shape,
)
from snnkd_deploy.trace import Refusal

READ = "Affine, Linear, Scale, Conv2d, SumPool2d, AvgPool2d, Flatten, IF, LIF, CubaLIF, Threshold, Input and Output"


def read(path: Path | str, source: Input, timesteps: int | None = None, dt: float | None = None) -> Read:
    """The graph of a file, fed by `source`. `timesteps` and `dt` (seconds) are taken from the file if it says them.

    InputError if the file is missing or damaged, ConfigError if nobody says how many steps, TraceError with every
    reason why a part has no node.
    """
    file = Path(path)
    content, subtracting = _opened(file)
    if source.shape != (shape := _shape(content)):
        raise InputError(f"{file} takes samples of shape {shape}, met {source.shape}")
    said = {key.removeprefix(PREFIX): value for key, value in content.metadata.items() if key.startswith(PREFIX)}
    steps = int(said.get("timesteps", 0)) if timesteps is None else timesteps
    if steps < 1:
        raise ConfigError(f"{file} does not say how many steps it runs; say it with timesteps")
    step = float(said.get("dt_s", DT)) if dt is None else dt
    walk = _Walk(content, source, step, subtracting, exact="format" in said)
    graph = walk.graph(file.stem, steps)
    if "format" in said:
        return _integer(graph, said)
    dialect = (
        "a spike subtracts the threshold (NIR up to 1.0.5)" if subtracting else "a spike sets v to v_reset (NIR 1.0.6)"
    )
    notes = (f"steps of {step:g} s, forward Euler; a spike where v > v_threshold; {dialect}",)
    return Read(with_readout(graph), {node.name: node.name for node in graph}, notes)


def timesteps_in(path: Path | str) -> int | None:
    """How many steps a file says that it runs; None if it does not say."""
    found = _opened(Path(path))[0].metadata.get(PREFIX + "timesteps")
    return None if found is None else int(found)


def _opened(file: Path) -> tuple[Any, bool]:
    """The file's graph, and whether its neurons subtract. InputError if it is missing, damaged or mixes both."""
    if not file.is_file():
        raise InputError(f"no NIR file {file}")
    try:
        bare, content = without_reset(file), nir.read(file)
    except Exception as error:  # h5py and nir raise many kinds for a damaged file
        raise InputError(f"{file} is not a NIR file that nir {nir.version} can read: {error}") from error
    neurons = [name for name, node in content.nodes.items() if isinstance(node, nir.IF | nir.LIF | nir.CubaLIF)]
    if bare and set(bare) != set(neurons):
        raise InputError(
            f"{file}: {', '.join(sorted(bare))} without v_reset, other neurons with it; one dialect is needed"
        )
    return content, bool(bare)


def _shape(content: Any) -> Shape:
    entries = [node for node in content.nodes.values() if isinstance(node, nir.Input)]
    return tuple(int(size) for size in np.atleast_1d(entries[0].input_type["input"])) if entries else ()


def _integer(graph: Graph, said: Mapping[str, Any]) -> Read:
    """The integer network that a file of this package holds."""
    source = replace(graph.input, scale=float(said["input_scale"]))
    output = replace(graph.output, unit=float(said["logit_unit"]))
    nodes = (source, *graph.nodes[1:-1], output)
    integer = replace(graph, nodes=nodes, stage=Stage.INTEGER)
    return Read(
        integer, {node.name: node.name for node in integer}, ("the integers of a file of snnkd-deploy, as they are",)
    )


class _Walk:
    """Turns NIR nodes into ours, in the order of the edges; several edges into a node are a sum."""

    def __init__(self, content: Any, source: Input, dt: float, subtracting: bool, exact: bool) -> None:
        self.content, self.dt, self.subtracting, self.exact = content, dt, subtracting, exact
        self.nodes: list[Node] = [source]
        self.shapes: dict[str, Shape] = {source.name: source.shape}
        self.names: dict[str, str] = {}
        self.problems: list[str] = []

    def graph(self, name: str, timesteps: int) -> Graph:
        """All of it. TraceError lists what has no node."""
        for one in self._order():
            try:
                self.names[one] = self._visit(one, self.content.nodes[one])
            except (Refusal, ValueError) as reason:
                self.problems.append(f"{one}: {reason}")
            except KeyError:
                continue  # it reads something that was refused before
        if self.problems:
            raise TraceError(f"{name}.nir holds what cannot be compiled:", self.problems)
        return Graph(nodes=tuple(self.nodes), timesteps=timesteps, name=name)

    def _order(self) -> list[str]:
        sources: dict[str, list[str]] = {name: [] for name in self.content.nodes}
        for start, end in self.content.edges:
            sources[end].append(start)
        self.sources = sources
        try:
            order = list(TopologicalSorter(sources).static_order())
        except CycleError as error:
            self.problems.append(f"{', '.join(error.args[1])}: a loop; recurrent connections have no node")
            return []
        ends = [name for name in order if isinstance(self.content.nodes[name], nir.Output)]
        return [*(name for name in order if name not in ends), *ends]

    def _visit(self, name: str, node: Any) -> str:
        if isinstance(node, nir.Input):
            return self.nodes[0].name
        given = [self.names[source] for source in self.sources[name]]
        if not given:
            raise Refusal("no edge leads here")
        source = given[0] if len(given) == 1 else self._add(Add(name=f"{name}.sum", inputs=tuple(given)))
        if isinstance(node, nir.Output):
            return self._add(Output(name=name, inputs=(source,)))
        for one in self._nodes(name, node, source):
            source = self._add(one)
        return source

    def _add(self, node: Node) -> str:
        self.shapes[node.name] = output_shape(node, [self.shapes[name] for name in node.inputs])
        self.nodes.append(node)
        return node.name

    def _nodes(self, name: str, node: Any, source: str) -> list[Node]:
        """What a NIR node is here, in order; `inputs` of the first is `source`."""
        shape = self.shapes[source]
        if isinstance(node, nir.Affine | nir.Linear):
            bias = getattr(node, "bias", np.zeros(len(node.weight)))
            return [Linear(name=name, inputs=(source,), weight=self._numbers(node.weight), bias=self._numbers(bias))]
        if isinstance(node, nir.Conv2d):
            return [self._convolution(name, node, source)]
        if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
            return [_pool(name, node, source)]
        if isinstance(node, nir.Flatten):
            return [_flatten(name, node, source, shape)]
        if isinstance(node, nir.Scale):
            return [_affine(name, source, _per_channel(node.scale, shape, "scale"), np.zeros(shape[0]))]
        if isinstance(node, nir.Threshold):
            threshold = _per_channel(node.threshold, shape, "threshold")
            return [Neuron(name=name, inputs=(source,), decay=0.0, threshold=_one_or_all(threshold))]
        if isinstance(node, nir.IF | nir.LIF | nir.CubaLIF):
            return self._neuron(name, node, source, shape)
        raise Refusal(f"{type(node).__name__} has no node here; known are {READ}")

    def _numbers(self, values: Any) -> Array:
        array = np.asarray(values, dtype=np.float64)
        whole = self.exact and bool((array == np.rint(array)).all())
        return array.astype(np.int64) if whole else array

    def _convolution(self, name: str, node: Any, source: str) -> Conv2d:
        if isinstance(node.padding, str) and node.padding != "valid":
            raise Refusal(f"padding {node.padding!r}; write it as numbers")
        return Conv2d(
            name=name,
            inputs=(source,),
            weight=self._numbers(node.weight),
            bias=self._numbers(np.zeros(len(node.weight)) if node.bias is None else node.bias),
            stride=_pair(node.stride),
            padding=(0, 0) if isinstance(node.padding, str) else _pair(node.padding),
            dilation=_pair(node.dilation),
            groups=int(node.groups),
        )

    def _neuron(self, name: str, node: Any, source: str, shape: Shape) -> list[Node]:
        if self.exact:
            return [_exact_neuron(name, node, source, shape)]
        rate, slow = self._rate(node, "tau", "tau_mem"), self._rate(node, "tau_syn")
        if not self.subtracting and np.any(node.v_reset):
            raise Refusal("v_reset is not 0; shift v_leak, v_threshold and v_reset so that it is")
        gain = _per_channel(node.r * (self.dt if rate is None else rate), shape, "r")
        rest = np.zeros(shape[0]) if rate is None else _per_channel(node.v_leak * rate, shape, "v_leak")
        if slow is not None:
            gain = gain * _per_channel(node.w_in * slow, shape, "w_in")
            if rest.any():
                raise Refusal("v_leak is not 0, beside a current that is kept; shift v so that it is")
        threshold = _per_channel(node.v_threshold, shape, "v_threshold")
        if threshold.min() <= 0:
            raise Refusal(f"v_threshold {threshold.min():g}: it fires at rest; a threshold above 0 is needed")
        current = (
            []
            if np.allclose(gain, 1, rtol=1e-6, atol=0) and not rest.any()
            else [_affine(f"{name}.current", source, gain, rest)]
        )
        neuron = Neuron(
            name=name,
            inputs=(current[-1].name if current else source,),
            decay=_kept(rate, shape, "tau"),
            current_decay=0.0 if slow is None else _kept(slow, shape, "tau_syn"),
            threshold=_one_or_all(threshold),
            reset="subtract" if self.subtracting else "zero",
        )
        return [*current, neuron]

    def _rate(self, node: Any, *names: str) -> Array | None:
        """dt / tau, by the first of these names that the node has; None if it does not leak."""
        found = [np.asarray(getattr(node, name), dtype=np.float64) for name in names if hasattr(node, name)]
        if not found:
            return None
        rate = np.asarray(self.dt / found[0])
        if np.min(rate) < 0 or np.max(rate) > 1:
            raise Refusal(f"{names[0]} is shorter than the step of {self.dt:g} s; choose a smaller dt")
        return rate


def _kept(rate: Array | None, shape: Shape, what: str) -> float | Array:
    return 1.0 if rate is None else _number_or_all(1 - _per_channel(rate, shape, what))


def _exact_neuron(name: str, node: Any, source: str, shape: Shape) -> Neuron:
    """As this package wrote it: the threshold half a step of the grid higher, the leaks as fractions."""
    needed = {"decay_numerator", "decay_bits", "fraction_bits"}
    needed |= {"current_numerator"} if isinstance(node, nir.CubaLIF) else set()
    if lacking := needed - set(node.metadata):
        raise Refusal(f"its metadata lack {', '.join(sorted(lacking))}")
    bits = int(node.metadata["decay_bits"])
    decay, current = (
        _number_or_all(np.atleast_1d(np.asarray(node.metadata.get(key, 0)) / 2**bits))
        for key in ("decay_numerator", "current_numerator")
    )
    threshold = np.floor(_per_channel(node.v_threshold, shape, "v_threshold")).astype(np.int64)
    return Neuron(
        name=name,
        inputs=(source,),
        decay=decay,
        current_decay=current,
        threshold=_one_or_all(threshold),
        decay_bits=bits,
        fraction_bits=int(node.metadata["fraction_bits"]),
    )


def _pool(name: str, node: Any, source: str) -> Node:
    if np.any(node.padding):
        raise Refusal(f"padding {tuple(np.atleast_1d(node.padding).tolist())}; pools without padding are accepted")
    kind = SumPool2d if isinstance(node, nir.SumPool2d) else AvgPool2d
    return kind(name=name, inputs=(source,), kernel=_pair(node.kernel_size), stride=_pair(node.stride))


def _flatten(name: str, node: Any, source: str, shape: Shape) -> Node:
    """NIR counts no batch, snnTorch's exporter does: its start_dim 1 on (channels, height, width) means all of them."""
    if int(node.start_dim) not in (0, 1) or int(node.end_dim) not in (-1, len(shape) - 1, len(shape)):
        raise Refusal(f"flattens {node.start_dim}..{node.end_dim} of {shape}; all of a sample is accepted")
    return Flatten(name=name, inputs=(source,))


def _affine(name: str, source: str, gain: Array, shift: Array) -> BatchNorm:
    ones = np.ones(len(gain))
    return BatchNorm(name=name, inputs=(source,), mean=0 * ones, variance=ones, gamma=gain, beta=shift, eps=0.0)


def _pair(value: Any) -> Pair:
    flat = np.atleast_1d(value)
    return int(flat[0]), int(flat[-1])


def _per_channel(values: Any, shape: Shape, what: str) -> Array:
    """A parameter of each neuron as one of each channel, `(channels,)`."""
    whole = np.broadcast_to(np.asarray(values, dtype=np.float64), shape).reshape(shape[0], -1)
    if (whole != whole[:, :1]).any():
        raise Refusal(f"{what} differs within a channel; one per channel is accepted")
    return whole[:, 0].copy()


def _number_or_all(values: Array) -> float | Array:
    return float(values[0]) if np.ptp(values) == 0 else values


def _one_or_all(values: Array) -> Array:
    return np.asarray(values[0]) if np.ptp(values) == 0 else values
