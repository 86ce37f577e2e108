"""Methods are found by lying in the folder, and take the options that their class names."""

from __future__ import annotations

import pkgutil
from typing import Any

import pytest
import torch

from snnkd_deploy import distill
from snnkd_deploy.distill import Method, create, methods
from snnkd_deploy.errors import ConfigError, UnknownNameError
from snnkd_deploy.snn.models import Outputs
from tests.distill.setups import pair

SETUP = pair().setup


def outputs(seed: int, channels: int, timesteps: int) -> Outputs:
    torch.manual_seed(seed)
    steps = torch.randn(timesteps, 5, 3)
    return Outputs(steps.mean(0).requires_grad_(), steps, (torch.rand(5, channels, 4, 4),))


def test_every_file_but_the_base_holds_a_method() -> None:
    assert len(methods()) == len(list(pkgutil.iter_modules(distill.__path__))) - 1
    assert {"none", "logits"} <= methods().keys()
    assert all(methods()[name].name == name and isinstance(methods()[name].paper, str) for name in methods())


@pytest.mark.parametrize("name", methods())
def test_every_method_gives_finite_scalars_that_move_the_student(name: str) -> None:
    student = outputs(0, 2, 4)
    losses = create(name, SETUP).losses(
        student, outputs(1, 6, 1), torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    )
    assert all(loss.shape == () and torch.isfinite(loss) for loss in losses.values())
    (slope,) = torch.autograd.grad(torch.stack(list(losses.values())).sum(), student.logits)
    assert slope.abs().max() > 0


@pytest.mark.parametrize("name", methods())
def test_a_method_takes_each_of_its_options(name: str) -> None:
    defaults = distill.accepted_options(methods()[name])
    assert isinstance(create(name, SETUP, **defaults), Method)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "logits",
            {"temprature": 2.0},
            "method 'logits': no option 'temprature'; accepted: weight, temperature; did you mean 'temperature'",
        ),
        ("logits", {"temperature": "hot"}, "method 'logits': temperature = 'hot'; float is needed"),
        ("logits", {"temperature": True}, "float is needed"),
        ("logits", {"temperature": 0.0}, "temperature 0.0 must be above 0"),
        ("logits", {"weight": -1}, "weight -1 not below 0"),
        ("none", {"temperature": 2.0}, "method 'none': no option 'temperature'; accepted: none"),
    ],
)
def test_an_option_that_is_not_accepted_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create(name, SETUP, **options)


def test_an_unknown_method_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"no method 'logit'; known: .*none.*did you mean 'logits'"):
        create("logit", SETUP)
