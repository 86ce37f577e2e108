"""Two networks that differ in one place, and what is said of it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.comparison import differences
from snnkd_deploy.compiler import lower
from snnkd_deploy.ir import Graph, Linear, Neuron, Output
from snnkd_deploy.target import load_target
from tests.networks import CHAIN, random_inputs, random_network


def integer() -> Graph:
    graph = random_network(3, CHAIN)
    return lower(graph, load_target("onnx"), Calibration(random_inputs(graph, 4))).integer


def changed(graph: Graph, kind: type[Any], **fields: Any) -> Graph:
    """With other fields in the last node of a kind; a function is given the old value."""
    last = graph.of(kind)[-1]
    values = {key: value(getattr(last, key)) if callable(value) else value for key, value in fields.items()}
    return replace(graph, nodes=tuple(replace(node, **values) if node is last else node for node in graph))


def test_the_same_network_has_no_differences() -> None:
    assert differences(integer(), replace(integer(), name="other", origin="elsewhere")) == []


def test_the_first_differing_value_is_named_with_its_place() -> None:
    graph = integer()
    layer = graph.of(Linear)[-1]

    def bump(weight: Any) -> Any:
        return weight + np.where(np.arange(weight.size).reshape(weight.shape) >= weight.size - 2, 5, 0)

    columns = layer.weight.shape[1]
    assert columns > 1
    row, old = len(layer.weight) - 1, layer.weight[-1, columns - 2]
    assert differences(graph, changed(graph, Linear, weight=bump)) == [
        f"{layer.name}.weight[{row}, {columns - 2}]: {old} against {old + 5} (2 of {layer.weight.size} differ)"
    ]


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        (Neuron, {"reset": "subtract"}, "reset: zero against subtract"),
        (Neuron, {"threshold": lambda old: old + 1}, r" against \d+ \(1 of 1 differ\)"),
        (Linear, {"bias": lambda old: old[:1]}, r"bias: shape \(\d,\) against \(1,\)"),
        (Linear, {"unit": None}, "unit: only in one of them|unit: None against"),
        (Output, {"unit": 2.5}, "unit: .* against 2.5"),
    ],
)
def test_each_setting_and_shape_is_compared(kind: type[Any], fields: dict[str, Any], expected: str) -> None:
    graph = integer()
    found = differences(graph, changed(graph, kind, **fields))
    assert found
    assert re.search(expected, found[0]), found


def test_other_structures_are_compared_up_to_the_first_other_node() -> None:
    graph = integer()
    shorter = replace(graph, nodes=graph.nodes[:-1], timesteps=graph.timesteps + 1)
    renamed = replace(graph, nodes=(*graph.nodes[:-2], replace(graph.nodes[-2], name="else"), graph.nodes[-1]))
    last = graph.nodes[-2]
    assert differences(graph, shorter) == [
        f"timesteps: {graph.timesteps} against {graph.timesteps + 1}",
        f"the structure: {len(graph.nodes)} nodes against {len(graph.nodes) - 1}",
    ]
    what = f"{type(last).__name__} {last.name} of {last.inputs[0]}"
    assert differences(graph, renamed) == [
        f"the structure from here on: {what} against {type(last).__name__} else of {last.inputs[0]}"
    ]
