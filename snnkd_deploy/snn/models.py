"""Networks by name, each from one definition: with neurons it is the student, with ReLU the teacher."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from snnkd_deploy.config import TrainConfig
from snnkd_deploy.errors import ConfigError, RunError, UnknownNameError
from snnkd_deploy.run import Run, open_run
from snnkd_deploy.snn.layers import Neuron, Repeat, TimeMean
from snnkd_deploy.snn.lif import LIF

Role = Literal["student", "teacher"]
Shape = tuple[int, int, int]  # channels, height, width
Layers = dict[str, nn.Module]
NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a distillation method may look at, for a batch of B images."""

    logits: Tensor  # (B, classes): the mean of `steps`
    steps: Tensor  # (T, B, classes); T is 1 for a teacher
    taps: tuple[Tensor, ...]  # one per block, (B, ...): spikes averaged over time, or ReLU activations


@dataclass(frozen=True)
class Plan:
    """What to build; `neuron` is None for a teacher, which has ReLU and one step."""

    shape: Shape
    classes: int
    width: int
    depth: int
    timesteps: int = 1
    neuron: LIF | None = None

    def activation(self) -> nn.Module:
        """A new ReLU, or a new layer of neurons."""
        if self.neuron is None:
            return nn.ReLU()
        n = self.neuron
        return Neuron(self.timesteps, n.decay, n.threshold, n.reset, n.surrogate, n.detach_reset)


class Network(nn.Module):
    """Blocks in a row, then a linear readout whose mean over time is the result."""

    def __init__(self, plan: Plan, blocks: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.timesteps = plan.timesteps
        self.blocks = nn.ModuleList(blocks)
        self.head = head
        self.mean = TimeMean(plan.timesteps)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W), float, already multiplied by the scale of the data set."""
        x = images
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.mean(self.head(x))
        return logits

    def outputs(self, images: Tensor) -> Outputs:
        """The logits together with those of each step and the mean rate behind each block."""
        x, taps = images, []
        for block in self.blocks:
            x = block(x)
            taps.append(self.mean(x))
        steps = self.head(x).unflatten(0, (self.timesteps, -1))
        return Outputs(steps.mean(0), steps, tuple(taps))


class Residual(nn.Module):
    """conv-BN-neuron-conv-BN, the shortcut added to the current, then the neuron: outputs stay single bits."""

    def __init__(self, plan: Plan, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv3x3(channels, width, stride), nn.BatchNorm2d(width)
        self.neuron1 = plan.activation()
        self.conv2, self.norm2 = conv3x3(width, width), nn.BatchNorm2d(width)
        self.shortcut = nn.Identity() if stride == 1 and channels == width else _project(channels, width, stride)
        self.neuron2 = plan.activation()

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of the block."""
        current = self.norm2(self.conv2(self.neuron1(self.norm1(self.conv1(x)))))
        spikes: Tensor = self.neuron2(current + self.shortcut(x))
        return spikes


