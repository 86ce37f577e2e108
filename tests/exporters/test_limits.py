"""Each exporter's own limits: what is at one is written, one beyond is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snnkd_deploy.check import target_problems
from snnkd_deploy.errors import LegalityError
from snnkd_deploy.exporters import netx
from snnkd_deploy.ir import Graph, Input
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.target import load_target
from tests.exporters.netx_graphs import LOIHI2, biased, chain, changed, linear, neuron, pictures


def readout(bias: int, high: int = 1) -> Graph:
    """One neuron, whose readout reaches `bias` + 1 in its only step, on inputs up to `high`."""
    last = replace(linear("r", "s", [[1]]), bias=np.array([bias]))
    first = replace(linear("w", "x", [[1]]), bias=np.array([0]))
    source = Input(name="x", shape=(1,), high=high)
    return chain(first, neuron("s", "w", 1, decay=1.0), last, source=source, timesteps=1)


@pytest.mark.parametrize(
    ("exporter", "largest"),
    [
        ("c", (2**31 - 2) // 3),  # sums are checked with room for twice the bias: 3 * bias + 1 = 2**31 - 1
        ("native", 2**31 - 2),
        ("onnx", 2**31 - 2),
        ("nir", 2**24 - 2),
        ("snntorch", (2**24 - 1) // 3),  # the same room, in float32
    ],
)
def test_sums_end_where_the_runtime_s_numbers_do(exporter: str, largest: int, tmp_path: Path) -> None:
    module, target = load_exporter(exporter), load_target(exporter)
    module.write(readout(largest), target, tmp_path / f"network{module.suffix}")
    with pytest.raises(LegalityError):
        module.write(readout(largest + 1), target, tmp_path / "beyond")
    assert not (tmp_path / "beyond").exists()


@pytest.mark.parametrize(("weight", "fits"), [(127, True), (-127, True), (128, False)])
def test_weights_of_onnx_end_at_int8(weight: int, fits: bool, tmp_path: Path) -> None:
    graph = changed(readout(0), "w", weight=np.array([[weight]]))
    assert written("onnx", graph, tmp_path) is fits


@pytest.mark.parametrize(("high", "bias", "fits"), [(255, 2**24, True), (256, 0, True), (256, 2**24, False)])
def test_onnx_has_integer_operators_for_8_bits_and_float32_for_small_sums(
    high: int, bias: int, fits: bool, tmp_path: Path
) -> None:
    graph = changed(readout(0, high), "w", bias=np.array([bias]))
    assert written("onnx", graph, tmp_path) is fits


def written(name: str, graph: Graph, folder: Path) -> bool:
    module = load_exporter(name)
    try:
        module.write(graph, load_target(name), folder / f"network{module.suffix}")
    except LegalityError:
        return False
    return True


SOUND = pictures()
CONSTANT = biased(SOUND, "conv1", 5000, 0, 0, 0)


@pytest.mark.parametrize(
    ("node", "field", "last", "beyond"),
    [
        ("conv2", "weight", np.full((6, 2, 2, 1), 127), np.full((6, 2, 2, 1), 128)),
        ("conv2", "weight", np.full((6, 2, 2, 1), -127), np.full((6, 2, 2, 1), -128)),
        ("readout", "bias", np.array([0, 0, 4095]), np.array([0, 0, 4096])),
        ("readout", "bias", np.array([0, 0, -4095]), np.array([0, 0, -4096])),
        ("conv1", "padding", (127, 0), (128, 0)),
        ("conv1", "stride", (1, 127), (1, 128)),
        ("conv1", "dilation", (127, 1), (128, 1)),
        ("lif1", "threshold", np.array(131071), np.array(131072)),
        ("lif1", "threshold", np.array(1), np.array(0)),
        ("lif1", "decay", 1 / 4096, 0.0),
        ("lif1", "decay", 1.0, 4097 / 4096),
        ("lif1", "decay", 4095 / 4096, 8191 / 8192),
        ("lif1", "fraction_bits", 6, 7),
        ("input", "high", 255, 256),
        ("input", "low", 0, -1),
        ("input", "constant", np.full((1, 5, 4), 255), np.full((1, 5, 4), 256)),
        ("input", "constant", np.full((1, 5, 4), 0), np.full((1, 5, 4), -1)),
    ],
)
def test_netx_takes_what_is_at_its_limits_and_nothing_beyond(node: str, field: str, last: Any, beyond: Any) -> None:
    graph = CONSTANT if field == "constant" else SOUND
    assert list(netx.refusals(changed(graph, node, **{field: last}), LOIHI2)) == []
    (reason,) = netx.refusals(changed(graph, node, **{field: beyond}), LOIHI2)
    assert reason.startswith(f"{node}: ")


def test_constants_are_refused_by_targets_that_do_not_name_them() -> None:
    other = replace(LOIHI2, nodes=tuple(name for name in LOIHI2.nodes if name != "BiasedInput"))
    assert not [text for text in target_problems(CONSTANT, LOIHI2) if text.startswith("input")]
    (reason,) = target_problems(CONSTANT, other)
    assert reason.startswith("input: no BiasedInput on this target")
