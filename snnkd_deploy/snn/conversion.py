"""From a trained ReLU network to a spiking network of the same shape that answers nearly alike: ANN-SNN conversion.

Weights are copied and BatchNorms kept. A spike of a layer stands for a value of its ReLU: a high percentile of what
that layer says on calibration images, or the largest of those that a shortcut ties together. Weights carry these
scales, so every threshold stays what the student has (data-based normalisation with a percentile: Rueckauer et al.,
Frontiers in Neuroscience 2017, 11:682, section 2.2). The current of each layer gets the gain and the shift with which
its neurons come nearest to the ReLU over the timesteps that there are; for neurons without leak that reset by
subtraction the best shift is about half a threshold spread over time (Deng, Gu, ICLR 2021, arXiv 2103.00476).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn.layers import InputNeuron, Neuron
from snnkd_deploy.snn.lif import LIF, lif
from snnkd_deploy.snn.network import Network

PERCENTILE = 99.7  # of the activations of a layer: Rueckauer et al. use 99 to 99.999
GAINS = torch.linspace(1, 2.5, 16).tolist()  # what leaks away may have to be given on top
SHIFTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of a threshold, spread over the timesteps
FITTED = 4096  # activations of a layer on which gain and shift are chosen
LINEAR = (nn.Linear, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def same_shape(ann: nn.Module, student: nn.Module) -> bool:
    """Whether the student has the weights of the ANN, by name and shape, and neurons where the ANN has ReLU."""
    mine, theirs = _shapes(student), _shapes(ann)
    neurons = [name for name, module in student.named_modules() if isinstance(module, Neuron)]
    relus = [name for name, module in ann.named_modules() if isinstance(module, nn.ReLU)]
    return mine == theirs and neurons == relus


@dataclass(frozen=True)
class Layer:
    """Neurons, the BatchNorms whose sum is their current, and the neurons whose spikes are in that sum as they are."""

    neuron: str
    norms: tuple[str, ...]
    shortcuts: tuple[str, ...]


@dataclass(frozen=True)
class Fitted:
    """What one layer of a ReLU network gave: a high percentile, and samples of what goes into it."""

    scale: float
    currents: Tensor


def obstacle(ann: nn.Module, student: Network) -> str | None:
    """Why this ANN cannot become this student; None if it can. Shapes decide, so both may be on the meta device."""
    if any(isinstance(one, InputNeuron) for one in student.modules()) or student.worth != 1:
        return "it must see the pixels and read sums, as the ANN does: encoding direct and readout sum"
    if not same_shape(ann, student):
        return "an ANN of the student's shape is needed: the same layers, ReLU in place of neurons"
    layers = _Walk(student).layers
    fed = Counter(norm for layer in layers for norm in layer.norms)
    if several := next((norm for norm, count in fed.items() if count > 1), None):
        return f"{several} feeds several layers of neurons, and one scale cannot fit them all"
    for layer in layers:
        threshold = student.get_submodule(layer.neuron).threshold
        if layer.shortcuts and threshold != 1:
            return f"{layer.neuron} sums spikes as they are, which needs a threshold of 1; met {threshold}"
    return None


@torch.no_grad()
def convert(ann: Network, student: Network, images: Tensor, percentile: float = PERCENTILE) -> Network:
    """Fill `student` from the trained ANN of its shape, calibrated on images (B, C, H, W); returns the student.

    Both stay on their devices, the images on that of the ANN. ConfigError if there is an `obstacle`.
    """
    if reason := obstacle(ann, student):
        raise ConfigError(f"conversion: {reason}")
    walk = _Walk(student)
    weights = ann.state_dict()
    student.load_state_dict({name: weights.get(name, tensor) for name, tensor in student.state_dict().items()})
    seen = _seen(ann, images, percentile)
    scales = {one: max(seen[other].scale for other in group) for one, group in walk.groups().items()}
    for layer in walk.layers:
        _set_current(student, layer, seen[layer.neuron].currents, scales[layer.neuron])
    for name, source in walk.sources.items():
        student.get_submodule(name).get_parameter("weight").mul_(scales.get(source, 1.0))
    return student


def fit(neuron: LIF, timesteps: int, currents: Tensor, gains: Sequence[float] = GAINS) -> tuple[float, float]:
    """Gain and shift, in thresholds, of a constant current with which the rate comes nearest to its ReLU.

    `currents` (N,) in units of what a spike stands for: the rate of gain * current + shift should be what is between 0
    and 1. The mean square error decides.
    """
    wanted = currents.clamp(0, 1)

    def error(choice: tuple[float, float]) -> float:
        given = neuron.threshold * (choice[0] * currents + choice[1])
        return (lif(given.repeat(timesteps, 1), neuron).mean(0) - wanted).square().mean().item()

    return min(product(gains, [share / timesteps for share in SHIFTS]), key=error)


def _set_current(student: Network, layer: Layer, currents: Tensor, scale: float) -> None:
    """Bring the BatchNorms of a layer to the threshold of its neurons; spikes in the sum leave no choice of a gain."""
    neuron = student.get_submodule(layer.neuron)
    assert isinstance(neuron, Neuron)
    equation, timesteps = neuron.equation, neuron.timesteps
    gain, shift = fit(equation, timesteps, currents / scale, (1.0,) if layer.shortcuts else GAINS)
    for name in layer.norms:
        norm = student.get_submodule(name)
        for parameter in ("weight", "bias"):
            norm.get_parameter(parameter).mul_(gain * equation.threshold / scale)
    student.get_submodule(layer.norms[0]).get_parameter("bias").add_(shift * equation.threshold)


def _seen(ann: Network, images: Tensor, percentile: float) -> dict[str, Fitted]:
    """Of each ReLU of the ANN in eval mode."""
    seen: dict[str, Fitted] = {}

    def look(name: str, relu: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        values, before = output.flatten(), inputs[0].flatten()
        scale = values.kthvalue(max(1, round(values.numel() * percentile / 100))).values.item()
        chosen = torch.linspace(0, before.numel() - 1, min(FITTED, before.numel()), dtype=torch.float64).long()
        seen[name] = Fitted(scale or values.max().item() or 1.0, before[chosen.to(before.device)])

    relus = [(name, module) for name, module in ann.named_modules() if isinstance(module, nn.ReLU)]
    hooks = [module.register_forward_hook(partial(look, name)) for name, module in relus]
    ann.eval()(images)
    for hook in hooks:
        hook.remove()
    return seen


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    """Of the weights; learned decays are the student's own business."""
    return {name: tensor.shape for name, tensor in network.state_dict().items() if not name.endswith("decay_logit")}


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__module__ == Neuron.__module__ or super().is_leaf_module(m, module_qualified_name)


