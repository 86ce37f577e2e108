"""Changed images are the moves and holes that the names promise, and follow the seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snnkd_deploy import augment as augmenting
from snnkd_deploy import data
from snnkd_deploy.augment import augmented, cutout, mixed, resized_crop
from snnkd_deploy.config import AUGMENTS, TrainConfig
from snnkd_deploy.errors import ConfigError
from snnkd_deploy.progress import Silent
from snnkd_deploy.train import train


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    moved = torch.zeros_like(image)
    height, width = image.shape[1:]
    for row in range(max(0, down), min(height, height + down)):
        for column in range(max(0, right), min(width, width + right)):
            moved[:, row, column] = image[:, row - down, column - right]
    return moved


@pytest.mark.parametrize("augment", ["flip", "shift", "shift-flip", "crop", "crop+flip"])
def test_augmentation_is_one_of_the_moves_it_names(augment: str) -> None:
    torch.manual_seed(0)
    image = torch.randint(1, 256, (2, 16, 24), dtype=torch.uint8)
    up, left = (4, 4) if "crop" in augment else (2, 3) if "shift" in augment else (0, 0)
    moves = [(down, right) for down in range(-up, up + 1) for right in range(-left, left + 1)]
    mirrored = [image, image.flip(2)] if "flip" in augment else [image]
    expected = [shifted(one, *move) for one in mirrored for move in moves]
    found = augmented(image.repeat(800, 1, 1, 1), augment)
    which = [[torch.equal(one, other) for other in expected].index(True) for one in found]
    assert len(set(which)) > 0.9 * len(expected)


def test_augmentation_follows_the_seed() -> None:
    pixels = torch.arange(5 * 2 * 8 * 8).remainder(256).to(torch.uint8).view(5, 2, 8, 8)
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(augmented(pixels, "shift-flip"))
    first, second = found
    assert torch.equal(first, second)
    assert augmented(pixels, "none") is pixels


def test_a_cutout_is_a_square_of_16_around_a_pixel_and_may_stand_out() -> None:
    torch.manual_seed(0)
    image = torch.randint(1, 256, (3, 32, 32), dtype=torch.uint8)
    found = cutout(image.repeat(3000, 1, 1, 1))
    seen = set()
    for one in found:
        rows, columns = ((one.sum((0, axis)) < image.sum((0, axis))).nonzero().flatten().tolist() for axis in (2, 1))
        expected = image.clone()
        expected[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 0
        assert torch.equal(one, expected)
        seen.add((rows[0], rows[-1], columns[0], columns[-1]))
    sides = sorted({(top, bottom) for top, bottom, _, _ in seen})
    assert sides == sorted((max(0, c - 8), min(31, c + 7)) for c in range(32))
    assert len(seen) > 0.9 * 32 * 32


def test_a_cutout_of_a_small_image_leaves_at_least_three_quarters() -> None:
    torch.manual_seed(0)
    assert {int(one.sum()) for one in cutout(torch.ones(500, 1, 8, 8, dtype=torch.uint8))} <= {48, 52, 56, 58, 60, 55}


def test_changes_are_done_in_the_order_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"crop": lambda x: 2 * x, "flip": lambda x: x + 1}
    monkeypatch.setattr(augmenting, "CHANGES", changes)
    one = torch.ones(1, 1, 1, 1)
    assert (augmented(one, "crop+flip").item(), augmented(one, "flip+crop").item()) == (3, 4)


def test_the_names_are_those_that_the_configuration_accepts() -> None:
    assert tuple(augmenting.CHANGES) == AUGMENTS


@pytest.mark.parametrize("shape", [(1, 28, 28), (4, 3, 32, 32)])
def test_colours_need_colour_images(shape: tuple[int, ...]) -> None:
    augmenting.check("crop+flip+autoaugment", (3, 32, 32))
    augmenting.check("crop", shape)
    with pytest.raises(ConfigError, match="3xHxW"):
        augmenting.check("crop+autoaugment", shape)


def test_resized_crops_and_mixup_say_where_they_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="resized-crop interpolates pictures"):
        augmenting.check("resized-crop", (4, 2, 34, 34))
    with pytest.raises(ConfigError, match="must be last"):
        augmenting.check("mixup+crop", (1, 8, 8))
    augmenting.check("resized-crop+mixup", (1, 8, 8))


def test_a_resized_crop_is_a_part_that_torch_interpolates(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.randint(0, 256, (3, 24, 32), dtype=torch.uint8)
    parts = [(0, 0, 24, 32), (3, 5, 9, 11), (23, 31, 1, 1), (0, 20, 7, 12)]
    top, left, tall, wide = torch.tensor(parts, dtype=torch.float32).T
    monkeypatch.setattr(augmenting, "_parts", lambda *size: (top, left, tall, wide))
    found = resized_crop(image.repeat(4, 1, 1, 1)).float()
    for one, (y, x, height, width) in zip(found, parts, strict=True):
        part = image[None, :, y : y + height, x : x + width].float()
        expected = torch.nn.functional.interpolate(part, (24, 32), mode="bilinear", align_corners=False)[0]
        assert (one - expected).abs().max() <= 0.501  # rounded to whole pixels


def test_parts_of_a_crop_lie_inside_and_have_the_area_and_sides_that_they_should() -> None:
    torch.manual_seed(0)
    top, left, tall, wide = augmenting._parts(4000, 40, 60)
    assert min(top.min(), left.min()) >= 0
    assert (top + tall).max() <= 40
    assert (left + wide).max() <= 60
    area, sides = tall * wide / 2400, wide / tall
    assert 0.07 < area.min() < 0.12
    assert area.max() > 0.8
    assert sides.min() > 0.7
    assert sides.max() < 1.45  # 4:3, in whole pixels


def test_a_shape_that_no_part_fits_is_taken_whole() -> None:
    assert [one.tolist() for one in augmenting._parts(2, 1, 500)] == [[0, 0], [0, 0], [1, 1], [500, 500]]


def test_mixed_images_and_labels_share_alike() -> None:
    torch.manual_seed(1)
    pixels, labels = torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8), torch.arange(6)
    images, shares = mixed(pixels, labels, 7)
    assert torch.allclose(shares.sum(1), torch.ones(6))
    assert torch.allclose(images, torch.einsum("bc,cxyz->bxyz", shares[:, :6], pixels.float()), atol=1e-3)
    seen = {round(float(mixed(pixels, labels, 7)[1].max()), 1) for _ in range(100)}
    assert seen == {0.5, 0.6, 0.7, 0.8, 0.9, 1.0}


class Interrupt(Silent):
    """Raises like Ctrl-C after the student's first epoch."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        if row["stage"] == "student":
            raise KeyboardInterrupt


def test_a_resumed_run_sees_the_changes_that_it_would_have_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "SOURCES", dict(data.SOURCES))

    @data.dataset("noise")
    def noise(folder: Path) -> data.DataSet:
        pixels = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
        split = data.Split(pixels, np.arange(60) % 2)
        return data.DataSet("noise", split, split, ("even", "odd"), 1 / 255)

    def config(augment: str) -> TrainConfig:
        return TrainConfig(
            dataset="noise", model="mlp", width=4, depth=1, epochs=2, teacher_epochs=1, batch_size=20, timesteps=2,
            threads=1, augment=augment,
        )  # fmt: skip

    everything = config("crop+flip+autoaugment+cutout")
    whole, plain = train(everything, out=tmp_path / "whole"), train(config("none"), out=tmp_path / "plain")
    with pytest.raises(KeyboardInterrupt):
        train(everything, out=tmp_path / "cut", watch=Interrupt())
    cut = train(out=tmp_path / "cut", resume=True)
    assert cut.student_file.read_bytes() == whole.student_file.read_bytes() != plain.student_file.read_bytes()
    with pytest.raises(ConfigError, match="autoaugment"):
        train(TrainConfig(augment="autoaugment"), out=tmp_path / "digits")
