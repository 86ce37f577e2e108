"""A pool moves into the next kernel without moving a spike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.errors import LegalityError
from snnkd_deploy.ir import Conv2d, Flatten, Graph, Input, Linear, Neuron, Output, Shape, Stage, SumPool2d
from snnkd_deploy.passes.fold_pooling import fold_pooling
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target

LOIHI, NOTHING = load_target("loihi"), Calibration(np.empty(0))


def pooled(
    seed: int, shape: Shape, window: tuple[int, int], conv: bool = True, padding: int = 1, dilation: int = 1
) -> Graph:
    """Neurons on the input, a sum pool, then a convolution or a dense layer with neurons, then the readout."""
    random = np.random.default_rng(seed)
    channels = shape[0]
    identity = np.ones((channels, 1, 1, 1), dtype=np.int64)
    neuron = Neuron(name="s0", inputs=("w0",), decay=0.5, threshold=np.asarray(2), decay_bits=12, fraction_bits=6)
    nodes = [
        Input(name="x", shape=shape, static=False, high=4),
        Conv2d(name="w0", inputs=("x",), weight=identity, bias=np.zeros(channels, dtype=np.int64), groups=channels),
        neuron,
        SumPool2d(name="p", inputs=("s0",), kernel=window, stride=window),
    ]
    side = Graph(nodes=tuple(nodes), timesteps=3, stage=Stage.INTEGER).shapes["p"]
    if conv:
        weight = random.integers(-9, 9, (3, channels, 3, 2))
        layer: Conv2d | Linear = Conv2d(
            name="w1",
            inputs=("p",),
            weight=weight,
            bias=random.integers(-3, 3, 3),
            stride=(2, 1),
            padding=(padding, padding),
            dilation=(dilation, dilation),
        )
        nodes.append(layer)
    else:
        weight = random.integers(-9, 9, (3, int(np.prod(side))))
        nodes.append(Flatten(name="f0", inputs=("p",)))
        nodes.append(Linear(name="w1", inputs=("f0",), weight=weight, bias=random.integers(-3, 3, 3)))
    nodes.append(replace(neuron, name="s1", inputs=("w1",), threshold=np.asarray(7)))
    if conv:
        nodes.append(Flatten(name="f", inputs=("s1",)))
    features = Graph(nodes=tuple(nodes), timesteps=3).shapes[nodes[-1].name][0]
    readout = random.integers(-9, 9, (2, features))
    nodes.append(Linear(name="r", inputs=(nodes[-1].name,), weight=readout, bias=np.zeros(2, dtype=np.int64)))
    nodes.append(Output(name="y", inputs=("r",)))
    return Graph(nodes=tuple(nodes), timesteps=3, stage=Stage.INTEGER)


@pytest.mark.parametrize(
    "graph",
    [
        pooled(0, (2, 8, 8), (2, 2)),
        pooled(1, (2, 12, 8), (3, 2)),
        pooled(2, (1, 12, 12), (2, 2), dilation=2),
        pooled(3, (2, 9, 11), (2, 2), padding=0),
        pooled(4, (2, 8, 8), (2, 2), conv=False),
        pooled(5, (3, 7, 9), (2, 3), conv=False),
    ],
    ids=["even", "asymmetric", "dilated", "cropped", "dense", "dense cropped"],
)
def test_folding_keeps_every_spike(graph: Graph) -> None:
    inputs = np.random.default_rng(0).integers(0, 5, (3, 6, *graph.input.shape))
    folded = fold_pooling(graph, LOIHI, NOTHING)
    assert not folded.of(SumPool2d)
    before, after = simulate(graph, inputs), simulate(folded, inputs)
    assert before.spikes["s1"].any()
    for name, spikes in before.spikes.items():
        np.testing.assert_array_equal(after.spikes[name], spikes)
    np.testing.assert_array_equal(after.logits, before.logits)


def test_a_target_with_pools_keeps_them() -> None:
    graph = pooled(0, (2, 8, 8), (2, 2))
    assert fold_pooling(graph, load_target("onnx"), NOTHING) is graph


def test_what_cannot_be_folded_is_refused_with_its_reason() -> None:
    cropped_and_padded = pooled(3, (2, 9, 11), (2, 2), padding=1)
    with pytest.raises(LegalityError, match=r"p: w1 \(Conv2d\) behind it, on \(2, 9, 11\); pool sides that"):
        fold_pooling(cropped_and_padded, LOIHI, NOTHING)
    graph = pooled(0, (2, 8, 8), (2, 2))
    behind = (replace(graph["s0"], name="s1", inputs=("p",)), replace(graph.output, inputs=("s1",)))
    currents = [*(graph[name] for name in ("x", "w0", "s0", "p")), *behind]
    with pytest.raises(LegalityError, match=r"s1 \(Neuron\) behind it, on .*; pool behind s1, its spikes in place of"):
        fold_pooling(replace(graph, nodes=tuple(currents)), LOIHI, NOTHING)
    overlapping = [replace(node, stride=(1, 1)) if isinstance(node, SumPool2d) else node for node in graph]
    with pytest.raises(LegalityError, match=r"window \(2, 2\) moves by \(1, 1\)"):
        fold_pooling(replace(graph, nodes=tuple(overlapping)), LOIHI, NOTHING)
