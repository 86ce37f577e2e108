"""Integer networks large enough to meet every way in which the native runtime lays out and adds up weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from snnkd_deploy.ir import (
    Add,
    Array,
    Attention,
    BiasedInput,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Output,
    Pair,
    Relay,
    Reset,
    Shape,
    Stage,
    SumPool2d,
    output_shape,
)


class Integers:
    """Grows an integer graph node by node; thresholds are such that some neurons fire and some do not."""

    def __init__(self, source: Input, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {}
        self.add(source)

    def add(self, node: Node) -> str:
        self.nodes.append(node)
        self.shapes[node.name] = output_shape(node, [self.shapes[name] for name in node.inputs])
        return node.name

    def named(self, kind: str) -> str:
        return f"{kind}{len(self.nodes)}"

    @property
    def last(self) -> str:
        return self.nodes[-1].name

    def weights(self, *shape: int) -> Array:
        return np.asarray(self.random.integers(-127, 128, size=shape) * (self.random.random(shape) < 0.8))

    def bias(self, channels: int) -> Array:
        return np.asarray(self.random.integers(-90, 91, size=channels))

    def conv(
        self,
        channels: int,
        kernel: Pair = (3, 3),
        source: str = "",
        *,
        stride: Pair = (1, 1),
        padding: Pair = (1, 1),
        dilation: Pair = (1, 1),
        groups: int = 1,
    ) -> str:
        source = source or self.last
        weight = self.weights(channels, self.shapes[source][0] // groups, *kernel)
        node = Conv2d(name=self.named("conv"), inputs=(source,), weight=weight, bias=self.bias(channels), groups=groups,
                      stride=stride, padding=padding, dilation=dilation)  # fmt: skip
        return self.add(node)

    def linear(self, features: int) -> str:
        if len(self.shapes[self.last]) == 3:
            self.add(Flatten(name=self.named("flatten"), inputs=(self.last,)))
        weight = self.weights(features, self.shapes[self.last][0])
        return self.add(Linear(name=self.named("linear"), inputs=(self.last,), weight=weight, bias=self.bias(features)))

    def neurons(
        self,
        reset: Reset,
        decay: float | Array = 0.5,
        high: int = 600,
        bits: int = 6,
        own: int = -1,
        current: float | Array = 0.0,
    ) -> str:
        source, channels = self.last, self.shapes[self.last][0]
        threshold = self.random.integers(1, high, size=channels)
        given: dict[str, Any] = {"name": self.named("lif"), "inputs": (source,), "decay": decay, "threshold": threshold}
        given |= {"reset": reset, "decay_bits": 12, "fraction_bits": bits, "current_decay": current}
        return self.add(Neuron(**given) if own < 0 else Relay(**given, own=own))

    def pool(self, kind: type[SumPool2d] | type[MaxPool2d], kernel: Pair = (2, 2), stride: Pair = (2, 2)) -> str:
        return self.add(kind(name=self.named("pool"), inputs=(self.last,), kernel=kernel, stride=stride))

    def sum(self, *sources: str) -> str:
        return self.add(Add(name=self.named("add"), inputs=sources))

    def attention(self, *sources: str, heads: int) -> str:
        return self.add(Attention(name=self.named("attention"), inputs=sources, heads=heads))

    def finish(self, timesteps: int, classes: int = 10, name: str = "integers") -> Graph:
        self.linear(classes)
        self.add(Output(name="output", inputs=(self.last,)))
        return Graph(nodes=tuple(self.nodes), timesteps=timesteps, stage=Stage.INTEGER, name=name)


def mlp() -> Graph:
    """Features; layers of several blocks, of rows that are added in fours, of sums beyond 16 bits."""
    build = Integers(Input(name="input", shape=(100,)))
    build.linear(300)
    build.neurons("subtract", high=90_000)
    build.linear(530)
    build.neurons("zero", decay=3000 / 4096, high=900)
    build.linear(40)
    build.neurons("subtract_late", decay=0.25, high=800)
    return build.finish(5)


def cnn() -> Graph:
    """Pixels; strides, dilation, groups, depthwise, both pools, kernels that are no squares."""
    build = Integers(Input(name="input", shape=(3, 21, 18)))
    build.conv(20, stride=(2, 1))
    build.neurons("zero", high=40_000)
    build.pool(SumPool2d, (3, 2), (2, 2))
    build.conv(144, (3, 2), dilation=(1, 2), padding=(2, 0))
    build.neurons("subtract", decay=1.0)
    build.conv(144, (3, 3), groups=144)
    build.neurons("none", decay=0.9, high=300)
    build.pool(MaxPool2d)
    build.conv(36, (1, 1), groups=4, padding=(0, 0))
    build.neurons("subtract_late", decay=0.5)
    return build.finish(4)


def residual() -> Graph:
    """Shortcuts of currents with and without weights, and sums of spikes (SEW) that events are read from."""
    build = Integers(Input(name="input", shape=(2, 9, 11), high=1, static=False))
    build.conv(33)
    first = build.neurons("subtract")
    build.conv(33)
    main = build.neurons("zero")
    build.sum(first, main)
    twice = build.sum(build.last, first)
    build.conv(40, stride=(2, 2))
    inner = build.neurons("subtract", decay=0.5, bits=0)
    beside = build.conv(24, (1, 1), twice, stride=(2, 2), padding=(0, 0))
    current = build.conv(24, source=inner)
    build.sum(current, beside)
    joined = build.neurons("subtract", decay=1.0)
    depthwise = build.conv(24, (1, 1), padding=(0, 0), groups=24)
    build.sum(build.conv(24, source=joined), depthwise, joined)
    build.neurons("zero", decay=0.75)
    build.pool(SumPool2d)
    return build.finish(6)


def attentive() -> Graph:
    """Spikformer's block: q, k and v of a stream of currents, their product, a projection added to the stream."""
    build = Integers(Input(name="input", shape=(3, 8, 8)))
    stream = build.conv(48, stride=(2, 2))
    spikes = build.neurons("subtract", high=20_000)
    parts = []
    for _ in range(3):
        build.conv(48, (1, 1), spikes, padding=(0, 0))
        parts.append(build.neurons("subtract", decay=0.5))
    build.attention(*parts, heads=6)
    build.neurons("zero", high=40)
    projected = build.conv(48, (1, 1), padding=(0, 0))
    build.sum(stream, projected)
    build.neurons("subtract", high=30_000)
    return build.finish(4)


