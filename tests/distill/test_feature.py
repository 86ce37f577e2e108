"""Relative errors worked out by hand, and projectors that are affine and no more."""

from __future__ import annotations

import pytest
import torch

from snnkd_deploy.distill.feature import Feature, normalised_error, projector
from tests.distill.setups import batch, pair


def test_the_error_is_relative_to_the_teacher_of_each_sample() -> None:
    teacher = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    student = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    assert normalised_error(student, teacher).item() == pytest.approx((16 / 25 + 1 / 4) / 2)


def test_a_student_that_says_nothing_costs_one_and_the_scale_does_not_matter() -> None:
    student, teacher = torch.rand(5, 3, 2, 2), torch.rand(5, 3, 2, 2) + 0.1
    assert normalised_error(torch.zeros_like(teacher), teacher).item() == pytest.approx(1, abs=1e-5)
    scaled = normalised_error(7 * student, 7 * teacher).item()
    assert scaled == pytest.approx(normalised_error(student, teacher).item(), rel=1e-4)  # but for the epsilon
    assert normalised_error(teacher, teacher).item() == 0


def test_a_silent_teacher_is_no_division_by_zero() -> None:
    assert normalised_error(torch.zeros(2, 3), torch.zeros(2, 3)).item() == 0


def test_equal_channels_get_scale_and_shift_each_that_start_as_identity() -> None:
    layer, features = projector(3, 3), torch.rand(2, 3, 4, 4)
    assert torch.equal(layer(features), features)
    assert sum(p.numel() for p in layer.parameters()) == 2 * 3


@pytest.mark.parametrize("wanted", [3, 5])
def test_the_projector_is_affine(wanted: int) -> None:
    layer, one, other = projector(3, wanted), torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    mixed = layer(0.25 * one + 0.75 * other)
    torch.testing.assert_close(mixed, 0.25 * layer(one) + 0.75 * layer(other))


def test_membranes_are_asked_for_only_when_they_are_the_feature() -> None:
    setup = pair().setup
    assert Feature(setup).needs == frozenset()
    assert Feature(setup, feature="membrane").needs == {"membranes"}


def test_the_membrane_is_compared_in_place_of_the_rates() -> None:
    networks, (images, labels) = pair(), batch()
    student = networks.student.outputs(images, membranes=True)
    teacher = networks.teacher.outputs(images)
    torch.manual_seed(0)
    spikes = Feature(networks.setup)
    torch.manual_seed(0)
    membrane = Feature(networks.setup, feature="membrane", weight=2.0)
    found = membrane.losses(student, teacher, images, labels)["feature"].item()
    assert found != pytest.approx(2 * spikes.losses(student, teacher, images, labels)["feature"].item())
    assert found == pytest.approx(2 * spikes.distance(student.membranes, teacher.taps).item())


def test_the_last_tap_alone_has_one_projector() -> None:
    setup = pair().setup
    assert [len(Feature(setup, taps=taps).projectors) for taps in ("all", "last")] == [2, 1]
