"""Methods are found by lying in the folder, and take the options that their class names."""

from __future__ import annotations

import pkgutil
from typing import Any

import pytest
import torch

from snnkd_deploy import distill
from snnkd_deploy.distill import Method, create, methods
from snnkd_deploy.distill.method import as_map, same_size
from snnkd_deploy.errors import ConfigError, UnknownNameError
from tests.distill.setups import batch, pair

SETUP = pair().setup


def test_every_file_but_the_base_holds_a_method() -> None:
    assert len(methods()) == len(list(pkgutil.iter_modules(distill.__path__))) - 1
    assert {"none", "logits"} <= methods().keys()
    assert all(methods()[name].name == name and isinstance(methods()[name].paper, str) for name in methods())


@pytest.mark.parametrize("model", ["cnn", "resnet"])
@pytest.mark.parametrize("name", methods())
def test_every_method_gives_finite_scalars_that_move_the_student(name: str, model: str) -> None:
    networks, (images, labels) = pair(model), batch()
    method = create(name, networks.setup)
    method.prepare(networks.student, networks.teacher, images)
    losses = method.losses(*networks.outputs(images), images, labels)
    assert all(loss.shape == () and torch.isfinite(loss) for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in networks.student.parameters())
    assert all(p.grad is None for p in networks.teacher.parameters())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())


@pytest.mark.parametrize("name", sorted({*methods()} - {"lasnn"}))
def test_methods_take_networks_without_maps(name: str) -> None:
    networks, (images, labels) = pair("mlp"), batch()
    losses = create(name, networks.setup).losses(*networks.outputs(images), images, labels)
    assert all(loss.shape == () and torch.isfinite(loss) for loss in losses.values())


def test_no_method_owns_the_teacher() -> None:
    networks = pair()
    ours = {id(p) for p in networks.teacher.parameters()}
    assert not any(id(p) in ours for name in methods() for p in create(name, networks.setup).parameters())


def test_taps_are_paired_from_the_last() -> None:
    assert SETUP.pairs == ((0, 0), (1, 1))
    shallow, deep = pair(depth=1).setup, pair(depth=3).setup
    mixed = distill.Setup(5, 3, shallow.student_taps, deep.teacher_taps, deep.teacher)
    assert mixed.pairs == ((0, 2),)


def test_the_larger_map_is_averaged_to_the_smaller() -> None:
    large, small = torch.arange(16.0).view(1, 1, 4, 4), torch.ones(1, 2, 2, 2)
    averaged = torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]])
    for found, other in (same_size(large, small), same_size(small, large)[::-1]):
        assert torch.equal(found, averaged)
        assert torch.equal(other, small)
    assert same_size(large, large)[0] is large
    assert as_map(torch.ones(2, 3)).shape == (2, 3, 1, 1)
    assert as_map(large) is large


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
            "no option 'temprature'; accepted: weight, temperature, logits; did you mean 'temperature'",
        ),
        ("logits", {"temperature": "hot"}, "method 'logits': temperature = 'hot'; float is needed"),
        ("logits", {"temperature": True}, "float is needed"),
        ("logits", {"temperature": 0.0}, "temperature 0.0 must be above 0"),
        ("logits", {"weight": -1}, "weight -1 not below 0"),
        ("none", {"temperature": 2.0}, "method 'none': no option 'temperature'; accepted: none"),
        ("logits", {"logits": "ws"}, "method 'logits': logits = 'ws'; accepted: kd, wsl, none"),
        ("feature", {"feature": "spike"}, "method 'feature': feature = 'spike'; accepted: spikes, membrane"),
        ("feature", {"taps": "first"}, "taps = 'first'; accepted: all, last"),
        ("feature", {"weight": -1.0}, "weight -1.0 must not be below 0"),
        ("blockwise", {"hybrids": 0}, "hybrids 0 must be at least 1"),
        ("bkd", {"blur": 1.0}, "blur 1.0 must be from 0 to below 1"),
        ("bkd", {"weight": -1.0}, "weight -1.0 must not be below 0"),
        ("lasnn", {"weight": -1.0}, "weight -1.0 must not be below 0"),
        ("hta-kl", {"weight": -1.0}, "weight -1.0 must not be below 0"),
        ("hta-kl", {"temperature": 0.0}, "temperature 0.0 must be above 0"),
        ("hta-kl", {"head": 0.0}, "head 0.0 must be above 0 and at most 1"),
        ("tser", {"alpha": 1.5}, "alpha 1.5 must be from 0 to 1"),
        ("tser", {"gamma": -1.0}, "gamma -1.0 must not be below 0"),
        ("tser", {"temperature": 0.0}, "temperature 0.0 must be above 0"),
        ("idsnn", {"temperature": 0.0}, "temperature 0.0 must be above 0"),
    ],
)
def test_an_option_that_is_not_accepted_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create(name, SETUP, **options)


def test_an_unknown_method_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"no method 'logit'; known: .*none.*did you mean 'logits'"):
        create("logit", SETUP)
