"""The Triton kernel computes what plain torch and the C++ kernel do, in Triton's interpreter, and compiles for GPUs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.peers.nets import said

pytestmark = pytest.mark.peers

EXACT = ("spikes", "num_batches_tracked")
ROUNDED = ("by x", "by residual", "slopes", "by_x", "by_current", "by_gain", "by_bias")
"""What is bfloat16, or comes of it. The interpreter cuts off where a processor rounds: up to 2**-7, and again 2**-7."""


@pytest.fixture(scope="module")
def interpreted() -> dict[str, Any]:
    return dict(said("triton_side"))


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    return dict(said("triton_gpu_side"))


@pytest.mark.parametrize(("group", "cases"), [("neurons", 65), ("forms", 36), ("rates", 48), ("networks", 2)])
def test_values_and_gradients_are_those_of_the_other_ways(group: str, cases: int, interpreted: dict[str, Any]) -> None:
    assert len(interpreted[group]) == cases
    for case, off in interpreted[group].items():
        for name, value in off.items():
            assert value <= (0 if name in EXACT else 1e-5), f"{case}: {name}"


@pytest.mark.parametrize(("group", "cases"), [("forms, bfloat16", 36), ("rates, bfloat16", 48)])
def test_bfloat16_is_within_its_rounding_of_the_other_kernel(
    group: str, cases: int, interpreted: dict[str, Any]
) -> None:
    assert len(interpreted[group]) == cases
    for case, off in interpreted[group].items():
        for name, value in off.items():
            assert value <= (0 if name in EXACT else 0.02 if name in ROUNDED else 1e-5), f"{case}: {name}"


def test_every_kernel_of_a_training_step_is_launched_and_compiles_for_gpus(compiled: dict[str, Any]) -> None:
    assert compiled
    for job, targets in compiled.items():
        assert set(targets) == {"sm_80", "gfx942"}
        for sizes in targets.values():
            assert list(sizes) == ["forward", "rescale" if job == "rates" else "sweep", "renormalise"], job
            assert min(sizes.values()) > 1000
