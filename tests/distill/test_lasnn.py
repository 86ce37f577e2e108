"""Attention maps worked out by hand, blind to the scale of features and to silent layers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from snnkd_deploy.config import load_config
from snnkd_deploy.distill import create
from snnkd_deploy.distill.lasnn import LaSNN, attention, attention_distance
from snnkd_deploy.errors import ConfigError, RunError
from snnkd_deploy.train import train
from tests.distill.setups import batch, pair


def test_a_map_is_the_energy_of_each_position_at_length_one() -> None:
    # two channels, two positions: 1 + 1 = 2 and 1 + 0 = 1
    features = torch.tensor([[[[1.0, 1.0]], [[1.0, 0.0]]]])
    assert attention(features)[0].tolist() == pytest.approx([2 / math.sqrt(5), 1 / math.sqrt(5)])


def test_the_distance_of_maps_that_share_no_position_is_two() -> None:
    left, right = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 5.0]]]])
    assert attention_distance(left, right).item() == pytest.approx(2)
    assert attention_distance(torch.cat([left, left]), torch.cat([left, right])).item() == pytest.approx(1)


def test_the_scale_of_features_does_not_matter() -> None:
    student, teacher = torch.rand(4, 3, 5, 5), torch.rand(4, 7, 5, 5)
    once = attention_distance(student, teacher).item()
    assert attention_distance(0.3 * student, 20 * teacher).item() == pytest.approx(once, rel=1e-5)
    assert attention_distance(teacher, 3 * teacher).item() == pytest.approx(0, abs=1e-9)


def test_a_silent_layer_has_no_map_and_a_finite_gradient() -> None:
    silent = torch.zeros(2, 3, 4, 4, requires_grad=True)
    distance = attention_distance(silent, torch.rand(2, 3, 4, 4))
    assert distance.item() == pytest.approx(1)
    (slope,) = torch.autograd.grad(distance, silent)
    assert torch.equal(slope, torch.zeros_like(slope))


def test_maps_of_unequal_size_are_compared_at_the_smaller() -> None:
    large = torch.rand(2, 3, 8, 8)
    small = torch.nn.functional.avg_pool2d(large, 2)
    assert attention_distance(large, small).item() == pytest.approx(0, abs=1e-9)
    assert attention_distance(small, large).item() == pytest.approx(0, abs=1e-9)


def test_the_term_is_the_weighted_sum_over_the_blocks() -> None:
    networks, (images, labels) = pair(), batch()
    student, teacher = networks.outputs(images)
    expected = sum(attention_distance(s, t).item() for s, t in zip(student.taps, teacher.taps, strict=True))
    losses = LaSNN(networks.setup, weight=2.0).losses(student, teacher, images, labels)
    assert losses["attention"].item() == pytest.approx(2 * expected)
    assert losses.keys() == {"ce", "attention"}


def test_blocks_without_positions_are_left_out() -> None:
    assert LaSNN(pair("resnet").setup).pairs == [(0, 0), (1, 1), (2, 2), (3, 3)]  # the last map of 8x8 pixels is 1x1
    with pytest.raises(ConfigError, match="method 'lasnn': no block of both networks has a map"):
        create("lasnn", pair("mlp").setup)


def first_loss(tmp_path: Path, **options: Any) -> float:
    """Of the first epoch, in which the learning rate is too small to learn anything."""
    settings = {"width": 4, "timesteps": 2, "epochs": 1, "teacher_epochs": 3, "threads": 1, "method": "lasnn"}
    made = train(
        load_config(**{**settings, "learning_rate": 1e-6, **options}), out=tmp_path / str(len(list(tmp_path.iterdir())))
    )
    last = (made.path / "history.csv").read_text().splitlines()[-1]
    return float(last.split(",")[2])


def test_a_converted_start_is_nearer_than_fresh_weights(tmp_path: Path) -> None:
    fresh = first_loss(tmp_path, method_options={"start": "fresh"})
    converted = first_loss(tmp_path, teacher=str(tmp_path / "0"))
    assert converted < 0.7 * fresh


def test_the_start_of_a_larger_teacher_is_fresh_or_that_of_another_run(tmp_path: Path) -> None:
    first_loss(tmp_path, method="none")
    larger = {"teacher_width": 6, "teacher_epochs": 1}
    fresh = first_loss(tmp_path, **larger)
    other = first_loss(tmp_path, **larger, method_options={"start": str(tmp_path / "0")})
    assert other < 0.8 * fresh
    with pytest.raises(ConfigError, match="method 'lasnn': start = 'convert': an ANN of the student's shape is needed"):
        train(load_config(width=4, method="lasnn", method_options={"start": "convert"}, **larger), out=tmp_path / "no")
    assert not (tmp_path / "no").exists()
    with pytest.raises(RunError, match="no run at nowhere"):
        train(load_config(method="lasnn", method_options={"start": "nowhere"}))
