"""netx HDF5, the file that lava-dl runs on Loihi and in its fixed-point simulation; written with h5py alone.

Each Linear or Conv2d with its Neuron is one block; the readout is a block whose threshold its membrane cannot reach, so
that its membrane adds up the logits. The layer that a host computes lies in the group `host`, which lava does not read.
Arrays keep torch's order, as netx wants it; in lava pictures are (width, height, channels).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from snnkd_deploy.check import bias_problems, chain_problems
from snnkd_deploy.errors import BundleError, LegalityError, ProofError
from snnkd_deploy.files import replacing
from snnkd_deploy.ir import (
    Array,
    BiasedInput,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Relay,
    Shape,
    Stage,
    output_shape,
)
from snnkd_deploy.numerics import conv2d
from snnkd_deploy.proof import Proof
from snnkd_deploy.simulate import Record, with_constant
from snnkd_deploy.target import Target

from . import _lava
from ._netx_replay import INT8, UNIT, Answer, lava_weights, member, opened, replay

suffix = ".net"

FORMAT = 1
"""Version of the groups `host` and `snnkd`, which are ours."""
KINDS = (Input, Conv2d, Linear, Flatten, Neuron, Output)
WEIGHT = 127
BIAS = 4095
"""13-bit mantissa; netx fixes the exponent at 6, which is the unit of a weight."""
THRESHOLD = 2**17 - 1
"""17-bit mantissa. 64 times this is the largest membrane but 63, and the readout stays at or below it."""
DECAY_UNITY = 4096
FRACTION_BITS = 6
REPLAYED_AT_A_TIME = 32
PACKED = 2**12
"""Values from which on an array is compressed if most of it is zero."""
CONSTANT = (
    "snnkd/constant of the file, (channels, height, width) or (features,), goes in behind the channels of each sample "
    "at each step: with its weights it is the part of the first layer's bias that is too large for the bias register"
)
"""What a loader of such a file must do."""

File = Mapping[str, "File | Array"]
"""Groups and datasets of an HDF5 file."""


class Population(NamedTuple):
    """A synaptic layer and what reads it: its neurons, or the Output."""

    synapse: Linear | Conv2d
    reader: Neuron | Output

    @property
    def name(self) -> str:
        """Of the neurons; of the readout its layer's."""
        return self.reader.name if isinstance(self.reader, Neuron) else self.synapse.name


def write(graph: Graph, target: Target, path: Path) -> dict[str, Any]:
    """Write a legal graph; returns what its loader must be told. LegalityError lists all that netx cannot say."""
    if problems := list(refusals(graph, target)):
        raise LegalityError(f"netx cannot hold {graph.name}:", problems)
    held = pictures_only(graph) if any(_is_trap(node) for node in graph) else graph
    content = _bytes(_file(held, graph.origin or graph.digest))
    with replacing(path) as partial:
        partial.write_bytes(content)
    return _loader(graph, held, target)


def refusals(graph: Graph, target: Target) -> Iterator[str]:
    """Every reason why this graph is not a netx file."""
    if graph.stage != Stage.LEGAL:
        yield f"{graph.name}: a {graph.stage.name.lower()} network; a legal one is needed"
        return
    wiring = list(_wiring_refusals(graph))
    yield from wiring
    if not wiring:
        yield from _input_refusals(graph, target)
        yield from _trap_refusals(graph)
        yield from bias_problems(graph)
    for node in graph:
        if isinstance(node, Neuron):
            yield from _neuron_refusals(node)
        elif isinstance(node, Linear | Conv2d) and node.placement == "chip":
            yield from _synapse_refusals(node)


def populations(graph: Graph) -> list[Population]:
    """The blocks of a chain, in order."""
    found = []
    for node in graph:
        if isinstance(node, Linear | Conv2d):
            reader = graph.consumers(node.name)[0]
            assert isinstance(reader, Neuron | Output)
            found.append(Population(node, reader))
    return found


