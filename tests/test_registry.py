"""An exporter is one module in the folder, or an entry point of another package."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import snnkd_deploy.exporters
from snnkd_deploy import registry
from snnkd_deploy.bundle import open_bundle
from snnkd_deploy.errors import ConfigError, ProofError, UnknownNameError
from snnkd_deploy.export import export
from snnkd_deploy.registry import exporter_names, load_exporter
from snnkd_deploy.run import Run
from snnkd_deploy.target import load_target, target_names

THROW_AWAY = '''
"""The integer network itself as the file, run by the simulator."""
from snnkd_deploy.graph_file import load_graphs, save_graphs
from snnkd_deploy.proof import Proof
from snnkd_deploy.simulate import simulate

suffix = ".graph"

def write(graph, target, path):
    save_graphs(path, {"network": graph})
    return {"written": "by a throw-away exporter"}

proofs = (Proof("itself", lambda path, inputs, loader: simulate(load_graphs(path)["network"], inputs), samples=20),)
'''


@pytest.fixture
def throw_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of exporters with one file, and a target that names it."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "throwaway.py").write_text(THROW_AWAY)
    monkeypatch.setattr(snnkd_deploy.exporters, "__path__", [*snnkd_deploy.exporters.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, "snnkd_deploy.exporters.throwaway", raising=False)
    target = tmp_path / "mine.toml"
    text = (Path(registry.__file__).parents[1] / "targets" / "onnx.toml").read_text(encoding="utf-8")
    target.write_text(
        text.replace('name = "onnx"', 'name = "mine"').replace('exporter = "onnx"', 'exporter = "throwaway"')
    )
    return target


def test_every_shipped_exporter_keeps_the_contract() -> None:
    for name in exporter_names():
        exporter = load_exporter(name)
        assert exporter.suffix.startswith(".")
        assert exporter.proofs
        assert callable(exporter.write)
    assert {load_target(name).exporter for name in target_names()} <= set(exporter_names())


def test_one_file_and_one_toml_add_an_exporter_and_a_target(throw_away: Path, tiny_run: Run, tmp_path: Path) -> None:
    bundle = export(tiny_run, str(throw_away), tmp_path / "out")
    assert bundle.verified
    assert bundle.target == "mine"
    assert open_bundle(tmp_path / "out").manifest["loader"] == {"written": "by a throw-away exporter"}


def test_an_exporter_that_spikes_differently_is_caught(throw_away: Path, tiny_run: Run, tmp_path: Path) -> None:
    module = tmp_path / "more" / "throwaway.py"
    wrong = "from dataclasses import replace\nfrom snnkd_deploy.ir import Neuron\n" + THROW_AWAY.replace(
        'save_graphs(path, {"network": graph})',
        "nodes = [replace(n, threshold=n.threshold + 40) if isinstance(n, Neuron) else n for n in graph]\n"
        '    save_graphs(path, {"network": replace(graph, nodes=tuple(nodes))})',
    )
    module.write_text(wrong)
    with pytest.raises(ProofError, match=r"run by itself differs.*layer blocks\.0\.neuron, step \d"):
        export(tiny_run, str(throw_away), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_package_adds_one_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("elsewhere", "snnkd_deploy.exporters.onnx", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == registry.GROUP else [])
    assert "elsewhere" in exporter_names()
    assert load_exporter("elsewhere").suffix == ".onnx"
    broken = EntryPoint("elsewhere", "snnkd_deploy.errors", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken])
    with pytest.raises(ConfigError, match="has no suffix, proofs, write"):
        load_exporter("elsewhere")


def test_an_unknown_exporter_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no exporter 'onx'; known: .*did you mean 'onnx'"):
        load_exporter("onx")
