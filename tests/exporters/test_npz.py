"""The plain tensors, run by the interpreter that lies beside them, against the simulator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snnkd_deploy.bundle import Bundle
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.data import load
from snnkd_deploy.errors import BundleError, LegalityError
from snnkd_deploy.export import ExportOptions, export, verify
from snnkd_deploy.ir import Array, Graph, Neuron, Node
from snnkd_deploy.proof import first_difference
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.run import Run
from snnkd_deploy.simulate import kept_currents, predictions, simulate
from snnkd_deploy.target import load_target
from tests.networks import EVERY_RESET, KEEPING, LEAKS, Recipe, random_inputs, random_network

TARGET, EXPORTER = load_target("npz"), load_exporter("npz")
RUN = EXPORTER.proofs[0].run


def compiled(seed: int, recipe: Recipe = EVERY_RESET) -> Graph:
    graph = random_network(seed, recipe)
    granularity = "channel" if seed % 2 else "layer"
    return lower(graph, TARGET, Calibration(random_inputs(graph, 8, seed), granularity=granularity)).legal  # type: ignore[arg-type]


def contents(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays.pop("manifest").tobytes()), arrays


@pytest.mark.parametrize("recipe", [EVERY_RESET, LEAKS, KEEPING], ids=["any", "leaks", "keeping"])
def test_the_file_alone_spikes_as_the_simulator(recipe: Recipe, tmp_path: Path) -> None:
    met: set[str] = set()
    for seed in range(40):
        try:
            legal = compiled(seed, recipe)
        except LegalityError:
            continue
        loader = EXPORTER.write(legal, TARGET, tmp_path / "network.npz")
        inputs = random_inputs(legal, 5, seed)
        assert first_difference(legal, simulate(legal, inputs), RUN(tmp_path / "network.npz", inputs, loader)) is None
        manifest, _ = contents(tmp_path / "network.npz")
        assert {node["operation"] for node in manifest["nodes"]} == set(manifest["operations"])
        met |= {*manifest["operations"], *(neuron.reset for neuron in legal.of(Neuron))}
    assert met == {*TARGET.nodes, *EVERY_RESET.resets}


def test_integers_are_stored_in_the_smallest_type_and_described(tmp_path: Path) -> None:
    legal = compiled(6)
    EXPORTER.write(legal, TARGET, tmp_path / "network.npz")
    manifest, arrays = contents(tmp_path / "network.npz")
    assert json.loads((tmp_path / "network.json").read_text()) == manifest
    assert (manifest["digest"], manifest["timesteps"]) == (legal.origin, legal.timesteps)
    described = {one["array"]: one for node in manifest["nodes"] for one in node.get("arrays", {}).values()}
    assert set(described) == set(arrays)
    for name, entry in described.items():
        stored = arrays[name]
        assert (entry["type"], entry["shape"]) == (stored.dtype.name, list(stored.shape))
        assert len(entry["axes"]) == stored.ndim
        assert np.issubdtype(stored.dtype, np.signedinteger)
        assert stored.dtype == np.int8 or np.abs(stored).max() > np.iinfo(f"i{stored.dtype.itemsize // 2}").max
        node, field = name.rsplit("/", 1)
        np.testing.assert_array_equal(stored, getattr(legal[node], field))
    neurons = {node["name"]: node for node in manifest["nodes"] if node["operation"] == "Neuron"}
    for node in legal.of(Neuron):
        keys = ("decay_numerator", "decay_bits", "fraction_bits", "reset")
        assert {key: neurons[node.name][key] for key in keys} == {key: getattr(node, key) for key in keys}


@pytest.mark.parametrize("recipe", [EVERY_RESET, KEEPING], ids=["any", "keeping"])
@pytest.mark.parametrize("seed", [2, 6, 31])
def test_no_value_leaves_its_range(seed: int, recipe: Recipe, tmp_path: Path) -> None:
    legal = compiled(seed, recipe)
    EXPORTER.write(legal, TARGET, tmp_path / "network.npz")
    nodes = {node["name"]: node for node in contents(tmp_path / "network.npz")[0]["nodes"]}
    ranges = {name: node["range"] for name, node in nodes.items()}
    seen: set[str] = set()

    def note(node: Node, arguments: tuple[Array, ...], value: Array) -> None:
        low, high = ranges[node.name]
        assert low <= value.min() <= value.max() <= high, node.name
        if isinstance(node, Neuron) and node.keeps_current:
            low, high = nodes[node.name]["current_range"]
            for kept in kept_currents(node, arguments[0], legal.timesteps):
                assert low <= kept.min() <= kept.max() <= high, node.name
        seen.add(node.name)

    simulate(legal, random_inputs(legal, 50), note)
    assert seen == set(ranges)


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        EXPORTER.write(compiled(2), TARGET, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_bundle_runs_with_numpy_alone(tiny_run: Run, tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = export(tiny_run, "npz", tmp_path / "b", ExportOptions(samples=20))
    assert bundle.digest == tiny_bundle.digest
    assert set(bundle.manifest["files"]) == {"network.npz", "network.json", "run_npz.py", "graphs.safetensors"}
    assert "snnkd_deploy" not in (bundle.path / "run_npz.py").read_text()
    images = load("digits").test.images[:30]
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-I", str(bundle.path / "run_npz.py"), str(tmp_path / "images.npy")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = predictions(bundle.graphs["integer"], images.astype(np.int64))
    assert f"classes: {expected.tolist()}" in shown
    (bundle.path / "network.json").write_text("{}")
    with pytest.raises(BundleError, match=r"network\.json is not the file that was written"):
        verify(bundle.path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path, legal = tmp_path / "network.npz", compiled(2)
    loader = EXPORTER.write(legal, TARGET, path)
    manifest, arrays = contents(path)
    whole = path.read_bytes()
    for content in (b"", b"not a zip", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(BundleError, match="is not a network of plain tensors"):
            RUN(path, random_inputs(legal, 1), loader)
    name, *others = sorted(arrays)
    text: Any = np.frombuffer(json.dumps(manifest).encode(), dtype=np.uint8)
    np.savez(path, manifest=text, **{one: arrays[one] for one in others})  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=f"lacks the arrays {name}"):
        RUN(path, random_inputs(legal, 1), loader)
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="is not a network of plain tensors: 'manifest'"):
        RUN(path, random_inputs(legal, 1), loader)
