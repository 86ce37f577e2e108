"""A job says how its tensors lie."""

from __future__ import annotations

import pytest
import torch

from snnkd_deploy.snn.job import Job
from snnkd_deploy.snn.lif import LIF


@pytest.mark.parametrize(
    ("shape", "still", "step"),
    [
        ((12, 5, 2, 7), False, (4, 2, 7, 5)),
        ((12, 5, 2, 7), True, (12, 2, 7, 5)),
        ((6, 5), False, (2, 1, 1, 5)),
        ((6, 5), True, (6, 1, 1, 5)),
    ],
)
def test_a_step_holds_samples_rows_columns_and_channels(
    shape: tuple[int, ...], still: bool, step: tuple[int, ...]
) -> None:
    x, channels = torch.zeros(shape), torch.zeros(5)
    job = Job(neuron=LIF(), timesteps=3, still=still, pool=False, x=x, mean=channels, invstd=channels)
    assert job.step == step
