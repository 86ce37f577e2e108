"""Frames go all the way: trained, traced, exported, proven and priced, one picture for each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from snnkd_deploy import api, energy
from snnkd_deploy.batches import Images
from snnkd_deploy.bundle import Bundle
from snnkd_deploy.config import TrainConfig
from snnkd_deploy.data import DataSet, load
from snnkd_deploy.errors import ConfigError
from snnkd_deploy.export import export, read_run, verify
from snnkd_deploy.run import Run
from snnkd_deploy.simulate import simulate
from snnkd_deploy.snn import models
from snnkd_deploy.snn.layers import Frames
from snnkd_deploy.train import train
from tests.recordings import write_recordings

STEPS = 3
SHAPE = (STEPS, 2, 34, 34)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = write_recordings(tmp_path_factory.mktemp("events"), train=4, test=2)
    return TrainConfig(
        dataset="n-mnist", data_dir=str(folder), timesteps=STEPS, width=3, epochs=8, teacher_epochs=8,
        batch_size=10, augment="flip", threads=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(config, out=tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def bundle(run: Run) -> Bundle:
    return export(run, "onnx")


def data_of(run: Run) -> DataSet:
    return load("n-mnist", run.config.data_dir, STEPS)


def test_a_student_and_its_teacher_learn_from_frames(run: Run) -> None:
    assert run.input_shape == SHAPE
    assert min(run.accuracies.values()) > 0.6  # chance is 0.1
    assert run.data["sha256"] == data_of(run).sha256


@pytest.mark.parametrize("model", ["cnn", "mlp", "resnet"])
def test_the_same_picture_at_each_step_is_a_still_picture(model: str, config: TrainConfig) -> None:
    build: tuple[Callable[..., models.Network], ...] = (models.student, models.teacher)
    for make in build:
        chosen = TrainConfig(model=model, depth=1, width=3, timesteps=STEPS)
        still, frames = make(chosen, SHAPE[1:], 10).eval(), make(chosen, SHAPE, 10).eval()
        frames.load_state_dict(still.state_dict())
        pictures = torch.rand(4, *SHAPE[1:])
        outputs = [still.outputs(pictures), frames.outputs(torch.stack([pictures] * STEPS, 1))]
        for one, other in zip(*([o.logits, o.steps, *o.taps] for o in outputs), strict=True):
            torch.testing.assert_close(one, other)


def test_a_student_sees_one_frame_after_the_other_and_a_teacher_their_mean(run: Run) -> None:
    student, teacher = models.load(run)
    frames, _ = Images.of(data_of(run).test, 1.0, torch.device("cpu")).batch(torch.arange(20))
    assert frames.shape == (20, *SHAPE)
    backwards = frames.flip(1)
    assert not torch.equal(student(frames), student(backwards))
    torch.testing.assert_close(teacher(frames), teacher(backwards))
    first = frames.clone()
    first[:, 1:] = 0
    assert torch.equal(student.outputs(first).steps[0], student.outputs(frames).steps[0])


def test_the_graphs_are_the_networks(run: Run) -> None:
    traced, data = read_run(run), data_of(run)
    student, teacher = models.load(run)
    frames, _ = Images.of(data.test, data.scale, torch.device("cpu")).batch(torch.arange(20))
    given = data.test.integers(slice(None))
    assert traced.teacher is not None
    met = simulate(traced.student, given), simulate(traced.teacher, given.sum(axis=0))
    np.testing.assert_allclose(met[0].logits, student(frames).detach(), atol=1e-4)  # float32 against float64
    np.testing.assert_allclose(met[1].logits, teacher(frames).detach(), atol=1e-4)
    source = traced.student.input
    assert (source.shape, source.static, source.spikes) == (SHAPE[1:], False, True)


@pytest.mark.parametrize("target", ["c", "native", "nir", "npz", "loihi", "loihi2"])
def test_each_format_gets_every_spike_right(
    run: Run, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNNKD_LAVA_PYTHON", "/nowhere")  # lava itself is for `make lava`
    found = export(run, target, tmp_path / "bundle")
    assert found.manifest["verified"]
    assert found.manifest["input"]["coding"] == "one frame per step"
    assert {node.placement for node in found.graphs["legal"]} == {"chip"}  # spikes need no host


def test_an_export_is_proven_on_every_test_recording(bundle: Bundle, run: Run) -> None:
    assert [proof["samples"] for proof in bundle.manifest["proofs"]] == [20]
    assert bundle.manifest["ladder"]["folded"]["accuracy"] == run.accuracies["student"]
    assert [proof["differing"] for proof in verify(bundle.path)] == [0]


def test_energy_counts_student_and_teacher(bundle: Bundle, tmp_path: Path) -> None:
    report = api.energy(tmp_path / "report.json", bundle.path)
    first, data = report["layers"][0], load("n-mnist", bundle.manifest["data"]["data_dir"], STEPS)
    assert (first["events_in"], first["input_kind"]) == (data.test.images.sum(), "spikes")
    assert report["data"]["encoding"] == "frames"
    assert report["accuracy"]["ann_counted"] == pytest.approx(bundle.manifest["ladder"]["teacher"]["accuracy"])
    teacher = next(ann for ann in report["ann"] if ann["role"] == "teacher")
    assert 0 < teacher["macs_effective"] < 20 * teacher["macs_dense"]


def test_a_teacher_of_other_samples_is_not_counted(bundle: Bundle, run: Run) -> None:
    teacher, data = bundle.graphs["teacher"], data_of(run)
    other = replace(teacher, nodes=(replace(teacher.input, high=1), *teacher.nodes[1:]))
    report = energy.build(
        graph=bundle.graphs["integer"], inputs=data.test.integers(slice(5)), labels=data.test.labels[:5],
        teacher=other, data={}, accuracy={}, name="student", target="onnx",
    )  # fmt: skip
    assert report["accuracy"]["ann_counted"] is None
    assert [ann["role"] for ann in report["ann"]] == ["same_shape"]


def test_a_target_can_be_asked_before_the_training(config: TrainConfig) -> None:
    assert not api.check("loihi", config).input.static


def test_a_teacher_of_other_frames_is_refused(run: Run, config: TrainConfig, tmp_path: Path) -> None:
    other = {**config.as_dict(), "timesteps": 2, "teacher": str(run.path)}
    with pytest.raises(ConfigError, match="trained on other data"):
        train(TrainConfig(**other), out=tmp_path / "other")


def test_a_batch_is_time_major_in_memory_and_moves_all_frames_of_a_sample_alike(run: Run) -> None:
    images = Images.of(data_of(run).train, 1.0, torch.device("cpu"))
    rows = torch.arange(12)
    frames, labels = images.batch(rows)
    assert torch.equal(frames, images.pixels[:12].float())
    assert_array_equal(labels, rows % 10)
    folded = Frames(STEPS)(frames)
    assert folded.data_ptr() == frames.data_ptr()
    assert folded.is_contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    moved, _ = images.batch(rows, "shift")
    torch.manual_seed(0)
    together, _ = Images(images.pixels.amax(1), images.labels, 1.0).batch(rows, "shift")
    assert torch.equal(moved.amax(1), together)
    assert not torch.equal(moved, frames)
