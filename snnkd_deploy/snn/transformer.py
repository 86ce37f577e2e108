"""Spikingformer: a transformer whose weights, behind the first layer, and products read spikes.

Zhou, Yu, Zhou, Ma, Zhang, Huang, Yuan, Tian, "Spikingformer: Spike-driven residual learning for transformer-based
spiking neural network", arXiv 2304.11954. Neurons stand in front of the weights, so what blocks add up is current.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from snnkd_deploy.snn.layers import Neuron
from snnkd_deploy.snn.network import Layers, Network, Plan, activated, conv3x3, named, neurons

HEAD = 32  # channels of an attention head in the paper's networks for CIFAR
SHORTEST = 7  # a picture is halved while its shorter side keeps so many tokens
STAGES = 4  # convolutions of the tokenizer behind its first, each with or without a pool in front
NARROWEST = 16  # channels that the tokenizer starts with, unless the embedding has fewer
GROWTH = 4  # hidden channels of the MLP for each of the embedding
PRODUCTS = 8  # products of three spikes that an attention neuron needs more than, to fire at once


class Attention(nn.Module):
    """y = scale * v (k^T q) in each head, no softmax; q, k, v and y are (B, C, H, W), the positions are the tokens.

    This is scale * (q k^T) v of the papers, transposed. Spikes give whole numbers of `scale`.
    """

    def __init__(self, heads: int, scale: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale

    def forward(self, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor:
        """The products; v k^T comes first, which is no more work as long as a head has no more channels than tokens."""
        queries, keys, values = (one.flatten(2).unflatten(1, (self.heads, -1)) for one in (q, k, v))
        mixed: Tensor = values @ keys.transpose(2, 3) @ queries
        return (self.scale * mixed).reshape(q.shape)

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"heads={self.heads}, scale={self.scale}"


class Block(nn.Module):
    """x + self attention, then x + MLP, on currents (B, C, H, W); both begin with neurons and end with weights."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        width, wide = plan.width, GROWTH * plan.width
        self.neuron = plan.activation()
        self.q, self.k, self.v = (named(**conv1x1(width, width), neuron=plan.activation()) for _ in range(3))
        self.attention = Attention(heads(width), scale(plan))
        self.project = named(neuron=plan.activation(), **conv1x1(width, width))
        self.expand = named(neuron=plan.activation(), **conv1x1(width, wide))
        self.reduce = named(neuron=plan.activation(), **conv1x1(wide, width))

    def forward(self, x: Tensor) -> Tensor:
        """Current in, current out."""
        spikes = self.neuron(x)
        x = x + self.project(self.attention(self.q(spikes), self.k(spikes), self.v(spikes)))
        current: Tensor = x + self.reduce(self.expand(x))
        return current


class PreActivated(Network):
    """A network whose blocks end in currents, which the first neurons behind them turn into spikes."""

    def tapped(self) -> list[Neuron]:
        """The first neurons of what follows each block."""
        return [neurons(part)[0] for part in (*self.blocks[1:], self.head)]


def spikingformer(plan: Plan) -> Network:
    """`depth` transformer blocks on an embedding of `width`; Spikingformer-4-384 is depth 4, width 384.

    The paper's network reads the last currents in its readout; here neurons stand in front of it too, so that it reads
    spikes like all others. Its pools of 3x3 are 2x2, and convolutions have no bias in front of a BatchNorm.
    """
    blocks = [tokenizer(plan), *(Block(plan) for _ in range(plan.depth))]
    size = plan.shape[1] >> pools(plan), plan.shape[2] >> pools(plan)
    head = named(
        neuron=plan.activation(),
        pool=nn.AvgPool2d(size),
        flatten=nn.Flatten(),
        linear=nn.Linear(plan.width, plan.classes),
    )
    return PreActivated(plan, blocks, head)


def tokenizer(plan: Plan) -> nn.Module:
    """Picture to embedding: conv3x3-BN, then four times neuron-pool-conv3x3-BN; pools are in the last of these."""
    channels = [max(plan.width >> shift, min(plan.width, NARROWEST)) for shift in (3, 2, 1, 0, 0)]
    stages: Layers = {}
    for number, (into, out) in enumerate(pairwise(channels), start=1):
        if number > 1:
            stages[f"neuron{number}"] = plan.activation()
        if number > STAGES - pools(plan):
            stages[f"pool{number}"] = nn.MaxPool2d(2)
        stages |= {f"conv{number}": conv3x3(into, out), f"norm{number}": nn.BatchNorm2d(out)}
    first: Layers = {"conv": conv3x3(plan.shape[0], channels[0]), "norm": nn.BatchNorm2d(channels[0])}
    return activated(plan, first, stages, first=True)


def pools(plan: Plan) -> int:
    """How often the picture is halved: 32x32 to 8x8 and 224x224 to 14x14 as in the paper, 28x28 to 7x7, 8x8 not."""
    shorter = min(plan.shape[1:])
    return max(times for times in range(STAGES + 1) if times == 0 or shorter >> times >= SHORTEST)


def heads(width: int) -> int:
    """Heads of 32 channels, at least two, as far as the width divides."""
    return max(count for count in range(1, max(2, width // HEAD) + 1) if width % count == 0)


def scale(plan: Plan) -> float:
    """1/8 of the threshold, so that more than 8 products fire at once; 1/8 in the teacher.

    The paper's network has scale 1/8 and threshold 1/2 here, where its neurons take in half their current.
    """
    return (1.0 if plan.neuron is None else plan.neuron.threshold) / PRODUCTS


def conv1x1(channels: int, width: int) -> Layers:
    """The same weights at each position, and the BatchNorm that holds their bias."""
    return {"conv": nn.Conv2d(channels, width, 1, bias=False), "norm": nn.BatchNorm2d(width)}
