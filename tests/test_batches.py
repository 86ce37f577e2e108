"""Batches are the pixels times the scale, moved and mirrored as told."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from snnkd_deploy.batches import Images, accuracy
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


def test_accuracy_is_the_share_of_right_answers_in_eval_mode() -> None:
    class Threes(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            assert not self.training
            assert not torch.is_grad_enabled()
            return nn.functional.one_hot(torch.full((len(batch),), 3), 5).float()

    assert accuracy(Threes(), images()) == 1 / 5


def test_mixup_gives_scaled_mixtures_and_shares_of_classes() -> None:
    source = Images.of(Split(images().pixels.numpy(), np.arange(5)), 0.5, CPU, classes=6)
    torch.manual_seed(0)
    batch, shares = source.batch(torch.arange(5), "mixup")
    assert shares.shape == (5, 6)
    assert torch.allclose(batch, torch.einsum("bc,cxyz->bxyz", shares[:, :5], source.pixels * 0.5), atol=1e-3)
