"""Folding keeps the function, eps included; what cannot be folded is listed."""

from __future__ import annotations

import numpy as np
import pytest

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.ir import Add, AvgPool2d, BatchNorm, Conv2d, Flatten, Graph, Input, Linear, MaxPool2d, Node, Output
from snnkd_deploy.passes.fold_batchnorm import fold, fold_batchnorm
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target
from tests.networks import ANY, random_inputs, random_network

TARGET, NOTHING = load_target("onnx"), Calibration(np.empty(0))


@pytest.mark.parametrize("seed", range(40))
def test_folding_keeps_every_spike(seed: int) -> None:
    graph = random_network(seed, ANY)
    inputs = random_inputs(graph, 6, seed)
    folded = fold_batchnorm(graph, TARGET, NOTHING)
    assert not folded.of(BatchNorm)
    before, after = simulate(graph, inputs), simulate(folded, inputs)
    for name, spikes in before.spikes.items():
        np.testing.assert_array_equal(after.spikes[name], spikes)
    np.testing.assert_allclose(after.logits, before.logits, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("variance", [1e-5, 1e-3, 1.0])
@pytest.mark.parametrize("kind", ["linear", "conv", "grouped"])
def test_eps_is_part_of_the_fold(variance: float, kind: str) -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    groups = 2 if kind == "grouped" else 1
    layer, norm = (
        (torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4))
        if kind == "linear"
        else (torch.nn.Conv2d(6, 4, 3, groups=groups), torch.nn.BatchNorm2d(4))
    )
    norm.running_var.fill_(variance)
    norm.running_mean.copy_(torch.tensor(random.normal(size=4)))
    values = {"weight": layer.weight, "bias": layer.bias}
    arrays = {name: value.detach().double().numpy() for name, value in values.items()}
    statistics = {"mean": norm.running_mean, "variance": norm.running_var, "gamma": norm.weight, "beta": norm.bias}
    described = {name: value.detach().double().numpy() for name, value in statistics.items()}
    node = (
        Linear(name="w", inputs=("x",), **arrays)
        if kind == "linear"
        else Conv2d(name="w", inputs=("x",), groups=groups, **arrays)
    )
    folded = fold(node, BatchNorm(name="n", inputs=("w",), eps=norm.eps, **described))
    x = torch.randn(5, 6, *([] if kind == "linear" else [4, 4])).double()
    expected = norm.double().eval()(layer.double()(x)).detach().numpy()
    weight, bias = torch.tensor(folded.weight), torch.tensor(folded.bias)
    functional = torch.nn.functional
    met = functional.linear(x, weight, bias) if kind == "linear" else functional.conv2d(x, weight, bias, groups=groups)
    np.testing.assert_allclose(met.numpy(), expected, rtol=1e-10, atol=1e-9)


def norm(name: str, source: str, channels: int, seed: int, shift: bool = True, falling: bool = True) -> BatchNorm:
    random = np.random.default_rng(seed)
    gamma = random.normal(size=channels)
    return BatchNorm(
        name=name,
        inputs=(source,),
        mean=random.normal(size=channels) * shift,
        variance=random.uniform(1e-8, 2, size=channels),
        gamma=gamma if falling else np.abs(gamma),
        beta=random.normal(size=channels) * shift,
        eps=1e-5,
    )


def conv(name: str, source: str, padding: int = 0, groups: int = 1, into: int = 4) -> Conv2d:
    weight = np.random.default_rng(len(name)).normal(size=(4, into // groups, 3, 3))
    bias = np.random.default_rng(1).normal(size=4)
    return Conv2d(name=name, inputs=(source,), weight=weight, bias=bias, padding=(padding, padding), groups=groups)


def pool(kind: type[AvgPool2d] | type[MaxPool2d], source: str) -> Node:
    return kind(name="p", inputs=(source,), kernel=(2, 2), stride=(2, 2))


def end(source: str, side: int, channels: int = 4) -> tuple[Node, ...]:
    weight = np.random.default_rng(3).normal(size=(3, channels * side * side))
    return (
        Flatten(name="f", inputs=(source,)),
        Linear(name="l", inputs=("f",), weight=weight, bias=np.zeros(3)),
        Output(name="y", inputs=("l",)),
    )


X = Input(name="x", shape=(4, 8, 8), scale=1 / 255)
PLACES: dict[str, tuple[tuple[Node, ...], int]] = {
    "in front of a conv": ((X, norm("n", "x", 4, 0), conv("c", "n"), *end("c", 6)), 0),
    "in front of a grouped conv": ((X, norm("n", "x", 4, 0), conv("c", "n", groups=2), *end("c", 6)), 0),
    "in front of a padded conv, no shift": ((X, norm("n", "x", 4, 0, shift=False), conv("c", "n", 1), *end("c", 8)), 0),
    "in front of a padded conv": ((X, norm("n", "x", 4, 0), conv("c", "n", 1), *end("c", 8)), 1),
    "in front of a dense layer": ((X, norm("n", "x", 4, 0), *end("n", 8)), 0),
    "behind an average pool": ((X, conv("c", "x"), pool(AvgPool2d, "c"), norm("n", "p", 4, 0), *end("n", 3)), 0),
    "behind a max pool": ((X, conv("c", "x"), pool(MaxPool2d, "c"), norm("n", "p", 4, 0), *end("n", 3)), 0),
    "before a max pool, rising": ((X, norm("n", "x", 4, 0, falling=False), pool(MaxPool2d, "n"), *end("p", 4)), 0),
    "before a max pool": ((X, norm("n", "x", 4, 0), pool(MaxPool2d, "n"), *end("p", 4)), 1),
    "behind a norm": ((X, conv("c", "x"), norm("n", "c", 4, 0), norm("m", "n", 4, 1), *end("m", 6)), 0),
    "behind a sum": (
        (X, conv("c", "x"), conv("d", "x"), Add(name="a", inputs=("c", "d")), norm("n", "a", 4, 0), *end("n", 6)),
        0,
    ),
    "behind a sum with the picture": (
        (X, conv("c", "x", 1), Add(name="a", inputs=("x", "c")), norm("n", "a", 4, 0), *end("n", 8)),
        1,
    ),
    "behind what two read": (
        (X, conv("c", "x"), norm("n", "c", 4, 0), Add(name="a", inputs=("c", "n")), *end("a", 6)),
        1,
    ),
    "behind a dense layer": (
        (
            Input(name="x", shape=(5,)),
            Linear(name="l", inputs=("x",), weight=np.ones((4, 5)), bias=np.ones(4)),
            norm("n", "l", 4, 0),
            Output(name="y", inputs=("n",)),
        ),
        0,
    ),
    "between input and output": (
        (Input(name="x", shape=(4,)), norm("n", "x", 4, 0), Output(name="y", inputs=("n",))),
        1,
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_folding_is_exact_in_every_place(place: str) -> None:
    """`added`: layers that had to be made because none could take the norm."""
    nodes, added = PLACES[place]
    graph = Graph(nodes=nodes, timesteps=1)
    folded = fold_batchnorm(graph, TARGET, NOTHING)
    assert not folded.of(BatchNorm)
    assert len(folded.of(Linear, Conv2d)) - len(graph.of(Linear, Conv2d)) == added
    inputs = random_inputs(graph, 5)
    np.testing.assert_allclose(simulate(folded, inputs).logits, simulate(graph, inputs).logits, rtol=1e-9, atol=1e-9)
