"""Saliency of networks whose gradient is known, and agreement at its ends."""

from __future__ import annotations

from dataclasses import astuple

import pytest
import torch
from torch import Tensor, nn

from snnkd_deploy.snn.saliency import agreement, ranks, saliency, saliency_map, without
from tests.distill.setups import batch, pair


class Weighted(nn.Module):
    """Logits of two classes: a weighted sum of the pixels, and its negative."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.weights = torch.tensor(weights, dtype=torch.float32)

    def forward(self, images: Tensor) -> Tensor:
        value = images.flatten(1) @ self.weights
        return torch.stack([value, -2 * value], 1)


IMAGES, LABELS = torch.rand(2, 1, 1, 3), torch.tensor([0, 1])


def test_saliency_is_the_size_of_the_gradient_of_the_label_s_logit() -> None:
    found = saliency(Weighted(1, -2, 0), IMAGES, LABELS)
    assert found.tolist() == [[[[1, 2, 0]]], [[[2, 4, 0]]]]


def test_equal_values_share_the_mean_of_their_places() -> None:
    assert ranks(torch.tensor([[5.0, 1.0, 5.0, 7.0], [0.0, 0.0, 0.0, 0.0]])).tolist() == [
        [1.5, 0, 1.5, 3],
        [1.5, 1.5, 1.5, 1.5],
    ]


def test_networks_that_agree_up_to_a_factor_agree_fully() -> None:
    found = agreement(Weighted(1, -2, 3), Weighted(-3, 6, 9), IMAGES, LABELS)
    assert astuple(found) == pytest.approx((1, 1))


def test_the_order_of_pixels_and_their_sizes_are_two_measures() -> None:
    found = agreement(Weighted(1, 2, 3), Weighted(3, 2, 1), IMAGES, LABELS)
    assert astuple(found) == pytest.approx((10 / 14, -1))


def test_a_network_that_does_not_react_agrees_with_nothing() -> None:
    found = agreement(Weighted(0, 0, 0), Weighted(1, 2, 3), IMAGES, LABELS)
    assert astuple(found) == (0, 0)


def test_a_spiking_student_has_a_saliency_and_neither_network_is_changed() -> None:
    student, teacher, _ = pair()
    student.eval()
    images, labels = batch()
    found = agreement(student, teacher, images, labels)
    assert 0 < found.cosine < 1
    assert -1 < found.spearman < 1
    assert not images.requires_grad
    assert all(p.grad is None for p in [*student.parameters(), *teacher.parameters()])
    assert astuple(agreement(student, student, images, labels)) == pytest.approx((1, 1))


def test_a_map_shows_the_largest_channel_and_the_mean_of_frames() -> None:
    channels = torch.tensor([[1.0, 5.0], [3.0, 2.0]]).view(1, 2, 1, 2)
    assert saliency_map(channels).tolist() == [[[3, 5]]]
    frames = torch.stack([channels, 3 * channels], 1)
    assert saliency_map(frames).tolist() == [[[6, 10]]]


def test_the_largest_pixels_are_blurred_in_every_channel_and_frame_and_no_other() -> None:
    images, order = torch.rand(3, 2, 4, 12, 12), torch.rand(3, 12, 12)
    found = without(images, order, 0.25)
    changed = (found != images).flatten(1, 2).all(1)
    assert (found != images).flatten(1, 2).any(1).equal(changed)
    limit = order.flatten(1).sort(dim=1, descending=True).values[:, 35]
    assert changed.equal(order >= limit[:, None, None])
    assert without(images, order, 0).equal(images)


def test_a_blurred_pixel_is_the_mean_of_the_window_around_it() -> None:
    images = torch.rand(1, 1, 12, 12)
    found = without(images, torch.rand(1, 12, 12), 1)
    assert found[0, 0, 6, 6].item() == pytest.approx(images[0, 0, 4:9, 4:9].mean().item())
    assert found[0, 0, 0, 0].item() == pytest.approx(images[0, 0, :3, :3].mean().item())
