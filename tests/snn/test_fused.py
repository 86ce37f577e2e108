"""One function for BatchNorm, neurons and pool: equal to the modules in every value, gradient and statistic."""

from __future__ import annotations

import copy
import shutil
from collections import OrderedDict
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.snn import fused, kernel
from snnkd_deploy.snn.fused import Row, as_one, in_a_row, usable
from snnkd_deploy.snn.job import Job
from snnkd_deploy.snn.layers import InputNeuron, Neuron, Repeat
from snnkd_deploy.snn.lif import LIF
from snnkd_deploy.snn.models import MODELS, Plan, build, channels_last, recording
from snnkd_deploy.snn.network import Layered
from tests.snn.rows import EQUATIONS, SHAPES, differences, exact, inputs, loop, outcome, row

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 2e-6) -> None:
    for name, off in differences(found, expected).items():
        assert off <= (0 if name == "spikes" else tolerance), name


@pytest.mark.parametrize("timesteps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("neuron", EQUATIONS, ids=str)
def test_every_neuron_has_the_values_and_gradients_of_the_loop(neuron: LIF, timesteps: int) -> None:
    one, x = row((3, 16, 6, 6), neuron, timesteps, pool=True), inputs((3, 16, 6, 6), timesteps)
    found = outcome(as_one, one, x)
    assert 0 < found["spikes"].mean() < 1
    same(found, exact(one, x))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("still", "pool", "shortcut"), list(product((False, True), repeat=3)))
def test_every_form_and_size_has_the_values_and_gradients_of_the_loop(
    shape: tuple[int, ...], still: bool, pool: bool, shortcut: bool
) -> None:
    if pool and (len(shape) == 2 or min(shape[2:]) < 2):
        pytest.skip("nothing to pool")
    neuron = LIF(0.5, 1.0, "subtract", "sigmoid", False)
    one, x = row(shape, neuron, 3, still=still, pool=pool), inputs(shape, 1 if still else 3)
    residual = inputs(shape, 3).flip(0) if shortcut else None
    same(outcome(as_one, one, x, *[residual] * shortcut), exact(one, x, residual))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_values_and_threads_give_the_same(threads: int) -> None:
    shape = (8, 24, 18, 20)
    one, x = row(shape, LIF(), 4, pool=True), inputs(shape, 4)
    torch.set_num_threads(threads)
    same(outcome(as_one, one, x), exact(one, x))


