"""Random networks and samples for the tests of passes, exporters and counts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from snnkd_deploy.ir import (
    Add,
    Array,
    Attention,
    AvgPool2d,
    BatchNorm,
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
    Reset,
    Shape,
    output_shape,
)


@dataclass(frozen=True)
class Recipe:
    """What a random network may hold."""

    pools: tuple[str, ...] = ("avg",)
    resets: tuple[Reset, ...] = ("zero",)
    residual: bool = False
    decays: tuple[float, ...] = (1.0, 0.5, 0.9, 0.25, 0.999)
    thresholds_per_channel: bool = False
    decays_per_channel: bool = False
    current_decays: tuple[float, ...] = ()
    """Of neurons that keep their current; half of them do, if there are any."""
    spiking_input: bool | None = None
    timesteps: tuple[int, int] = (1, 5)
    attention: bool = False


CHAIN = Recipe()
"""What netx can hold."""
ANY = Recipe(pools=("avg", "max"), resets=("zero", "subtract"), residual=True, thresholds_per_channel=True)

EVERY_RESET = replace(ANY, resets=("zero", "subtract", "subtract_late", "none"))
LEAKS = replace(EVERY_RESET, decays_per_channel=True)
"""Channels of one layer that leak differently."""

KEEPING = replace(LEAKS, current_decays=(0.5, 0.9, 1.0, 0.25))
"""Neurons that keep their current, snnTorch's Synaptic."""

ATTENTIVE = Recipe(pools=("avg", "max"), resets=("zero", "subtract"), attention=True)
"""Products of spikes, on a stream of currents."""


