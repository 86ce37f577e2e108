"""A NIR file means its equations: ours come back as they were, others spike as forward Euler says."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import ConfigError, InputError, LegalityError, TraceError
from snnkd_deploy.frontend.nir import read, timesteps_in
from snnkd_deploy.ir import Array, Input, Neuron, Stage
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target
from tests.networks import Recipe, random_inputs, random_network

DT = 1e-4
SOURCE = Input(name="input", shape=(3,), scale=1 / 255)
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.integers(0, 256, size=(20, 3))
EXACT = Recipe(decays=(1.0, 0.5), residual=True, timesteps=(1, 4))


LEAKS = Recipe(decays=(0.75, 0.5), residual=True, timesteps=(1, 4), decays_per_channel=True)
KEEPING = replace(LEAKS, current_decays=(0.5, 0.25))


@pytest.mark.parametrize("recipe", [EXACT, LEAKS, KEEPING], ids=["exact", "leaks", "keeping"])
@pytest.mark.parametrize("seed", range(12))
def test_our_own_file_comes_back_with_the_same_integer_spikes(seed: int, recipe: Recipe, tmp_path: Path) -> None:
    graph = random_network(seed, recipe)
    inputs, target = random_inputs(graph, 6, seed), load_target("nir")
    try:
        written = lower(graph, target, Calibration(inputs))
        load_exporter("nir").write(written.legal, target, tmp_path / "n.nir")
    except LegalityError:
        return
    found = read(tmp_path / "n.nir", graph.input).graph
    assert found.stage == Stage.INTEGER
    assert timesteps_in(tmp_path / "n.nir") == graph.timesteps
    again = lower(found, load_target("onnx"), Calibration(inputs))
    expected, met = simulate(written.integer, inputs), simulate(again.legal, inputs)
    assert list(met.spikes) == list(expected.spikes)
    for name, spikes in expected.spikes.items():
        np.testing.assert_array_equal(met.spikes[name], spikes)
    np.testing.assert_array_equal(met.logits, expected.logits)


def neuron(kind: str, size: int = 4, **changes: Any) -> Any:
    ones = np.ones(size)
    values: dict[str, Any] = {"r": 2 * ones, "v_threshold": 0.8 * ones, "v_reset": 0 * ones}
    if kind == "LIF":
        values |= {"tau": 5 * DT * ones, "v_leak": 0.1 * ones, "r": 3 * np.arange(1, size + 1)}
    elif kind == "CubaLIF":
        values |= {"tau_mem": 5 * DT * ones, "tau_syn": 3 * DT * ones, "v_leak": 0 * ones, "w_in": 1.5 * ones}
    else:
        values["r"] = ones / DT
    return getattr(nir, kind)(**{**values, **changes})


def written(path: Path, *middle: Any, shape: tuple[int, ...] = (3,), edges: Any = None) -> Path:
    """Input, a dense layer, these nodes, an output, in a row."""
    affine = nir.Affine(weight=np.random.default_rng(1).normal(size=(4, 3)) + 0.3, bias=np.full(4, 0.1))
    nodes: dict[str, Any] = {"in": nir.Input(np.array(shape)), "fc": affine}
    nodes |= {f"n{index}": one for index, one in enumerate(middle)}
    nodes["out"] = nir.Output(np.array([4]))
    names = list(nodes)
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=edges or list(pairwise(names)), type_check=False))
    return path


def euler(node: Any, current: Array, steps: int, subtracting: bool) -> Array:
    """NIR's equation with steps of dt, as its documentation has it."""
    v, kept, spikes = np.zeros(current.shape), np.zeros(current.shape), []
    for _ in range(steps):
        if isinstance(node, nir.CubaLIF):
            kept = kept + DT * (node.w_in * current - kept) / node.tau_syn
            slope = (node.v_leak - v + node.r * kept) / node.tau_mem
        else:
            slope = (node.v_leak - v + node.r * current) / node.tau if isinstance(node, nir.LIF) else node.r * current
        v = v + DT * slope
        fires = v > node.v_threshold
        v = np.where(fires, v - node.v_threshold if subtracting else 0.0, v)
        spikes.append(fires)
    return np.stack(spikes)


