"""The shape's ANN: windows come out of kernels only where nothing changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from numpy.testing import assert_array_equal

from snnkd_deploy.counts import collapsed
from snnkd_deploy.ir import (
    Array,
    Conv2d,
    Flatten,
    Graph,
    Linear,
    Node,
    SumPool2d,
)
from snnkd_deploy.simulate import simulate
from tests.networks import random_inputs, seeds
from tests.test_counts import one_layer


@settings(max_examples=200, deadline=None)
@given(seed=seeds)
def test_a_window_is_taken_out_of_a_kernel_only_where_that_changes_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = (2, int(random.integers(4, 9)), int(random.integers(4, 9)))
    rows, columns = (int(one) for one in random.integers(1, 5, size=2))
    weight = np.broadcast_to(random.integers(-1, 2, size=(3, 2, rows, 1)), (3, 2, rows, columns)).copy()
    stride, padding = ((int(a), int(b)) for a, b in random.integers([[1, 1], [0, 0]], 5, size=(2, 2)))
    conv = Conv2d(name="layer", inputs=("input",), weight=weight, bias=np.zeros(3, int), stride=stride, padding=padding)
    taps = np.repeat(random.integers(0, 2, size=(3, 2, shape[1], -(-shape[2] // 3))), 3, axis=3)[..., : shape[2]]
    flat = Flatten(name="flat", inputs=("input",))
    linear = Linear(name="layer", inputs=("flat",), weight=taps.reshape(3, -1), bias=np.zeros(3, int))
    for graph in (one_layer(conv, shape), one_layer(linear, shape, flat)):
        same_behind_its_pool(graph, shape, random_inputs(graph, 2, seed))


def same_behind_its_pool(graph: Graph, shape: tuple[int, ...], inputs: Array) -> None:
    node = graph["layer"]
    assert isinstance(node, Conv2d | Linear)
    found = collapsed(node, graph)
    pool = SumPool2d(name="pool", inputs=("input",), kernel=found.window, stride=found.window)
    flat = Flatten(name="flat", inputs=("pool",))
    before: tuple[Node, ...] = (pool, flat) if isinstance(node, Linear) else (pool,)
    small = one_layer(replace(found.node, inputs=(before[-1].name,)), shape, *before)
    assert small.shapes[before[-1].name] == found.shape
    assert_array_equal(simulate(small, inputs).logits, simulate(graph, inputs).logits)
