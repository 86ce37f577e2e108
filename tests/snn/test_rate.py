"""Two passes, one value: rates give the logits of spikes, and at one step the gradient of time."""

from __future__ import annotations

import copy
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.config import TrainConfig, load_config
from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn import kernel, models
from snnkd_deploy.snn.engines import load_engine
from snnkd_deploy.snn.job import Job
from snnkd_deploy.snn.layers import Frames
from snnkd_deploy.snn.lif import LIF, lif_loop
from snnkd_deploy.snn.models import MODELS, Network, Outputs, Plan
from snnkd_deploy.snn.rate import check, rate, sensitivity
from snnkd_deploy.snn.surrogate import SURROGATES
from snnkd_deploy.train import train

SHAPE, CLASSES = (2, 8, 8), 5
AFFINE = [model for model in MODELS if model != "spikingformer"]
EQUATIONS = [
    LIF(0.75, 0.8, reset, surrogate, detach)  # type: ignore[arg-type]
    for reset, surrogate, detach in product(("zero", "subtract"), SURROGATES, (True, False))
]


def student(model: str, timesteps: int, **options: object) -> Network:
    torch.manual_seed(0)
    config = TrainConfig(model=model, width=6, depth=2, timesteps=timesteps, **options)  # type: ignore[arg-type]
    return models.student(config, SHAPE, CLASSES).train()


