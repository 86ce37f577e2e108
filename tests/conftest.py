"""A run that is trained once and used by every test that needs one."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

from snnkd_deploy.bundle import Bundle
from snnkd_deploy.config import load_config
from snnkd_deploy.export import export
from snnkd_deploy.run import Run
from snnkd_deploy.train import train

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")  # the same cases everywhere, and no verdict on a busy machine's speed


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on digits: a small convolutional student, a few epochs."""
    config = load_config(width=4, teacher_width=4, epochs=4, teacher_epochs=4, threads=1)
    return train(config, out=tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: Run) -> Bundle:
    """Its ONNX export."""
    return export(tiny_run, "onnx")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
