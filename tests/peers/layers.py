"""Single layers on small inputs, which our counter and the peers count one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snnkd_deploy.counts import Synapses, count
from snnkd_deploy.ir import Array, Conv, ConvTranspose, Flatten, Graph, Input, Linear, Node, Output, Stage

SAMPLES = 4


@dataclass(frozen=True)
class Case:
    """A layer without bias, its input `(samples, *shape)` of whole numbers, and what one of them is worth."""

    module: nn.Module
    values: Array
    kind: str
    scale: float = 1.0

    def tensor(self) -> Tensor:
        """The input as the layer sees it."""
        return torch.from_numpy(self.values * self.scale).float()

    def counted(self) -> Synapses:
        """Our count of it: the samples are those of one step."""
        module: Any = self.module
        shape, real = self.values.shape[1:], self.kind == "picture"
        source = Input(
            name="x",
            shape=shape,
            scale=self.scale,
            low=int(self.values.min()),
            high=int(self.values.max()),
            static=real,
        )
        nodes: list[Node] = [source, _node(module)]
        if not isinstance(module, nn.Linear):
            nodes.append(Flatten(name="flat", inputs=("layer",)))
        nodes.append(Output(name="y", inputs=(nodes[-1].name,)))
        graph = Graph(nodes=tuple(nodes), timesteps=1, stage=Stage.FOLDED)
        found = count(graph, self.values if real else self.values[None])["layer"]
        assert isinstance(found, Synapses)
        assert found.input_kind == self.kind
        return found


def _node(module: Any) -> Node:
    weight = module.weight.detach().numpy().astype(np.float64)
    common: dict[str, Any] = {"name": "layer", "inputs": ("x",), "weight": weight}
    if isinstance(module, nn.Linear):
        return Linear(**common, bias=np.zeros(len(weight)))
    common |= {"stride": module.stride, "dilation": module.dilation, "groups": module.groups}
    if isinstance(module, nn.ConvTranspose2d):
        bias = np.zeros(module.out_channels)
        common |= {"padding": module.padding, "output_padding": module.output_padding}
        return ConvTranspose(**common, bias=bias)
    same = module.padding == "same"
    padding = tuple(size // 2 for size in module.kernel_size) if same else module.padding
    return Conv(**common, bias=np.zeros(len(weight)), before=padding, after=padding, mode=module.padding_mode)


def layer(made: nn.Module, zeros: bool = False) -> nn.Module:
    """Its weights 0.5, or half of them 0; of ones and zeros alone SpikingJelly would take them for the spikes."""
    weight: Tensor = made.weight  # type: ignore[assignment]
    nn.init.constant_(weight, 0.5)
    if zeros:
        weight.data.flatten()[::2] = 0
    return made


def ones(made: nn.Module) -> nn.Module:
    """Its weights 1."""
    nn.init.ones_(made.weight)  # type: ignore[arg-type]
    return made


def drawn(shape: tuple[int, ...], low: int, high: int, rate: float = 0.4) -> Array:
    random = np.random.default_rng(sum(shape))
    values = random.integers(low, high + 1, (SAMPLES, *shape))
    return np.asarray(values * (random.random(values.shape) < rate))


def spikes(*shape: int) -> Array:
    return drawn(shape, 1, 1)


def conv(**options: Any) -> nn.Module:
    into, out = options.pop("channels", (3, 6))
    return layer(nn.Conv2d(into, out, options.pop("kernel", 3), bias=False, **options), options.pop("zeros", False))


LAYERS: dict[str, Callable[[], Case]] = {
    "linear": lambda: Case(layer(nn.Linear(40, 7, bias=False)), spikes(40), "spikes"),
    "conv, no padding": lambda: Case(conv(), spikes(3, 8, 8), "spikes"),
    "conv, padding": lambda: Case(conv(padding=1), spikes(3, 8, 8), "spikes"),
    "conv, stride 2": lambda: Case(conv(padding=1, stride=2), spikes(3, 9, 9), "spikes"),
    "conv 1x1, stride 2": lambda: Case(conv(kernel=1, stride=2), spikes(3, 8, 8), "spikes"),
    "conv, groups": lambda: Case(conv(padding=1, groups=3), spikes(3, 8, 8), "spikes"),
    "conv, dilation": lambda: Case(conv(padding=2, dilation=2), spikes(3, 8, 8), "spikes"),
    "conv, reflect": lambda: Case(conv(padding=1, padding_mode="reflect"), spikes(3, 8, 8), "spikes"),
    "conv, same": lambda: Case(conv(padding="same"), spikes(3, 8, 8), "spikes"),
    "conv1d": lambda: Case(layer(nn.Conv1d(3, 6, 3, padding=1, bias=False)), spikes(3, 12), "spikes"),
    "transposed": lambda: Case(
        layer(nn.ConvTranspose2d(3, 6, 3, stride=2, padding=1, bias=False)), spikes(3, 6, 6), "spikes"
    ),
    "weights of 1": lambda: Case(ones(nn.Linear(40, 7, bias=False)), drawn((40,), 0, 4), "sums"),
    "zero weights": lambda: Case(layer(nn.Linear(40, 8, bias=False), zeros=True), spikes(40), "spikes"),
    "spikes of 0.25": lambda: Case(layer(nn.Linear(40, 7, bias=False)), spikes(40), "spikes", 0.25),
    "ternary": lambda: Case(layer(nn.Linear(40, 7, bias=False)), drawn((40,), -1, 1), "ternary"),
    "sums 0 to 4": lambda: Case(layer(nn.Linear(40, 7, bias=False)), drawn((40,), 0, 4), "sums"),
    "grey picture": lambda: Case(conv(padding=1), drawn((3, 8, 8), 0, 255, 0.8), "picture", 1 / 255),
    "black-and-white picture": lambda: Case(conv(padding=1), 255 * spikes(3, 8, 8), "picture", 1 / 255),
}