def graded_frames() -> Graph:
    """Frames of small numbers, which are planes of bits, into leaks of each channel and relays."""
    build = Integers(Input(name="input", shape=(4, 7, 6), high=9, static=False))
    build.conv(70)
    build.neurons("subtract", decay=np.arange(70) / 128, high=2000, own=50)
    build.conv(8, (7, 6), padding=(0, 0))
    build.neurons("zero", decay=1.0)
    return build.finish(3)


def keeping() -> Graph:
    """Neurons that keep their current, all alike and channel by channel."""
    build = Integers(Input(name="input", shape=(2, 8, 7)))
    build.conv(150, stride=(2, 2))
    build.neurons("subtract", decay=0.5, high=60_000, current=0.75)
    build.conv(33)
    build.neurons("none", decay=1.0, current=np.arange(33) / 64)
    build.linear(70)
    build.neurons("subtract_late", decay=0.9, high=2000, current=0.3)
    return build.finish(6)


def wide_input() -> Graph:
    """Numbers of more than 8 bits, of both signs, whose sums no float32 holds; constants come in with them."""
    constant = np.arange(42).reshape(1, 7, 6)
    source = BiasedInput(name="input", shape=(3, 7, 6), low=-30_000, high=30_000, static=False, constant=constant)
    build = Integers(source)
    build.conv(18)
    build.neurons("subtract", high=3_000_000, bits=2)
    build.pool(SumPool2d, (3, 3), (1, 1))
    build.pool(MaxPool2d, (2, 1), (2, 1))
    return build.finish(3)


def long() -> Graph:
    """So wide and deep that rows of weights leave the cache, over many steps."""
    build = Integers(Input(name="input", shape=(16, 6, 6), high=1, static=False))
    build.conv(256)
    build.neurons("subtract", decay=0.5, high=500)
    build.conv(256)
    build.neurons("subtract", decay=1.0, high=6000)
    build.pool(MaxPool2d)
    build.linear(64)
    build.neurons("zero", decay=0.999, high=3000)
    return build.finish(9)


NETWORKS: dict[str, Callable[[], Graph]] = {
    one.__name__: one for one in (mlp, cnn, residual, attentive, graded_frames, keeping, wide_input, long)
}
