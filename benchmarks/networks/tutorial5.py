"""The dense network of snnTorch's tutorial 5: states handed from step to step, every default of Leaky, 25 steps."""

import snntorch as snn
import torch
from torch import Tensor, nn

NUM_STEPS = 25
BETA = 0.95


class Net(nn.Module):
    def __init__(self, num_inputs: int, num_outputs: int, num_hidden: int = 100) -> None:
        super().__init__()
        self.fc1 = nn.Linear(num_inputs, num_hidden)
        self.lif1 = snn.Leaky(beta=BETA)
        self.fc2 = nn.Linear(num_hidden, num_outputs)
        self.lif2 = snn.Leaky(beta=BETA)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1 = self.lif1.init_leaky()
        mem2 = self.lif2.init_leaky()
        spk2_rec = []
        mem2_rec = []
        for _ in range(NUM_STEPS):
            cur1 = self.fc1(x)
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = self.fc2(spk1)
            spk2, mem2 = self.lif2(cur2, mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


def network(channels: int, side: int, classes: int) -> nn.Module:
    return Net(channels * side * side, classes)


def samples(pictures: Tensor) -> Tensor:
    return pictures.flatten(1)


def scores(net: nn.Module, x: Tensor) -> Tensor:
    spk_rec, _ = net(x)
    return spk_rec.sum(dim=0)
