"""Networks by name, each from one definition: with neurons it is the student, with ReLU the teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from snnkd_deploy import cluster
from snnkd_deploy.config import TrainConfig
from snnkd_deploy.errors import ConfigError, RunError, UnknownNameError
from snnkd_deploy.run import Run, open_run
from snnkd_deploy.snn.fused import spiking
from snnkd_deploy.snn.layers import InputNeuron, Neuron, Pointwise
from snnkd_deploy.snn.lif import LIF
from snnkd_deploy.snn.network import Layers, Network, Outputs, Plan, Shape, activated, conv3x3, named
from snnkd_deploy.snn.transformer import spikingformer

__all__ = ["MODELS", "Network", "Outputs", "Plan", "Shape", "build", "channels_last", "load", "student", "teacher"]

Role = Literal["student", "teacher"]
NetworkT = TypeVar("NetworkT", bound=nn.Module)


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
        spikes = spiking(self.norm1, self.neuron1, self.conv1(x))
        return spiking(self.norm2, self.neuron2, self.conv2(spikes), self.shortcut(x))


class SpikeElementWise(Residual):
    """conv-BN-neuron-conv-BN-neuron, the shortcut's spikes added to the spikes."""

    def __init__(self, plan: Plan, channels: int, width: int, stride: int) -> None:
        super().__init__(plan, channels, width, stride)
        if not isinstance(self.shortcut, nn.Identity):
            self.shortcut = nn.Sequential(self.shortcut, plan.activation())

    def forward(self, x: Tensor) -> Tensor:
        """Spikes in, sums of spikes out."""
        spikes = spiking(self.norm2, self.neuron2, self.conv2(spiking(self.norm1, self.neuron1, self.conv1(x))))
        shortcut: Tensor = self.shortcut(x)
        return spikes + shortcut


def mlp(plan: Plan) -> Network:
    """`depth` hidden layers of `width` neurons on the flattened image."""
    blocks: list[nn.Module] = []
    features = math.prod(plan.shape)
    for number in range(plan.depth):
        layers: Layers = {} if number else {"flatten": nn.Flatten()}
        layers |= {"linear": nn.Linear(features, plan.width, bias=False), "norm": nn.BatchNorm1d(plan.width)}
        blocks.append(activated(plan, layers, first=number == 0))
        features = plan.width
    return Network(plan, blocks, named(linear=nn.Linear(features, plan.classes)))


def cnn(plan: Plan) -> Network:
    """`depth` times conv3x3-BN-neuron-avgpool2, channels doubling from `width`, then the readout."""
    channels, height, width = plan.shape
    if min(height, width) >> plan.depth == 0:
        raise ConfigError(f"depth {plan.depth} halves {height}x{width} images to nothing; the model 'cnn' needs less")
    blocks: list[nn.Module] = []
    for number in range(plan.depth):
        wide = plan.width << number
        conv: Layers = {"conv": conv3x3(channels, wide), "norm": nn.BatchNorm2d(wide)}
        blocks.append(activated(plan, conv, {"pool": nn.AvgPool2d(2)}, first=number == 0))
        channels = wide
    features = channels * (height >> plan.depth) * (width >> plan.depth)
    return Network(plan, blocks, named(flatten=nn.Flatten(), linear=nn.Linear(features, plan.classes)))


def resnet(plan: Plan) -> Network:
    """A stem and four stages of `depth` residual blocks, strides 1, 2, 2, 2; width 64, depth 2 is CIFAR's ResNet-18."""
    return _residual_network(plan, (plan.depth,) * 4)


def resnet18(plan: Plan) -> Network:
    """CIFAR's ResNet-18: four stages of two blocks; width 64 is the usual one, `depth` is not used."""
    return _residual_network(plan, (2, 2, 2, 2))


def resnet19(plan: Plan) -> Network:
    """The ResNet-19 of the spiking literature: stages of 3, 3, 2 blocks, a dense layer of neurons; usual width 128."""
    return _residual_network(plan, (3, 3, 2), dense=2 * plan.width)


