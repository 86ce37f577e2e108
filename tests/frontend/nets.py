"""Networks as people write them, and what their own framework says about them."""

from __future__ import annotations

from typing import Any

import numpy as np
import snntorch as snn
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from snnkd_deploy.ir import Array
from snnkd_deploy.samples import Samples, samples_of

STEPS = 5


def pictures(seed: int = 0, count: int = 6, shape: tuple[int, ...] = (1, 8, 8)) -> Samples:
    """Random pictures of 8 bits."""
    return samples_of(np.random.default_rng(seed).integers(0, 256, size=(count, *shape), dtype=np.uint8))


def frames(seed: int = 0, count: int = 6, shape: tuple[int, ...] = (2, 6, 6), steps: int = STEPS) -> Samples:
    """Random spikes, a frame for each step."""
    spikes = np.random.default_rng(seed).random((count, steps, *shape)) < 0.4
    return samples_of(spikes.astype(np.uint8), shape=shape)


def seen(samples: Samples) -> Tensor:
    """What a network sees of samples, in float64."""
    return torch.from_numpy(samples.integers(slice(None)) * samples.scale)


class Wide(TorchFunctionMode):
    """snnTorch's spikes come out of `.float()`; in here that is float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (Tensor.double if func is Tensor.float else func)(*args, **(kwargs or {}))


def fired(model: nn.Module, *inputs: Tensor) -> list[Array]:
    """Spikes `(time, samples, ...)` of each snnTorch neuron, in the order of first calls, as snnTorch runs them."""
    found: dict[nn.Module, list[Array]] = {}

    def note(module: nn.Module, arguments: Any, out: Any) -> None:
        spikes = out[0] if isinstance(out, tuple) else out
        found.setdefault(module, []).append(spikes.detach().numpy() != 0)

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, snn.SpikingNeuron)]
    with torch.no_grad(), Wide():
        for one in inputs:
            model.double()(one)
    for hook in hooks:
        hook.remove()
    return [np.stack(steps) for steps in found.values()]


def strong(model: nn.Module, factor: float = 3.0) -> nn.Module:
    """Larger weights, so that neurons fire."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.mul_(factor)
    return model.eval()


class Dense(nn.Module):
    """Tutorial 5: two dense layers, states handed on, spikes and membranes recorded."""

    def __init__(self, **neuron: Any) -> None:
        super().__init__()
        options = {"beta": 0.9, **neuron}
        self.fc1, self.lif1 = nn.Linear(64, 20), snn.Leaky(**options)
        self.fc2, self.lif2 = nn.Linear(20, 10), snn.Leaky(**options)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.reset_mem()
        spikes, membranes = [], []
        for _ in range(STEPS):
            spk1, mem1 = self.lif1(self.fc1(x.flatten(1)), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes, dim=0), torch.stack(membranes, dim=0)


class Convolutional(nn.Module):
    """Tutorial 6: pools between convolution and neuron, the count as a running sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(1, 4, 3, padding=1), snn.Leaky(beta=0.5)
        self.conv2, self.lif2 = nn.Conv2d(4, 6, 3), snn.Leaky(beta=0.5, learn_beta=True, learn_threshold=True)
        self.fc1, self.lif3 = nn.Linear(6, 10), snn.Leaky(beta=0.5, threshold=0.4)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, mem3 = self.lif1.reset_mem(), self.lif2.reset_mem(), self.lif3.reset_mem()
        count = torch.zeros(x.shape[0], 10)
        for _ in range(STEPS):
            spk1, mem1 = self.lif1(functional.max_pool2d(self.conv1(x), 2), mem1)
            spk2, mem2 = self.lif2(functional.avg_pool2d(self.conv2(spk1), 2), mem2)
            spk3, mem3 = self.lif3(self.fc1(spk2.view(x.size(0), -1)), mem3)
            count = count + spk3
        return count


class Synaptics(nn.Module):
    """Tutorial 4's second-order neurons: two states that are handed on, by place and by name."""

    def __init__(self, **neuron: Any) -> None:
        super().__init__()
        options = {"alpha": 0.9, "beta": 0.8, **neuron}
        self.fc1, self.lif1 = nn.Linear(64, 20), snn.Synaptic(**options)
        self.fc2, self.lif2 = nn.Linear(20, 10), snn.Synaptic(**options)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        syn1, mem1 = self.lif1.init_synaptic()
        syn2, mem2 = self.lif2.reset_mem()
        spikes, currents, membranes = [], [], []
        for _ in range(STEPS):
            spk1, syn1, mem1 = self.lif1(self.fc1(x.flatten(1)), syn1, mem1)
            spk2, syn2, mem2 = self.lif2(self.fc2(spk1), mem=mem2, syn=syn2)
            spikes.append(spk2)
            currents.append(syn2)
            membranes.append(mem2)
        return torch.stack(spikes), torch.stack(currents), torch.stack(membranes)