def batch(size: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.rand(size, *SHAPE, generator=generator), torch.arange(size) % CLASSES


def gradients(engine: str, network: Network) -> dict[str, Tensor]:
    images, labels = batch()
    outputs = load_engine(engine, "none", frozenset()).outputs(network, images)
    torch.autograd.backward(functional.cross_entropy(outputs.logits, labels))
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("neuron", EQUATIONS, ids=str)
@pytest.mark.parametrize("timesteps", [1, 2, 5])
def test_the_eligibility_is_the_derivative_of_the_mean_spikes_by_a_constant_and_by_the_decay(
    neuron: LIF, timesteps: int
) -> None:
    current = torch.randn(timesteps, 7, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.3
    constant = torch.zeros(7, 3, 4, dtype=torch.float64, requires_grad=True)
    decay = torch.full_like(constant, 0.6).requires_grad_()
    expected = lif_loop(current + constant, neuron, decay)
    slopes = torch.autograd.grad(expected.mean(0).sum(), (constant, decay), allow_unused=True)
    spikes, by_current, by_decay = sensitivity(current, neuron, decay.detach())
    assert by_decay is not None
    assert torch.equal(spikes, expected)
    assert 0 < spikes.mean() < 1
    torch.testing.assert_close(by_current, slopes[0])
    torch.testing.assert_close(by_decay, slopes[1])
    assert bool(by_decay.any()) == (timesteps > 1)


def test_the_eligibility_of_two_steps_worked_out_by_hand() -> None:
    # triangle, subtract, detached: h = 0.8, 0.5 * 0.8 + 0.8 = 1.2; f = 1, 1.5; ds/dh = 0.8, 0.8; E = (0.8 + 1.2) / 2
    spikes, by_current, _ = sensitivity(torch.full((2, 1, 1), 0.8), LIF(0.5, 1.0, "subtract", "triangle"))
    assert spikes.flatten().tolist() == [0, 1]
    assert by_current.item() == pytest.approx(1.0)


@pytest.mark.parametrize("timesteps", [1, 2, 4, 8])
@pytest.mark.parametrize("model", AFFINE)
def test_rates_give_the_mean_logits_and_taps_of_the_spikes(model: str, timesteps: int) -> None:
    images, _ = batch()
    found = rate(student(model, timesteps), images)
    expected = student(model, timesteps).outputs(images)
    assert found.steps.shape == (1, len(images), CLASSES)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.steps[0], found.logits, rtol=0, atol=0)
    assert len(found.taps) == len(expected.taps)
    assert all(tap.any() for tap in found.taps)
    for tap, other in zip(found.taps, expected.taps, strict=True):
        torch.testing.assert_close(tap, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("neuron", EQUATIONS, ids=str)
@pytest.mark.parametrize("model", AFFINE)
def test_with_one_step_the_gradient_is_that_of_backpropagation_through_time(model: str, neuron: LIF) -> None:
    def network() -> Network:
        torch.manual_seed(0)
        return models.build(model, Plan(SHAPE, CLASSES, 6, 2, 1, neuron)).double()

    images, labels = batch()
    found, expected = network(), network()
    for one, engine in ((found, "rate"), (expected, "bptt")):
        outputs = load_engine(engine, "none", frozenset()).outputs(one, images.double())
        torch.autograd.backward(functional.cross_entropy(outputs.logits, labels))
    for (name, one_), (_, other) in zip(found.named_parameters(), expected.named_parameters(), strict=True):
        assert one_.grad is not None
        assert other.grad is not None
        if other.grad.norm() < 1e-12:  # a bias ahead of statistics, say
            continue
        cosine = functional.cosine_similarity(one_.grad.flatten(), other.grad.flatten(), dim=0)
        assert cosine.item() == pytest.approx(1, abs=1e-5), name
        assert (one_.grad.norm() / other.grad.norm()).item() == pytest.approx(1, abs=1e-5), name


@pytest.mark.parametrize("timesteps", [2, 4])
def test_with_more_steps_it_points_the_same_way(timesteps: int) -> None:
    found, expected = (gradients(engine, student("cnn", timesteps)) for engine in ("rate", "bptt"))
    assert found.keys() == expected.keys()
    flat = [torch.cat([slope.flatten() for slope in one.values()]) for one in (found, expected)]
    assert functional.cosine_similarity(flat[0], flat[1], dim=0) > 0.9


class Normalised(Network):
    """A norm over five frames, and nothing else."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.timesteps, self.frames, self.norm = 5, Frames(5), nn.BatchNorm2d(3)
        self.readout = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        y: Tensor = self.norm(self.frames(images)).unflatten(0, (self.timesteps, -1)).mean(0)
        return y

    def outputs(self, images: Tensor, *, membranes: bool = False) -> Outputs:
        y = self(images)
        return Outputs(y, y[None], ())


def written_out(norm: nn.BatchNorm2d, frames: Tensor, rates: Tensor) -> Tensor:
    """The value of the statistics over all frames, the gradient of those of the rates."""
    variance, mean = torch.var_mean(frames, (0, 1, 3, 4), correction=0)
    own_variance, own_mean = torch.var_mean(rates, (0, 2, 3), correction=0)
    mean, variance = mean + (own_mean - own_mean.detach()), variance + (own_variance - own_variance.detach())
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return (rates - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)


def test_the_gradient_of_a_norm_goes_by_way_of_the_rates_own_statistics() -> None:
    torch.manual_seed(0)
    network = Normalised().double()
    nn.init.uniform_(network.norm.weight)
    frames = torch.randn(6, 5, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    rates = frames.detach().mean(1).requires_grad_()
    found, expected = rate(network, frames).logits, written_out(network.norm, frames.detach(), rates)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    slopes = torch.autograd.grad((found * weights).sum(), [frames, *network.parameters()])
    routed = torch.autograd.grad((expected * weights).sum(), [rates, *network.parameters()])
    torch.testing.assert_close([slopes[0].sum(1), *slopes[1:]], [*routed])


def saved_bytes(network: Network) -> int:
    """Bytes that the backward pass will need, each memory counted once, parameters left out."""
    memory: dict[int, int] = {}
    mine = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in mine:
            memory[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = rate(network, batch()[0])
    assert outputs.logits.requires_grad
    return sum(memory.values())


@pytest.mark.parametrize("model", ["cnn", "resnet"])
def test_what_is_kept_for_the_backward_pass_does_not_grow_with_the_steps(model: str) -> None:
    assert saved_bytes(student(model, 1)) == saved_bytes(student(model, 8)) > 0


@pytest.mark.parametrize("model", ["mlp", "resnet"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_move_once_as_in_backpropagation_through_time(model: str, momentum: float | None) -> None:
    found, expected = student(model, 4), student(model, 4)
    for network, engine in ((found, "rate"), (expected, "bptt")):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = momentum
        for _ in range(2):
            load_engine(engine, "none", frozenset()).outputs(network, batch()[0])
    for (name, one), (_, other) in zip(found.named_buffers(), expected.named_buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_in_evaluation_running_statistics_are_used_and_left_alone() -> None:
    network = student("cnn", 4)
    network.outputs(batch()[0])
    before = {name: buffer.clone() for name, buffer in network.eval().named_buffers()}
    torch.testing.assert_close(rate(network, batch()[0]).logits, network(batch()[0]))
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())


def test_the_student_is_left_as_it_was() -> None:
    network = student("resnet", 3)
    modules = [(name, id(module)) for name, module in network.named_modules()]
    rate(network, batch()[0])
    assert [(name, id(module)) for name, module in network.named_modules()] == modules
    assert network.timesteps == 3


def test_frames_are_averaged_for_the_rate_pass() -> None:
    torch.manual_seed(0)
    config = TrainConfig(model="cnn", width=6, timesteps=4)
    network = models.student(config, (4, *SHAPE), CLASSES).train()
    frames = 3 * torch.rand(6, 4, *SHAPE)
    found = rate(network, frames).logits
    torch.testing.assert_close(found, network.outputs(frames).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scope", ["layer", "channel"])
def test_learned_decays_have_a_gradient_of_about_that_of_time(scope: str) -> None:
    found, expected = (gradients(engine, student("cnn", 4, learn_decay=scope)) for engine in ("rate", "bptt"))
    names = [name for name in found if name.endswith("decay_logit")]
    assert [len(found[name]) for name in names] == ([6, 12] if scope == "channel" else [1, 1])
    flat = [torch.cat([one[name] for name in names]) for one in (found, expected)]
    assert functional.cosine_similarity(flat[0], flat[1], dim=0) > 0.9


def test_refusal_names_every_module_with_its_reason() -> None:
    network = student("cnn", 2)
    network.blocks[0].pool = nn.MaxPool2d(2)
    network.blocks[1].pool = nn.Dropout(0.5)
    for call in (check, lambda one: rate(one, batch()[0])):
        with pytest.raises(ConfigError) as caught:
            call(network)
        lines = str(caught.value).splitlines()
        assert lines[0] == "engine 'rate' cannot train this student; use engine bptt:"
        assert lines[1].startswith("  - blocks.0.pool (MaxPool2d): the maximum of mean rates is not the mean")
        assert lines[2].startswith("  - blocks.1.pool (Dropout): draws another mask")
    network.blocks[0].pool, network.blocks[1].pool = nn.AvgPool2d(2), nn.Dropout(0.0)
    check(network)


def test_a_student_that_is_refused_is_refused_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pooled(plan: Plan) -> Network:
        network = models.cnn(plan)
        network.blocks[0].pool = nn.MaxPool2d(2)
        return network

    monkeypatch.setitem(MODELS, "pooled", pooled)
    with pytest.raises(ConfigError, match=r"engine 'rate' cannot train this student.*\n  - blocks\.0\.pool"):
        train(load_config(model="pooled", engine="rate"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_method_that_looks_at_single_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs steps, which engine 'rate' does not give; use engine bptt"):
        load_engine("rate", "tser", frozenset({"steps"}))


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((1, 2, 3), keepdim=True)


def test_what_is_not_affine_is_found_out_by_its_logits() -> None:
    network = student("cnn", 4)
    network.blocks[1].pool = nn.Sequential(nn.AvgPool2d(2), Squared())
    with pytest.raises(ConfigError, match="mean rates give other logits than spikes"):
        rate(network, batch()[0])


def test_a_module_that_is_used_twice_is_refused() -> None:
    network = student("mlp", 2)
    network.blocks[1].neuron = network.blocks[0].neuron
    with pytest.raises(ConfigError, match=r"Neuron\(.*\) is used twice"):
        rate(network, batch()[0])


def test_weights_that_are_not_numbers_are_left_to_the_training_loop() -> None:
    network = student("mlp", 2)
    next(network.head.parameters()).data.fill_(float("nan"))
    assert rate(network, batch()[0]).logits.isnan().all()


def test_a_student_learns_the_digits(tmp_path: Path) -> None:
    config = load_config(width=8, teacher_width=8, epochs=12, teacher_epochs=1, threads=1, engine="rate", method="none")
    assert train(config, out=tmp_path / "run").accuracies["student"] >= 0.9


def of_a_step(network: Network, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of a copy of the network, and all that it then holds: gradients, statistics."""
    network = copy.deepcopy(network)
    outputs = rate(network, images)
    torch.autograd.backward(functional.cross_entropy(outputs.logits, torch.arange(len(images)) % CLASSES))
    slopes = {f"gradient of {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return outputs.logits.detach(), {**slopes, **dict(network.named_buffers())}


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("timesteps", [1, 2, 4])
@pytest.mark.parametrize("neuron", EQUATIONS, ids=str)
def test_the_kernel_computes_what_plain_torch_does(
    neuron: LIF, timesteps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = models.channels_last(models.build("cnn", Plan(SHAPE, CLASSES, 6, 2, timesteps, neuron))).train()
    same_step(network, monkeypatch)


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("model", AFFINE)
def test_the_kernel_computes_what_plain_torch_does_in_every_network(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_step(models.channels_last(student(model, 2)), monkeypatch)


def same_step(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    images, used, forward = batch()[0], list[Job](), kernel.forward

    def noted(job: Job, *results: Tensor | None) -> None:
        used.append(job)
        forward(job, *results)  # type: ignore[arg-type]

    monkeypatch.setattr(kernel, "forward", noted)
    logits, state = of_a_step(network, images)
    assert used
    monkeypatch.setenv(kernel.SWITCH, "0")
    used.clear()
    expected, plain = of_a_step(network, images)
    assert not used
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-6)
    for name, value in plain.items():
        size = float(value.abs().max())
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=2e-5 * size)  # torch's sums are float32