def test_statistics_keep_their_digits_far_from_zero() -> None:
    x = inputs((64, 16, 20, 20), 1, offset=1000.0)
    mean, variance = kernel.statistics(x)
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=1e-7, atol=0)
    torch.testing.assert_close(variance.double(), x.double().var((0, 2, 3), correction=0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("pool", [False, True])
def test_bfloat16_is_within_its_rounding_of_float32(pool: bool) -> None:
    shape = (6, 32, 8, 8)
    one, x = row(shape, LIF(), 4, pool=pool), inputs(shape, 4, torch.bfloat16)
    residual = inputs(shape, 4, torch.bfloat16).flip(0)
    found = outcome(as_one, one, x, residual)
    expected = exact(one, x, residual)
    assert found["spikes"].dtype == found["by x"].dtype == found["by residual"].dtype == torch.bfloat16
    assert found["by gain"].dtype == torch.float32
    found = {name: value.float() if value.is_floating_point() else value for name, value in found.items()}
    same(found, expected, 1e-2)


@pytest.mark.parametrize("neuron", [LIF(), LIF(0.9, 1.0, "subtract", "sigmoid", False)], ids=str)
@pytest.mark.parametrize(("still", "pool", "shortcut"), list(product((False, True), repeat=3)))
def test_the_second_derivative_is_that_of_the_loop(neuron: LIF, still: bool, pool: bool, shortcut: bool) -> None:
    shape = (3, 4, 6, 6)
    one, x = row(shape, neuron, 3, still=still, pool=pool), inputs(shape, 1 if still else 3)
    residual = [inputs(shape, 3).flip(0).requires_grad_()] * shortcut

    def curvature(function: Callable[..., Any]) -> tuple[Tensor, ...]:
        given = [x.clone().requires_grad_(), *residual]
        spikes = function(one, *given)
        asked = [*given, *one.norm.parameters()]
        first = torch.autograd.grad(
            (spikes**2 * torch.arange(len(spikes)).view(-1, 1, 1, 1)).sum(), asked, create_graph=True
        )
        return torch.autograd.grad(torch.stack([(slope**2).sum() for slope in first]).sum(), asked)

    for found, expected in zip(curvature(as_one), curvature(loop), strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("pool", [False, True])
def test_the_gradient_may_arrive_in_any_order_of_memory(pool: bool) -> None:
    one, x = row((3, 16, 6, 6), LIF(), 2, pool=pool), inputs((3, 16, 6, 6), 2).requires_grad_()
    spikes = as_one(one, x)
    assert spikes is not None
    assert spikes.is_contiguous(memory_format=torch.channels_last)
    grad = torch.randn(spikes.shape)
    slopes = [torch.autograd.grad(spikes, x, same, retain_graph=True)[0] for same in orders(grad)]
    assert all(torch.equal(slope, slopes[0]) for slope in slopes)
    assert slopes[0].is_contiguous(memory_format=torch.channels_last)


def orders(x: Tensor) -> list[Tensor]:
    return [x, x.contiguous(memory_format=torch.channels_last), x.repeat(2, 1, 1, 2)[: len(x), :, :, : x.shape[3]]]


def test_a_norm_without_parameters_or_running_statistics_is_known() -> None:
    one, x = row((3, 16, 6, 6), LIF(), 2), inputs((3, 16, 6, 6), 2)
    for norm in (nn.BatchNorm2d(16, affine=False), nn.BatchNorm2d(16, track_running_stats=False)):
        other = Row(norm, one.neuron)
        same(outcome(as_one, other, x), outcome(loop, other, x))
    same(outcome(as_one, Row(norm.eval(), one.neuron), x), outcome(loop, Row(norm, one.neuron), x))


def test_the_mean_of_all_batches_as_running_statistics() -> None:
    one, other = (row((3, 16, 6, 6), LIF(), 2) for _ in range(2))
    one.norm.momentum = other.norm.momentum = None  # type: ignore[assignment]
    for offset in (0.0, 0.5, 2.0):
        x = inputs((3, 16, 6, 6), 2, offset=offset)
        as_one(one, x)
        loop(other, x)
    for found, expected in zip(one.norm.buffers(), other.norm.buffers(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_no_gradient_is_kept_where_none_is_asked_for() -> None:
    one, x = row((3, 16, 6, 6), LIF(), 2), inputs((3, 16, 6, 6), 2)
    with torch.no_grad():
        spikes = as_one(one, x)
    assert spikes is not None
    assert not spikes.requires_grad
    assert torch.equal(spikes, loop(one, x).detach())


def test_what_the_kernel_cannot_do_is_left_to_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (3, 16, 6, 6)
    one, x = row(shape, LIF(), 2, pool=True), inputs(shape, 2)
    assert usable(one, x)
    learned = copy.deepcopy(one)
    assert isinstance(learned.neuron, Neuron)
    learned.neuron.learn_decay()
    refused = [
        (learned, x),
        (one, x.double()),
        (one, x.contiguous()),
        (one, x[:5]),
        (one, x[:, :, :1]),
        (one, x[:0]),
        (one, x.to("meta")),
        (Row(one.norm, InputNeuron(2)), x),
        (Row(nn.BatchNorm1d(16), one.neuron), x[:, :, 0].contiguous()),
        (Row(nn.BatchNorm2d(16).bfloat16(), one.neuron), x),
        (Row(one.norm, one.neuron, Repeat(3)), x),
        (Row(copy.deepcopy(one.norm).eval(), one.neuron), x),
    ]
    assert [usable(*given) for given in refused] == [False] * len(refused)
    assert not usable(one, x, x.bfloat16())
    monkeypatch.setattr("snnkd_deploy.cluster.size", lambda: 2)
    assert not usable(one, x)


def test_a_hook_on_a_module_is_called() -> None:
    one, x = row((3, 16, 6, 6), LIF(), 2, pool=True), inputs((3, 16, 6, 6), 2)
    seen: list[nn.Module] = []
    layers = list(one)
    expected = in_a_row(layers, x)
    assert isinstance(expected.grad_fn, torch.autograd.function.BackwardCFunction)
    for layer in layers:
        handle = layer.register_forward_hook(lambda module, given, spikes: seen.append(module))
        found = in_a_row(layers, x)
        handle.remove()
        assert torch.equal(found, expected)
    assert seen == layers


def test_rows_are_found_between_other_layers() -> None:
    norm, neuron, pool = nn.BatchNorm2d(16), Neuron(2), nn.AvgPool2d(2)
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 16, 3),
        norm,
        Repeat(2),
        neuron,
        pool,
        nn.Flatten(),
        nn.Linear(144, 8),
        nn.BatchNorm1d(8),
        Neuron(2),
    ]
    channels_last(nn.Sequential(*layers))
    x = inputs((5, 3, 8, 8), 1)
    found = in_a_row(layers, x)
    kinds = names_of(found)
    assert kinds.count("_FusedRowBackward") == 2
    assert not any("BatchNorm" in kind or "AvgPool" in kind for kind in kinds)
    expected = x
    for layer in layers:
        expected = layer(expected)
    assert torch.equal(found, expected)


def names_of(x: Tensor) -> list[str]:
    """The functions that made x."""
    seen, waiting = list[Any](), [x.grad_fn]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in seen:
            seen.append(one)
            waiting += [before for before, _ in one.next_functions]
    return [one.name() for one in seen]


@pytest.mark.parametrize("pool", [nn.AvgPool2d(3), nn.AvgPool2d(2, 1), nn.AvgPool2d(2, padding=1), nn.MaxPool2d(2)])
def test_another_pool_stays_a_module(pool: nn.Module) -> None:
    x = inputs((3, 16, 6, 6), 2)
    found = names_of(in_a_row([nn.BatchNorm2d(16), Neuron(2), pool], x))
    assert any("Pool" in name for name in found)
    assert "_FusedRowBackward" in found


def test_without_the_kernel_plain_torch_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    one, x = row((3, 16, 6, 6), LIF(), 2, pool=True), inputs((3, 16, 6, 6), 2)

    def layers(one: Row, x: Tensor) -> Tensor:
        return in_a_row(list(one), x)

    expected = outcome(layers, one, x)
    monkeypatch.setenv(kernel.SWITCH, "0")
    assert "_FusedRowBackward" not in names_of(layers(copy.deepcopy(one), x))
    same(outcome(layers, one, x), expected)


def test_the_plain_form_is_the_modules() -> None:
    one, x = row((3, 16, 6, 6), LIF(), 2, still=True, pool=True), inputs((3, 16, 6, 6), 1)
    norm = one.norm
    assert isinstance(norm, nn.BatchNorm2d)
    spec = fused.Spec(LIF(), 2, norm.eps, True, True)
    found = spec.plain(x, None, norm.weight, norm.bias)
    assert torch.equal(found, functional.avg_pool2d(loop(Row(norm, one.neuron, one.repeat), x), 2))


def test_two_passes_may_share_a_norm_before_the_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    one, x = row((3, 16, 6, 6), LIF(), 2), inputs((3, 16, 6, 6), 2)
    plain = loop(one, x)
    together = as_one(one, x)
    assert together is not None
    slopes = [torch.autograd.grad(spikes.sum(), one.norm.get_parameter("weight"))[0] for spikes in (plain, together)]
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_network_trains_as_without_the_kernel(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = channels_last(build(model, Plan((2, 12, 12), 5, 32 if model == "spikingformer" else 6, 2, 2, LIF())))
    images = 3 * torch.rand(8, 2, 12, 12)

    def step(network: nn.Module) -> dict[str, Tensor]:
        network = copy.deepcopy(network).train()
        loss = functional.cross_entropy(network(images), torch.arange(8) % 5)
        names = names_of(loss)
        torch.autograd.backward(loss)
        used.append(names.count("_FusedRowBackward"))
        slopes = {f"gradient of {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
        return {"spikes": loss.detach(), **slopes, **dict(network.named_buffers())}

    used: list[int] = []
    found = step(network)
    monkeypatch.setenv(kernel.SWITCH, "0")
    expected = step(network)
    assert used[0] > 0
    assert used[1] == 0
    torch.testing.assert_close(found.pop("spikes"), expected.pop("spikes"), rtol=1e-6, atol=0)
    for name, value in expected.items():
        off = float((found[name].double() - value.double()).abs().max())
        assert off <= 2e-5 * float(value.abs().max()), name  # torch's sums are float32, and errors add up over layers


def test_the_kernel_adds_no_name_to_a_network() -> None:
    network = build("resnet", Plan((2, 8, 8), 5, 4, 1, 2, LIF()))
    assert isinstance(network.blocks[0], Layered)
    same = nn.Sequential(OrderedDict(network.blocks[0].named_children()))
    assert list(network.blocks[0].state_dict()) == list(same.state_dict())


def test_the_kernel_has_its_own_way_into_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network = channels_last(build("cnn", Plan((2, 8, 8), 5, 4, 2, 2, LIF())))
    calls: list[Job] = []
    forward = kernel.forward

    def noted(job: Job, *results: Any) -> None:
        calls.append(job)
        forward(job, *results)

    monkeypatch.setattr(kernel, "forward", noted)
    images = torch.rand(4, 2, 8, 8)
    network.train()(images)
    assert len(calls) == 2
    with recording(network) as rates:
        network(images)
    assert len(rates) == 2
    network.outputs(images, membranes=True)
    network.eval()(images)
    assert len(calls) == 2
