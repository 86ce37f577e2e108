"""The Python text of a network in snnTorch, and its weights.

A neuron is a plain `snn.Leaky` wherever float32 gives it the integer network's spikes: where the leak needs no rounding
and a threshold is subtracted behind it, as snnTorch does; ahead of it ("subtract") that is the same without leak alone.
The others are the generated file's own `IntegerLeaky`, which leaks exactly as the integer network does. Neurons that
keep their current are `snn.Synaptic` or `IntegerSynaptic` in the same way; reset to zero has `reset_delay=False` there,
since a Synaptic's delayed one loses a step's current.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from snnkd_deploy.bounds import bounds, largest
from snnkd_deploy.check import leak_shift
from snnkd_deploy.ir import Add, Conv2d, Flatten, Graph, Input, Linear, MaxPool2d, Neuron, Node, Output, Pool, Shape

from ._names import identifiers, plain

EXACT_FLOAT32 = 2**24
RESERVED = {*keyword.kwlist, "self", "x", "torch", "snn", "nn", "Path"}
"""Names that the generated file needs for itself; those of torch.nn.Module come from torch."""


def refusals(graph: Graph) -> Iterator[str]:
    """Where float32 might not hold an integer."""
    limits = bounds(graph)
    for node in graph:
        biases = np.abs(node.bias).max() if isinstance(node, Linear | Conv2d) else 0
        met = largest(limits.values[node.name]) + 2 * int(biases)
        if isinstance(node, Neuron | Output):
            met = 2 * largest(limits.membranes[node.name])  # snnTorch adds the current before it subtracts a threshold
            met = max(met, largest(limits.currents[node.name]))
        if met > EXACT_FLOAT32:
            yield f"{node.name}: its sums can reach {met}, float32 is exact up to {EXACT_FLOAT32}"
        leaks = (node.leak, node.current_leak) if isinstance(node, Neuron) else ()
        if isinstance(node, Neuron) and any(numerators.max() >= EXACT_FLOAT32 for numerators, _ in leaks):
            yield f"{node.name}: its decay has {node.decay_bits} bits, float32 holds 24"


def is_plain(neuron: Neuron, timesteps: int) -> bool:
    """Whether a `snn.Leaky` or `snn.Synaptic` in float32 has the spikes of the integer neuron."""
    behind = neuron.reset != "subtract" or bool(np.all(neuron.decay == 1))
    return behind and leak_shift(neuron) * (timesteps - 1) <= neuron.fraction_bits


@dataclass(frozen=True, eq=False)
class Source:
    """The module of one network; `stem` is the name of its files, `reserved` the attributes that a module has."""

    graph: Graph
    stem: str
    reserved: frozenset[str]

    @cached_property
    def names(self) -> dict[str, str]:
        """The attribute of each node."""
        return identifiers(self.graph, RESERVED | self.reserved)

    @property
    def text(self) -> str:
        """The module."""
        rounding = {node.keeps_current for node in self.graph.of(Neuron) if not is_plain(node, self.graph.timesteps)}
        own = [INTEGER_LEAKY] * (False in rounding) + [INTEGER_SYNAPTIC] * (True in rounding)
        parts = [self._about(), HEAD.replace("@T@", str(self.graph.timesteps)), *own]
        frame = "images" if self.graph.input.static else "images[step]"
        return "".join([*parts, self._network(), TAIL.replace("@STEM@", self.stem).replace("@FRAME@", frame)])

    def _about(self) -> str:
        source, output = self.graph.input, self.graph.output
        unit = output.unit / self.graph.timesteps
        shape = ", ".join(map(str, source.shape))
        sizes = f"(batch, {shape})" if source.static else f"({self.graph.timesteps}, batch, {shape})"
        order = "channel, row, column" if len(source.shape) == 3 else "feature"
        coding = "a still picture, the same at each step" if source.static else "one frame for each step"
        return (
            f'"""{plain(self.graph.name)}: a spiking network of integers in snnTorch, written by snnkd-deploy.\n\n'
            f"Integer network {self.graph.origin or self.graph.digest} (SHA-256).\n\n"
            f"    from {self.stem} import infer, load\n"
            f"    logits = infer(load(), images)  # (batch, {self.graph.shapes[output.name][0]})\n\n"
            f"images: {sizes}, axes {'' if source.static else 'step, '}batch, {order}; {coding};\n"
            f"    integers {source.low}..{source.high} in any type, one unit is worth {source.scale:.9g} in training\n"
            f"logits: integers, sums over the steps; times {unit:.9g} they are the training's\n\n"
            "Weights, biases and thresholds are integers in float32, exact on a CPU: no sum can reach 2**24.\n"
            "A GPU may compute convolutions in ways (Winograd, FFT) that are not exact on integers.\n"
            '"""\n\n'
        )

    def _network(self) -> str:
        layers = [f"        self.{self.names[n.name]} = {made}\n" for n in self.graph if (made := self._module(n))]
        return (
            "class Network(nn.Module):\n"
            '    """One step; the membranes stay in the layers until `reset`."""\n\n'
            "    def __init__(self):\n        super().__init__()\n"
            + "".join(layers)
            + "\n    def forward(self, x):\n"
            + "".join(f"        {line}\n" for line in self._steps())
            + "\n"
        )

    def _module(self, node: Node) -> str:
        shape = self.graph.shapes[node.name]
        note = f"  # -> ({', '.join(map(str, shape))})"
        if isinstance(node, Linear):
            out, features = node.weight.shape
            return f"nn.Linear({features}, {out}){note}"
        if isinstance(node, Conv2d):
            return f"nn.Conv2d({_convolution(node)}){note}"
        if isinstance(node, MaxPool2d):
            return f"nn.MaxPool2d({_pair(node.kernel)}, {_pair(node.stride)}){note}"
        if isinstance(node, Pool):
            return f"nn.AvgPool2d({_pair(node.kernel)}, {_pair(node.stride)}, divisor_override=1){note}, the sum"
        if isinstance(node, Flatten):
            return f"nn.Flatten(){note}"
        return self._neuron(node, shape) if isinstance(node, Neuron) else ""

    def _neuron(self, node: Neuron, shape: Shape) -> str:
        per_channel = f"torch.ones({', '.join([str(shape[0]), *('1' for _ in shape[1:])])})"  # the weights fill it
        threshold = per_channel if node.threshold.ndim else f"{int(node.threshold)}.0"
        common = f'threshold={threshold}, reset_mechanism="{node.reset.removesuffix("_late")}", init_hidden=True'
        common += ", reset_delay=False" if node.keeps_current and node.reset == "zero" else ""
        kept = {"beta": (node.decay, node.decay_numerator)}
        kept |= {"alpha": (node.current_decay, node.current_numerator)} if node.keeps_current else {}
        kind = "Synaptic" if node.keeps_current else "Leaky"
        if is_plain(node, self.graph.timesteps):
            decays = [f"{name}={per_channel if np.ndim(one) else repr(one)}" for name, (one, _) in kept.items()]
            return f"snn.{kind}({', '.join(decays)}, {common})"
        numerators = [per_channel if one.ndim else str(one) for _, one in kept.values()]
        late = ", late=True" if node.reset == "subtract_late" else ""
        return f"Integer{kind}({', '.join(numerators)}, {node.decay_bits}, {node.fraction_bits}, {common}{late})"

    def _steps(self) -> Iterator[str]:
        """One line for each node; a value that only the next node reads is called `x`."""
        value: dict[str, str] = {}
        for place, node in enumerate(self.graph.nodes):
            given = [value[name] for name in node.inputs]
            readers, following = self.graph.consumers(node.name), self.graph.nodes[place + 1 : place + 2]
            value[node.name] = "x" if readers == following else self.names[node.name]
            if isinstance(node, Output):
                yield f"return {given[0]}"
            elif isinstance(node, Input):
                if value[node.name] != "x":
                    yield f"{value[node.name]} = x"
            else:
                call = " + ".join(given) if isinstance(node, Add) else f"self.{self.names[node.name]}({given[0]})"
                yield f"{value[node.name]} = {call}"


