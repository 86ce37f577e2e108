"""One definition gives student and teacher, for every input size, traceable by torch.fx."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import fx, nn

from snnkd_deploy import checkpoint, run
from snnkd_deploy.config import load_config
from snnkd_deploy.errors import ConfigError, RunError, UnknownNameError
from snnkd_deploy.snn import models
from snnkd_deploy.snn.layers import Neuron, Pointwise, Repeat, TimeMean
from snnkd_deploy.snn.lif import LIF
from snnkd_deploy.snn.models import MODELS, Network, Plan, build
from snnkd_deploy.snn.transformer import Attention

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 34, 34), (1, 9, 13)]


def small(model: str, shape: tuple[int, int, int] = (1, 8, 8), timesteps: int = 4, depth: int = 2) -> Network:
    torch.manual_seed(0)
    return build(model, Plan(shape, 10, 6, depth, timesteps, LIF())).eval()


def relu(model: str, shape: tuple[int, int, int] = (1, 8, 8)) -> Network:
    torch.manual_seed(0)
    return build(model, Plan(shape, 10, 6, 2)).eval()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_any_input_gives_logits_steps_and_taps(model: str, shape: tuple[int, int, int]) -> None:
    for network, timesteps in ((small(model, shape), 4), (relu(model, shape), 1)):
        images = torch.rand(3, *shape)
        found = network.outputs(images)
        assert found.steps.shape == (timesteps, 3, 10)
        torch.testing.assert_close(found.logits, network(images))
        torch.testing.assert_close(found.steps.mean(0), found.logits)
        assert len(found.taps) == len(network.blocks)
        assert all(len(tap) == 3 for tap in found.taps)


@pytest.mark.parametrize("model", MODELS)
def test_the_largest_input_fits(model: str) -> None:
    with torch.device("meta"):
        network = build(model, Plan((3, 224, 224), 1000, 8, 2, 2, LIF()))
        assert network(torch.empty(2, 3, 224, 224)).shape == (2, 1000)


@pytest.mark.parametrize("model", MODELS)
def test_student_and_teacher_differ_in_their_activation_only(model: str) -> None:
    student, teacher = small(model), relu(model)
    assert student.state_dict().keys() == teacher.state_dict().keys()
    kinds = {type(s).__name__: type(t).__name__ for s, t in zip(student.modules(), teacher.modules(), strict=True)}
    assert kinds.pop("Neuron") == "ReLU"
    assert all(student == teacher for student, teacher in kinds.items())


@pytest.mark.parametrize("model", sorted(MODELS.keys() - {"spikingformer"}))  # its blocks end in currents
def test_taps_are_rates(model: str) -> None:
    taps = small(model).outputs(torch.rand(2, 1, 8, 8)).taps
    assert all(tap.min() >= 0 and tap.max() <= 1 for tap in taps)


class Leaves(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Neuron | Pointwise | Repeat | TimeMean | Attention) or super().is_leaf_module(
            m, module_qualified_name
        )


@pytest.mark.parametrize("model", MODELS)
def test_fx_traces_every_model_into_modules_and_additions(model: str) -> None:
    network = small(model)
    graph = Leaves().trace(network)
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(fx.GraphModule(network, graph)(images), network(images))
    assert {node.op for node in graph.nodes} <= {"placeholder", "call_module", "call_function", "output"}
    assert {node.target.__name__ for node in graph.nodes if node.op == "call_function"} <= {"add"}


def test_resnet_18_has_its_published_size() -> None:
    with torch.device("meta"):
        network = build("resnet", Plan((3, 32, 32), 10, 64, 2))
    assert sum(p.numel() for p in network.parameters()) == 11_173_962
    assert [tuple(tap.shape[1:]) for tap in network.outputs(torch.empty(2, 3, 32, 32, device="meta")).taps] == [
        (64, 32, 32),
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
    ]


def test_depth_is_the_number_of_blocks() -> None:
    assert [len(small(model, depth=3).blocks) for model in ("mlp", "cnn", "resnet")] == [3, 3, 5]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scope", ["fixed", "layer", "channel"])
def test_decays_are_learned_per_layer_or_per_channel(model: str, scope: Literal["fixed", "layer", "channel"]) -> None:
    config = load_config(model=model, width=3, learn_decay=scope)
    network = models.student(config, (1, 8, 8), 10)
    seen: dict[Neuron, int] = {}
    for module in network.modules():
        if isinstance(module, Neuron):
            module.register_forward_hook(lambda one, inputs, spikes: seen.update({one: spikes.shape[1]}))
    assert network.training
    network(torch.rand(2, 1, 8, 8))
    learned = [0 if neuron.decays is None else len(neuron.decays) for neuron in seen]
    assert learned == [{"fixed": 0, "layer": 1, "channel": channels}[scope] for channels in seen.values()]
    assert models.teacher(config, (1, 8, 8), 10).state_dict().keys() <= network.state_dict().keys()


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"no model 'cnm'.*did you mean 'cnn'"):
        small("cnm")
    with pytest.raises(ConfigError, match="depth 4 halves 8x8 images to nothing"):
        small("cnn", depth=4)


def test_rates_are_counted_over_all_batches() -> None:
    network = nn.Sequential(Neuron(1), nn.Identity(), Neuron(1))
    with models.recording(network) as rates:
        network(torch.tensor([[2.0, 0.0], [2.0, 0.0]]))
        network(torch.tensor([[2.0, 2.0]]))
    assert rates == {"0": 4 / 6, "2": 0.0}
    network(torch.zeros(1, 2))
    assert rates == {"0": 4 / 6, "2": 0.0}


def finished(path: Path) -> run.Run:
    config = load_config(model="mlp", width=5, teacher_model="mlp", teacher_width=7)
    described = {"name": "digits", "sha256": "", "train": 1, "test": 1, "scale": 1 / 16}
    made = run.create(
        run.claim(path, "digits"), config, {**described, "classes": ["a", "b", "c"], "input_shape": [1, 8, 8]}, {}
    )
    checkpoint.write_weights(made.student_file, models.student(config, (1, 8, 8), 3))
    checkpoint.write_weights(made.teacher_file, models.teacher(config, (1, 8, 8), 3))
    return made.complete("teacher", 0.5).complete("student", 0.5).finish()


def test_student_and_teacher_are_loaded_from_a_run(tmp_path: Path) -> None:
    made = finished(tmp_path / "run")
    for source in (made, made.path, str(made.path)):
        student, teacher = models.load(source)
        assert not student.training
        assert not teacher.training
        assert student.timesteps == 4
        assert teacher.timesteps == 1
        assert student(torch.rand(2, 1, 8, 8)).shape == teacher(torch.rand(2, 1, 8, 8)).shape == (2, 3)


def test_weights_that_do_not_fit_are_a_run_error(tmp_path: Path) -> None:
    made = finished(tmp_path / "run")
    for body in (made.teacher_file.read_bytes(), b"not weights at all"):
        made.student_file.write_bytes(body)
        with pytest.raises(RunError, match=r"student\.safetensors does not hold the weights of this network"):
            models.load(made)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        # published for 10 classes at 3x32x32; of VGG less the biases of its convolutions, which a norm holds
        ("resnet18", 11_173_962),
        ("resnet34", 21_282_122),
        ("vgg11", 9_231_114 - 2_752),
        ("vgg16", 14_728_266 - 4_224),
    ],
)
def test_well_known_networks_have_their_published_number_of_parameters(model: str, parameters: int) -> None:
    with torch.device("meta"):
        network = models.student(load_config(model=model, width=64), (3, 32, 32), 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("model", sorted(models.MODELS))
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 224, 224)])
def test_every_network_fits_small_and_large_pictures(model: str, shape: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        network = models.student(load_config(model=model, width=4, timesteps=2), shape, 7).eval()
        assert network.outputs(torch.zeros(3, *shape)).steps.shape == (2, 3, 7)
