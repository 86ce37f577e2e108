"""Each surrogate is the function of its paper."""

from __future__ import annotations

import math

import pytest
import torch

from snnkd_deploy.config import TrainConfig
from snnkd_deploy.errors import UnknownNameError
from snnkd_deploy.snn.surrogate import SURROGATES, surrogate


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("atan", [1, 1 / (1 + math.pi**2 / 4), 1 / (1 + math.pi**2)]),
        ("sigmoid", [1, 4 * math.exp(-2) / (1 + math.exp(-2)) ** 2, 4 * math.exp(-4) / (1 + math.exp(-4)) ** 2]),
        ("triangle", [1, 0.5, 0]),
        ("rectangle", [1, 0, 0]),
    ],
)
def test_values_at_the_threshold_and_half_and_one_away_on_both_sides(name: str, values: list[float]) -> None:
    x = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    expected = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(surrogate(name)(x), expected)
    torch.testing.assert_close(surrogate(name)(-x), expected)


@pytest.mark.parametrize("name", SURROGATES)
def test_the_area_is_that_of_a_step(name: str) -> None:
    x = torch.linspace(-2000, 2000, 4_000_001, dtype=torch.float64)
    assert torch.trapezoid(surrogate(name)(x), x).item() == pytest.approx(1, abs=1e-3)


def test_an_unknown_name_is_refused() -> None:
    assert TrainConfig().surrogate in SURROGATES
    with pytest.raises(UnknownNameError, match=r"no surrogate 'atn'.*did you mean 'atan'"):
        surrogate("atn")