def pictures_only(graph: Graph) -> Graph:
    """The same network with each Linear as a Conv2d whose kernel is the whole picture.

    netx rescales dense weights, and spoils some matrices without a positive entry; it leaves convolutions alone.
    """
    nodes: list[Node] = []
    shapes: dict[str, Shape] = {}
    sources: dict[str, str] = {}
    for node in graph:
        inputs = tuple(sources.get(name, name) for name in node.inputs)
        if isinstance(node, Flatten):
            sources[node.name] = inputs[0]
            continue
        if isinstance(node, Linear):
            weight = node.weight.reshape(len(node.weight), *shapes[inputs[0]])
            placed = Conv2d(name=node.name, inputs=inputs, placement=node.placement, weight=weight, bias=node.bias)
            nodes.append(placed)
        elif isinstance(node, Input):
            nodes.append(replace(node, shape=_as_picture(node.shape)))
        else:
            nodes.append(replace(node, inputs=inputs))
        shapes[node.name] = _as_picture(graph.shapes[node.name])
    return replace(graph, nodes=tuple(nodes))


def run_replay(path: Path, inputs: Array, loader: Mapping[str, Any]) -> Record:
    """Run integer inputs through the file, in numpy."""
    options = {"steps": _item(loader, "reset_interval"), "message_bits": _item(loader, "input_message_bits")}
    fed = _fed(path, inputs, loader)
    starts = range(0, len(fed), REPLAYED_AT_A_TIME)
    answers = [replay(path, fed[start : start + REPLAYED_AT_A_TIME], **options) for start in starts]
    spikes = tuple(np.concatenate(parts) for parts in zip(*(one.spikes for one in answers), strict=True))
    return _record(Answer(spikes, np.concatenate([one.potential for one in answers])), loader)


def run_lava(path: Path, inputs: Array, loader: Mapping[str, Any]) -> Record:
    """Run integer inputs through the file, in real lava-dl; RuntimeMissingError if that is not installed."""
    _lava.python()
    fed = _fed(path, inputs, loader)
    streamed = np.broadcast_to(fed, (len(fed), _item(loader, "reset_interval"), *fed.shape[2:]))
    answer = _lava.run(
        path,
        streamed,
        message_bits=_item(loader, "input_message_bits"),
        reset_offset=_item(loader, "reset_offset"),
        entry=_item(loader, "entry"),
    )
    return _record(answer, loader)


proofs = (Proof("netx-replay", run_replay, samples=1000), Proof("lava-dl", run_lava, samples=200, required=False))


def _wiring_refusals(graph: Graph) -> Iterator[str]:
    for node in graph:
        if not isinstance(node, KINDS):
            yield f"{node.name}: no {type(node).__name__} in netx; it has {', '.join(kind.__name__ for kind in KINDS)}"
    yield from chain_problems(graph)
    after_neuron = False
    for node in graph:
        after_neuron |= isinstance(node, Neuron)
        if after_neuron and node.placement == "host":
            yield f"{node.name}: on the host; only what comes before the first neurons can be"


def _input_refusals(graph: Graph, target: Target) -> Iterator[str]:
    node, bits = graph.input, target.entry.message_bits
    if isinstance(node, BiasedInput) and node.spikes and (node.constant.min() < 0 or node.constant.max() > 1):
        yield f"{node.name}: constant inputs {node.constant.min()}..{node.constant.max()} beside spikes; 0 or 1"
    if node.spikes or _host(graph):
        return
    if target.entry.mode != "graded":
        yield f"{node.name}: pixels {node.low}..{node.high} on a target without graded spikes; a host layer is needed"
        return
    if node.low < 0 or node.high >= 2**bits:
        yield f"{node.name}: pixels {node.low}..{node.high}; a graded spike has {bits} bits, 0..{2**bits - 1}"
    if isinstance(node, BiasedInput) and (node.constant.min() < 0 or node.constant.max() >= 2**bits):
        low, high = node.constant.min(), node.constant.max()
        yield f"{node.name}: constant inputs {low}..{high}; a graded spike has {bits} bits, 0..{2**bits - 1}"