def conv3x3(channels: int, width: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size (or divides it by `stride`); BatchNorm behind it holds the bias."""
    return nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)


def mlp(plan: Plan) -> Network:
    """`depth` hidden layers of `width` neurons on the flattened image."""
    blocks: list[nn.Module] = []
    features = math.prod(plan.shape)
    for number in range(plan.depth):
        layers: Layers = {} if number else {"flatten": nn.Flatten()}
        layers |= {"linear": nn.Linear(features, plan.width, bias=False), "norm": nn.BatchNorm1d(plan.width)}
        blocks.append(_block(plan, layers, first=number == 0))
        features = plan.width
    return Network(plan, blocks, _named(linear=nn.Linear(features, plan.classes)))


def cnn(plan: Plan) -> Network:
    """`depth` times conv3x3-BN-neuron-avgpool2, channels doubling from `width`, then the readout."""
    channels, height, width = plan.shape
    if min(height, width) >> plan.depth == 0:
        raise ConfigError(f"depth {plan.depth} halves {height}x{width} images to nothing; the model 'cnn' needs less")
    blocks: list[nn.Module] = []
    for number in range(plan.depth):
        wide = plan.width << number
        conv: Layers = {"conv": conv3x3(channels, wide), "norm": nn.BatchNorm2d(wide)}
        blocks.append(_block(plan, conv, {"pool": nn.AvgPool2d(2)}, first=number == 0))
        channels = wide
    features = channels * (height >> plan.depth) * (width >> plan.depth)
    return Network(plan, blocks, _named(flatten=nn.Flatten(), linear=nn.Linear(features, plan.classes)))


def resnet(plan: Plan) -> Network:
    """A stem and four stages of `depth` residual blocks, strides 1, 2, 2, 2; width 64, depth 2 is CIFAR's ResNet-18."""
    channels, height, width = plan.shape
    stem: Layers = {"conv": conv3x3(channels, plan.width), "norm": nn.BatchNorm2d(plan.width)}
    blocks, channels = [_block(plan, stem, first=True)], plan.width
    for stage in range(4):
        wide = plan.width << stage
        first = Residual(plan, channels, wide, stride=2 if stage else 1)
        blocks.append(nn.Sequential(first, *(Residual(plan, wide, wide, stride=1) for _ in range(plan.depth - 1))))
        channels = wide
    size = (_shrunk(height), _shrunk(width))
    head = _named(pool=nn.AvgPool2d(size), flatten=nn.Flatten(), linear=nn.Linear(channels, plan.classes))
    return Network(plan, blocks, head)


MODELS: dict[str, Callable[[Plan], Network]] = {f.__name__: f for f in (mlp, cnn, resnet)}


def build(model: str, plan: Plan) -> Network:
    """The model of that name with fresh weights."""
    if model not in MODELS:
        raise UnknownNameError("model", model, MODELS)
    return MODELS[model](plan)


def student(config: TrainConfig, shape: Shape, classes: int) -> Network:
    """The spiking network that `config` describes, with fresh weights."""
    c = config
    neuron = LIF(c.decay, c.threshold, c.reset, c.surrogate, c.detach_reset)
    return build(c.model, Plan(shape, classes, c.width, c.depth, c.timesteps, neuron))


def teacher(config: TrainConfig, shape: Shape, classes: int) -> Network:
    """The ReLU network that `config` describes, with fresh weights."""
    c = config
    plan = Plan(shape, classes, c.teacher_width or c.width, c.teacher_depth or c.depth)
    return build(c.teacher_model or c.model, plan)


def load(run: Run | Path | str) -> tuple[Network, Network]:
    """Student and teacher of a finished run, with its weights, in eval mode, on the CPU."""
    run = run if isinstance(run, Run) else open_run(run)
    config, shape, classes = run.config, run.input_shape, len(run.classes)
    networks = student(config, shape, classes), teacher(config, shape, classes)
    for network, path in zip(networks, (run.student_file, run.teacher_file), strict=True):
        read_weights(network, path)
        network.eval()
    return networks


def channels_last(network: NetworkT) -> NetworkT:
    """The same network with its weights in the memory order in which convolutions are fastest."""
    moved: NetworkT = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def read_weights(network: nn.Module, path: Path) -> None:
    """Fill `network` from a safetensors file; a RunError if the names or shapes are not those of the network."""
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        raise RunError(f"{path} does not hold the weights of this network: {error}") from error


@contextmanager
def recording(network: nn.Module) -> Iterator[dict[str, float]]:
    """Yield a dict that holds, once the block has ended, the mean spikes per neuron and step of each Neuron by name."""
    rates: dict[str, float] = {}
    seen: dict[str, list[int]] = {}

    def count(name: str, module: nn.Module, inputs: object, spikes: Tensor) -> None:
        fired, possible = seen.get(name, (0, 0))
        seen[name] = [fired + int(torch.count_nonzero(spikes)), possible + spikes.numel()]

    neurons = [(name, module) for name, module in network.named_modules() if isinstance(module, Neuron)]
    hooks = [module.register_forward_hook(partial(count, name)) for name, module in neurons]
    try:
        yield rates
    finally:
        for hook in hooks:
            hook.remove()
        rates.update({name: fired / possible for name, (fired, possible) in seen.items()})


def _block(plan: Plan, before: Layers, after: Layers | None = None, *, first: bool) -> nn.Module:
    """Layers, the neuron, more layers; in the first block the image is repeated over time as late as possible."""
    time: Layers = {"repeat": Repeat(plan.timesteps)} if first else {}
    return _named(**before, **time, neuron=plan.activation(), **(after or {}))


def _project(channels: int, width: int, stride: int) -> nn.Module:
    return _named(conv=nn.Conv2d(channels, width, 1, stride=stride, bias=False), norm=nn.BatchNorm2d(width))


def _named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def _shrunk(size: int) -> int:
    """Height or width after the three strides of 2."""
    return -(-size // 8)
