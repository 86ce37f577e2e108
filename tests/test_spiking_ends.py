"""Pixels that enter through neurons and classes that are counted as spikes: trained, written, proven, counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from snnkd_deploy import api, data
from snnkd_deploy.batches import Images
from snnkd_deploy.calibration import FinetuneOptions
from snnkd_deploy.check import chain_problems
from snnkd_deploy.config import TrainConfig
from snnkd_deploy.distill import create, methods
from snnkd_deploy.errors import ConfigError
from snnkd_deploy.export import export, read_run
from snnkd_deploy.finetune import finetune
from snnkd_deploy.graph_file import load_graphs
from snnkd_deploy.ir import Neuron
from snnkd_deploy.run import Run
from snnkd_deploy.simulate import simulate
from snnkd_deploy.snn import models
from snnkd_deploy.snn.conversion import obstacle
from snnkd_deploy.snn.engines import ENGINES, load_engine
from snnkd_deploy.snn.interop import to_snntorch
from snnkd_deploy.snn.layers import InputNeuron
from snnkd_deploy.snn.network import SPIKE, Network
from snnkd_deploy.train import train
from tests.distill.setups import CLASSES, SHAPE, Pair, batch, pair

BOTH = {"encoding": "neuron", "readout": "spikes"}


def pixels(network: Network) -> InputNeuron:
    (found,) = (one for one in network.modules() if isinstance(one, InputNeuron))
    return found


def spiking(model: str = "cnn", **options: object) -> Pair:
    """A student with neurons at both ends, and its teacher, which sees pixels."""
    plain = pair(model)
    config = TrainConfig(**{"model": model, "width": 4, "timesteps": 3, "depth": 2, **BOTH, **options})  # type: ignore[arg-type]
    torch.manual_seed(0)
    return Pair(models.student(config, SHAPE, CLASSES).train(), plain.teacher, plain.setup)


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet", "vgg9", "spikingformer"])
def test_every_model_begins_and_ends_with_spikes(model: str) -> None:
    student = spiking(model, depth=1).student.eval()
    images, _ = batch()
    seen: list[torch.Tensor] = []
    pixels(student).register_forward_hook(lambda module, given, out: seen.append(out))
    counts = student(images) * 3
    assert torch.equal(seen[0], (seen[0] > 0).float())
    assert seen[0].shape == (3 * 6, *SHAPE)
    assert torch.equal(counts, counts.round())
    assert counts.min() >= 0
    assert counts.max() <= 3


def test_a_loss_sees_spikes_as_logits_that_can_be_sure() -> None:
    student = spiking().student.eval()
    images, _ = batch()
    outputs = student.outputs(images)
    assert torch.allclose(outputs.logits, SPIKE * student(images))
    assert set(outputs.steps.unique().tolist()) <= {0.0, SPIKE}
    assert pair().student.worth == 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", methods())
def test_every_method_reaches_the_pixels_and_the_classes(name: str, engine: str) -> None:
    student, teacher, setup = spiking()
    torch.manual_seed(1)
    method = create(name, setup)
    if not method.needs <= ENGINES[engine].gives:
        return
    images, labels = batch()
    method.prepare(student, teacher, images)
    outputs = load_engine(engine, name, method.needs).outputs(student, images)
    loss = torch.stack(list(method.losses(outputs, teacher.outputs(images), images, labels).values())).sum()
    loss.backward()
    assert torch.isfinite(loss)
    for parameter in (pixels(student).log_gain, *student.head.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0


def test_at_one_step_both_engines_give_the_gain_one_gradient() -> None:
    found = []
    for engine in ("bptt", "rate"):
        student = spiking(timesteps=1, readout="sum").student
        ENGINES[engine].outputs(student, batch()[0]).logits.square().sum().backward()
        grad = pixels(student).log_gain.grad
        assert grad is not None
        found.append(grad)
    assert torch.allclose(found[0], found[1], rtol=1e-4)


def test_neurons_of_pixels_and_classes_do_not_leak_when_leaks_are_learned() -> None:
    student = spiking(learn_decay="channel").student
    learned = [name for name, one in student.named_modules() if getattr(one, "decay_logit", None) is not None]
    assert learned == ["blocks.0.neuron", "blocks.1.neuron"]


def test_a_conversion_of_the_ann_is_refused_with_the_reason() -> None:
    student, teacher, setup = spiking()
    assert "encoding direct and readout sum" in str(obstacle(teacher, student))
    with pytest.raises(ConfigError, match="method 'lasnn': start = 'convert': it must see the pixels and read sums"):
        create("lasnn", setup, start="convert").prepare(student, teacher, batch()[0])


def test_a_gain_has_no_twin_in_snntorch() -> None:
    with pytest.raises(ConfigError, match="a learned gain, 2; multiply the pixels by it"):
        to_snntorch(InputNeuron(4))


def test_frames_have_no_input_neurons(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'n-mnist' is frames already; encoding 'neuron' is for still pictures"):
        data.configured(TrainConfig(dataset="n-mnist", data_dir=str(tmp_path), encoding="neuron"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = TrainConfig(width=4, epochs=4, teacher_epochs=4, threads=1, **BOTH)  # type: ignore[arg-type]
    return train(config, out=tmp_path_factory.mktemp("ends") / "run")


def test_the_graph_is_what_was_trained(run: Run) -> None:
    assert run.accuracies["student"] > 0.3  # chance is 0.1
    student, digits = models.load_student(run), data.configured(run.config)
    graph = read_run(run).student
    assert graph.input_neurons is not None
    assert graph.input_neurons.threshold == pytest.approx(1 / pixels(student).gain.item())
    assert graph.counts_spikes
    assert list(chain_problems(graph)) != []  # BatchNorm and pools are still there
    images, _ = Images.of(digits.test, digits.scale, torch.device("cpu")).batch(torch.arange(40))
    met = simulate(graph, digits.test.integers(slice(40))).logits
    np.testing.assert_allclose(met, student(images).detach(), atol=1e-6)


def test_one_integer_network_reaches_loihi_without_a_host_and_onnx(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNNKD_LAVA_PYTHON", "/nowhere")  # lava itself is for test_lava
    loihi, onnx = (export(run, name, tmp_path / name) for name in ("loihi", "onnx"))
    assert loihi.verified
    assert loihi.digest == onnx.digest
    assert {node.placement for node in loihi.graphs["legal"]} == {"chip"}
    manifest, loader = loihi.manifest, loihi.manifest["loader"]
    assert manifest["input"]["first_layer"] == "neurons, one for each value of the input"
    assert manifest["output"]["of"] == "spikes of the last neurons"
    assert (loader["first_layer"], loader["readout"]) == ("input neurons", "spikes")
    assert (loader["entry"], loader["reset_offset"]) == ("input-neuron", 0)
    assert manifest["ladder"]["integer"]["accuracy"] == pytest.approx(run.accuracies["student"], abs=0.05)
    counted = api.energy(tmp_path / "report.json", loihi.path, samples=20)
    assert next(row["name"] for row in counted["layers"]) == "blocks.0.pixels"


def test_the_manifest_says_where_else_the_first_layer_is(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNNKD_LAVA_PYTHON", "/nowhere")
    met = {}
    for name in ("loihi", "loihi2"):
        manifest = export(tiny_run, name, tmp_path / name).manifest
        met[name] = (manifest["input"]["first_layer"], manifest["loader"]["first_layer"], manifest["output"]["of"])
    assert met == {
        "loihi": ("weights on the host, which feeds its sums to neurons", "host", "what the last layer weighs"),
        "loihi2": ("weights on the target", "chip", "what the last layer weighs"),
    }


def test_its_integers_are_fine_tuned_too(run: Run, tmp_path: Path) -> None:
    tuned = finetune(run, "loihi", FinetuneOptions(weight_bits=4, epochs=1), out=tmp_path / "tuned")
    integer = load_graphs(tuned.integer_file)["integer"]
    assert integer.counts_spikes
    assert len(integer.of(Neuron)) == 4
    assert tuned.accuracies["integer"] > 0.3
