"""A network of the user's own, all the way to a proven bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import snntorch as snn
import torch

import snnkd_deploy
from snnkd_deploy import api
from snnkd_deploy.deploy import Reading, check
from snnkd_deploy.errors import ConfigError, GraphError, InputError, LegalityError, TraceError
from snnkd_deploy.export import verify
from snnkd_deploy.ir import Neuron
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.target import load_target
from tests.frontend.nets import STEPS, Convolutional, Dense, Plain, pictures, sequential, strong

X = pictures(0, 12).values
LABELS = np.arange(12) % 10


def test_a_default_network_of_snntorch_goes_to_onnx_and_back(workplace: Path) -> None:
    torch.manual_seed(0)
    bundle = snnkd_deploy.compile(strong(Dense()), "onnx", X, LABELS).write()
    assert bundle.path == Path("exports/dense/onnx")
    assert bundle.verified
    ladder = bundle.manifest["ladder"]
    assert ladder["network"]["agreement"] == 1
    assert 0 <= ladder["integer"]["accuracy"] <= 1
    places = [part["place"] for part in bundle.manifest["coverage"]["parts"]]
    assert {"fc1", "lif1", "fc2", "lif2", "result"} <= set(places)
    assert verify(bundle.path)[0]["differing"] == 0
    report = api.energy(workplace / "report.json", bundle.path)
    assert report["data"]["samples"] == 12


def test_without_labels_there_is_no_accuracy_but_a_proof(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bundle = snnkd_deploy.compile(strong(Convolutional()), "onnx", X).write(tmp_path / "b")
    assert bundle.verified
    assert bundle.manifest["ladder"]["integer"]["accuracy"] is None
    assert bundle.manifest["proofs"][0]["accuracy"] is None
    assert api.energy(tmp_path / "report.json", bundle.path)["accuracy"]["snn_counted"] is None


@pytest.mark.parametrize("target", ["loihi", "loihi2", "nir"])
def test_a_sequential_network_reaches_every_target(target: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = strong(sequential())
    for lif in (model[2], model[7]):  # type: ignore[index]
        lif.beta.fill_(0.5)  # a leak that needs no rounding, for NIR
    bundle = snnkd_deploy.compile(model, target, X, timesteps=STEPS).write(tmp_path / target)
    assert bundle.manifest["proofs"][0]["verified"]
    again = snnkd_deploy.compile(bundle.file, "onnx", X) if target == "nir" else None
    if again is not None:
        assert again.write(tmp_path / "again").verified


def test_a_plain_network_is_converted_and_both_are_reported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    deployment = snnkd_deploy.compile(Plain(), "onnx", X, LABELS, timesteps=8, percentile=100.0)
    bundle = deployment.write(tmp_path / "b")
    assert list(bundle.manifest["ladder"]) == ["ann", "network", "integer", "file"]
    assert any("no equal" in note for note in deployment.coverage.notes)
    assert "teacher" in bundle.graphs
    assert bundle.manifest["reading"]["percentile"] == 100.0


def test_a_plain_network_needs_to_be_told_the_steps() -> None:
    with pytest.raises(ConfigError, match="has no spiking neurons; say with timesteps"):
        snnkd_deploy.compile(Plain(), "onnx", X)


def test_check_lists_every_part_and_why_a_target_refuses() -> None:
    found = check(Dense(), "loihi", X)
    assert found.graph is None
    assert isinstance(found.refusal, LegalityError)
    refused = {part.place for part in found.coverage.parts if part.refused}
    assert refused == {"lif1", "lif2"}
    assert all("resets by 'zero'" in reason for reason in found.coverage.refusals)


def test_a_max_pool_of_currents_is_refused_with_advice_and_what_else_there_is() -> None:
    lif = {"beta": 0.5, "init_hidden": True, "reset_mechanism": "zero"}
    first, second = (torch.nn.Conv2d(one, 2, 3) for one in (1, 2))
    pool, head = torch.nn.MaxPool2d(2), (torch.nn.Flatten(), torch.nn.Linear(8, 3))
    late = {**lif, "reset_mechanism": "subtract"}
    model = torch.nn.Sequential(first, snn.Leaky(**lif), second, pool, snn.Leaky(**late), *head)
    found = check(model, "loihi", X, timesteps=3)
    pooled, kept = found.coverage.refusals
    assert "a max pool right behind a neuron is an OR, which neurons compute: move it there" in pooled
    assert "reset 'subtract_late'; this target resets by 'zero'; train it with that (snnTorch: reset_mech" in kept


@pytest.mark.parametrize(("target", "reset"), [("nir", "zero"), ("c", "subtract")])
def test_a_plain_network_takes_the_reset_that_the_target_lists_first(target: str, reset: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3))
    deployment = snnkd_deploy.compile(model, target, X, timesteps=4)
    assert {neuron.reset for neuron in deployment.network.of(Neuron)} == {reset}
    load_exporter(target).write(deployment.compiled.legal, load_target(target), tmp_path / f"network.{target}")


def test_check_needs_no_samples_and_no_training() -> None:
    found = check(sequential(), "loihi", input_shape=(1, 8, 8), timesteps=STEPS)
    assert found.refusal is None
    parts = {part.place: part for part in found.coverage.parts}
    assert parts["1"].passes == ("fold_batchnorm: folded away",)
    assert parts["5"].became == "nothing in evaluation"


def test_check_tells_what_cannot_be_traced() -> None:
    found = check(torch.nn.Sequential(torch.nn.Linear(9, 9), torch.nn.GELU()), "onnx", input_shape=(9,))
    assert isinstance(found.refusal, TraceError)
    assert [part.place for part in found.coverage.parts if part.refused] == ["1"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ConfigError, "no samples: give x"),
        ({"samples": X, "dataset": "digits"}, ConfigError, "samples and a data set are given"),
        ({"samples": X, "speed": 3}, ConfigError, "no setting 'speed'; known: timesteps, dt"),
        ({"samples": X, "input_shape": (1, 9, 9)}, InputError, "accepted is"),
        ({"samples": X, "reading": Reading(timesteps=9)}, ConfigError, "runs 5 steps itself"),
        ({"samples": X, "model": 3}, ConfigError, "met a int; a torch.nn.Module"),
        ({"samples": X, "model": "n.nir", "weights": "w.pt"}, ConfigError, "a .nir file holds its weights"),
    ],
)
def test_what_is_wrong_is_one_error(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        snnkd_deploy.compile(**{"model": Dense(), "target": "onnx", **arguments})  # type: ignore[arg-type]


def test_a_network_without_activation_is_refused() -> None:
    with pytest.raises(GraphError, match="neither spiking neurons nor a ReLU"):
        snnkd_deploy.compile(torch.nn.Linear(9, 3), "onnx", pictures(shape=(9,)).values, timesteps=4)


def test_the_package_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError, match="no attribute 'compute'"):
        _ = snnkd_deploy.compute  # type: ignore[attr-defined]
