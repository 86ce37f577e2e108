"""What every network is made of: the plan of what to build, blocks in a row, what a method may look at."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor, nn

from snnkd_deploy.snn.fused import in_a_row
from snnkd_deploy.snn.layers import Frames, InputNeuron, MeanFrame, Neuron, Picture, Repeat, TimeMean
from snnkd_deploy.snn.lif import LIF, wide

SPIKE = 5.0  # what a loss takes a spike of each step for, where these are counted; a softmax of 0 and 1 is never sure
Shape = tuple[int, ...]  # channels, height, width; for frames their number in front
Layers = dict[str, nn.Module]


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a distillation method may look at, for a batch of B images.

    Of a network that counts spikes a spike is worth `SPIKE` here, so that its counts can be as sure as logits.
    """

    logits: Tensor  # (B, classes): the mean of `steps`
    steps: Tensor  # (T, B, classes); T is 1 for a teacher
    taps: tuple[Tensor, ...]
    """One per block, (B, ...): spikes averaged over time, or ReLU activations; currents where a block ends in these."""
    membranes: tuple[Tensor, ...] = ()
    """One per block, (B, ...): of its tapped neurons, before reset, averaged over time."""

    def widened(self) -> Outputs:
        """The same in float32 where it is bfloat16."""
        logits, steps = wide(self.logits), wide(self.steps)
        return Outputs(logits, steps, tuple(map(wide, self.taps)), tuple(map(wide, self.membranes)))


@dataclass(frozen=True)
class Plan:
    """What to build; `neuron` is None for a teacher, which has ReLU and one step."""

    shape: Shape
    classes: int
    width: int
    depth: int
    timesteps: int = 1
    neuron: LIF | None = None
    frames: bool = False  # samples are one picture for each step, which a teacher sees the mean of
    encoded: bool = False  # the frames are spikes of a picture, which stands in front and is what a teacher sees
    input_neurons: bool = False  # a student sees the picture through neurons, one for each pixel
    counts: bool = False  # a student's logits are the spikes of neurons behind its last layer

    def activation(self) -> nn.Module:
        """A new ReLU, or a new layer of neurons."""
        if self.neuron is None:
            return nn.ReLU()
        n = self.neuron
        return Neuron(self.timesteps, n.decay, n.threshold, n.reset, n.surrogate, n.detach_reset)

    def counting(self) -> nn.Module:
        """The neurons whose spikes are the logits, if there are any: without leak, so that counts are fine."""
        n = self.neuron
        if n is None or not self.counts:
            return nn.Identity()
        return Neuron(self.timesteps, 1.0, n.threshold, n.reset, n.surrogate, n.detach_reset)

    def entry(self) -> Layers:
        """What turns a picture into spikes ahead of the first layer, if anything does."""
        n = self.neuron
        if n is None or not self.input_neurons:
            return {}
        pixels = InputNeuron(self.timesteps, n.threshold, n.reset, n.surrogate, n.detach_reset)
        return {"repeat": Repeat(self.timesteps), "pixels": pixels}


class Network(nn.Module):
    """Blocks in a row, then a linear readout whose mean over time is the result, or that of the spikes it causes."""

    uncut: str = ""
    """Why there are no blocks, in a teacher that could not be cut into any."""

    def __init__(self, plan: Plan, blocks: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.timesteps = plan.timesteps
        self.blocks = nn.ModuleList(blocks)
        self.head = head
        self.readout = plan.counting()
        self.mean = TimeMean(plan.timesteps)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W), float, already multiplied by the scale of the data set.

        Of a network planned for frames, these are (B, T, C, H, W); of one for encoded pictures
        (B, 1 + T, C, H, W), the picture and then its spikes.
        """
        x = images
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.mean(self.readout(self.head(x)))
        return logits

    @property
    def worth(self) -> float:
        """What `outputs` multiplies the logits with."""
        return SPIKE if isinstance(self.readout, Neuron) else 1.0

    def outputs(self, images: Tensor, *, membranes: bool = False) -> Outputs:
        """The logits together with those of each step and the mean rate behind each block; membranes if asked for."""
        if membranes:
            with _membranes(self.tapped()) as seen:
                return replace(self.outputs(images), membranes=tuple(seen))
        x, taps = images, []
        for block in self.blocks:
            x = block(x)
            taps.append(self.mean(x))
        steps = self.worth * wide(self.readout(self.head(x))).unflatten(0, (self.timesteps, -1))
        return Outputs(steps.mean(0), steps, tuple(taps))

    def tapped(self) -> list[Neuron]:
        """The neurons whose membranes stand for the taps: the last of each block."""
        return [neurons(block)[-1] for block in self.blocks]


def neurons(part: nn.Module) -> list[Neuron]:
    """Its layers of neurons, in order."""
    return [module for module in part.modules() if isinstance(module, Neuron)]


def conv3x3(channels: int, width: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size (or divides it by `stride`); BatchNorm behind it holds the bias."""
    return nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)


def activated(plan: Plan, before: Layers, after: Layers | None = None, *, first: bool) -> nn.Module:
    """Layers, the neuron, more layers; in the first block the image is repeated over time as late as possible."""
    frames: Layers = {"frames": _frames(plan)} if first and plan.frames else plan.entry() if first else {}
    time: Layers = {"repeat": Repeat(plan.timesteps)} if first and not frames else {}
    return named(**frames, **before, **time, neuron=plan.activation(), **(after or {}))


def _frames(plan: Plan) -> nn.Module:
    """What makes one batch of frames: each is a step of a student; a teacher sees their mean, or the picture."""
    if plan.neuron:
        return Frames(plan.timesteps)
    return Picture() if plan.encoded else MeanFrame()


class Layered(nn.Sequential):
    """Layers in this order; BatchNorm, neurons and a pool behind them run as one where they can."""

    def forward(self, x: Tensor) -> Tensor:
        """What the layers make of x."""
        return in_a_row(list(self), x)


def named(**layers: nn.Module) -> nn.Sequential:
    """The layers in this order, each under its name."""
    return Layered(OrderedDict(layers))


@contextmanager
def _membranes(tapped: list[Neuron]) -> Iterator[list[Tensor]]:
    """Yield a list that fills with the mean membrane (B, ...) of each of these neurons while the network runs."""
    seen: list[Tensor] = []

    def look(neuron: Neuron, inputs: tuple[Tensor], spikes: Tensor) -> None:
        seen.append(neuron.membrane(*inputs))

    hooks = [neuron.register_forward_hook(look) for neuron in tapped]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
