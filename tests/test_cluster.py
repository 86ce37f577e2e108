"""Slices, draws and sums of one process of several; what several really compute together is in test_launch.py."""

from __future__ import annotations

import pytest
import torch

from snnkd_deploy import cluster
from snnkd_deploy.cluster import Process
from snnkd_deploy.errors import ConfigError


def test_one_process_does_everything_and_changes_nothing() -> None:
    batch, labels = torch.rand(6, 2), torch.arange(6)
    ((images, answers),) = cluster.parts(batch, labels, 1)
    assert images is not batch
    assert torch.equal(images, batch)
    assert torch.equal(answers, labels)
    assert cluster.leads()
    assert cluster.first(lambda: 5) == 5
    assert cluster.summed([1, 2]) == [1, 2]
    assert torch.equal(cluster.gathered(batch), batch[None])


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_the_slices_of_all_processes_are_the_micro_batches(accumulate: int) -> None:
    labels = torch.arange(12)
    cut = []
    for rank in range(2):
        with cluster.taking_part(Process(rank, 2)):
            cut.append([answers for _, answers in cluster.parts(labels[:, None], labels, accumulate)])
    joined = [torch.cat(slices) for slices in zip(*cut, strict=True)]
    assert [len(micro) for micro in joined] == [12 // accumulate] * accumulate
    assert torch.equal(torch.cat(joined), labels)
    assert not cluster.here().rank


def test_each_sample_gets_the_random_numbers_that_it_gets_with_one_process() -> None:
    def draw(count: int) -> torch.Tensor:
        torch.manual_seed(0)
        return cluster.drawn(lambda samples: torch.rand(samples, 3), count)

    alone, slices = draw(6), []
    for rank in range(3):
        with cluster.taking_part(Process(rank, 3)):
            slices.append(draw(2))
    assert torch.equal(torch.cat(slices), alone)


@pytest.mark.parametrize(
    ("images", "processes", "accumulate"),
    [(64, 3, 1), (64, 1, 3), (4, 8, 1), (64, 8, 16), (4, 1, 4)],
    ids=["uneven slices", "uneven micro-batches", "more processes than images", "both", "one image for BatchNorm"],
)
def test_a_batch_that_cannot_be_cut_is_refused(images: int, processes: int, accumulate: int) -> None:
    with pytest.raises(ConfigError, match=f"a batch of {images} images cannot be cut into {accumulate} micro-batches"):
        cluster.check_batch(images, processes, accumulate)
    cluster.check_batch(64, 2, 8)
