"""Torch's layers of every rank as nodes; every geometry at random is in `counts/test_brute_force.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import LegalityError
from snnkd_deploy.ir import Conv, Conv2d, Graph, Input, Stage
from snnkd_deploy.passes.fold_batchnorm import fold_batchnorm
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target
from snnkd_deploy.trace import trace

SHAPES = {1: (2, 11), 2: (2, 6, 7), 3: (2, 4, 5, 3)}
Layers = tuple[nn.Module, ...]
NETWORKS: dict[str, tuple[int, Layers, str]] = {
    "a row": (1, (nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4)), "of 1 sides; use pictures"),
    "a volume": (3, (nn.Conv3d(2, 4, 2, padding="same"), nn.BatchNorm3d(4)), "of 3 sides; use pictures"),
    "mirrored": (
        2,
        (nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4)),
        "'reflect'; only 'zeros'",
    ),
    "uneven": (2, (nn.Conv2d(2, 4, 2, padding="same"), nn.BatchNorm2d(4)), "use an odd kernel"),
    "transposed": (2, (nn.ConvTranspose2d(2, 4, 3, 2, groups=2), nn.BatchNorm2d(4)), "use a Conv2d"),
    "padded pool": (2, (nn.Conv2d(2, 4, 1), nn.MaxPool2d(3, 2, 1), nn.BatchNorm2d(4)), "pool without padding"),
    "pool of a row": (1, (nn.AvgPool1d(2, 1, padding=1), nn.BatchNorm1d(2)), "a pool of 1 sides"),
    "pool of a volume": (3, (nn.MaxPool3d(2, 1), nn.BatchNorm3d(2)), "a pool of 3 sides"),
    "norm in front": (1, (nn.BatchNorm1d(2), nn.Conv1d(2, 4, 3, padding=2, padding_mode="circular")), "of 1 sides"),
    "norm in front of zeros": (3, (nn.BatchNorm3d(2), nn.Conv3d(2, 4, 3, padding=1, groups=2)), "of 3 sides"),
    "norm in front of a transposed one": (
        1,
        (nn.BatchNorm1d(2), nn.ConvTranspose1d(2, 4, 3, 2, groups=2)),
        "of 1 sides",
    ),
    "norm behind a padded mean": (
        2,
        (nn.Conv2d(2, 3, 1), nn.AvgPool2d(3, 2, 1), nn.BatchNorm2d(3)),
        "pool without padding",
    ),
    "adaptive": (3, (nn.AdaptiveAvgPool3d((2, 1, 3)), nn.Dropout3d()), "a pool of 3 sides"),
}


def network(name: str) -> tuple[nn.Module, Graph, np.ndarray, torch.Tensor]:
    """Torch's network with statistics of its own, its graph, and samples for both."""
    torch.manual_seed(0)
    rank, layers, _ = NETWORKS[name]
    images = np.random.default_rng(1).integers(0, 256, (3, *SHAPES[rank]))
    seen = torch.tensor(images / 255)
    whole = nn.Sequential(*layers, nn.Flatten()).double()
    for one in whole.modules():
        if isinstance(one, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(one.weight, 0.5, 2)
            nn.init.uniform_(one.bias, -1, 1)
    whole.train()(seen)
    graph = trace(whole.eval(), Input(name="input", shape=SHAPES[rank], scale=1 / 255))
    return whole, graph, images, seen


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_of_every_rank_compute_what_torch_computes_and_fold_their_norm(name: str) -> None:
    whole, graph, images, seen = network(name)
    with torch.no_grad():
        expected = whole(seen).numpy()
    folded = fold_batchnorm(graph, load_target("onnx"), Calibration(np.empty(0)))
    assert folded.stage == Stage.FOLDED
    for one in (graph, folded):
        np.testing.assert_allclose(simulate(one, images).logits, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_targets_refuse_them_in_one_sentence_with_advice(name: str) -> None:
    _, graph, images, _ = network(name)
    with pytest.raises(LegalityError, match="can only be counted") as refused:
        lower(graph, load_target("onnx"), Calibration(images))
    assert NETWORKS[name][2] in str(refused.value)
    assert all(reason.startswith("0: ") or reason[0].isdigit() for reason in refused.value.reasons)


def test_what_targets_hold_stays_of_the_kind_that_they_hold() -> None:
    whole = nn.Sequential(nn.Conv2d(2, 4, 3, padding="same", dilation=2), nn.Conv2d(4, 4, 3, padding=(1, 0)))
    graph = trace(whole, Input(name="input", shape=(2, 6, 7)))
    assert [node.padding for node in graph.of(Conv2d)] == [(2, 2), (1, 0)]
    assert not graph.of(Conv)


def test_uneven_padding_puts_more_behind() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(2, 4, (2, 5), padding="same")), Input(name="input", shape=(2, 6, 7)))
    (conv,) = graph.of(Conv)
    assert (conv.before, conv.after) == ((0, 2), (1, 2))
    assert replace(conv, mode="reflect").mode == "reflect"