class Value(NamedTuple):
    """A value in a network as a sum: of BatchNorms (or layers), and of the spikes of neurons."""

    layers: tuple[str, ...] = ()
    spikes: tuple[str, ...] = ()


class _Walk:
    """Finds what feeds each layer with weights, and which neurons have to say things on one scale."""

    def __init__(self, student: Network) -> None:
        self.student = student
        self.layers: list[Layer] = []
        self.sources: dict[str, str] = {}
        self.ties: list[set[str]] = []
        values: dict[fx.Node, Value] = {}
        for node in _Tracer().trace(student).nodes:
            arguments = [values[one] for one in node.all_input_nodes]
            if node.op == "call_module":
                values[node] = self._module(str(node.target), *arguments)
            elif arguments:
                values[node] = self._sum(arguments)
            else:
                values[node] = Value()

    def groups(self) -> dict[str, set[str]]:
        """For each neuron those on its scale, itself included."""
        groups = {layer.neuron: {layer.neuron} for layer in self.layers}
        for tie in self.ties:
            joined = set().union(*(groups[one] for one in tie))
            groups |= dict.fromkeys(joined, joined)
        return groups

    def _module(self, path: str, given: Value) -> Value:
        module = self.student.get_submodule(path)
        if isinstance(module, LINEAR):
            self.sources |= {path: given.spikes[0]} if given.spikes else {}
            return Value((path,))
        if isinstance(module, NORMS):
            return Value((path,))
        if isinstance(module, Neuron):
            self.layers.append(Layer(path, given.layers, given.spikes))
            self.ties += [{path, *given.spikes}]
            return Value((), (path,))
        return given

    def _sum(self, terms: list[Value]) -> Value:
        """Of an addition; of anything else with one input, that."""
        total = Value(sum((one.layers for one in terms), ()), sum((one.spikes for one in terms), ()))
        self.ties += [set(total.spikes)] if total.spikes else []
        return total
