"""Counts of one layer of every kind against nested loops, and its values against torch; both know nothing of ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from snnkd_deploy.counts import Counts, Pools, Synapses, count
from snnkd_deploy.ir import (
    Array,
    AvgPool,
    Conv,
    ConvTranspose,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool,
    Node,
    Output,
    Shape,
    Stage,
)
from snnkd_deploy.simulate import simulate

STEPS, SAMPLES = 2, 2
MODES = ("zeros", "reflect", "replicate", "circular")
Place = tuple[int, ...]


@dataclass(frozen=True)
class Alphabet:
    """What the input of a layer holds, and what the counter has to make of it."""

    kind: str
    low: int
    high: int
    scale: float = 1.0
    static: bool = False
    stage: Stage = Stage.INTEGER

    @property
    def multiplied(self) -> bool:
        return self.kind not in ("spikes", "ternary")


ALPHABETS = {
    "binary": Alphabet("spikes", 0, 1),
    "scaled": Alphabet("spikes", 0, 1, scale=0.25, stage=Stage.FOLDED),
    "ternary": Alphabet("ternary", -1, 1),
    "levels": Alphabet("sums", 0, 4),
    "real": Alphabet("picture", -9, 9, scale=0.1, stage=Stage.FOLDED),
    "picture": Alphabet("picture", 0, 255, scale=1 / 255, static=True),
}


@dataclass(frozen=True)
class Case:
    """A layer, torch's module for it, and every read: which input, which output, by which weight."""

    node: Any
    module: nn.Module
    shape: Shape

    def reads(self, outputs: Shape) -> Iterator[tuple[Place, Place, Place]]:
        """Input `(channel, *position)`, output, and place in torch's weight, once for each pair."""
        if isinstance(self.module, nn.Linear):
            for out, into in product(*map(range, self.node.weight.shape)):
                yield (into,), (out,), (out, into)
        elif isinstance(self.node, ConvTranspose):
            yield from self._scattered(outputs)
        else:
            yield from self._gathered(outputs)

    def _gathered(self, outputs: Shape) -> Iterator[tuple[Place, Place, Place]]:
        weight, node = self.node.weight, self.node
        for out, channel in product(range(weight.shape[0]), range(weight.shape[1])):
            into = out // (weight.shape[0] // node.groups) * weight.shape[1] + channel
            for at, tap in product(product(*map(range, outputs[1:])), product(*map(range, weight.shape[2:]))):
                place = [
                    inside(at[n] * node.stride[n] + tap[n] * node.dilation[n] - node.before[n], size, node.mode)
                    for n, size in enumerate(self.shape[1:])
                ]
                if None not in place:
                    yield (into, *(one for one in place if one is not None)), (out, *at), (out, channel, *tap)

    def _scattered(self, outputs: Shape) -> Iterator[tuple[Place, Place, Place]]:
        weight, node = self.node.weight, self.node
        for into, channel in product(range(weight.shape[0]), range(weight.shape[1])):
            out = into // (weight.shape[0] // node.groups) * weight.shape[1] + channel
            for at, tap in product(product(*map(range, self.shape[1:])), product(*map(range, weight.shape[2:]))):
                place = tuple(
                    at[n] * node.stride[n] + tap[n] * node.dilation[n] - node.padding[n] for n in range(len(at))
                )
                if all(0 <= one < size for one, size in zip(place, outputs[1:], strict=True)):
                    yield (into, *at), (out, *place), (into, channel, *tap)


def inside(place: int, size: int, mode: str) -> int | None:
    """The position that a padded one stands for; None where it is a zero."""
    if 0 <= place < size:
        return place
    if mode == "zeros":
        return None
    if mode == "circular":
        return place % size
    if mode == "replicate":
        return min(max(place, 0), size - 1)
    return -place if place < 0 else 2 * (size - 1) - place


def weights(random: np.random.Generator, module: nn.Module, sparse: bool) -> tuple[Array, Array]:
    """Small whole numbers, put into torch's module as well."""
    parameters = dict(module.named_parameters())
    found = []
    for name in ("weight", "bias"):
        shape = tuple(parameters[name].shape)
        values = random.integers(1, 8, size=shape) * random.choice([-1, 1], size=shape)
        values = values * (random.random(shape) < 0.5) if sparse or name == "bias" else values
        parameters[name].data = torch.from_numpy(values.astype(np.float64))
        found.append(values)
    return found[0], found[1]


def linear(random: np.random.Generator, sparse: bool) -> Case:
    into, out = (int(one) for one in random.integers(1, 7, size=2))
    module = nn.Linear(into, out)
    weight, bias = weights(random, module, sparse)
    return Case(Linear(name="layer", inputs=("input",), weight=weight, bias=bias), module, (into,))


