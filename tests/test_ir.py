"""Shapes, wiring and the digest."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from snnkd_deploy.ir import Attention, Conv2d, Flatten, Graph, Input, Linear, Neuron, Output, Stage, ancestors
from tests.networks import ANY, pair, random_network


def tiny() -> Graph:
    ones = np.ones((2, 3), dtype=np.int64)
    nodes = (
        Input(name="x", shape=(3,)),
        Linear(name="w", inputs=("x",), weight=ones, bias=np.zeros(2, dtype=np.int64)),
        Neuron(name="s", inputs=("w",), decay=0.5, threshold=np.asarray(3), decay_bits=12, fraction_bits=6),
        Linear(name="r", inputs=("s",), weight=ones[:, :2], bias=np.zeros(2, dtype=np.int64)),
        Output(name="y", inputs=("r",)),
    )
    return Graph(nodes=nodes, timesteps=4, stage=Stage.INTEGER)


def test_nodes_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        tiny()["s"].name = "other"  # type: ignore[misc]


def test_the_digest_sees_every_number_and_nothing_else() -> None:
    graph = tiny()
    weight = graph["w"]
    assert isinstance(weight, Linear)
    changed = weight.weight.copy()
    changed[1, 2] += 1
    others = [
        replace(weight, weight=changed),
        replace(weight, bias=np.array([0, 1])),
        replace(weight, weight=weight.weight.astype(np.float64)),
    ]
    digests = {replace(graph, nodes=(graph.nodes[0], one, *graph.nodes[2:])).digest for one in others}
    digests |= {replace(graph, timesteps=5).digest, graph.digest}
    assert len(digests) == 5
    narrow = replace(weight, weight=weight.weight.astype(np.int8))
    same = replace(graph, nodes=(graph.nodes[0], narrow, *graph.nodes[2:]), name="another name")
    assert same.digest == graph.digest


def test_a_current_that_is_kept_is_part_of_the_digest() -> None:
    graph = tiny()
    digests = set()
    for decay in (0.0, 0.5, np.array([0.5, 0.0]), np.zeros(2)):
        neuron = replace(graph.of(Neuron)[0], current_decay=decay)
        digests.add(replace(graph, nodes=(*graph.nodes[:2], neuron, *graph.nodes[3:])).digest)
        assert neuron.keeps_current == bool(np.any(decay))
    assert len(digests) == 3
    assert graph.digest in digests


def test_a_network_of_an_earlier_version_keeps_its_digest() -> None:
    assert tiny().digest == "fe448dd82ebc3322539037a7fed655590ac30839ed6654b8ae7a91b0efe2f20a"


@pytest.mark.parametrize(
    ("decay", "numerators", "bits"),
    [(0.5, 1, 1), (1.0, 1, 0), (0.0, 0, 0), ([1.0, 0.75], [4, 3], 2), ([0.0, 0.5], [0, 1], 1), ([1.0, 0.0], [1, 0], 0)],
)
def test_decays_of_a_layer_in_lowest_terms(decay: float | list[float], numerators: object, bits: int) -> None:
    one = replace(tiny().of(Neuron)[0], decay=np.array(decay) if isinstance(decay, list) else decay)
    assert (one.leak[0].tolist(), one.leak[1]) == (numerators, bits)
    other = replace(tiny().of(Neuron)[0], current_decay=one.decay)
    assert (other.current_leak[0].tolist(), other.current_leak[1]) == (numerators, bits)


def test_shapes_follow_torch() -> None:
    torch = pytest.importorskip("torch")
    for seed in range(40):
        random = np.random.default_rng(seed)
        kernel, stride, padding, dilation = (pair(random.integers(low, 4, 2)) for low in (1, 1, 0, 1))
        shape = (2, *(int(n) for n in random.integers(8, 12, 2)))
        weight = np.zeros((4, 2, *kernel))
        node = Conv2d(
            name="c", inputs=("x",), weight=weight, bias=np.zeros(4), stride=stride, padding=padding, dilation=dilation
        )
        graph = Graph(nodes=(Input(name="x", shape=shape), node), timesteps=1)
        out = torch.nn.functional.conv2d(
            torch.zeros(1, *shape), torch.tensor(weight).float(), None, stride, padding, dilation
        )
        assert graph.shapes["c"] == tuple(out.shape[1:])


def test_shapes_that_do_not_fit_are_named() -> None:
    graph = tiny()
    wrong = replace(graph, nodes=(Input(name="x", shape=(4,)), *graph.nodes[1:]))
    with pytest.raises(ValueError, match=r"w takes 3 features, met shape \(4,\)"):
        _ = wrong.shapes


@pytest.mark.parametrize(
    ("inputs", "heads", "message"),
    [
        (("x", "x"), 1, "takes three pictures q, k and v of one shape"),
        (("x", "x", "f"), 1, r"met \(4, 2, 2\), \(4, 2, 2\), \(16,\)"),
        (("x", "x", "x"), 3, "4 channels do not divide into 3 heads"),
        (("x", "x", "x"), 0, "4 channels do not divide into 0 heads"),
    ],
)
def test_attentions_that_do_not_fit_are_named(inputs: tuple[str, ...], heads: int, message: str) -> None:
    nodes = (
        Input(name="x", shape=(4, 2, 2)),
        Flatten(name="f", inputs=("x",)),
        Attention(name="a", inputs=inputs, heads=heads),
    )
    with pytest.raises(ValueError, match=message):
        _ = Graph(nodes=nodes, timesteps=1).shapes


def test_static_ends_at_the_first_neuron() -> None:
    assert tiny().static == {"x", "w"}
    moving = Graph(
        nodes=(Input(name="x", shape=(2, 2, 2), static=False), Flatten(name="f", inputs=("x",))), timesteps=1
    )
    assert moving.static == frozenset()


def test_ancestors_reach_back_to_the_input() -> None:
    assert ancestors(tiny(), "r") == {"s", "w", "x"}
    graph = random_network(3, ANY)
    assert ancestors(graph, graph.output.name) == {node.name for node in graph} - {graph.output.name}
