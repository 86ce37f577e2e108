"""The generated module in snnTorch, against the simulator."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

from snnkd_deploy.bundle import Bundle
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import BundleError, LegalityError, RuntimeMissingError
from snnkd_deploy.export import ExportOptions, export, verify
from snnkd_deploy.exporters import _snntorch_runner, _snntorch_source
from snnkd_deploy.ir import Graph, Linear, Neuron
from snnkd_deploy.proof import first_difference
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.run import Run
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target
from tests.networks import ANY, CHAIN, EVERY_RESET, KEEPING, LEAKS, Recipe, random_inputs, random_network

TARGET, EXPORTER = load_target("snntorch"), load_exporter("snntorch")
RUN = EXPORTER.proofs[0].run
SEEDS = (2, 3, 6, 21, 25, 27, 29, 31)


def compiled(seed: int, recipe: Recipe = EVERY_RESET) -> Graph:
    graph = random_network(seed, recipe)
    granularity = "channel" if seed % 2 else "layer"
    return lower(graph, TARGET, Calibration(random_inputs(graph, 8, seed), granularity=granularity)).legal  # type: ignore[arg-type]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner without a new interpreter each time, which costs seconds."""

    def call(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        _snntorch_runner.main(*command[2:])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(subprocess, "run", call)


def generated(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(path.parent)
    return importlib.import_module(path.stem)


@pytest.mark.usefixtures("in_process")
def test_the_module_spikes_as_the_simulator(tmp_path: Path) -> None:
    met: set[object] = set()
    for seed in SEEDS:
        legal, path = compiled(seed), tmp_path / f"network_of_seed_{seed}.py"
        loader = EXPORTER.write(legal, TARGET, path)
        inputs = random_inputs(legal, 70, seed)
        assert first_difference(legal, simulate(legal, inputs), RUN(path, inputs, loader)) is None
        neurons = legal.of(Neuron)
        met |= (
            {type(node).__name__ for node in legal} | {n.threshold.ndim for n in neurons} | {n.reset for n in neurons}
        )
        met |= {node.name in loader["plain_leaky"] for node in neurons} | {("still", legal.input.static)}
    wanted = {*TARGET.nodes, *EVERY_RESET.resets, ("still", True), ("still", False)}
    assert met == wanted | {0, 1}  # which are False and True too


@pytest.mark.usefixtures("in_process")
def test_neurons_that_keep_their_current_are_synaptics(tmp_path: Path) -> None:
    """Of snnTorch's own where float32 rounds nothing, else of the file's."""
    plain = replace(KEEPING, decays=(0.5, 1.0), current_decays=(0.5, 1.0), timesteps=(2, 4))
    met: set[object] = set()
    for seed, recipe in product((4, 14, 16, 24, 27, 9), (KEEPING, plain)):
        legal, path = compiled(seed, recipe), tmp_path / f"currents_of_seed_{seed}_{recipe is plain}.py"
        loader = EXPORTER.write(legal, TARGET, path)
        inputs = random_inputs(legal, 20, seed)
        assert first_difference(legal, simulate(legal, inputs), RUN(path, inputs, loader)) is None
        keeping = [node for node in legal.of(Neuron) if node.keeps_current]
        assert {*loader["plain_synaptic"]} <= {node.name for node in keeping}
        met |= {(node.reset, node.name in loader["plain_synaptic"]) for node in keeping}
    assert met == {*product(EVERY_RESET.resets, (True, False))}


@pytest.mark.usefixtures("in_process")
def test_channels_leak_by_a_tensor(tmp_path: Path) -> None:
    """Exact leaks as the beta of a plain Leaky, others as that of the file's own neuron."""
    plain = Recipe(decays=(0.5, 0.25, 1.0), decays_per_channel=True, timesteps=(2, 4))
    met = set()
    for seed, recipe in product(range(6), (LEAKS, plain)):
        legal, path = compiled(seed, recipe), tmp_path / f"leaks_of_seed_{seed}_{recipe is plain}.py"
        loader = EXPORTER.write(legal, TARGET, path)
        inputs = random_inputs(legal, 20, seed)
        assert first_difference(legal, simulate(legal, inputs), RUN(path, inputs, loader)) is None
        met |= {node.name in loader["plain_leaky"] for node in legal.of(Neuron) if np.ndim(node.decay)}
    assert met == {True, False}


def test_it_runs_where_this_package_cannot_be_imported(tiny_run: Run, tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = export(tiny_run, "snntorch", tmp_path / "b", ExportOptions(samples=70))
    assert bundle.verified
    assert bundle.digest == tiny_bundle.digest
    assert set(bundle.manifest["files"]) == {"network.py", "network.pt", "graphs.safetensors"}
    assert {path.name for path in bundle.path.iterdir()} == {*bundle.manifest["files"], "manifest.json"}
    text = (bundle.path / "network.py").read_text()
    assert "IntegerLeaky" not in text
    (bundle.path / "network.py").write_text(f"import snnkd_deploy\n{text}")
    with pytest.raises(BundleError, match=r"network\.py is not the file that was written"):
        verify(bundle.path)
    with pytest.raises(BundleError, match="does not run:[\\s\\S]*snnkd_deploy"):
        RUN(bundle.file, np.zeros((1, 1, 8, 8), dtype=np.int64), bundle.manifest["loader"])


@pytest.mark.parametrize(
    ("decay", "reset", "timesteps", "is_plain"),
    [
        (1.0, "zero", 9, True),
        (1.0, "subtract", 9, True),
        (0.5, "zero", 7, True),
        (0.5, "zero", 8, False),
        (0.5, "subtract", 2, False),
        (0.9, "zero", 2, False),
        (0.5, "subtract_late", 7, True),
        (0.5, "subtract_late", 8, False),
        (0.9, "none", 2, False),
        (1.0, "none", 9, True),
    ],
)
def test_a_neuron_is_a_plain_leaky_where_that_is_exact(
    decay: float, reset: Any, timesteps: int, is_plain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decay = round(decay * 4096) / 4096
    recipe = Recipe(pools=(), spiking_input=True, timesteps=(timesteps, timesteps), decays=(1.0,))
    base = compiled(8, recipe)
    nodes = [replace(n, decay=decay, reset=reset) if isinstance(n, Neuron) else n for n in base]
    path = tmp_path / f"plain_{round(4096 * decay)}_{reset}_{timesteps}.py"
    legal = replace(base, nodes=tuple(nodes))
    loader = EXPORTER.write(legal, TARGET, path)
    layers = [name for name in loader["layers"] if name in loader["plain_leaky"]]
    assert layers == (list(loader["layers"]) if is_plain else [])
    assert ("IntegerLeaky" in path.read_text()) is not is_plain
    module = generated(path, monkeypatch)
    inputs = random_inputs(legal, 40)
    logits = module.infer(module.load(), torch.from_numpy(inputs))
    np.testing.assert_array_equal(logits, simulate(legal, inputs).logits)


def test_a_plain_leaky_would_spike_differently_where_it_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_snntorch_source, "is_plain", lambda *about: True)
    different = 0
    for seed in SEEDS:
        legal, path = compiled(seed, ANY), tmp_path / f"too_plain_{seed}.py"
        EXPORTER.write(legal, TARGET, path)
        module, inputs = generated(path, monkeypatch), random_inputs(legal, 40, seed)
        logits = module.infer(module.load(), torch.from_numpy(inputs)).numpy()
        different += not np.array_equal(logits, simulate(legal, inputs).logits)
    assert different


def test_torch_fx_sees_standard_layers_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a hardware compiler that reads torch.fx graphs gets to see, with snnTorch's modules as leaves."""

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return type(m).__module__.startswith("snntorch") or super().is_leaf_module(m, module_qualified_name)

    legal, path = compiled(4, replace(CHAIN, decays=(0.5,), spiking_input=False)), tmp_path / "to_trace.py"
    EXPORTER.write(legal, TARGET, path)
    network = generated(path, monkeypatch).load()
    nodes = list(Tracer().trace(network).nodes)
    assert [node.op for node in nodes] == ["placeholder", *["call_module"] * (len(legal.nodes) - 2), "output"]
    seen = [type(network.get_submodule(str(node.target))).__name__ for node in nodes[1:-1]]
    kinds = {"Neuron": "Leaky", "SumPool2d": "AvgPool2d"}
    assert seen == [kinds.get(kind := type(node).__name__, kind) for node in legal.nodes[1:-1]]


def test_names_that_a_module_has_already_are_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    legal, path = compiled(8), tmp_path / "renamed.py"
    names = dict(zip((node.name for node in legal), ("forward", "x", "train", "class", "a.b", "a_b", "T"), strict=True))
    nodes = [replace(n, name=names[n.name], inputs=tuple(names[one] for one in n.inputs)) for n in legal]
    renamed = replace(legal, nodes=tuple(nodes))
    EXPORTER.write(renamed, TARGET, path)
    module, inputs = generated(path, monkeypatch), random_inputs(legal, 9)
    logits = module.infer(module.load(), torch.from_numpy(inputs))
    np.testing.assert_array_equal(logits, simulate(legal, inputs).logits)


def test_what_float32_cannot_hold_is_refused_with_every_reason(tmp_path: Path) -> None:
    legal = compiled(8)
    nodes = [replace(n, bias=n.bias + 2**24) if isinstance(n, Linear) else n for n in legal]
    with pytest.raises(LegalityError, match="float32 is exact up to 16777216") as refused:
        EXPORTER.write(replace(legal, nodes=tuple(nodes)), TARGET, tmp_path / "network.py")
    assert len(refused.value.reasons) > len(legal.of(Linear))
    assert not list(tmp_path.iterdir())


def test_a_missing_snntorch_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    legal, path = compiled(8), tmp_path / "network.py"
    loader = EXPORTER.write(legal, TARGET, path)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "snntorch.py").write_text("raise ImportError('not in this test')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "none"))
    with pytest.raises(RuntimeMissingError, match="snnTorch is not installed .not in this test."):
        RUN(path, random_inputs(legal, 1), loader)
    monkeypatch.setitem(sys.modules, "snntorch", None)
    with pytest.raises(RuntimeMissingError, match="pip install snntorch"):
        EXPORTER.write(legal, TARGET, tmp_path / "other.py")
    assert not (tmp_path / "other.py").exists()
