"""A converted student answers as its ANN does, the better the more timesteps there are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from snnkd_deploy.batches import Images, accuracy
from snnkd_deploy.config import TrainConfig
from snnkd_deploy.data import load
from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn import models
from snnkd_deploy.snn.conversion import convert, fit, obstacle
from snnkd_deploy.snn.lif import LIF, lif
from snnkd_deploy.snn.models import Network

SHAPE, CLASSES = (1, 8, 8), 10
FAITHFUL: dict[str, Any] = {"reset": "subtract", "decay": 1.0}  # neurons whose rate can be any value of a ReLU
DATA = load("digits")
TRAIN, TEST = (Images.of(split, DATA.scale, torch.device("cpu")) for split in (DATA.train, DATA.test))


def config(model: str, **options: Any) -> TrainConfig:
    return TrainConfig(model=model, width=8, depth=1 if "resnet" in model else 2, **options)


@pytest.fixture(scope="module", params=["cnn", "resnet"])
def trained(request: pytest.FixtureRequest) -> tuple[str, Network]:
    """A ReLU network after a few epochs on the digits."""
    model = str(request.param)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ann = models.teacher(config(model), SHAPE, CLASSES).train()
        optimizer = torch.optim.AdamW(ann.parameters(), lr=3e-3)
        for _ in range(5):
            for rows in torch.randperm(len(TRAIN)).split(64):
                images, labels = TRAIN.batch(rows)
                optimizer.zero_grad()
                functional.cross_entropy(ann(images), labels).backward()
                optimizer.step()
    return model, ann.eval()


def converted(trained: tuple[str, Network], **options: Any) -> Network:
    model, ann = trained
    return convert(ann, models.student(config(model, **options), SHAPE, CLASSES), TRAIN.spread(256)).eval()


def test_more_timesteps_bring_the_student_to_the_accuracy_of_its_ann(trained: tuple[str, Network]) -> None:
    target = accuracy(trained[1], TEST)
    met = [accuracy(converted(trained, timesteps=steps, **FAITHFUL), TEST) for steps in (1, 4, 32)]
    assert target > 0.9
    assert met[0] < met[1] < met[2] + 0.01
    assert abs(met[2] - target) < 0.02  # 7 of 359 test images


@torch.no_grad()
def test_logits_come_nearer_with_the_timesteps(trained: tuple[str, Network]) -> None:
    images, ann = TEST.spread(48), trained[1]
    wanted = ann(images)
    apart = [
        ((converted(trained, timesteps=steps, **FAITHFUL)(images) - wanted).norm() / wanted.norm()).item()
        for steps in (4, 16, 64)
    ]
    assert apart[0] > apart[1] > apart[2]
    assert apart[2] < 0.15


@pytest.mark.parametrize(
    "options", [{}, {"threshold": 0.3}, {"decay": 0.9, "reset": "subtract", "learn_decay": "layer"}]
)
def test_a_student_with_leak_starts_nearer_than_from_fresh_weights(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ann = models.teacher(config("mlp"), SHAPE, CLASSES).train()
    optimizer = torch.optim.AdamW(ann.parameters(), lr=1e-2)
    images, labels = TRAIN.batch(torch.arange(400))
    for _ in range(60):
        optimizer.zero_grad()
        functional.cross_entropy(ann(images), labels).backward()
        optimizer.step()
    fresh = models.student(config("mlp", timesteps=4, **options), SHAPE, CLASSES).train()
    before = functional.cross_entropy(fresh(images), labels).item()
    after = functional.cross_entropy(convert(ann, fresh, images).train()(images), labels).item()
    assert after < 0.6 * before


def test_the_threshold_changes_no_spike_of_a_converted_student(trained: tuple[str, Network]) -> None:
    if trained[0] == "resnet":
        with pytest.raises(ConfigError, match="sums spikes as they are, which needs a threshold of 1; met 0.5"):
            converted(trained, threshold=0.5)
        return
    images = TEST.spread(64)
    one, other = (converted(trained, timesteps=4, threshold=threshold)(images) for threshold in (1.0, 0.5))
    torch.testing.assert_close(one, other)  # a power of two: the same roundings


def test_spikes_that_are_added_to_spikes_share_a_scale() -> None:
    torch.manual_seed(0)
    options = {"model": "sew_resnet18", "width": 4, **FAITHFUL}
    ann = models.teacher(TrainConfig(**options), SHAPE, CLASSES).train()
    ann(TRAIN.spread(256))
    images, wanted = TEST.spread(16), ann.eval()(TEST.spread(16))
    apart = []
    for steps in (8, 48):
        student = models.student(TrainConfig(**options, timesteps=steps), SHAPE, CLASSES)
        apart.append(((convert(ann, student, TRAIN.spread(256)).eval()(images) - wanted).norm() / wanted.norm()).item())
    assert apart[1] < 0.5 * apart[0]


def test_neurons_without_leak_need_no_gain_and_half_a_threshold() -> None:
    currents = torch.linspace(-1, 1, 2001)
    for steps in (4, 8):
        assert fit(LIF(1.0, 1.0, "subtract"), steps, currents) == pytest.approx((1.0, 0.5 / steps))


def test_neurons_with_leak_come_nearer_to_a_relu_than_with_the_current_as_it_is() -> None:
    currents, leaky = torch.linspace(-1, 1, 2001), LIF(0.5)
    gain, shift = fit(leaky, 8, currents)
    errors = [
        (lif((a * currents + b).repeat(8, 1), leaky).mean(0) - currents.clamp(0, 1)).square().mean().item()
        for a, b in ((1.0, 0.0), (gain, shift))
    ]
    assert errors[1] < 0.7 * errors[0]


def test_networks_of_other_shape_are_refused() -> None:
    ann = models.teacher(config("cnn"), SHAPE, CLASSES)
    student = models.student(TrainConfig(width=4), SHAPE, CLASSES)
    assert obstacle(ann, models.student(config("cnn"), SHAPE, CLASSES)) is None
    with pytest.raises(ConfigError, match="conversion: an ANN of the student's shape is needed"):
        convert(ann, student, TRAIN.spread(8))


def test_a_network_that_adds_currents_past_neurons_is_refused() -> None:
    example = TrainConfig(model="spikingformer", width=4, depth=1)
    reason = obstacle(models.teacher(example, SHAPE, CLASSES), models.student(example, SHAPE, CLASSES))
    assert reason is not None
    assert "blocks.0.norm4 feeds several layers of neurons" in reason
