"""The blur takes whole channels of a sample; without it and with an identity to restore, only the error remains."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.distill.bkd import BKD, blurred, restoration, restoration_error
from tests.distill.setups import batch, pair


def identity(block: nn.Sequential) -> None:
    for layer in block:
        if isinstance(layer, nn.Conv2d):
            nn.init.dirac_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def test_the_blur_takes_a_channel_of_a_sample_whole_or_not_at_all() -> None:
    torch.manual_seed(0)
    features = torch.rand(64, 32, 3, 3) + 0.5
    found = blurred(features, 0.25)
    gone = (found == 0).flatten(2)
    assert torch.equal(gone.any(2), gone.all(2))
    assert torch.equal(found[found != 0], features[found != 0])  # what is kept is not rescaled
    # 2048 draws: standard deviation 0.0096
    assert gone.all(2).double().mean().item() == pytest.approx(0.25, abs=0.04)
    assert 0 < gone[0].all(1).sum() < 32
    assert not torch.equal(gone[0], gone[1])


def test_no_blur_changes_nothing() -> None:
    features = torch.rand(2, 3, 4, 4)
    assert torch.equal(blurred(features, 0.0), features)


def test_an_identity_to_restore_leaves_the_squared_error() -> None:
    networks, (images, labels) = pair(width=6), batch()
    method, (student, teacher) = BKD(networks.setup, blur=0.0, weight=1.0), networks.outputs(images)
    identity(method.restore)
    found = method.losses(student, teacher, images, labels)["restored"].item()
    assert found == pytest.approx(functional.mse_loss(student.taps[-1], teacher.taps[-1]).item())


def test_the_error_is_a_mean_over_everything() -> None:
    restored = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    assert restoration_error(restored, torch.tensor([3.0, 3.0]).view(1, 2, 1, 1)).item() == pytest.approx((4 + 1) / 2)


def test_a_teacher_without_positions_is_compared_with_the_mean_over_them() -> None:
    restored = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]])
    assert restoration_error(restored, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(1 / 2)


def test_channels_are_aligned_only_where_they_differ() -> None:
    assert isinstance(BKD(pair(width=6).setup).align, nn.Identity)
    align = BKD(pair().setup).align
    assert isinstance(align, nn.Conv2d)
    assert (align.in_channels, align.out_channels) == (8, 12)


def test_the_block_keeps_the_size_of_the_map() -> None:
    features: Tensor = restoration(3)(torch.rand(2, 3, 5, 4))
    assert features.shape == (2, 3, 5, 4)


def test_weighted_soft_labels_come_along_unless_another_term_is_asked_for() -> None:
    networks, (images, labels) = pair(), batch()
    outputs = networks.outputs(images)
    assert BKD(networks.setup).losses(*outputs, images, labels).keys() == {"ce", "restored", "wsl"}
    assert BKD(networks.setup, logits="kd").losses(*outputs, images, labels).keys() == {"ce", "restored", "kd"}
