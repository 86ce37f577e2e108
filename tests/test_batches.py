"""Batches are the pixels times the scale, moved and mirrored as told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snnkd_deploy.batches import Images, accuracy, augmented
from snnkd_deploy.data import Split

CPU = torch.device("cpu")


def images(count: int = 5) -> Images:
    pixels = np.arange(count * 2 * 8 * 8).reshape(count, 2, 8, 8).astype(np.uint8)
    pixels.setflags(write=False)  # as numpy gives what it reads from a file
    return Images.of(Split(pixels, np.arange(count)), 0.5, CPU)


def test_a_batch_is_its_rows_scaled_and_channels_last() -> None:
    source = images()
    batch, labels = source.batch(torch.tensor([3, 1]))
    assert torch.equal(batch, source.pixels[[3, 1]] * 0.5)
    assert labels.tolist() == [3, 1]
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_in_order_means_each_image_once() -> None:
    assert [labels.tolist() for _, labels in images().in_order(2)] == [[0, 1], [2, 3], [4]]


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    moved = torch.zeros_like(image)
    height, width = image.shape[1:]
    for row in range(max(0, down), min(height, height + down)):
        for column in range(max(0, right), min(width, width + right)):
            moved[:, row, column] = image[:, row - down, column - right]
    return moved


@pytest.mark.parametrize("augment", ["flip", "shift", "shift-flip"])
def test_augmentation_is_one_of_the_moves_it_names(augment: str) -> None:
    torch.manual_seed(0)
    image = torch.randint(1, 256, (2, 16, 24), dtype=torch.uint8)
    moves = [(d, r) for d in range(-2, 3) for r in range(-3, 4)] if "shift" in augment else [(0, 0)]
    mirrored = [image, image.flip(2)] if "flip" in augment else [image]
    expected = [shifted(one, *move) for one in mirrored for move in moves]
    found = augmented(image.repeat(500, 1, 1, 1), augment)
    which = [[torch.equal(one, other) for other in expected].index(True) for one in found]
    assert len(set(which)) > 0.9 * len(expected)


def test_augmentation_follows_the_seed() -> None:
    pixels = images().pixels
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(augmented(pixels, "shift-flip"))
    first, second = found
    assert torch.equal(first, second)
    assert augmented(pixels, "none") is pixels


def test_accuracy_is_the_share_of_right_answers_in_eval_mode() -> None:
    class Threes(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            assert not self.training
            assert not torch.is_grad_enabled()
            return nn.functional.one_hot(torch.full((len(batch),), 3), 5).float()

    assert accuracy(Threes(), images()) == 1 / 5
