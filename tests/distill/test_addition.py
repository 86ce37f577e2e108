"""A new method is one file in the folder: no list to edit, no line in the training loop."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import snnkd_deploy.distill
from snnkd_deploy.cli import main
from snnkd_deploy.distill import methods

THROW_AWAY = '''
"""Match the logits by distance."""
from torch.nn import functional

from snnkd_deploy.distill.method import Method, Setup


class Distance(Method):
    name = "distance"
    paper = "a throw-away method"

    def __init__(self, setup: Setup, *, weight: float = 0.1) -> None:
        super().__init__(setup)
        self.weight = weight

    def losses(self, student, teacher, images, labels):
        ce = functional.cross_entropy(student.logits, labels)
        return {"ce": ce, "distance": self.weight * functional.mse_loss(student.logits, teacher.logits)}
'''


def test_one_file_adds_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "distance.py").write_text(THROW_AWAY)
    monkeypatch.setattr(snnkd_deploy.distill, "__path__", [*snnkd_deploy.distill.__path__, str(folder)])
    assert "distance" in methods()
    quick = ["--width", "4", "--epochs", "1", "--teacher-epochs", "1", "--threads", "1", "--out", str(tmp_path / "run")]
    arguments = ["train", "--method", "distance", "--method-option", "weight=0.2", *quick]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    header, *rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert "loss_distance" in header
    assert len(rows) == 2
    sys.modules.pop("snnkd_deploy.distill.distance")
