"""A cached teacher teaches to the same bits, answers no image with the answer of another, and says when it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import snnkd_deploy.train as training
from snnkd_deploy.config import TrainConfig, load_config
from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn import models
from snnkd_deploy.snn.models import Network, Outputs
from snnkd_deploy.teacher_cache import Remembered, check_room
from snnkd_deploy.train import train
from tests.distill.setups import CLASSES, SHAPE, batch, pair


class Counted(Remembered):
    """Counts how often the teacher itself is asked."""

    def __init__(self, teacher: Network, capacity: int, taps: bool, encoded: bool = False) -> None:
        super().__init__(teacher, capacity, taps, encoded)
        self.asked = 0

    def outputs(self, images: Tensor) -> Outputs:
        before = len(self.rows)
        found = super().outputs(images)
        self.asked += len(self.rows) > before
        return found


def alike(one: Outputs, other: Outputs) -> bool:
    same = torch.equal(one.logits, other.logits) and torch.equal(one.steps, other.steps)
    return same and all(
        torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(one.taps, other.taps, strict=True)
    )


@pytest.mark.parametrize("model", ["cnn", "mlp"])
def test_an_image_in_any_order_has_its_own_answer(model: str) -> None:
    teacher, images = pair(model).teacher, batch(8)[0].contiguous(memory_format=torch.channels_last)
    cache = Counted(teacher, 8, taps=True)
    first = cache.outputs(images)
    assert alike(first, teacher.outputs(images))
    assert alike(cache.outputs(images.flip(0)), teacher.outputs(images.flip(0)))
    assert cache.asked == 1


def test_a_changed_image_is_never_answered_with_what_was_said_of_it_before() -> None:
    teacher, images = pair().teacher, batch(8)[0]
    cache = Counted(teacher, 64, taps=True)
    cache.outputs(images)
    for changed in (images.flip(3), images.roll(1, 2), images + 1e-6 * torch.rand(1)):
        assert alike(cache.outputs(changed), teacher.outputs(changed))
    assert cache.asked == 4


def test_what_finds_no_room_is_computed() -> None:
    teacher, images = pair().teacher, batch(8)[0]
    cache = Remembered(teacher, 5, taps=False)
    for _ in range(2):
        assert torch.equal(cache.outputs(images).logits, teacher.outputs(images).logits)
    assert len(cache.rows) == 5


def test_a_picture_is_known_whatever_spikes_encode_it() -> None:
    torch.manual_seed(0)
    config = TrainConfig(width=4, timesteps=3, encoding="rate")
    teacher = models.teacher(config, (3, *SHAPE), CLASSES).eval()
    pictures, spikes = batch(8)[0][:, None], torch.rand(2, 8, 3, *SHAPE).round()
    cache = Counted(teacher, 8, taps=True, encoded=True)
    for one in spikes:
        images = torch.cat([pictures, one], dim=1)
        assert alike(cache.outputs(images), teacher.outputs(images))
    assert cache.asked == 1


@pytest.mark.parametrize(("method", "encoding"), [("feature", "direct"), ("logits", "rate")])
def test_a_cached_teacher_teaches_to_the_same_bits(
    method: str, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Counted] = []

    def counted(*arguments: Any, **more: Any) -> Counted:
        made.append(Counted(*arguments, **more))
        return made[-1]

    monkeypatch.setattr(training, "Remembered", counted)
    options: dict[str, Any] = {"width": 2, "timesteps": 1, "epochs": 2, "teacher_epochs": 1, "encoding": encoding}
    runs = [
        train(load_config(**options, method=method, threads=1, cache_teacher=cached), out=tmp_path / str(cached))
        for cached in (False, True)
    ]
    assert runs[0].student_file.read_bytes() == runs[1].student_file.read_bytes()
    steps = 2 * (1438 // 64)
    assert 1438 // 64 <= made[0].asked < steps
    assert len(made[0].kept) == (3 if method == "feature" else 1)  # logits, and the two taps where they are looked at


def test_what_would_not_come_again_and_too_many_values_are_refused_before_the_training(tmp_path: Path) -> None:
    for options, message in (
        ({"augment": "shift"}, "cache_teacher: augment 'shift' changes images anew each time"),
        ({"augment": "mixup"}, "cache_teacher: augment 'mixup' changes images anew each time"),
        ({"devices": 2}, "cache_teacher: each of 2 processes meets other images in each epoch"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(load_config(**options, cache_teacher=True), out=tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="50000 images need 12.2 GiB, up to 2 are accepted"):
        check_room(50_000, [(100,), (64, 32, 32)])