@pytest.mark.parametrize(
    "node",
    [
        neuron("LIF"),
        neuron("IF"),
        neuron("LIF", tau=np.arange(3, 7) * DT),
        neuron("CubaLIF"),
        neuron("CubaLIF", tau_syn=np.arange(3, 7) * DT, w_in=np.arange(1, 5) / 2),
    ],
)
@pytest.mark.parametrize("subtracting", [False, True])
def test_another_file_spikes_as_its_equation(node: Any, subtracting: bool, tmp_path: Path) -> None:
    path = written(tmp_path / "n.nir", node)
    if subtracting:
        with h5py.File(path, "a") as file:
            del file["node/nodes/n0/v_reset"]
    found = read(path, SOURCE, 6)
    affine = nir.read(path).nodes["fc"]
    current = (INPUTS / 255) @ affine.weight.T + affine.bias
    expected = euler(node, current, 6, subtracting)
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(simulate(found.graph, INPUTS).spikes["n0"], expected)
    assert ("1.0.5" if subtracting else "1.0.6") in found.notes[0]
    assert f"steps of {DT:g} s" in found.notes[0]


def test_edges_that_meet_are_a_sum_and_scales_are_folded(tmp_path: Path) -> None:
    edges = [("in", "fc"), ("fc", "n0"), ("n0", "n1"), ("n0", "n2"), ("n1", "out"), ("n2", "out")]
    path = written(
        tmp_path / "n.nir", neuron("IF"), nir.Scale(np.full(4, 2.0)), nir.Linear(weight=np.eye(4)), edges=edges
    )
    graph = read(path, SOURCE, 3).graph
    record = simulate(graph, INPUTS)
    np.testing.assert_allclose(record.logits, 3 * record.spikes["n0"].mean(axis=0))


def test_a_threshold_is_a_neuron_without_memory(tmp_path: Path) -> None:
    graph = read(written(tmp_path / "n.nir", nir.Threshold(np.full(4, 0.5))), SOURCE, 2).graph
    assert [node.decay for node in graph.of(Neuron)] == [0.0]


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (neuron("LIF", tau=np.full(4, DT / 2)), "n0: tau is shorter than the step of 0.0001 s; choose a smaller dt"),
        (neuron("LIF", v_reset=np.full(4, 0.2)), "n0: v_reset is not 0; shift"),
        (neuron("IF", v_threshold=np.zeros(4)), "n0: v_threshold 0: it fires at rest"),
        (nir.I(np.ones(4)), "n0: I has no node here; known are Affine"),
        (neuron("CubaLIF", v_leak=np.full(4, 0.1)), "n0: v_leak is not 0, beside a current that is kept"),
        (neuron("CubaLIF", tau_syn=np.full(4, DT / 2)), "n0: tau_syn is shorter than the step"),
        (nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([1, 1])), r"n0: padding \(1, 1\)"),
    ],
)
def test_what_has_no_node_is_refused_by_name(node: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=reason):
        read(written(tmp_path / "n.nir", node), SOURCE, 3)


def test_a_loop_is_refused(tmp_path: Path) -> None:
    edges = [("in", "fc"), ("fc", "n0"), ("n0", "n1"), ("n1", "n0"), ("n0", "out")]
    path = written(tmp_path / "n.nir", neuron("IF"), nir.Linear(weight=np.eye(4)), edges=edges)
    with pytest.raises(TraceError, match="a loop; recurrent connections have no node"):
        read(path, SOURCE, 3)


def test_a_file_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    path = written(tmp_path / "n.nir", neuron("IF"))
    with pytest.raises(ConfigError, match="does not say how many steps"):
        read(path, SOURCE)
    with pytest.raises(InputError, match=r"takes samples of shape \(3,\), met \(5,\)"):
        read(path, Input(name="input", shape=(5,)), 3)
    (tmp_path / "noise.nir").write_bytes(b"noise")
    with pytest.raises(InputError, match="is not a NIR file"):
        read(tmp_path / "noise.nir", SOURCE, 3)
    with pytest.raises(InputError, match="no NIR file"):
        read(tmp_path / "none.nir", SOURCE, 3)


def test_a_file_of_two_dialects_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "n.nir", neuron("IF"), nir.Linear(weight=np.eye(4)), neuron("IF"))
    with h5py.File(path, "a") as file:
        del file["node/nodes/n2/v_reset"]
    with pytest.raises(InputError, match="n2 without v_reset, other neurons with it"):
        read(path, SOURCE, 3)
