"""Hybrids end in the teacher's own blocks, which judge and do not learn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from snnkd_deploy.distill import create
from snnkd_deploy.distill.blockwise import Blockwise, tail
from snnkd_deploy.errors import ConfigError
from tests.distill.setups import Pair, batch, pair


def blockwise(networks: Pair) -> Blockwise:
    return Blockwise(networks.setup)


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet"])
def test_the_tail_behind_any_block_gives_the_teacher_s_own_logits(model: str) -> None:
    teacher, (images, _) = pair(model).teacher, batch()
    outputs = teacher.outputs(images)
    for block, features in enumerate(outputs.taps):
        torch.testing.assert_close(tail(teacher, features, block), outputs.logits)


def test_a_perfect_mapping_makes_the_hybrid_the_teacher() -> None:
    networks, (images, labels) = pair(width=6), batch()
    method, teacher = blockwise(networks), networks.teacher.outputs(images)
    method.mappings[0] = nn.Identity()
    losses = method.losses(teacher, teacher, images, labels)  # a student with the teacher's taps
    assert losses["hybrid_kd"].item() == pytest.approx(0, abs=1e-6)
    assert losses["hybrid_ce"].item() == pytest.approx(losses["ce"].item())


def test_the_tail_gets_no_gradient_and_passes_it_on() -> None:
    networks, (images, labels) = pair("resnet"), batch()
    method = blockwise(networks)
    losses = method.losses(*networks.outputs(images), images, labels)
    (losses["hybrid_ce"] + losses["hybrid_kd"]).backward()
    assert all(p.grad is None for p in networks.teacher.parameters())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())
    moved = [p.grad is not None and p.grad.abs().max() > 0 for p in networks.student.blocks[0].parameters()]
    assert all(moved)


def test_the_teacher_stays_as_it_is() -> None:
    networks, (images, labels) = pair(), batch()
    before = {name: tensor.clone() for name, tensor in networks.teacher.state_dict().items()}
    method = blockwise(networks).train()
    method.losses(*networks.outputs(images), images, labels)
    assert not networks.teacher.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in networks.teacher.state_dict().items())
    assert not any("teacher" in name for name, _ in method.named_modules())


def test_resnet_has_the_three_hybrids_of_the_paper() -> None:
    setup = pair("resnet").setup
    assert list(Blockwise(setup).cuts) == [1, 2, 3]
    assert list(Blockwise(setup, hybrids=1).cuts) == [3]
    assert list(Blockwise(setup, hybrids=9).cuts) == [0, 1, 2, 3]
    assert list(Blockwise(pair("cnn").setup).cuts) == [0]


def test_mappings_give_what_a_relu_would() -> None:
    networks, (images, _) = pair(), batch()
    method = blockwise(networks)
    features = method.mappings[0](networks.student.outputs(images).taps[0])
    assert features.shape == networks.teacher.outputs(images).taps[0].shape
    assert features.min() >= 0


def test_the_terms_of_the_hybrids_are_their_sum() -> None:
    networks, (images, labels) = pair("resnet"), batch()
    method, (student, teacher) = blockwise(networks), networks.outputs(images)
    expected = sum(nn.functional.cross_entropy(one, labels).item() for one in method.hybrid_logits(student))
    assert method.losses(student, teacher, images, labels)["hybrid_ce"].item() == pytest.approx(expected, rel=1e-5)
    without = Blockwise(networks.setup, logits="none").losses(student, teacher, images, labels)
    assert without.keys() == {"ce", "hybrid_ce"}


def test_networks_that_do_not_fit_together_are_refused() -> None:
    setup, deep = pair().setup, pair(depth=3).setup
    with pytest.raises(ConfigError, match="method 'blockwise': student and teacher need equally many blocks"):
        create("blockwise", replace(setup, teacher_taps=deep.teacher_taps))
    with pytest.raises(ConfigError, match="at least 2"):
        create("blockwise", pair(depth=1).setup)
    with pytest.raises(ConfigError, match=r"block 0 gives \(4, 4, 4\) in the student and \(6, 8, 8\) in the teacher"):
        create("blockwise", replace(setup, teacher_taps=((6, 8, 8), (12, 2, 2))))
