"""Each example runs, as a newcomer would start it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from snnkd_deploy.bundle import Bundle
from snnkd_deploy.data import load
from snnkd_deploy.simulate import simulate

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script: Path, *arguments: object, cwd: Path) -> str:
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd).stdout


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"my_teacher.py", "quickstart.py"}


def test_quickstart(tmp_path: Path) -> None:
    shown = run(EXAMPLES / "quickstart.py", "--epochs", 1, "--out", tmp_path / "run", cwd=tmp_path)
    assert "verified: True" in shown
    assert (tmp_path / "run" / "report.json").is_file()


def test_what_lies_beside_an_onnx_file_needs_nothing_of_this_package(tiny_bundle: Bundle, tmp_path: Path) -> None:
    script = tiny_bundle.path / "run_onnx.py"
    assert "snnkd_deploy" not in script.read_text(encoding="utf-8")
    assert "run_onnx.py" in tiny_bundle.manifest["files"]
    assert "classes: [" in run(script, cwd=tmp_path)
    images = load("digits").test.images[:5]
    np.save(tmp_path / "images.npy", images)
    shown = run(script, "--images", tmp_path / "images.npy", cwd=tmp_path)
    expected = simulate(tiny_bundle.graphs["integer"], images.astype(np.int64)).logits
    assert f"classes: {expected.argmax(axis=1).tolist()}" in shown
    first = json.loads(shown.splitlines()[1].split(": ")[1])
    np.testing.assert_allclose(first, expected[0] * tiny_bundle.manifest["output"]["unit"], atol=1e-3)


def test_my_teacher_writes_its_weights(tmp_path: Path) -> None:
    shown = run(EXAMPLES / "my_teacher.py", "--epochs", 1, "--out", tmp_path / "mine.pt", cwd=tmp_path)
    assert "weights in" in shown
    assert "readout.weight" in torch.load(tmp_path / "mine.pt")