def _convolution(node: Conv2d) -> str:
    out, per_group, *kernel = node.weight.shape
    settings = {"stride": node.stride, "padding": node.padding, "dilation": node.dilation}
    usual = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    given = [f"{name}={_pair(pair)}" for name, pair in settings.items() if pair != usual[name]]
    given += [f"groups={node.groups}"] if node.groups > 1 else []
    return ", ".join([str(per_group * node.groups), str(out), _pair(tuple(kernel)), *given])


def _pair(sides: Shape) -> str:
    first, second = sides
    return str(first) if first == second else f"({first}, {second})"


HEAD = """\
from pathlib import Path

import snntorch as snn
import torch
from torch import nn

TIMESTEPS = @T@


"""

INTEGER_LEAKY = '''\
class IntegerLeaky(snn.Leaky):
    """A Leaky whose leak, numerator / 2**bits, is truncated toward zero as the integer network does it.

    The membrane is a multiple of 2**-fraction_bits. "subtract" comes ahead of the leak, or `late`, behind it, as Leaky
    has it. For inference: the truncation has no gradient.
    """

    def __init__(self, numerator, bits, fraction_bits, late=False, **options):
        super().__init__(beta=numerator / 2**bits, **options)
        self.fine, self.late = 2**fraction_bits, late

    def _leaked(self, mem):
        return (torch.trunc(mem.double() * self.fine * self.beta.double()) / self.fine).to(mem.dtype)

    def _base_zero(self, input_):
        return self._leaked((1 - self.reset) * self.mem) + input_

    def _base_sub(self, input_):
        taken = self.reset * self.threshold
        if self.late:
            return self._leaked(self.mem) + input_ - taken
        return self._leaked(self.mem - taken) + input_

    def _base_int(self, input_):
        return self._leaked(self.mem) + input_


'''

