"""Each benchmark runs at small size, goes on where it was stopped, and prints what it writes."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from snnkd_deploy.run import Run
from tests.dataset_files import cifar100_members, unpacked

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def test_the_methods_are_compared_under_one_budget_and_gone_on_with(tmp_path: Path) -> None:
    given = (
        "--epochs",
        1,
        "--teacher-epochs",
        1,
        "--width",
        4,
        "--teacher-width",
        4,
        "--timesteps",
        2,
        "--steps",
        1,
        4,
    )
    out = tmp_path / "table.json"
    first = run("methods.py", *given, "--seeds", 1, "--methods", "none", "--out", out)
    assert first.returncode == 0, first.stderr
    (before,) = json.loads(out.read_text())["rows"]["none"]
    second = run("methods.py", *given, "--seeds", 2, "--methods", "none", "bkd:logits=kd", "--out", out)
    assert second.returncode == 0, second.stderr
    rows = json.loads(out.read_text())["rows"]
    assert {name: [row["seed"] for row in found] for name, found in rows.items()} == {
        "none": [0, 1],
        "bkd:logits=kd": [0, 1],
    }
    assert rows["none"][0] == before
    assert [row["teacher"] for row in rows["none"]] == [row["teacher"] for row in rows["bkd:logits=kd"]]
    assert set(before["accuracy"]) == {"1", "4"}
    assert "| bkd:logits=kd |" in second.stdout


def test_other_settings_are_not_mixed_into_a_table(tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    out.write_text(json.dumps({"settings": {"epochs": 7}, "rows": {}}))
    done = run("methods.py", "--methods", "none", "--out", out)
    assert done.returncode != 0
    assert "was measured with other settings: {'epochs': 7}" in done.stderr


def test_bits_are_compared_before_and_after_fine_tuning_and_gone_on_with(tiny_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "bits.json"
    first = run("bits.py", tiny_run.path, "--target", "loihi", "--bits", 3, "--epochs", 1, "--out", out)
    assert first.returncode == 0, first.stderr
    rows = json.loads(out.read_text())["rows"]
    assert list(rows) == ["max, per layer", "mse, per layer", "percentile, per layer", "fine-tuned"]
    assert rows["fine-tuned"]["3"] > rows["max, per layer"]["3"]
    again = run("bits.py", tiny_run.path, "--target", "loihi", "--bits", 3, "--epochs", 1, "--out", out)
    assert again.stdout == first.stdout
    assert f"| fine-tuned | {100 * rows['fine-tuned']['3']:.2f} |" in again.stdout
    other = run("bits.py", tiny_run.path, "--target", "loihi", "--epochs", 2, "--out", out)
    assert "was measured with other settings" in other.stderr


def accuracies(table: str) -> dict[str, str]:
    """Of the last three lines: name, epochs, accuracy, images per second, roofline."""
    lines = [line.split() for line in table.splitlines()[-3:]]
    return {line[0]: line[2] for line in lines}


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    return unpacked(tmp_path / "cifar-100-python", cifar100_members())


def test_the_recipe_for_cifar100_trains_three_networks_and_names_the_roofline(cifar: Path, tmp_path: Path) -> None:
    small = ("--model", "resnet", "--width", 2, "--teacher-model", "resnet", "--teacher-width", 2, "--timesteps", 2)
    given = (*small, "--device", "cpu", "--batch-size", 4, "--minutes", 0, "--threads", 1, "--data-dir", cifar)
    done = run("cifar100.py", *given, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "runs" / "cifar100.json").read_text())
    assert list(found["networks"]) == ["teacher", "undistilled", "distilled"]
    assert {row["epochs"] for row in found["networks"].values()} == {1}
    assert found["networks"]["undistilled"]["roofline"] > found["networks"]["distilled"]["roofline"] > 0
    assert found["settings"]["precision"] == "bf16"
    again = run("cifar100.py", *given, "--out", tmp_path / "runs")
    assert "is finished already" in again.stderr
    assert accuracies(again.stdout) == accuracies(done.stdout)
    assert list(accuracies(done.stdout)) == list(found["networks"])


def figures(script: str, folder: Path, *arguments: object) -> dict[tuple[str, str], dict[str, Any]]:
    """What a benchmark with goals writes at small size; all of it is printed too."""
    out = folder / "figures.json"
    done = run(script, "--quick", "--out", out, *arguments)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert all(f"| {row['what']} | {row['case']} |" in done.stdout for row in rows)
    assert all(row["measured"] > 0 or row["unit"] == "%" for row in rows)
    return {(row["what"], row["case"]): row for row in rows}


def test_the_forms_of_an_onnx_file_are_timed_side_by_side(tmp_path: Path) -> None:
    found = figures("onnx_forms.py", tmp_path)
    forms = [f"{form}, {of}" for of in ("integer", "float") for form in ("unrolled", "folded", "one-step")]
    assert all((f"ONNX {form}, against snnTorch eager", "S, batch 1") in found for form in forms)
    assert ("integer ONNX, time of the float ONNX", "S, batch 2") in found


def test_lowering_is_measured_for_each_target(tmp_path: Path) -> None:
    found = figures("compile.py", tmp_path, "--targets", "onnx", "nir")
    assert {what for what, _ in found} == {"compile and write ONNX", "lower, net R", "write, net R"}
    assert found["compile and write ONNX", "R"]["must"] == 0.1
    held = json.loads((tmp_path / "figures.json").read_text())["details"]["targets"]
    assert [one["target"] for one in held] == ["onnx", "nir"]
    assert all(one["gib_peak"] >= one["gib_before"] > 0 and "nodes" in one["result"] for one in held)


def test_what_counting_adds_is_measured(tmp_path: Path) -> None:
    found = figures("counting.py", tmp_path, "--counters", "torch forward", "native runtime, by sample")
    assert found["exact operation counts, added to a forward pass", "S"]["must"] == 5
    assert ("counts of native runtime, by sample, added", "S") in found


def test_start_up_is_measured(tmp_path: Path) -> None:
    found = figures("start_up.py", tmp_path)
    assert found["start-up", "--help"]["measured"] < found["start-up", "import torch"]["measured"]


def test_one_table_shows_what_was_met_and_what_was_missed(tmp_path: Path) -> None:
    done = run("bench.py", "--quick", "--only", "start_up.py", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "start_up.json").read_text())["rows"][1]
    row["measured"], row["met"] = 3.0, False
    document = json.loads((tmp_path / "start_up.json").read_text())
    (tmp_path / "start_up.json").write_text(json.dumps({**document, "rows": [row]}))
    again = run("bench.py", "--show", tmp_path)
    assert "| start-up | --help | at most 0.15 s | 3 s | MISSED |  |" in again.stdout
    assert run("bench.py", "--show", tmp_path / "empty").returncode == 1


def test_networks_go_to_every_target_or_are_refused_in_full(tmp_path: Path) -> None:
    small = ("--train-samples", 200, "--test-samples", 30, "--epochs", 1, "--samples", 5)
    given = ("--networks", "nir_file", "spikingformer", "--targets", "c", "npz", *small)
    done = run("ten_networks.py", *given, "--out", tmp_path / "ten.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "ten.json").read_text())["networks"]
    for proof in (one for target in found["nir_file"]["targets"].values() for one in target["proofs"]):
        assert (proof["verified"], proof["differing"], proof["samples"]) == (True, 0, 5)
        assert proof["spikes"] > 0
        assert f"| 0 of {proof['spikes']:,} |" in done.stdout
    refused = [target["refused"] for target in found["spikingformer"]["targets"].values()]
    assert all(f"] {text}\n" in f"{done.stdout}\n" for text in refused)
    assert re.search(r"^\| spikingformer .* refused \[\d\] \| refused \[\d\] \|", done.stdout, flags=re.MULTILINE)


def test_a_difference_and_a_proof_that_is_missing_fail_the_ten_networks() -> None:
    script = runpy.run_path(str(BENCHMARKS / "ten_networks.py"))
    proof = {"name": "npz-interpreter", "required": True, "verified": True, "differing": 0, "spikes": 7}
    fine = {"proofs": [proof, {**proof, "verified": False, "required": False}]}
    missing = {"proofs": [{**proof, "verified": False}]}
    rows = {"a": {"targets": {"c": fine, "npz": {"differs": "layer 2"}, "onnx": missing, "nir": {"refused": "no"}}}}
    assert script["failed"](rows) == ["a for npz", "a for onnx"]
    notes = script["Notes"]()
    assert script["cell"]({"differs": "layer 2"}, [], notes) == "DIFFERS [1]"
    assert notes.texts == ["layer 2"]


def test_a_step_of_each_method_is_timed_beside_the_undistilled_one(tmp_path: Path) -> None:
    small = ("--dataset", "cifar100", "--width", 2, "--teacher-width", 2, "--batch-size", 2, "--rounds", 1)
    done = run(
        "method_costs.py", *small, "--methods", "none", "tser", "bkd:logits=kd", "--out", tmp_path / "costs.json"
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "costs.json").read_text())["rows"]
    assert list(rows) == ["none", "tser", "bkd:logits=kd"]
    assert rows["none"]["cost"] == 1
    assert f"{rows['tser']['median_ms']:11.1f} {rows['tser']['cost']:11.2f}" in done.stdout


def test_a_figure_stands_beside_its_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = runpy.run_path(str(BENCHMARKS / "figures.py"))
    figure, goals = script["Figure"], script["goals"]()
    for what, goal in goals.items():
        assert goal["better"] in ("higher", "lower")
        assert set(goal.get("attained", {})) <= set(goal["must"])
        for case, must in goal["must"].items():
            better = must * (1.1 if goal["better"] == "higher" else 0.9)
            assert figure(what, case, must).row()["met"]
            assert figure(what, case, better).row()["met"]
            assert not figure(what, case, 2 * must - better).row()["met"]
    free = figure("something else", "S", 3.0, "ms", "lower").row()
    assert (free["must"], free["met"], free["unit"], free["better"]) == (None, None, "ms", "lower")
    assert "MISSED" in script["table"]([figure("start-up", "--help", 1.0).row()])


@pytest.mark.peers
def test_inference_is_timed_beside_what_others_run(tmp_path: Path) -> None:
    done = run("inference.py", "--quick", "--threads", 1, "--out", tmp_path / "inference.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "inference.json").read_text())
    against = [row["what"] for row in found["rows"] if row["case"] == "S, batch 2"]
    assert against[:2] == [
        "integer inference against snnTorch eager",
        "integer inference against the fastest of torch.compile and onnxruntime fp32",
    ]
    assert all(row["measured"] > 0 for row in found["rows"])
    assert all(0.02 < rate < 0.3 for rate in found["details"]["S, batch 2"]["rates"].values())
    assert done.stdout.count("; logits exact; spike rates ") == 2


def test_a_training_step_is_timed_in_pieces_that_are_joined(tmp_path: Path) -> None:
    out = tmp_path / "training.json"
    first = run("training.py", "--quick", "--variants", "snnTorch", "ours", "--out", out)
    assert first.returncode == 0, first.stderr
    second = run("training.py", "--quick", "--variants", "snnTorch", "ours, rate-based", "--out", out)
    assert second.returncode == 0, second.stderr
    found = json.loads(out.read_text())
    measured = {(row["what"], row["case"]): row["measured"] for row in found["rows"]}
    assert measured["saved for backward, of snnTorch's", "S, exact, T = 2"] < 0.5
    assert measured["training step, rate-based fp32, against snnTorch", "S, T = 2"] > 0
    assert list(found["details"]["S, T = 2"]["milliseconds"]) == ["snnTorch", "ours", "ours, rate-based"]
    assert "S, T = 2: ours: " in second.stdout


def test_training_on_a_gpu_is_said_not_to_be_run_without_one_and_runs_small_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    small = ("--device", "cpu", "--width", 4, "--batch", 4, "--rounds", 1, "--timesteps", 2)
    done = run("gpu_training.py", *small, "--out", out)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    measured = {row["what"]: row["measured"] for row in found["rows"]}
    assert found["settings"]["device"] == "cpu"
    for name in ("snnTorch", "bptt", "rate", "convolutions"):
        assert measured[f"images per second, {name}"] > 0
    without = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu_training.py")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert without.returncode == 0
    assert without.stdout == "not run: this machine has no device cuda\n"
