"""Sums over steps and samples are those of numpy, for every order of memory and every type."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from snnkd_deploy.torch_sums import numbers, summed, whole

STEPS, BATCH, SHAPE = 3, 4, (2, 3, 5)


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", ["spikes", "sums", "signed"])
def test_every_sum_is_numpys(kind: str, form: torch.memory_format, per_sample: bool) -> None:
    low, high = {"spikes": (0, 2), "sums": (0, 5), "signed": (-3, 4)}[kind]
    x = np.random.default_rng(0).integers(low, high, (STEPS * BATCH, *SHAPE)).astype(np.float32)
    given = torch.tensor(x).contiguous(memory_format=form)
    found = summed(given, STEPS, per_sample, kind == "spikes", kind == "signed")
    steps = np.abs(x.reshape(STEPS, BATCH, *SHAPE))
    over = (0,) if per_sample else (0, 1)
    batch = BATCH if per_sample else 1
    np.testing.assert_array_equal(numbers(found.values), steps.sum(axis=over).reshape(batch, *SHAPE))
    np.testing.assert_array_equal(numbers(found.events), (steps != 0).sum(axis=over).reshape(batch, *SHAPE))
    by_step = steps.sum(axis=(2, 3, 4))
    np.testing.assert_array_equal(numbers(found.by_step), by_step if per_sample else by_step.sum(axis=1, keepdims=True))


def test_narrow_types_are_widened_before_they_are_summed() -> None:
    ones = torch.ones(1000, 700, dtype=torch.bfloat16)
    found = summed(ones, 1000, True, True, False)
    assert whole(found.values).tolist() == [[1000] * 700]
    assert whole(found.by_step).tolist() == [[700]] * 1000


def test_what_is_given_is_not_changed() -> None:
    x = torch.ones(6, 2)
    summed(x, 3, True, True, False)
    assert (x == 1).all()