class Builder:
    """Grows a graph node by node."""

    def __init__(self, seed: int, shape: Shape, timesteps: int, spiking_input: bool) -> None:
        self.random = np.random.default_rng(seed)
        top = 1 if spiking_input else int(self.random.choice([1, 16, 255]))
        self.nodes: list[Node] = [Input(name="input", shape=shape, scale=1.0 / top, high=top, static=not spiking_input)]
        self.shape = shape
        self.timesteps = timesteps

    @property
    def last(self) -> str:
        return self.nodes[-1].name

    def add(self, node: Node) -> str:
        self.nodes.append(node)
        self.shape = output_shape(node, [self.shape])
        return node.name

    def name(self, kind: str) -> str:
        return f"{kind}{len(self.nodes)}"

    def weights(self, *shape: int) -> Array:
        """Mixed, all of one sign, or with whole channels at zero."""
        weight: Array = self.random.normal(size=shape) / np.sqrt(np.prod(shape[1:])) * 2
        kind = self.random.choice(["mixed", "mixed", "positive", "negative", "holes"])
        if kind == "positive":
            return np.asarray(np.abs(weight))
        if kind == "negative":
            return np.asarray(-np.abs(weight) * 0.5)
        if kind == "holes":
            weight[self.random.random(weight.shape) < 0.6] = 0
        return weight

    def bias(self, channels: int) -> Array:
        kind = self.random.choice(["none", "some"])
        return np.asarray(0 if kind == "none" else 0.3) * self.random.normal(size=channels)

    def conv(self, source: str | None = None, channels: int | None = None, same: bool = False) -> str:
        into, height, width = self.shape
        pick = self.random.integers
        groups = int(self.random.choice([g for g in (1, 1, 2, into) if into % g == 0]))
        out = channels if channels is not None else groups * int(pick(1, 4))
        groups = groups if out % groups == 0 else 1
        rows, columns = (3, 3) if same else (int(pick(1, min(4, height + 1))), int(pick(1, min(4, width + 1))))
        fits = height >= 5 and width >= 5
        return self.add(
            Conv2d(
                name=self.name("conv"),
                inputs=(source or self.last,),
                weight=self.weights(out, into // groups, rows, columns),
                bias=self.bias(out),
                stride=(1, 1) if same else (int(pick(1, 3)), int(pick(1, 3))),
                padding=(1, 1) if same else (int(pick(0, 2)), int(pick(0, 2))),
                dilation=(1, 1) if same or not fits else (int(pick(1, 3)), int(pick(1, 3))),
                groups=groups,
            )
        )

    def linear(self, out: int) -> str:
        return self.add(
            Linear(
                name=self.name("linear"),
                inputs=(self.last,),
                weight=self.weights(out, *self.shape),
                bias=self.bias(out),
            )
        )

    def norm(self) -> str:
        channels = self.shape[0]
        return self.add(
            BatchNorm(
                name=self.name("norm"),
                inputs=(self.last,),
                mean=self.random.normal(size=channels) * 0.2,
                variance=10.0 ** self.random.uniform(-5, 0.5, size=channels),
                gamma=self.random.normal(size=channels) * 0.2 + 0.3,
                beta=self.random.normal(size=channels) * 0.3 + 0.2,
                eps=1e-5,
            )
        )

    def neuron(self, recipe: Recipe, decay: float) -> str:
        shape = (self.shape[0],) if recipe.thresholds_per_channel and self.random.random() < 0.3 else ()
        reset: Reset = recipe.resets[int(self.random.integers(len(recipe.resets)))]
        threshold = np.asarray(self.random.uniform(0.3, 1.2, size=shape))
        own = recipe.decays_per_channel and self.random.random() < 0.8
        kept = self.random.choice(recipe.decays, size=self.shape[0]) if own else decay
        neuron = Neuron(name=self.name("lif"), inputs=(self.last,), decay=kept, threshold=threshold, reset=reset)
        if recipe.current_decays and self.random.random() < 0.5:
            size = self.shape[0] if recipe.decays_per_channel and self.random.random() < 0.5 else None
            neuron = replace(neuron, current_decay=self.random.choice(recipe.current_decays, size=size))
        return self.add(neuron)

    def pool(self, kind: str) -> str:
        window = (min(2, self.shape[1]), min(2, self.shape[2]))
        pool = AvgPool2d if kind == "avg" else MaxPool2d
        return self.add(pool(name=self.name("pool"), inputs=(self.last,), kernel=window, stride=window))

    def finish(self, classes: int) -> Graph:
        if len(self.shape) == 3:
            self.add(Flatten(name=self.name("flatten"), inputs=(self.last,)))
        self.linear(classes)
        self.add(Output(name="output", inputs=(self.last,)))
        return Graph(nodes=tuple(self.nodes), timesteps=self.timesteps, name="random")


def pair(values: Array) -> Pair:
    """Two numbers as Python integers."""
    first, second = values.tolist()
    return int(first), int(second)


def random_network(seed: int, recipe: Recipe = CHAIN) -> Graph:
    """A traced network: one to three layers of convolution or dense, BatchNorm, neurons, pools, a readout."""
    random = np.random.default_rng(seed)
    spiking = bool(random.random() < 0.3) if recipe.spiking_input is None else recipe.spiking_input
    picture = random.random() < 0.75
    shape = (int(random.integers(1, 4)), int(random.integers(3, 9)), int(random.integers(3, 9))) if picture else (7,)
    build = Builder(seed + 1, shape, int(random.integers(recipe.timesteps[0], recipe.timesteps[1] + 1)), spiking)
    decay = float(random.choice(recipe.decays))
    for _ in range(int(random.integers(1, 4))):
        if len(build.shape) == 3 and recipe.attention and random.random() < 0.7:
            _attention(build, recipe, decay)
        elif len(build.shape) == 3 and recipe.residual and random.random() < 0.4:
            _residual(build, recipe, decay)
        elif len(build.shape) == 3 and random.random() < 0.8:
            build.conv()
        else:
            if len(build.shape) == 3:
                build.add(Flatten(name=build.name("flatten"), inputs=(build.last,)))
            build.linear(int(random.integers(1, 9)))
        if not isinstance(build.nodes[-1], Neuron):
            if random.random() < 0.6:
                build.norm()
            build.neuron(recipe, decay)
        if len(build.shape) == 3 and recipe.pools and min(build.shape[1:]) > 1 and random.random() < 0.4:
            build.pool(str(random.choice(recipe.pools)))
    return build.finish(int(random.integers(2, 6)))


def _residual(build: Builder, recipe: Recipe, decay: float) -> None:
    """conv - norm - neuron - conv - norm, plus the block's input, then a neuron."""
    build.conv()
    build.norm()
    shortcut, shape = build.neuron(recipe, decay), build.shape
    build.conv(channels=shape[0], same=True)
    build.norm()
    build.neuron(recipe, decay)
    build.conv(channels=shape[0], same=True)
    main = build.norm()
    build.add(Add(name=build.name("add"), inputs=(main, shortcut)))
    build.neuron(recipe, decay)


def _attention(build: Builder, recipe: Recipe, decay: float) -> None:
    """A current, its neurons, q, k and v from these, their product, a projection added to the current, neurons."""
    current, shape = build.conv(), build.shape
    spikes, parts = build.neuron(recipe, decay), []
    for _ in range(3):
        build.conv(spikes, channels=shape[0], same=True)
        parts.append(build.neuron(recipe, decay))
    heads = int(build.random.choice([count for count in range(1, shape[0] + 1) if shape[0] % count == 0]))
    scale = float(build.random.choice([0.25, 0.1, 1 / 32]))
    build.nodes.append(Attention(name=build.name("attention"), inputs=tuple(parts), heads=heads, scale=scale))
    build.neuron(recipe, decay)
    projected = build.conv(channels=shape[0], same=True)
    build.add(Add(name=build.name("add"), inputs=(current, projected)))
    build.neuron(recipe, decay)


def random_inputs(graph: Graph, samples: int, seed: int = 0) -> Array:
    """Integer samples of the network's own range."""
    random = np.random.default_rng(seed)
    node = graph.input
    shape = (samples, *node.sample_shape) if node.static else (graph.timesteps, samples, *node.sample_shape)
    values = random.integers(node.low, node.high + 1, size=shape)
    return values * (random.random(shape) < 0.7)


seeds = st.integers(min_value=0, max_value=2**31)
