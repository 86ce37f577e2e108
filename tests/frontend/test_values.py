"""The steps of a loop are folded into one: same operation, same inputs, same node."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from snnkd_deploy.frontend.values import At, Sketch, step_of
from snnkd_deploy.ir import Add, Input, Linear, Relu
from snnkd_deploy.trace import Refusal


def sketch() -> Sketch:
    return Sketch(Input(name="input", shape=(3,)), 2)


def relu(known: Sketch, value: At) -> At:
    return known.apply(("relu",), "relu", "here", lambda: Relu(name="", inputs=()), [value])


def test_the_same_operation_at_another_step_is_the_same_node() -> None:
    known = sketch()
    first, second = (relu(known, At("input", step)) for step in (0, 1))
    assert (first.node, second.node) == ("relu", "relu")
    assert (first.step, second.step) == (0, 1)
    assert relu(known, first).node == "relu.2"


def test_values_of_different_steps_do_not_mix() -> None:
    assert step_of([At("input"), At("input", 3)]) == 3
    with pytest.raises(Refusal, match="takes values of steps 0, 1 together"):
        step_of([At("input", 0), At("input", 1)])


def test_a_membrane_is_no_value_to_compute_with() -> None:
    with pytest.raises(Refusal, match="only spikes leave a neuron"):
        relu(sketch(), At("input", 0, state="membrane"))


def test_a_refusal_takes_the_place_of_the_value() -> None:
    known = sketch()
    found = known.refuse(("sin",), "sin (net.py:3)", "no node", [At("input", 1)], (3,))
    assert found.step == 1
    assert known.refused
    assert known.refuse(("sin",), "sin (net.py:3)", "no node", [At("input", 0)], (3,)).node == found.node


def test_a_graph_holds_what_the_result_depends_on() -> None:
    known = sketch()
    used, unused = relu(known, At("input", 0)), relu(known, relu(known, At("input", 0)))
    graph = known.graph(used.node, "net")
    assert [node.name for node in graph] == ["input", "relu", "output"]
    assert unused.node not in graph


def test_what_does_not_fit_is_refused() -> None:
    known = sketch()
    layer = Linear(name="", inputs=(), weight=np.ones((2, 5)), bias=np.zeros(2))
    with pytest.raises(Refusal, match="takes 5 features"):
        known.apply(("fc",), "fc", "fc", lambda: layer, [At("input")])
    narrow = known.apply(
        ("n",), "n", "n", lambda: Linear(name="", inputs=(), weight=np.ones((2, 3)), bias=np.zeros(2)), [At("input")]
    )
    with pytest.raises(Refusal, match="adds different shapes"):
        known.apply(("add",), "add", "add", lambda: Add(name="", inputs=()), [At("input"), narrow])


def test_a_tensor_stands_for_its_value_as_long_as_it_is_known() -> None:
    known, tensor = sketch(), torch.zeros(2)
    known.note(tensor, At("input"))
    assert known.of(tensor) == At("input")
    assert known.of(torch.zeros(2)) is None