def resnet20(plan: Plan) -> Network:
    """ResNet-20 of He et al. 2016 for CIFAR: three stages of three blocks; usual width 16."""
    return _residual_network(plan, (3, 3, 3))


def resnet34(plan: Plan) -> Network:
    """CIFAR's ResNet-34: stages of 3, 4, 6, 3 blocks; usual width 64."""
    return _residual_network(plan, (3, 4, 6, 3))


def sew_resnet18(plan: Plan) -> Network:
    """SEW-ResNet-18, ADD (Fang et al. 2021): spikes are added behind the neurons, so a value can be 2 and more."""
    return _residual_network(plan, (2, 2, 2, 2), block=SpikeElementWise)


def vgg9(plan: Plan) -> Network:
    """Seven convolutions, a dense layer of 16 times the width, the readout; usual width 64."""
    return _vgg(plan, ((1, 1), (2, 2), (4, 4, 4)), dense=16 * plan.width)


def vgg11(plan: Plan) -> Network:
    """The eight convolutions of VGG-11 and, as usual on CIFAR, the readout alone behind them; usual width 64."""
    return _vgg(plan, ((1,), (2,), (4, 4), (8, 8), (8, 8)))


def vgg16(plan: Plan) -> Network:
    """The thirteen convolutions of VGG-16 and, as usual on CIFAR, the readout alone behind them; usual width 64."""
    return _vgg(plan, ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8)))


def _residual_network(
    plan: Plan, counts: tuple[int, ...], block: type[Residual] = Residual, dense: int | None = None
) -> Network:
    """A stem, then stages of so many blocks, each with twice the channels and, but for the first, half the size."""
    channels, height, width = plan.shape
    stem: Layers = {"conv": conv3x3(channels, plan.width), "norm": nn.BatchNorm2d(plan.width)}
    blocks, channels = [activated(plan, stem, first=True)], plan.width
    for stage, count in enumerate(counts):
        wide = plan.width << stage
        first = block(plan, channels, wide, stride=2 if stage else 1)
        blocks.append(nn.Sequential(first, *(block(plan, wide, wide, stride=1) for _ in range(count - 1))))
        channels = wide
    size = _shrunk(height, len(counts) - 1), _shrunk(width, len(counts) - 1)
    return Network(plan, blocks, _head(plan, {"pool": nn.AvgPool2d(size), "flatten": nn.Flatten()}, channels, dense))