def _neuron_refusals(node: Neuron) -> Iterator[str]:
    if node.reset != "zero":
        yield f"{node.name}: reset {node.reset!r}; netx has 'zero' alone"
    if np.ptp(node.threshold) > 0:
        yield f"{node.name}: thresholds {node.threshold.min()}..{node.threshold.max()}; a block has one"
    if node.threshold.min() < 1 or node.threshold.max() > THRESHOLD:
        yield f"{node.name}: threshold {node.threshold.max()}; 1..{THRESHOLD} is accepted"
    yield from _decay_refusals(node, "decay", least=1)
    yield from _decay_refusals(node, "current_decay", least=0)
    if (np.any(node.decay != 1) or node.keeps_current) and node.fraction_bits != FRACTION_BITS:
        yield f"{node.name}: {node.fraction_bits} bits behind the point of its membrane; {FRACTION_BITS} are kept"


def _decay_refusals(node: Neuron, name: str, least: int) -> Iterator[str]:
    decays = np.atleast_1d(getattr(node, name))
    if np.ptp(decays) > 0:
        yield f"{node.name}: {name} {decays.min():.4g}..{decays.max():.4g}; a block has one"
    numerators = decays * DECAY_UNITY
    off = numerators[(numerators != np.rint(numerators)) | (numerators < least) | (numerators > DECAY_UNITY)]
    if off.size:
        accepted = f"{least}/{DECAY_UNITY}..1 in steps of 1/{DECAY_UNITY}"
        yield f"{node.name}: {name} {off[0] / DECAY_UNITY}; {accepted} is accepted"


def _synapse_refusals(node: Linear | Conv2d) -> Iterator[str]:
    for what, values, limit in (("weight", node.weight, WEIGHT), ("bias", node.bias, BIAS)):
        if np.abs(values).max(initial=0) > limit:
            yield f"{node.name}: {what} {values.min()}..{values.max()}; {-limit}..{limit} is accepted"
    if isinstance(node, Conv2d):
        sizes = (*node.weight.shape[2:], *node.stride, *node.padding, *node.dilation, node.groups)
        if max(sizes) > INT8:
            yield f"{node.name}: kernel, stride, padding, dilation or groups of {max(sizes)}; up to {INT8} is accepted"


def _trap_refusals(graph: Graph) -> Iterator[str]:
    """A matrix that netx spoils can be a convolution instead, if pictures are small enough for a kernel."""
    spoilt = [node.name for node in graph if _is_trap(node)]
    if not spoilt:
        return
    for node in pictures_only(graph).of(Conv2d):
        size = max(node.weight.shape[2:])
        if node.placement == "chip" and isinstance(graph[node.name], Linear) and size > INT8:
            yield (
                f"{node.name}: netx would change the weights of {', '.join(spoilt)} (no positive entry), and pictures "
                f"of {size} pixels a side are too large for convolutions in its place; up to {INT8} is accepted"
            )


def _is_trap(node: Node) -> bool:
    """Whether netx would compute something else than these dense weights, or fail on them."""
    if not isinstance(node, Linear) or node.placement == "host" or np.abs(node.weight).max(initial=0) > WEIGHT:
        return False
    if not node.weight.any():
        return True
    held, shift = lava_weights(node.weight)
    return not np.array_equal(held, node.weight << shift)


def _as_picture(shape: Shape) -> Shape:
    return (*shape, 1, 1)[:3]


def _host(graph: Graph) -> bool:
    """Whether the host computes the first layer."""
    return populations(graph)[0].synapse.placement == "host"


def _file(graph: Graph, digest: str) -> File:
    """The whole file; `digest` names the integer network that it holds."""
    steps = np.asarray(graph.timesteps, np.int32)
    ours = {"format": np.asarray(FORMAT, np.int32), "digest": _text(digest), "timesteps": steps}
    if isinstance(graph.input, BiasedInput):
        ours["constant"] = graph.input.constant.astype(np.int32)
    content: dict[str, File | Array] = {
        "layer": {str(index): layer for index, layer in enumerate(_layers(graph))},
        "simulation": {"Ts": np.asarray(1, np.int32), "tSample": steps},
        "snnkd": {**ours, "blocks": np.array([one.name.encode() for one in populations(graph)])},
    }
    if _host(graph):
        content["host"] = _host_group(pictures_only(graph))
    return content


