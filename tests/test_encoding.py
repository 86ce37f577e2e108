"""Encoded pictures are snnTorch's codes, always alike outside of training, and go all the way to a proven file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from snntorch import spikegen

from snnkd_deploy import api, data
from snnkd_deploy.batches import Images, encoded
from snnkd_deploy.config import TrainConfig
from snnkd_deploy.encoding import Encoding, Kind
from snnkd_deploy.errors import ConfigError
from snnkd_deploy.export import export, read_run
from snnkd_deploy.run import Run
from snnkd_deploy.saliency_report import study
from snnkd_deploy.simulate import simulate
from snnkd_deploy.snn import models
from snnkd_deploy.train import train

CPU = torch.device("cpu")


def ramp(high: int) -> np.ndarray:
    return np.arange(high + 1, dtype=np.uint8).reshape(1, 1, 1, -1)


@pytest.mark.parametrize("timesteps", [2, 4, 7, 32])
@pytest.mark.parametrize("high", [16, 255])
def test_latency_is_the_linear_code_of_snntorch(timesteps: int, high: int) -> None:
    found = Encoding("latency", timesteps, high).spikes(ramp(high), np.arange(1))
    expected = spikegen.latency(
        torch.tensor(ramp(high)) / high,
        num_steps=timesteps,
        threshold=0.5 / high,
        normalize=True,
        linear=True,
        clip=True,
    )
    middle = (timesteps - 1) * (
        high - np.arange(high + 1)
    ) % high * 2 == high  # between two steps: float32 decides there
    assert_array_equal(found[0][..., ~middle], expected[:, 0].numpy()[..., ~middle])
    assert_array_equal(found.sum(axis=1)[0, 0, 0], [0] + [1] * high)


def test_one_step_of_latency_is_whether_a_pixel_is_black() -> None:
    assert_array_equal(Encoding("latency", 1, 255).spikes(ramp(255), np.arange(1))[0, 0], ramp(255)[0] > 0)


def test_rates_are_probabilities() -> None:
    """Means of 64,000 draws lie within five standard deviations of p / high; 0 and high are sure."""
    pixels = np.repeat(np.array([0, 1, 100, 254, 255], dtype=np.uint8), 1000).reshape(1, 1, 5, 1000)
    drawn = Encoding("rate", 64, 255).spikes(pixels, np.array([3]))[0].mean(axis=(0, 1, 3))
    torch.manual_seed(0)
    trained = encoded(Encoding("rate", 64, 255), torch.tensor(pixels), None)[0].float().mean((0, 1, 3)).numpy()
    share = np.array([0, 1, 100, 254, 255]) / 255
    for found in (drawn, trained):
        assert (abs(found - share) <= 5 * np.sqrt(share * (1 - share) / 64_000) + 1e-7).all()


@pytest.mark.parametrize("kind", ["rate", "latency"])
def test_a_batch_holds_the_picture_and_the_spikes_that_the_simulator_gets(kind: Kind) -> None:
    digits = data.load("digits", timesteps=3, encoding=kind)
    plain = data.load("digits")
    images = Images.of(digits.test, digits.scale, CPU)
    rows = torch.tensor([5, 300, 5])
    batch, labels = images.batch(rows)
    assert batch.shape == (3, 4, 1, 8, 8)
    assert_array_equal(batch[:, 0], plain.test.images[rows] / 16)
    assert_array_equal(batch[:, 1:].transpose(0, 1), digits.test.integers(rows.numpy()))
    assert_array_equal(digits.test.integers(slice(300, 301))[:, 0], digits.test.integers(np.array([7, 300]))[:, 1])
    assert_array_equal(digits.test.pictures(slice(4)), plain.test.integers(slice(4)))
    assert_array_equal(labels, plain.test.labels[rows])
    assert (digits.sha256, digits.input_shape, digits.sample_shape) == (plain.sha256, (3, 1, 8, 8), (1, 8, 8))


def test_only_training_draws_rates_anew() -> None:
    images = Images.of(data.load("digits", timesteps=3, encoding="rate").train, 1 / 16, CPU)
    rows = torch.arange(20)
    torch.manual_seed(0)
    first, second, fixed, again = (images.batch(rows, one)[0] for one in ("none", "none", None, None))
    assert not torch.equal(first, second)
    assert torch.equal(fixed, again)
    torch.manual_seed(0)
    assert torch.equal(images.batch(rows, "none")[0], first)


@pytest.fixture(scope="module", params=["rate", "latency"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = TrainConfig(
        encoding=request.param, width=4, epochs=4, teacher_epochs=4, timesteps=3, threads=1, augment="mixup"
    )
    return train(config, out=tmp_path_factory.mktemp("encoded") / "run")


def test_student_and_teacher_learn_and_are_what_is_traced(run: Run) -> None:
    assert min(run.accuracies.values()) > 0.3  # chance is 0.1
    traced, digits = read_run(run), data.configured(run.config)
    student, teacher = models.load(run)
    batch, _ = Images.of(digits.test, digits.scale, CPU).batch(torch.arange(20))
    some = slice(20)
    assert traced.teacher is not None
    met = simulate(traced.student, digits.test.integers(some)), simulate(traced.teacher, digits.test.pictures(some))
    np.testing.assert_allclose(met[0].logits, student(batch).detach(), atol=1e-4)  # float32 against float64
    np.testing.assert_allclose(met[1].logits, teacher(batch).detach(), atol=1e-4)


def test_spikes_reach_the_chip_and_are_counted(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNKD_LAVA_PYTHON", "/nowhere")  # lava itself is for `make lava`
    bundle = export(run, "loihi", tmp_path / "bundle")
    assert bundle.verified
    assert {node.placement for node in bundle.graphs["legal"]} == {"chip"}  # spikes need no host
    assert bundle.manifest["input"]["coding"] == f"{run.config.encoding}: one frame of spikes per step"
    assert bundle.manifest["ladder"]["folded"]["accuracy"] == run.accuracies["student"]
    report = api.energy(tmp_path / "report.json", bundle.path, samples=50)
    test = data.configured(run.config).test
    assert report["data"]["encoding"] == run.config.encoding
    assert report["layers"][0]["events_in"] == test.integers(slice(50)).sum()
    teacher = models.load(run)[1]
    batch, labels = Images.of(test, 1 / 16, CPU).batch(torch.arange(50))
    assert report["accuracy"]["ann_counted"] == (teacher(batch).argmax(1) == labels).double().mean().item()


def test_a_teacher_of_pictures_teaches_an_encoded_student(run: Run, tmp_path: Path) -> None:
    plain = TrainConfig(width=4, epochs=1, teacher_epochs=1, timesteps=1, threads=1, teacher=str(run.path))
    assert train(plain, out=tmp_path / "plain").accuracies["teacher"] == run.accuracies["teacher"]


def test_networks_that_look_at_different_things_are_not_compared_pixel_by_pixel(run: Run) -> None:
    with pytest.raises(ConfigError, match="its student sees spikes .* coding"):
        study(run, 5)


@pytest.mark.parametrize("engine", ["bptt", "rate"])
def test_both_engines_leave_the_picture_to_the_teacher(engine: str) -> None:
    from snnkd_deploy.snn.engines import load_engine

    network = models.student(TrainConfig(width=3, timesteps=3, encoding="rate"), (3, 1, 8, 8), 10)
    batch, _ = Images.of(data.load("digits", timesteps=3, encoding="rate").test, 1 / 16, CPU).batch(torch.arange(9))
    outputs = load_engine(engine, "none", frozenset()).outputs
    other = batch.clone()
    other[:, 0] = 7.0
    assert torch.equal(outputs(network, batch).logits, outputs(network, other).logits)


def test_frames_are_not_encoded_again(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'n-mnist' is frames already; encoding 'rate'"):
        data.load("n-mnist", tmp_path, 3, encoding="rate")
    with pytest.raises(ConfigError, match="timesteps = None"):
        data.load("digits", encoding="rate")
