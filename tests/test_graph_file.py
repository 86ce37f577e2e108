"""Graphs come back as they were; a damaged or foreign file is one error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import BundleError
from snnkd_deploy.graph_file import FORMAT, load_graphs, save_graphs
from snnkd_deploy.ir import Graph
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target
from tests.networks import ANY, KEEPING, LEAKS, Recipe, random_inputs, random_network


def integer(seed: int = 2) -> Graph:
    graph = random_network(seed, ANY)
    return lower(graph, load_target("onnx"), Calibration(random_inputs(graph, 4))).integer


@pytest.mark.parametrize("recipe", [ANY, LEAKS, KEEPING], ids=["any", "leaks", "keeping"])
@pytest.mark.parametrize("seed", range(12))
def test_graphs_come_back_with_their_digest(seed: int, recipe: Recipe, tmp_path: Path) -> None:
    graph = random_network(seed, recipe)
    save_graphs(tmp_path / "g", {"traced": graph, "integer": integer()})
    back = load_graphs(tmp_path / "g")
    assert back["traced"].digest == graph.digest
    assert back["integer"].digest == integer().digest
    assert back["traced"].name == graph.name
    inputs = random_inputs(graph, 4)
    np.testing.assert_array_equal(simulate(back["traced"], inputs).logits, simulate(graph, inputs).logits)


def test_the_same_graphs_are_the_same_bytes(tmp_path: Path) -> None:
    graphs = {"traced": random_network(1, ANY), "integer": integer()}
    for number in range(16):
        save_graphs(tmp_path / str(number), graphs)
    assert len({(tmp_path / str(number)).read_bytes() for number in range(16)}) == 1


def rewritten(path: Path, **changes: object) -> None:
    """The file again, with parts of the first node that have a field of that name changed."""
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["graphs"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for key, value in changes.items():
        if key in header["a"]:
            header["a"][key] = value
        else:
            next(node for node in header["a"]["nodes"] if key in node)[key] = value
    save_file(tensors, path, {"format": FORMAT, "graphs": json.dumps(header)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "Teleport"}, "is damaged: KeyError"),
        ({"stage": "FINAL"}, "is damaged: KeyError"),
        ({"nodes": 3}, "is damaged: TypeError"),
        ({"timesteps": "many"}, "is damaged: ValueError"),
        ({"decay": "half"}, "decay is not a number"),
        ({"timesteps": 0}, "is not a network: timesteps must be at least 1"),
    ],
)
def test_a_header_that_was_changed_is_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    save_graphs(tmp_path / "g", {"a": integer()})
    rewritten(tmp_path / "g", **changes)
    with pytest.raises(BundleError, match=message):
        load_graphs(tmp_path / "g")


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g"
    with pytest.raises(BundleError, match="cannot read the graphs"):
        load_graphs(path)
    save_graphs(path, {"a": integer()})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BundleError, match="cannot read the graphs"):
        load_graphs(path)
    save_file({"x": np.zeros(1)}, path, {"format": "other"})
    with pytest.raises(BundleError, match="format 'other', this version reads"):
        load_graphs(path)
