"""Second-order neurons, as in snnTorch's tutorial 4: a synaptic current beside each membrane, biases in every layer."""

import snntorch as snn
from torch import Tensor, nn

NUM_STEPS = 4


class SynapticNet(nn.Module):
    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        neuron = {"alpha": 0.75, "beta": 0.5, "reset_mechanism": "zero", "reset_delay": False}
        self.conv = nn.Conv2d(channels, 12, 3, padding=1)
        self.syn1 = snn.Synaptic(**neuron)
        self.pool = nn.AvgPool2d(2)
        self.fc1 = nn.Linear(12 * (side // 2) ** 2, 64)
        self.syn2 = snn.Synaptic(**neuron)
        self.fc2 = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        cur1, mem1 = self.syn1.reset_mem()
        cur2, mem2 = self.syn2.reset_mem()
        out = 0
        for _ in range(NUM_STEPS):
            spk1, cur1, mem1 = self.syn1(self.conv(x), cur1, mem1)
            spk2, cur2, mem2 = self.syn2(self.fc1(self.pool(spk1).flatten(1)), cur2, mem2)
            out = out + self.fc2(spk2)
        return out / NUM_STEPS


def network(channels: int, side: int, classes: int) -> nn.Module:
    return SynapticNet(channels, side, classes)


def scores(net: nn.Module, x: Tensor) -> Tensor:
    return net(x)