def sequential() -> nn.Module:
    """init_hidden: one step for each call, the last neuron with its membrane."""
    options: dict[str, Any] = {"beta": 0.7, "init_hidden": True, "reset_mechanism": "zero"}
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        snn.Leaky(**options),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(36, 10),
        snn.Leaky(**options, output=True),
    )


class TimeFirst(nn.Module):
    """Frames, time first: x[step]; the mean of a dense layer is the result."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lif = nn.Conv2d(2, 4, 3), snn.Leaky(beta=0.8, reset_mechanism="none", threshold=0.7)
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        mem = self.lif.reset_mem()
        out = []
        for step in range(x.size(0)):
            spk, mem = self.lif(self.conv(x[step]), mem)
            out.append(self.head(torch.flatten(spk, 1)))
        return torch.stack(out).mean(0)


class Circuit(nn.Module):
    """Lapicque, told by R and C, hidden states, a record that is written into."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(64, 16), nn.Linear(16, 10)
        self.one = snn.Lapicque(R=5, C=1.2, time_step=1, threshold=0.3)
        self.two = snn.Lapicque(beta=0.8, threshold=0.2, reset_mechanism="none")

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        mem1, mem2 = self.one.init_lapicque(), self.two.init_lapicque()
        record = torch.zeros(STEPS, len(x), 10)
        for step in range(STEPS):
            spk1, mem1 = self.one(self.fc1(x.reshape(len(x), -1)), mem1)
            spk2, mem2 = self.two(self.fc2(spk1), mem2)
            record[step] = spk2
        return {"spikes": record}


class Residual(nn.Module):
    """Blocks with an identity and with a 1x1 shortcut; one neuron module with a state for each of its two uses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding="same"), nn.Conv2d(4, 4, 3, padding=1)
        self.conv3, self.short = nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.Conv2d(4, 8, 1, stride=2)
        self.norm, self.lif = nn.BatchNorm2d(4, affine=False), snn.Leaky(beta=0.5, reset_mechanism="zero")
        self.last, self.fc = snn.Leaky(beta=1.0), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        mem1 = mem2 = self.lif.reset_mem()
        mem3 = self.last.reset_mem()
        total = 0
        for _ in range(STEPS):
            spk1, mem1 = self.lif(self.conv1(x), mem1)
            current = self.norm(self.conv2(spk1))
            current += spk1
            spk2, mem2 = self.lif(current, mem2)
            spk3, mem3 = self.last(torch.add(self.conv3(spk2), self.short(spk2)), mem3)
            total = total + self.fc(spk3.mean((2, 3)))
        return total / STEPS  # type: ignore[operator, return-value]


class Plain(nn.Module):
    """A ReLU network: functional calls, a norm behind the pool, a shared ReLU, a sum of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.act = nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.ReLU(inplace=True)
        self.fc = nn.Linear(6 * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        one = functional.relu(self.norm1(functional.max_pool2d(self.conv1(x / 0.5), 2)))
        two = one + self.act(self.conv2(one))
        out: Tensor = self.fc(functional.dropout(two.flatten(1), 0.3, self.training))
        return out
