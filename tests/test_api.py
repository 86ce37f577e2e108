"""The library's front door does what the commands do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from snnkd_deploy import api
from snnkd_deploy.bundle import Bundle
from snnkd_deploy.config import load_config
from snnkd_deploy.errors import BundleError, LegalityError
from snnkd_deploy.ir import Stage
from snnkd_deploy.run import Run
from snnkd_deploy.target import target_names


def test_train_export_verify_energy_from_python(tmp_path: Path) -> None:
    """The whole road in seconds."""
    config = load_config(width=4, teacher_width=4, epochs=2, teacher_epochs=2, threads=1)
    run = api.train(config, out=tmp_path / "run")
    for target in ("onnx", "nir", "loihi", "loihi2"):
        bundle = api.export(run, target, options=api.ExportOptions(samples=6))
        assert all(proof["verified"] or proof["reason"] for proof in bundle.manifest["proofs"])
        assert bundle.manifest["proofs"][0]["verified"]
    report = api.energy(tmp_path / "report.json", run.path / "exports" / "loihi", samples=10)
    assert report["data"]["samples"] == 10
    assert report["energy"]


def test_one_network_behind_every_format(tiny_run: Run, tiny_bundle: Bundle, tmp_path: Path) -> None:
    options = api.ExportOptions(samples=2)
    others = [api.export(tiny_run, name, tmp_path / name, options) for name in ("nir", "loihi", "loihi2")]
    assert {one.digest for one in others} == {tiny_bundle.digest}
    assert api.diff(tiny_bundle.path, others[0].file) == []
    coarse = api.export(tiny_run, "loihi", tmp_path / "coarse", api.ExportOptions(samples=2, weight_bits=4))
    found = api.diff(tiny_bundle.file, coarse.path)
    assert any(re.match(r"blocks\.0\.conv\.weight\[\d+, \d+, \d+, \d+\]: -?\d+ against -?\d+ \(", one) for one in found)


def test_check_lowers_the_untrained_student() -> None:
    assert api.check("loihi").stage == Stage.LEGAL
    with pytest.raises(LegalityError, match="reset 'subtract'; this target resets by 'zero'"):
        api.check("loihi", load_config(reset="subtract"))
    with pytest.raises(LegalityError, match=r"blocks\.1\.neuron: decay 0\.5\.\.0\.5, one per channel; this target"):
        api.check("loihi", load_config(learn_decay="channel"))
    assert api.check("loihi", load_config(learn_decay="layer")).stage == Stage.LEGAL


def test_decays_learned_per_channel_are_proven_and_refused(tmp_path: Path) -> None:
    sizes = {"width": 4, "teacher_width": 4, "epochs": 2, "teacher_epochs": 2, "threads": 1}
    run = api.train(load_config(learn_decay="channel", **sizes), out=tmp_path / "run")
    options = api.ExportOptions(samples=6)
    bundles = [api.export(run, name, options=options) for name in ("onnx", "c", "npz", "snntorch")]
    assert len({one.digest for one in bundles}) == 1
    assert all(proof["differing"] == 0 for one in bundles for proof in one.manifest["proofs"])
    decays = [layer["decay"] for layer in bundles[0].manifest["layers"] if layer["kind"] == "Neuron"]
    assert all(re.fullmatch(r"\d+\.\.\d+/4096, per channel", one) for one in decays)
    assert api.energy(tmp_path / "report.json", bundles[0].path, samples=4)["energy"]
    with pytest.raises(LegalityError, match=r"train with one \(--learn-decay layer\)"):
        api.export(run, "loihi", options=options)
    assert not (run.path / "exports" / "loihi").exists()


def test_residual_networks_are_one_network_everywhere(tmp_path: Path) -> None:
    sizes = {"model": "resnet", "width": 4, "depth": 1, "epochs": 1, "teacher_epochs": 1, "threads": 1}
    run = api.train(load_config(**sizes), out=tmp_path / "run")
    options = api.ExportOptions(samples=4)
    bundles = [api.export(run, name, options=options) for name in ("onnx", "loihi")]
    assert bundles[0].digest == bundles[1].digest
    assert bundles[1].manifest["proofs"][0]["differing"] == 0
    plain, relayed = (api.energy(tmp_path / f"{n}.json", one.path, samples=4) for n, one in enumerate(bundles))
    assert relayed["ann"] == plain["ann"]
    assert relayed["literature"]["ann"] == plain["literature"]["ann"]
    assert relayed["model"]["neurons"] == plain["model"]["neurons"] + relayed["model"]["relays"]
    assert relayed["totals"]["synops_nonzero"] > plain["totals"]["synops_nonzero"]
    assert api.mapping(bundles[1].path)["fits"]
    with pytest.raises(BundleError, match="holds no mapping; targets that state"):
        api.mapping(bundles[0].path)


def test_targets_are_those_that_are_shipped() -> None:
    assert [target.name for target in api.targets()] == target_names()