def _host_group(graph: Graph) -> File:
    """The first layer of a network of convolutions, and the picture `(channels, height, width)` that it takes."""
    first = populations(graph)[0].synapse
    return {**_synapse(first), "input_shape": np.array(_source_shape(graph, first), np.int32)}


def _layers(graph: Graph) -> Iterator[File]:
    """The groups below `layer`, in order."""
    first, *rest = populations(graph)
    before = graph.shapes[first.synapse.name]
    shape = np.array(before, np.int32)
    if first.synapse.placement == "host":
        yield {"type": _kind("input"), "shape": shape, "neuron": _neuron(first.reader)}
    else:
        yield {"type": _kind("input"), "shape": np.array(_source_shape(graph, first.synapse), np.int32)}
        yield {**_synapse(first.synapse), "shape": shape, "neuron": _neuron(first.reader)}
    for synapse, reader in rest:
        if isinstance(synapse, Linear) and len(before) == 3:
            yield {"type": _kind("flatten"), "shape": np.array([synapse.weight.shape[1]], np.int32)}
        before = graph.shapes[synapse.name]
        yield {**_synapse(synapse), "shape": np.array(before, np.int32), "neuron": _neuron(reader)}


def _source_shape(graph: Graph, node: Linear | Conv2d) -> Shape:
    """What the layer takes in; a Flatten before the first layer is left to whoever feeds it."""
    return graph.shapes[node.inputs[0]]


def _synapse(node: Linear | Conv2d) -> dict[str, Array]:
    small = np.abs(node.weight).max(initial=0) <= INT8
    common = {
        "weight": node.weight.astype(np.int8 if small else np.int32),
        "bias": node.bias.astype(np.int32),
    }
    if isinstance(node, Linear):
        return {"type": _kind("dense"), **common}
    pairs = {name: np.array(getattr(node, name), np.int32) for name in ("stride", "padding", "dilation")}
    return {"type": _kind("conv"), **common, **pairs, "groups": np.asarray(node.groups, np.int32)}


def _neuron(reader: Neuron | Output) -> dict[str, Array]:
    """As they leak, or for the readout without leak, without memory of the current, and never above its threshold."""
    leak, lost, threshold = 0, DECAY_UNITY, THRESHOLD
    if isinstance(reader, Neuron):
        leak, lost = (DECAY_UNITY - round(np.max(one) * DECAY_UNITY) for one in (reader.decay, reader.current_decay))
        threshold = int(reader.threshold.flat[0])
    numbers = {"iDecay": lost, "vDecay": leak, "vThMant": threshold, "refDelay": 1, "gradedSpike": 0}
    return {"type": _text("CUBA"), **{name: np.asarray(value, np.int32) for name, value in numbers.items()}}


def _kind(name: str) -> Array:
    return np.array([name.encode()], "S10")


def _text(value: str) -> Array:
    return np.asarray(value.encode())


