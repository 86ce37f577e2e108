"""Trained in snnTorch, handed on as a NIR file that its author writes by hand: equations in seconds, no timesteps."""

from itertools import pairwise
from pathlib import Path

import nir
import numpy as np
import snntorch as snn
from torch import Tensor, nn

TIMESTEPS = 6
DT = 1e-3
BETA = 0.5


class Net(nn.Module):
    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(num_inputs, 64)
        self.lif1 = snn.Leaky(beta=BETA, reset_mechanism="zero")
        self.fc2 = nn.Linear(64, num_outputs)
        self.lif2 = snn.Leaky(beta=BETA, threshold=0.5, reset_mechanism="zero")

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        count = 0
        for _ in range(TIMESTEPS):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            count = count + spk2
        return count


def network(channels: int, side: int, classes: int) -> nn.Module:
    return Net(channels * side * side, classes)


def samples(pictures: Tensor) -> Tensor:
    return pictures.flatten(1)


def scores(net: nn.Module, x: Tensor) -> Tensor:
    return net(x)


def written(net: nn.Module, path: Path) -> None:
    def affine(layer: nn.Linear) -> nir.Affine:
        return nir.Affine(weight=layer.weight.detach().numpy(), bias=layer.bias.detach().numpy())

    def lif(layer: snn.Leaky, size: int) -> nir.LIF:
        ones, tau = np.ones(size), DT / (1 - BETA)
        return nir.LIF(
            tau=tau * ones,
            r=tau / DT * ones,
            v_leak=0 * ones,
            v_threshold=float(layer.threshold) * ones,
            v_reset=0 * ones,
        )

    nodes = {
        "input": nir.Input(np.array([net.fc1.in_features])),
        "fc1": affine(net.fc1),
        "lif1": lif(net.lif1, net.fc1.out_features),
        "fc2": affine(net.fc2),
        "lif2": lif(net.lif2, net.fc2.out_features),
        "output": nir.Output(np.array([net.fc2.out_features])),
    }
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=list(pairwise(nodes))))