INTEGER_SYNAPTIC = '''\
class IntegerSynaptic(snn.Synaptic):
    """A Synaptic whose leaks, numerator / 2**bits, are truncated toward zero as the integer network does it.

    Current and membrane are multiples of 2**-fraction_bits. "subtract" comes ahead of the leak, or `late`, behind it,
    as Synaptic has it. For inference: the truncation has no gradient.
    """

    def __init__(self, numerator, current_numerator, bits, fraction_bits, late=False, **options):
        super().__init__(current_numerator / 2**bits, numerator / 2**bits, **options)
        self.fine, self.late = 2**fraction_bits, late

    def _leaked(self, value, decay):
        return (torch.trunc(value.double() * self.fine * decay.double()) / self.fine).to(value.dtype)

    def _base_state_function(self, input_):
        syn = self._leaked(self.syn, self.alpha) + input_
        return syn, self._leaked(self.mem, self.beta) + syn

    def _base_sub(self, input_):
        taken = self.reset * self.threshold
        if self.late:
            syn, mem = self._base_state_function(input_)
            return syn, mem - taken
        syn = self._leaked(self.syn, self.alpha) + input_
        return syn, self._leaked(self.mem - taken, self.beta) + syn


'''

TAIL = '''\

def reset(network):
    """Empty all membranes: before each batch of samples."""
    for layer in network.modules():
        if isinstance(layer, (snn.Leaky, snn.Synaptic)):
            layer.reset_mem()


def load(weights=Path(__file__).with_name("@STEM@.pt")):
    """The network with its weights."""
    network = Network()
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval()


@torch.no_grad()
def infer(network, images):
    """Logits of a batch, the sum over all steps."""
    reset(network)
    images = images.to(next(network.parameters()))
    return sum(network(@FRAME@) for step in range(TIMESTEPS))
'''