def _vgg(plan: Plan, stages: tuple[tuple[int, ...], ...], dense: int | None = None) -> Network:
    """Stages of 3x3 convolutions, channels in multiples of the width; a pool behind each while there is room."""
    channels, height, width = plan.shape
    blocks: list[nn.Module] = []
    for stage in stages:
        layers: list[nn.Module] = []
        for index, multiple in enumerate(stage):
            wide = multiple * plan.width
            conv: Layers = {"conv": conv3x3(channels, wide), "norm": nn.BatchNorm2d(wide)}
            room = index == len(stage) - 1 and min(height, width) > 1
            pool: Layers = {"pool": nn.AvgPool2d(2)} if room else {}
            layers.append(activated(plan, conv, pool, first=not blocks and not layers))
            height, width, channels = (height // 2, width // 2, wide) if room else (height, width, wide)
        blocks.append(nn.Sequential(*layers))
    return Network(plan, blocks, _head(plan, {"flatten": nn.Flatten()}, channels * height * width, dense))


def _head(plan: Plan, before: Layers, features: int, dense: int | None) -> nn.Module:
    """The readout, with a dense layer of so many neurons in front of it if asked for."""
    if dense is None:
        return named(**before, linear=nn.Linear(features, plan.classes))
    hidden: Layers = {"dense": nn.Linear(features, dense, bias=False), "norm": nn.BatchNorm1d(dense)}
    return named(**before, **hidden, neuron=plan.activation(), linear=nn.Linear(dense, plan.classes))


MODELS: dict[str, Callable[[Plan], Network]] = {
    f.__name__: f
    for f in (mlp, cnn, vgg9, vgg11, vgg16, resnet, resnet18, resnet19, resnet20, resnet34, sew_resnet18, spikingformer)
}


def build(model: str, plan: Plan) -> Network:
    """The model of that name with fresh weights."""
    if model not in MODELS:
        raise UnknownNameError("model", model, MODELS)
    return MODELS[model](plan)


def student(config: TrainConfig, shape: Shape, classes: int) -> Network:
    """The spiking network that `config` describes, with fresh weights."""
    c = config
    neuron = LIF(c.decay, c.threshold, c.reset, c.surrogate, c.detach_reset)
    more = {"frames": _framed(shape), "input_neurons": c.encoding == "neuron", "counts": c.readout == "spikes"}
    network = build(c.model, Plan(shape[-3:], classes, c.width, c.depth, c.timesteps, neuron, **more))
    if c.learn_decay != "fixed":
        for found, channels in _channels(network, shape).items():
            found.learn_decay(channels if c.learn_decay == "channel" else 1)
    return network


def teacher(config: TrainConfig, shape: Shape, classes: int) -> Network:
    """The ReLU network that `config` describes, with fresh weights."""
    c = config
    width, depth = c.teacher_width or c.width, c.teacher_depth or c.depth
    plan = Plan(shape[-3:], classes, width, depth, frames=_framed(shape), encoded=c.data_encoding != "direct")
    return build(c.teacher_model or c.model, plan)


def load(run: Run | Path | str) -> tuple[Network, Network]:
    """Student and teacher of a finished run, with its weights, in eval mode, on the CPU."""
    run = run if isinstance(run, Run) else open_run(run)
    return load_student(run), load_teacher(run)


def load_student(run: Run) -> Network:
    """The student of a finished run, as `load` gives it."""
    return _filled(student(run.config, run.input_shape, len(run.classes)), run.student_file)


def load_teacher(run: Run) -> Network:
    """The teacher of a finished run, as `load` gives it. RunError if it is code: that is run only to train."""
    if run.config.foreign:
        raise RunError(f"the teacher of {run.path} is code, {run.config.teacher}; a run holds its weights alone")
    return _filled(teacher(run.config, run.input_shape, len(run.classes)), run.teacher_file)


def _filled(network: Network, path: Path) -> Network:
    read_weights(network, path)
    return network.eval()


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
        rates.update({name: fired / possible for name, (fired, possible) in zip(seen, _in_all(seen), strict=True)})


def _in_all(seen: dict[str, list[int]]) -> list[list[int]]:
    """The counts of each layer over all processes."""
    sums = cluster.summed([count for counts in seen.values() for count in counts])
    return [sums[start : start + 2] for start in range(0, len(sums), 2)]


@torch.no_grad()
def _channels(network: Network, shape: Shape) -> dict[Neuron, int]:
    """Channels or features of the current of each neuron, as an image shows them; the network is left in train mode.

    Neurons that stand for pixels or classes do not leak and are left out.
    """
    seen: dict[Neuron, int] = {}

    def look(neuron: Neuron, inputs: tuple[Tensor]) -> None:
        seen[neuron] = inputs[0].shape[1]

    neurons = [one for one in network.modules() if isinstance(one, Neuron) and one is not network.readout]
    hooks = [one.register_forward_pre_hook(look) for one in neurons if not isinstance(one, InputNeuron)]
    network.eval()(torch.zeros(1, *shape))
    network.train()
    for hook in hooks:
        hook.remove()
    return seen


def _framed(shape: Shape) -> bool:
    return len(shape) == 4


def _project(channels: int, width: int, stride: int) -> nn.Module:
    return named(conv=Pointwise(channels, width, stride), norm=nn.BatchNorm2d(width))


def _shrunk(size: int, times: int) -> int:
    """Height or width after so many strides of 2."""
    return -(-size // (1 << times))
