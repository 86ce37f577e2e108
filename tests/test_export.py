"""Export writes, proves and describes; verify runs a stored file again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snnkd_deploy import export as exporting
from snnkd_deploy import ladder
from snnkd_deploy.api import energy
from snnkd_deploy.bundle import Bundle, open_bundle
from snnkd_deploy.config import load_config
from snnkd_deploy.data import load
from snnkd_deploy.errors import (
    BundleError,
    ConfigError,
    DataError,
    LegalityError,
    ProofError,
    RuntimeMissingError,
    UnknownNameError,
)
from snnkd_deploy.export import ExportOptions, export, read_run, verify
from snnkd_deploy.ir import Attention, Graph, Stage
from snnkd_deploy.ladder import Rung
from snnkd_deploy.proof import Proof
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.run import Run
from snnkd_deploy.simulate import Record, predictions
from snnkd_deploy.train import train


def test_the_ladder_is_what_the_forms_really_reach(tiny_bundle: Bundle, tiny_run: Run) -> None:
    ladder = tiny_bundle.manifest["ladder"]
    data = load("digits")
    met = predictions(tiny_bundle.graphs["integer"], data.test.images.astype(np.int64))
    assert ladder["integer"]["accuracy"] == (met == data.test.labels).mean()
    assert ladder["student"]["accuracy"] == tiny_run.accuracies["student"]
    traced = read_run(tiny_run)
    assert ladder["folded"]["accuracy"] == pytest.approx(ladder["student"]["accuracy"], abs=0.003)
    assert traced.teacher is not None
    teacher = predictions(traced.teacher, data.test.images.astype(np.int64))
    assert (teacher == data.test.labels).mean() == pytest.approx(ladder["teacher"]["accuracy"], abs=0.003)
    rates = ladder["student"]["layers"]
    for name, activity in ladder["folded"]["layers"].items():
        assert activity["rate"] == pytest.approx(rates[name]["rate"], abs=0.002)


def test_a_spikingformer_is_trained_proven_and_priced(tmp_path: Path) -> None:
    quick = {"width": 8, "depth": 1, "timesteps": 2, "epochs": 1, "teacher_epochs": 1, "threads": 1}
    run = train(load_config(model="spikingformer", **quick), out=tmp_path / "run")
    bundle = export(run, "onnx", tmp_path / "b", ExportOptions(samples=20))
    proof = bundle.manifest["proofs"][0]
    assert (proof["verified"], proof["differing"]) == (True, 0)
    assert proof["spikes"] > 0
    assert len(bundle.graphs["integer"].of(Attention)) == len(bundle.graphs["teacher"].of(Attention)) == 1
    found = energy(tmp_path / "report.json", bundle.path, samples=5)
    layer = next(one for one in found["layers"] if one["op"] == "Attention")
    assert layer["dense_macs"] == 2 * 8 * 64 * 4  # both products: channels, tokens, channels of a head
    assert next(ann for ann in found["ann"] if ann["role"] == "same_shape")["is_teacher"]
    with pytest.raises(LegalityError, match=r"blocks\.1\.attention: no Attention on this target; it has .*; export a"):
        export(run, "loihi", tmp_path / "l")
    assert not (tmp_path / "l").exists()


def test_options_reach_the_integers(tiny_run: Run, tmp_path: Path) -> None:
    bundle = export(tiny_run, "onnx", tmp_path / "b", ExportOptions(weight_bits=3, samples=10, granularity="channel"))
    weights = [layer["weights"] for layer in bundle.manifest["layers"] if "weights" in layer]
    assert weights
    assert all(-3 <= low <= high <= 3 for low, high in weights)
    assert bundle.manifest["proofs"][0]["samples"] == 10
    assert bundle.manifest["options"]["weight_bits"] == 3


def test_a_second_export_replaces_the_first_and_a_failed_one_leaves_it(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = export(tiny_run, "onnx", tmp_path / "b")
    second = export(tiny_run, "onnx", tmp_path / "b", ExportOptions(weight_bits=4))
    assert first.digest != second.digest
    exporter = load_exporter("onnx")
    honest = exporter.proofs[0].run

    def one_spike_off(path: Path, inputs: np.ndarray, loader: object) -> Record:  # type: ignore[type-arg]
        record = honest(path, inputs, loader)  # type: ignore[arg-type]
        record.spikes["blocks.1.neuron"][2, 5] ^= 1
        return record

    monkeypatch.setattr(exporter, "proofs", (Proof("onnxruntime", one_spike_off, samples=10),))
    with pytest.raises(ProofError, match=r"layer blocks\.1\.neuron, step 2, sample 5"):
        export(tiny_run, "onnx", tmp_path / "b")
    assert open_bundle(tmp_path / "b").digest == second.digest
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_missing_runtime_is_told_and_never_counts_as_a_proof(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(path: Path, inputs: object, loader: object) -> Record:
        raise RuntimeMissingError("not installed; get it so")

    exporter = load_exporter("onnx")
    monkeypatch.setattr(exporter, "proofs", (Proof("elsewhere", missing, samples=10),))
    bundle = export(tiny_run, "onnx", tmp_path / "b")
    assert not bundle.verified
    assert bundle.manifest["proofs"] == [
        {"name": "elsewhere", "required": True, "verified": False, "reason": "not installed; get it so"}
    ]
    assert bundle.manifest["ladder"]["file"] is None


def test_verify_runs_the_stored_file(tiny_bundle: Bundle) -> None:
    proofs = verify(tiny_bundle.path, samples=33)
    assert [(proof["name"], proof["verified"], proof["samples"]) for proof in proofs] == [("onnxruntime", True, 33)]


def test_verify_takes_the_file_and_one_runtime_by_name(tiny_bundle: Bundle) -> None:
    (proof,) = verify(tiny_bundle.file, samples=5, runtime="onnxruntime")
    assert (proof["name"], proof["samples"]) == ("onnxruntime", 5)
    with pytest.raises(UnknownNameError, match="no runtime of network.onnx 'lava'; known: onnxruntime"):
        verify(tiny_bundle.path, runtime="lava")


def test_a_runtime_is_found_by_a_word_of_its_name(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = load_exporter("onnx")
    (known,) = exporter.proofs
    monkeypatch.setattr(exporter, "proofs", (replace(known, name="onnx-replay"), replace(known, name="elsewhere")))
    (proof,) = verify(tiny_bundle.path, samples=3, runtime="replay")
    assert proof["name"] == "onnx-replay"
    with pytest.raises(UnknownNameError, match="known: elsewhere, onnx-replay"):
        verify(tiny_bundle.path, runtime="play")


def test_verify_says_so_if_what_was_asked_for_could_not_run(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(path: Path, inputs: object, loader: object) -> Record:
        raise RuntimeMissingError("not installed; get it so")

    exporter = load_exporter("onnx")
    extra = Proof("elsewhere", missing, samples=10, required=False)
    monkeypatch.setattr(exporter, "proofs", (*exporter.proofs, extra))
    assert [one["verified"] for one in verify(tiny_bundle.path, samples=3)] == [True, False]
    with pytest.raises(RuntimeMissingError, match="elsewhere did not run: not installed; get it so"):
        verify(tiny_bundle.path, samples=3, runtime="elsewhere")
    monkeypatch.setattr(exporter, "proofs", (replace(extra, required=True),))
    with pytest.raises(RuntimeMissingError, match="elsewhere did not run"):
        verify(tiny_bundle.path, samples=3)


def test_options_of_a_format_reach_the_file_and_the_manifest(tiny_run: Run, tmp_path: Path) -> None:
    options = ExportOptions(samples=20, exporter={"form": "one-step"})
    bundle = export(tiny_run, "onnx", tmp_path / "b", options)
    assert bundle.verified
    assert bundle.manifest["options"]["exporter"] == {"form": "one-step", "numbers": "integer"}
    assert bundle.manifest["loader"]["states"]
    with pytest.raises(ConfigError, match=r"the onnx exporter takes no form=fast, size=3; its options: form=unrolled"):
        export(tiny_run, "onnx", tmp_path / "c", ExportOptions(exporter={"form": "fast", "size": "3"}))
    assert not (tmp_path / "c").exists()


def test_a_float_file_is_held_against_the_float_simulation(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ExportOptions(samples=50, exporter={"numbers": "float"})
    bundle = export(tiny_run, "onnx", tmp_path / "b", options)
    (proof,) = bundle.manifest["proofs"]
    assert proof["verified"]
    assert proof["differing"] <= 0.001 * proof["spikes"]
    assert 0 < proof["logit_error"] < 1e-5
    assert bundle.reference.stage == Stage.FOLDED
    assert verify(bundle.path, samples=7)[0]["samples"] == 7
    exporter = load_exporter("onnx")
    honest = exporter.proofs[0].run

    def off(path: Path, inputs: np.ndarray, loader: object) -> Record:  # type: ignore[type-arg]
        record = honest(path, inputs, loader)  # type: ignore[arg-type]
        return Record(record.spikes, record.logits * 1.01)

    monkeypatch.setattr(exporter, "proofs", (Proof("onnxruntime", off, samples=10),))
    with pytest.raises(ProofError, match="is further from the float simulation than rounding explains: .* apart"):
        verify(bundle.path)


def test_the_folded_network_is_climbed_once_for_all_targets(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = export(tiny_run, "onnx", tmp_path / "b", ExportOptions(samples=2))
    climbed: list[Stage] = []
    honest = ladder.climb

    def climb(graph: Graph, inputs: np.ndarray, labels: np.ndarray) -> Rung:  # type: ignore[type-arg]
        climbed.append(graph.stage)
        return honest(graph, inputs, labels)

    monkeypatch.setattr(exporting, "climb", climb)
    second = export(tiny_run, "nir", tmp_path / "c", ExportOptions(samples=2))
    assert climbed == [Stage.INTEGER]
    assert second.manifest["ladder"]["folded"] == first.manifest["ladder"]["folded"]
    kept = tiny_run.path / "folded-rung.json"
    kept.write_text(kept.read_text().replace('"of"', '"off"'))
    assert export(tiny_run, "onnx", tmp_path / "b", ExportOptions(samples=2)).manifest["ladder"] == {
        **first.manifest["ladder"]
    }
    assert climbed == [Stage.INTEGER, Stage.FOLDED, Stage.INTEGER]


def test_verify_notices_a_changed_file(tiny_bundle: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle.path, tmp_path / "b"))
    (copy / "network.onnx").write_bytes((copy / "network.onnx").read_bytes() + b" ")
    with pytest.raises(BundleError, match="is not the file that was written"):
        verify(copy)


def test_other_data_are_noticed(
    tiny_bundle: Bundle, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("digits")
    other = replace(data, test=replace(data.test, labels=(data.test.labels + 1) % 10))
    monkeypatch.setattr(exporting, "load", lambda *where: other)
    monkeypatch.setattr(exporting, "configured", lambda config: other)
    with pytest.raises(DataError, match="was made with digits of SHA-256"):
        verify(tiny_bundle.path)
    with pytest.raises(DataError, match="the files now give"):
        export(tiny_run, "onnx", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_what_a_target_cannot_hold_writes_nothing(tiny_run: Run, tmp_path: Path) -> None:
    text = (Path(exporting.__file__).parents[1] / "targets" / "onnx.toml").read_text(encoding="utf-8")
    narrow = tmp_path / "narrow.toml"
    narrow.write_text(text.replace('"SumPool2d", ', ""))
    with pytest.raises(UnknownNameError, match="no target 'nowhere'"):
        export(tiny_run, "nowhere")
    assert export(tiny_run, str(narrow), tmp_path / "folded").verified
    narrow.write_text(text.replace('"Flatten", ', "").replace('name = "onnx"', 'name = "narrow"'))
    with pytest.raises(
        LegalityError, match=r"narrow cannot run this network:\n  - head\.flatten: no Flatten on this target"
    ):
        export(tiny_run, str(narrow), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_the_manifest_is_plain_json_with_what_a_loader_needs(tiny_bundle: Bundle) -> None:
    manifest = json.loads((tiny_bundle.path / "manifest.json").read_text())
    assert manifest["timesteps"] == 4
    assert manifest["input"]["scale"] == 1 / 16
    assert manifest["margins"]["output"]["limit"] == 131071
    assert isinstance(manifest["warnings"], list)
    assert manifest["loader"]["output"]["meaning"] == "sum over timesteps"
    assert {"snnkd-deploy", "python", "onnxruntime", "torch"} <= set(manifest["versions"])
    assert set(manifest["files"]) == {"network.onnx", "run_onnx.py", "graphs.safetensors"}