def _bytes(content: File) -> bytes:
    """An HDF5 file in memory; the same content gives the same bytes."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        _fill(file, content)
    return memory.getvalue()


def _fill(group: h5py.Group, content: File) -> None:
    for name, value in content.items():
        if isinstance(value, Mapping):
            _fill(group.create_group(name, track_order=False), value)
        else:
            group.create_dataset(name, data=value, track_times=False, **_packing(value))


def _packing(value: Array) -> dict[str, Any]:
    """How to store an array: kernels with relays are large and mostly zero, and HDF5 unpacks them for every reader."""
    if value.size < PACKED or 2 * np.count_nonzero(value) > value.size:
        return {}
    return {"compression": "gzip", "compression_opts": 4, "shuffle": False}


def _loader(graph: Graph, held: Graph, target: Target) -> dict[str, Any]:
    """What runs the file must know beyond it; `held` is the graph as written, with the names of `graph`."""
    blocks = populations(held)
    host, picture = _host(held), held.shapes[blocks[0].synapse.name]
    source = picture if host else _source_shape(held, blocks[0].synapse)
    delays = [index + (0 if host else 1) for index in range(len(blocks))]
    return {
        "input_shape": list(source[::-1]),
        **_constants(graph.input),
        "axis_order": "(width, height, channels) in lava; weights and flatten in torch's (channels, height, width)",
        "input_message_bits": 0 if host or graph.input.spikes else target.entry.message_bits,
        "entry": "input-neuron" if host else "source",
        "static": graph.input.static,
        "reset_interval": graph.timesteps,
        "reset_offset": 0 if host else 1,
        "timing_offset": delays[-1],
        "blocks": [
            {"name": block.name, "shape": list(graph.shapes[block.name]), "delay": delay, **_relays(block.reader)}
            for block, delay in zip(blocks, delays, strict=True)
        ],
        "logits": f"v of the last block / {UNIT}, timing_offset steps after a sample's last step",
    }


def _constants(source: Input) -> dict[str, Any]:
    """Of an input with constant channels, how many and what to do with them."""
    if not isinstance(source, BiasedInput):
        return {}
    return {"constant_channels": len(source.constant), "constant_meaning": CONSTANT}


def _relays(reader: Neuron | Output) -> dict[str, int]:
    """Of a block with relays, its first channels that are neurons of the network."""
    return {"own_channels": reader.own} if isinstance(reader, Relay) else {}


def _fed(path: Path, inputs: Array, loader: Mapping[str, Any]) -> Array:
    """What goes into the file: `(samples, steps, *shape)`, or `(samples, 1, *shape)` for a still picture."""
    x = inputs[:, None] if _item(loader, "static") else inputs.swapaxes(0, 1)
    if _item(loader, "entry") == "input-neuron":
        x = host_sums(path, x)
    if "constant_channels" in loader:
        x = with_constant(x, _constant_in(path))
    return x.reshape(*x.shape[:2], *_item(loader, "input_shape")[::-1])


def _constant_in(path: Path) -> Array:
    with opened(path) as file:
        return np.asarray(member(member(file, "snnkd", h5py.Group), "constant", h5py.Dataset)[()]).astype(np.int64)


def host_sums(path: Path, x: Array) -> Array:
    """The first layer's sums `(samples, steps, out, height, width)`, by the weights in the file's group `host`."""
    with opened(path) as file:
        group = member(file, "host", h5py.Group)
        layer, shape = _host_layer(group), tuple(member(group, "input_shape", h5py.Dataset)[()])
        output_shape(layer, [shape])
    samples, steps = x.shape[:2]
    sums = conv2d(x.reshape(samples * steps, *shape), layer)
    return sums.reshape(samples, steps, *sums.shape[1:])


def _host_layer(group: h5py.Group) -> Conv2d:
    names = ("weight", "bias", "stride", "padding", "dilation", "groups")
    weight, bias, stride, padding, dilation, groups = (
        np.asarray(member(group, name, h5py.Dataset)[()]).astype(np.int64) for name in names
    )
    return Conv2d(
        name="host",
        inputs=(),
        weight=weight,
        bias=bias,
        stride=(int(stride[0]), int(stride[1])),
        padding=(int(padding[0]), int(padding[1])),
        dilation=(int(dilation[0]), int(dilation[1])),
        groups=int(groups),
    )


def _record(answer: Answer, loader: Mapping[str, Any]) -> Record:
    """The answer by names and in the shapes of the graph; ProofError if the readout fired or kept a fraction."""
    blocks = _item(loader, "blocks")
    if len(blocks) != len(answer.spikes):
        raise BundleError(f"the file has {len(answer.spikes)} blocks, its loader arguments name {len(blocks)}")
    readout = blocks[-1]["name"]
    if answer.spikes[-1].any() or np.any(answer.potential % UNIT):
        raise ProofError(f"{readout}: the readout spikes or holds a fraction; it should only add up")
    spikes = {}
    for block, fired in zip(blocks[:-1], answer.spikes, strict=False):
        samples, steps = fired.shape[:2]
        shaped = fired.swapaxes(0, 1).reshape(steps, samples, *block["shape"])
        if own := block.get("own_channels", block["shape"][0]):
            spikes[block["name"]] = shaped[:, :, :own]
    return Record(spikes, answer.potential // UNIT)


def _item(loader: Mapping[str, Any], key: str) -> Any:
    if key not in loader:
        raise BundleError(f"the loader arguments lack {key!r}; they hold {', '.join(loader) or 'nothing'}")
    return loader[key]