def sizes(random: np.random.Generator, rank: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(int(one) for one in random.integers(low, high + 1, size=rank))


def convolution(random: np.random.Generator, rank: int, sparse: bool) -> Case:
    groups = int(random.choice([1, 1, 2, 3]))
    into, out = groups * int(random.integers(1, 3)), groups * int(random.integers(1, 3))
    kernel, stride, dilation = sizes(random, rank, 1, 3), sizes(random, rank, 1, 3), sizes(random, rank, 1, 2)
    mode = str(random.choice(MODES))
    spans = [dilated * (taps - 1) for dilated, taps in zip(dilation, kernel, strict=True)]
    same = mode == "zeros" and random.random() < 0.3
    padding = tuple(span // 2 for span in spans) if same else sizes(random, rank, 0, 2)
    after = tuple(span - before for span, before in zip(spans, padding, strict=True)) if same else padding
    shape = (into, *(max(span + int(random.integers(1, 4)), 3) for span in spans))
    kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    stride = (1,) * rank if same else stride
    module = kind(into, out, kernel, stride, "same" if same else padding, dilation, groups, padding_mode=mode)
    weight, bias = weights(random, module, sparse)
    options: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": groups, "mode": mode}
    node = Conv(name="layer", inputs=("input",), weight=weight, bias=bias, before=padding, after=after, **options)
    return Case(node, module, shape)


def transposed(random: np.random.Generator, rank: int, sparse: bool) -> Case:
    groups = int(random.choice([1, 1, 2]))
    into, out = groups * int(random.integers(1, 3)), groups * int(random.integers(1, 3))
    kernel, stride, dilation = sizes(random, rank, 1, 3), sizes(random, rank, 1, 3), sizes(random, rank, 1, 2)
    padding = tuple(
        int(random.integers(0, far * (taps - 1) // 2 + 1)) for far, taps in zip(dilation, kernel, strict=True)
    )
    more = tuple(int(random.integers(0, max(one))) for one in zip(stride, dilation, strict=True))
    kind: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 1]
    module = kind(into, out, kernel, stride, padding, more, groups, dilation=dilation)
    weight, bias = weights(random, module, sparse)
    options: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": groups}
    options |= {"padding": padding, "output_padding": more}
    node = ConvTranspose(name="layer", inputs=("input",), weight=weight, bias=bias, **options)
    return Case(node, module, (into, *sizes(random, rank, 2, 4)))


KINDS: dict[str, Any] = {
    "linear": linear,
    **{f"conv{rank}d": lambda r, s, rank=rank: convolution(r, rank, s) for rank in (1, 2, 3)},
    **{f"transposed{rank}d": lambda r, s, rank=rank: transposed(r, rank, s) for rank in (1, 2, 3)},
}


def counted(node: Any, shape: Shape, alphabet: Alphabet, inputs: Array) -> tuple[Counts, Graph]:
    source = Input(
        name="input", shape=shape, scale=alphabet.scale, low=alphabet.low, high=alphabet.high, static=alphabet.static
    )
    nodes: list[Node] = [source, node]
    if not isinstance(node, Linear):
        nodes.append(Flatten(name="flat", inputs=("layer",)))
    nodes.append(Output(name="output", inputs=(nodes[-1].name,)))
    graph = Graph(nodes=tuple(nodes), timesteps=STEPS, stage=alphabet.stage)
    return count(graph, inputs, batch=int(np.prod(inputs.shape)) % 2 + 1), graph


def samples(random: np.random.Generator, shape: Shape, alphabet: Alphabet) -> Array:
    """Whole numbers with a few zeros more."""
    size = (SAMPLES, *shape) if alphabet.static else (STEPS, SAMPLES, *shape)
    values = random.integers(alphabet.low, alphabet.high + 1, size=size)
    return np.asarray(values * (random.random(size) < 0.7))


@pytest.mark.parametrize("alphabet", ALPHABETS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sparse", [False, True], ids=["full", "sparse"])
def test_one_layer_of_any_geometry_is_counted_exactly(kind: str, alphabet: str, sparse: bool) -> None:
    name = f"{kind} {alphabet} {sparse}"
    random = np.random.default_rng([*name.encode()])
    for _ in range(8):
        case = KINDS[kind](random, sparse)
        check(case, ALPHABETS[alphabet], samples(random, case.shape, ALPHABETS[alphabet]))


def check(case: Case, alphabet: Alphabet, inputs: Array) -> None:
    counts, graph = counted(case.node, case.shape, alphabet, inputs)
    scale = alphabet.scale if alphabet.stage == Stage.FOLDED else 1
    merged = torch.from_numpy((inputs * scale).reshape(-1, *case.shape).astype(np.float64))
    with torch.no_grad():
        expected = case.module.double()(merged).numpy()
    outputs = expected.shape[1:]
    assert graph.shapes["layer"] == outputs
    over_time = expected.reshape(-1, SAMPLES, int(np.prod(outputs)))
    summed = over_time.sum(axis=0) * (STEPS if alphabet.static else 1)
    times = STEPS if alphabet.stage == Stage.FOLDED else 1
    assert_allclose(simulate(graph, inputs).logits * times, summed, rtol=1e-12, atol=1e-9)
    same_counts(counts, case, alphabet, inputs, outputs)


def same_counts(counts: Counts, case: Case, alphabet: Alphabet, inputs: Array, outputs: Shape) -> None:
    layer = counts["layer"]
    assert isinstance(layer, Synapses)
    frames = inputs.reshape(-1, *case.shape)
    met = dict.fromkeys(("synops", "synops_nonzero", "unit", "unit_nonzero", "dense", "dense_nonzero"), 0)
    fan_out = np.zeros(case.shape, dtype=int)
    for into, _, weight in case.reads(outputs):
        heavy = bool(case.node.weight[weight] != 0)
        met["dense"] += 1
        met["dense_nonzero"] += heavy
        fan_out[into] += 1
        for frame in frames:
            if frame[into] != 0:
                met["synops"] += 1
                met["synops_nonzero"] += heavy
                met["unit"] += abs(int(frame[into]))
                met["unit_nonzero"] += abs(int(frame[into])) * heavy
    assert layer.input_kind == alphabet.kind
    assert (layer.synops, layer.synops_nonzero) == (met["synops"], met["synops_nonzero"])
    multiplied = (met["synops"], met["synops_nonzero"]) if alphabet.multiplied else (0, 0)
    assert (layer.event_macs, layer.event_macs_nonzero) == multiplied
    unit = (met["unit"], met["unit_nonzero"]) if alphabet.kind != "picture" else (None, None)
    assert (layer.synops_unit, layer.synops_unit_nonzero) == unit
    assert (layer.dense_macs_inrange, layer.dense_macs_nonzero) == (met["dense"], met["dense_nonzero"])
    assert layer.events_in == sum(1 for one in frames.flat if one)
    assert (layer.fan_out.min, layer.fan_out.max) == (fan_out.min(), fan_out.max())
    assert layer.fan_out.mean == pytest.approx(fan_out.mean())
    assert layer.bias_adds == len(frames) * sum(int(np.prod(outputs[1:])) for one in case.node.bias if one)
    assert_array_equal(counts.events["layer"], (frames != 0).sum(axis=0))
    for what in layer.counted:
        if getattr(layer, what) is not None:
            assert counts.per_sample["layer"][what].sum() == getattr(layer, what)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["avg", "max"])
def test_pools_of_any_rank_are_counted_exactly(rank: int, kind: str) -> None:
    random = np.random.default_rng([rank, *kind.encode()])
    for _ in range(12):
        kernel, stride = sizes(random, rank, 1, 3), sizes(random, rank, 1, 3)
        padding = tuple(int(random.integers(0, one // 2 + 1)) for one in kernel)
        shape = (2, *sizes(random, rank, 3, 6))
        node: Any = (AvgPool if kind == "avg" else MaxPool)(
            name="layer", inputs=("input",), kernel=kernel, stride=stride, padding=padding
        )
        module = getattr(nn, f"{kind.title()}Pool{rank}d")(kernel, stride, padding)
        alphabet = ALPHABETS["scaled" if random.random() < 0.5 else "real"]
        inputs = samples(random, shape, alphabet)
        counts, graph = counted(node, shape, alphabet, inputs)
        expected = module(torch.from_numpy(inputs.reshape(-1, *shape) * alphabet.scale)).numpy()
        met = sum(
            1
            for frame in inputs.reshape(-1, *shape)
            for channel, *at in product(range(2), *map(range, expected.shape[2:]))
            for tap in product(*map(range, kernel))
            if nonzero(frame[channel], [a * s + t - p for a, s, t, p in zip(at, stride, tap, padding, strict=True)])
        )
        layer = counts["layer"]
        assert isinstance(layer, Pools)
        assert (layer.pool_ops, layer.pool_ops_dense) == (met, expected.size * int(np.prod(kernel)))
        assert layer.pool_mode == ("max" if kind == "max" else "graded" if alphabet.scale == 0.25 else "values")
        summed = expected.reshape(STEPS, SAMPLES, -1).mean(axis=0)
        assert_allclose(simulate(graph, inputs).logits, summed, rtol=1e-12, atol=1e-12)


def nonzero(plane: Array, at: list[int]) -> bool:
    return all(0 <= one < size for one, size in zip(at, plane.shape, strict=True)) and bool(plane[tuple(at)])
