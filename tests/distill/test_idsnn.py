"""The student starts from the teacher's blocks: which ones, how they are fitted, and what they compute."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnkd_deploy.config import TrainConfig
from snnkd_deploy.distill.idsnn import IDSNN, fitted, spread
from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn import models
from snnkd_deploy.snn.models import Network
from tests.distill.setups import CLASSES, SHAPE, batch, pair


def prepared(**options: Any) -> tuple[Network, Network]:
    """A student and a teacher whose BatchNorms have seen images, after `prepare`."""
    torch.manual_seed(0)
    config = TrainConfig(**{"model": "cnn", "width": 4, "teacher_width": 4, "timesteps": 2, **options})
    student, teacher = models.student(config, SHAPE, CLASSES), models.teacher(config, SHAPE, CLASSES)
    teacher.train()(torch.rand(32, *SHAPE))
    for norm in (module for module in teacher.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.bias)
    IDSNN(pair().setup).prepare(student, teacher.eval(), torch.rand(2, *SHAPE))
    return student.eval(), teacher


def weight(network: Network, name: str) -> Tensor:
    return network.get_parameter(f"blocks.{name}.weight")


@pytest.mark.parametrize(
    ("wanted", "available", "chosen"),
    [(2, 2, [0, 1]), (2, 3, [0, 1]), (2, 4, [0, 2]), (2, 6, [0, 3]), (3, 9, [0, 3, 6]), (3, 2, [0, 1, 1]), (1, 3, [0])],
)
def test_blocks_are_chosen_at_even_distances(wanted: int, available: int, chosen: list[int]) -> None:
    assert spread(wanted, available) == chosen


def test_channels_are_cut_or_repeated() -> None:
    source = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert fitted(source, torch.Size([1, 2])).tolist() == [[1, 2]]
    assert fitted(source, torch.Size([3, 4])).tolist() == [[1, 2, 3, 1], [4, 5, 6, 4], [1, 2, 3, 1]]


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet"])
def test_equal_shapes_take_over_all_but_shortcuts_and_readout(model: str) -> None:
    student, teacher = prepared(model=model)
    theirs = teacher.state_dict()
    for name, tensor in student.state_dict().items():
        copied = "shortcut" not in name and not name.startswith("head")
        assert torch.equal(tensor, theirs[name]) == (copied or name.endswith("num_batches_tracked")) or "norm" in name
        assert not copied or torch.equal(tensor, theirs[name])


def test_a_stage_of_a_deeper_resnet_gives_its_first_block_and_one_from_the_middle() -> None:
    student, teacher = prepared(model="resnet", depth=2, teacher_depth=4)
    for mine, theirs in ((0, 0), (1, 2)):
        name = f"3.{mine}.conv2", f"3.{theirs}.conv2"
        assert torch.equal(weight(student, name[0]), weight(teacher, name[1]))
    assert torch.equal(weight(student, "0.conv"), weight(teacher, "0.conv"))


def test_a_narrower_student_takes_the_first_channels() -> None:
    student, teacher = prepared(teacher_width=6, depth=2, teacher_depth=3)
    assert torch.equal(weight(student, "1.conv"), weight(teacher, "1.conv")[:8, :4])
    mean = "blocks.1.norm.running_mean"
    assert torch.equal(student.get_buffer(mean), teacher.get_buffer(mean)[:8])


def test_the_threshold_scales_what_batchnorm_gives() -> None:
    student, teacher = prepared(threshold=0.5)
    images, _ = batch()

    def current(network: Network) -> Tensor:
        block = network.blocks[0]
        return block.get_submodule("norm")(block.get_submodule("conv")(images))  # type: ignore[no-any-return]

    torch.testing.assert_close(current(student), 0.5 * current(teacher))


def test_networks_of_two_kinds_are_refused() -> None:
    student, teacher = pair("cnn").student, pair("resnet").teacher
    with pytest.raises(ConfigError, match="method 'idsnn': student and teacher must be the same model"):
        IDSNN(pair().setup).prepare(student, teacher, torch.rand(2, *SHAPE))
    with pytest.raises(ConfigError, match="must be the same model"):
        IDSNN(pair().setup).prepare(pair("mlp").student, student, torch.rand(2, *SHAPE))


def test_the_losses_are_those_of_logits_with_weight_three_tenths() -> None:
    networks, (images, labels) = pair(), batch()
    student, teacher = networks.outputs(images)
    full = IDSNN(networks.setup, weight=1.0).losses(student, teacher, images, labels)
    losses = IDSNN(replace(networks.setup)).losses(student, teacher, images, labels)
    assert losses["kd"].item() == pytest.approx(0.3 * full["kd"].item())
    assert losses["ce"].item() == full["ce"].item()
