"""Networks that nobody exported are counted as they are: against loops over the spikes that snnTorch recorded."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import nir
import numpy as np
import pytest
import snntorch as snn
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

import snnkd_deploy
from snnkd_deploy import api, energy
from snnkd_deploy.cli import main
from snnkd_deploy.counts import count
from snnkd_deploy.data import load
from snnkd_deploy.energy.counted import plain
from snnkd_deploy.errors import ConfigError, InputError, TraceError
from snnkd_deploy.export import read_run
from snnkd_deploy.ir import Array
from snnkd_deploy.price_files import load_tables
from snnkd_deploy.run import Run
from snnkd_deploy.unexported import folded, report
from tests.frontend.nets import STEPS, Plain, fired, strong

SAMPLES = 12
PIXELS = load("digits").test.integers(slice(SAMPLES)).astype(np.uint8) * 15
LABELS = load("digits").test.labels[:SAMPLES]


class Net(nn.Module):
    """A stride, groups, padding, zero weights, a sum of spikes behind a pool, a readout by spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(1, 4, 3, padding=1), snn.Leaky(beta=0.5)
        self.conv2, self.lif2 = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), snn.Leaky(beta=0.8)
        self.pool = nn.AvgPool2d(2)
        self.fc, self.lif3 = nn.Linear(24, 10), snn.Leaky(beta=0.5, threshold=0.3)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, mem3 = self.lif1.reset_mem(), self.lif2.reset_mem(), self.lif3.reset_mem()
        found = []
        for _ in range(STEPS):
            spk1, mem1 = self.lif1(self.conv1(x), mem1)
            spk2, mem2 = self.lif2(self.conv2(spk1), mem2)
            spk3, mem3 = self.lif3(self.fc(self.pool(spk2).flatten(1)), mem3)
            found.append(spk3)
        return torch.stack(found)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    made = strong(Net())
    with torch.no_grad():
        made.conv2.weight[:, :, 1, 1] = 0  # type: ignore[union-attr, index, operator]
    return made


def row(found: energy.Report, name: str) -> dict[str, Any]:
    return dict(next(one for one in found["layers"] if one["name"] == name))


def convolved(events: Array, layer: nn.Conv2d) -> tuple[int, int]:
    """Pairs of an event and an output that reads it, with and without zero weights, one after the other."""
    pairs = whole = 0
    weight = layer.weight.detach().numpy()
    groups, stride, padding = layer.groups, layer.stride[0], int(layer.padding[0])
    outputs, inputs, kernel, _ = weight.shape
    side = events.shape[-1]
    size = (side + 2 * padding - kernel) // stride + 1
    for picture in events.reshape(-1, *events.shape[-3:]):
        for out, y, x, channel, i, j in np.ndindex(outputs, size, size, inputs, kernel, kernel):
            at_y, at_x = y * stride + i - padding, x * stride + j - padding
            source = out // (outputs // groups) * inputs + channel
            if 0 <= at_y < side and 0 <= at_x < side and picture[source, at_y, at_x]:
                whole += 1
                pairs += bool(weight[out, channel, i, j])
    return whole, pairs


def test_a_network_of_snntorch_counts_as_loops_over_its_spikes(net: nn.Module) -> None:
    found = report(net, x=PIXELS, y=LABELS)
    one, two, three = fired(net, torch.from_numpy(PIXELS / 255))
    assert 0.02 < one.mean() < 0.9
    assert two.any()
    first, second = row(found, "conv1"), row(found, "conv2")
    assert (first["synops"], first["synops_nonzero"]) == convolved(PIXELS, net.conv1)  # type: ignore[arg-type]
    assert (first["event_macs"], first["static"], first["input_kind"]) == (first["synops"], True, "picture")
    assert (second["synops"], second["synops_nonzero"]) == convolved(one, net.conv2)  # type: ignore[arg-type]
    assert (second["event_macs"], second["input_kind"]) == (0, "spikes")
    windows = two.reshape(STEPS, SAMPLES, 6, 2, 2, 2, 2).sum(axis=(4, 6))
    last = row(found, "fc")
    assert last["events_in"] == np.count_nonzero(windows)
    assert last["synops"] == last["event_macs"] == 10 * np.count_nonzero(windows)
    assert last["synops_unit"] == 10 * windows.sum()
    for name, spikes in (("lif1", one), ("lif2", two), ("lif3", three)):
        assert row(found, name)["spikes_out"] == spikes.sum()
        assert row(found, name)["spikes_per_step"] == spikes.reshape(STEPS, -1).sum(axis=1).tolist()


def test_what_was_counted_is_said(net: nn.Module) -> None:
    size = sum(one.nbytes for one in (*net.parameters(), *net.buffers()))
    found = energy.price(report(net, x=PIXELS, y=LABELS), load_tables())
    jsonschema.Draft202012Validator(energy.json_schema()).validate(found)
    model = found["model"]
    assert (model["graph_stage"], model["target"], model["weight_bits"], model["state_bits"]) == (
        "FOLDED",
        None,
        32,
        32,
    )
    assert model["simulator"] == "reference simulator, float64 arithmetic"
    assert found["neurobench"]["footprint"] == size
    assert any("before any rounding" in text for text in found["warnings"])
    assert found["accuracy"]["snn_counted"] is not None


def test_the_library_takes_the_network_itself(net: nn.Module, tmp_path: Path) -> None:
    found = api.energy(tmp_path / "report.json", model=net, x=PIXELS, y=LABELS, tables=("cmos45_fp32",))
    assert energy.read(tmp_path / "report.json")["counts_sha256"] == found["counts_sha256"]
    assert found["model"]["name"] == "net"
    fewer = api.energy(tmp_path / "report.json", model=net, x=PIXELS, samples=3, refresh=True)
    assert fewer["data"]["samples"] == 3


def test_a_norm_is_folded_before_anything_is_counted() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), snn.Leaky(beta=0.5, init_hidden=True), nn.Flatten())
    net.append(nn.Linear(108, 10)).append(snn.Leaky(beta=0.5, init_hidden=True))
    found = report(strong(net), x=PIXELS, timesteps=3)
    assert [one["op"] for one in found["layers"]] == ["Conv2d", "Neuron", "Linear", "Neuron"]


def test_a_network_of_relus_is_converted_and_compared_with_itself() -> None:
    torch.manual_seed(0)
    found = report(Plain().eval(), x=PIXELS, y=LABELS, timesteps=6)
    assert found["model"]["timesteps"] == 6
    assert found["ann"][-1]["is_teacher"]
    assert found["ann"][0]["macs_effective"] > 0


def dense() -> nn.Module:
    torch.manual_seed(0)
    options: dict[str, Any] = {"beta": 1.0, "init_hidden": True, "reset_mechanism": "zero"}
    return strong(nn.Sequential(nn.Linear(64, 20), snn.Leaky(**options), nn.Linear(20, 10), snn.Leaky(**options)))


WORK = ("events_in", "synops", "synops_nonzero", "event_macs", "bias_adds", "spikes_out", "updates_active")


def work(found: energy.Report) -> list[dict[str, Any]]:
    return [{key: one[key] for key in WORK if key in one} for one in found["layers"]]


def test_a_nir_file_counts_as_the_network_that_it_holds(tmp_path: Path) -> None:
    net, ones = dense(), np.ones
    parts: dict[str, Any] = {"in": nir.Input(np.array([64]))}
    for index, size in ((0, 20), (2, 10)):
        weight, bias = (one.detach().numpy() for one in net[index].parameters())  # type: ignore[index]
        parts[f"fc{index}"] = nir.Affine(weight=weight, bias=bias)
        parts[f"if{index}"] = nir.IF(r=ones(size) / 1e-4, v_threshold=ones(size), v_reset=0 * ones(size))
    parts["out"] = nir.Output(np.array([10]))
    nir.write(tmp_path / "n.nir", nir.NIRGraph(nodes=parts, edges=list(pairwise(parts)), type_check=False))
    pixels = PIXELS.reshape(SAMPLES, 64)
    expected = report(net, x=pixels, timesteps=4)
    found = report(tmp_path / "n.nir", x=pixels, timesteps=4)
    assert work(found) == work(expected)
    assert row(found, "if0")["spikes_out"]
    assert found["model"]["graph_stage"] == "FOLDED"


def test_a_file_of_ours_counts_as_the_export_that_wrote_it(tmp_path: Path) -> None:
    pixels = PIXELS.reshape(SAMPLES, 64)
    bundle = snnkd_deploy.compile(dense(), "nir", pixels, LABELS, timesteps=4).write(tmp_path / "b")
    found = report(bundle.file, x=pixels, y=LABELS)
    expected = api.energy(tmp_path / "report.json", bundle.path)
    assert (found["model"]["graph_stage"], expected["model"]["graph_stage"]) == ("INTEGER", "LEGAL")
    assert work(found) == work(expected)
    assert found["model"]["weight_bits"] == expected["model"]["weight_bits"] == 8


def test_the_student_of_a_run_is_counted_in_real_numbers(tiny_run: Run) -> None:
    found, traced = report(tiny_run.path, 20), read_run(tiny_run)
    expected = count(folded(traced.student), traced.data.test.integers(slice(20)))
    for layer in expected.layers:
        assert {**row(found, layer.name), **plain(asdict(layer))} == row(found, layer.name)
    assert found["accuracy"]["snn"] == tiny_run.accuracies["student"]
    assert [one["role"] for one in found["ann"]] == ["teacher", "same_shape"]
    assert found["model"]["graph_stage"] == "FOLDED"


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({}, ConfigError, "no samples: what a network does is counted on data"),
        ({"x": np.zeros((0, 1, 8, 8))}, InputError, "at least one sample"),
        ({"x": np.random.default_rng(0).random((30, 1, 8, 8))}, InputError, "samples is noise"),
        ({"x": np.full((5, 1, 8, 8), 7, dtype=np.uint8)}, InputError, "every value of x is 7"),
        ({"x": PIXELS, "speed": 3}, ConfigError, "no setting 'speed'"),
    ],
)
def test_bad_samples_are_one_clear_error(given: dict[str, Any], error: Any, text: str, net: nn.Module) -> None:
    with pytest.raises(error, match=text):
        report(net, **given)


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(InputError, match=r"in training mode, in which BatchNorm2d act otherwise .*network.eval\(\)"):
        report(Plain(), x=PIXELS, timesteps=4)


def test_every_part_that_cannot_be_counted_is_named(net: nn.Module) -> None:
    net.conv1, net.pool = nn.Sequential(net.conv1, nn.GELU()), nn.LPPool2d(2, 2)  # type: ignore[arg-type]
    with pytest.raises(TraceError) as refusal:
        report(net, x=PIXELS)
    assert len(refusal.value.reasons) > 1


def test_a_run_says_itself_what_its_data_are(tiny_run: Run) -> None:
    with pytest.raises(ConfigError, match="x: .* is a run, which says itself"):
        report(tiny_run.path, x=PIXELS)


CODE = """
import snntorch as snn
import torch
from torch import nn


def net(shape):
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(64, 30), snn.Leaky(beta=0.9, init_hidden=True)]
    return nn.Sequential(*layers, nn.Linear(30, 10), snn.Leaky(beta=0.9, init_hidden=True))


def trained():
    layers = [nn.Flatten(), nn.Linear(64, 30), nn.BatchNorm1d(30), nn.Linear(30, 10)]
    return nn.Sequential(*layers, snn.Leaky(beta=0.9, init_hidden=True))
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["energy", *map(str, arguments)])


@pytest.fixture
def code(workplace: Path) -> Path:
    (workplace / "net.py").write_text(CODE)
    np.savez(workplace / "samples.npz", x=PIXELS, y=LABELS)
    np.savez(workplace / "noise.npz", x=np.random.default_rng(0).random((30, 1, 8, 8)))
    return workplace


def test_the_command_counts_a_network_of_one_s_own(code: Path) -> None:
    own = ("report.json", "--model", "net.py:net", "--timesteps", 4)
    done = call(*own, "--data", "samples.npz", "--input-shape", "1,8,8", "--table", "cmos45_fp32")
    assert done.exit_code == 0, done.output
    assert "Energy of net as it is (FOLDED graph, no target)" in done.output
    assert energy.read(code / "report.json")["data"]["samples"] == SAMPLES
    again = call(*own, "--dataset", "digits", "--samples", 50, "--refresh")
    assert again.exit_code == 0, again.output
    assert energy.read(code / "report.json")["data"]["samples"] == 50
    assert "report.json is there and is read; --refresh counts again" in call(*own, "--dataset", "digits").output


@pytest.mark.parametrize(
    ("arguments", "code_of_exit", "text"),
    [
        (("--model", "net.py:net", "--timesteps", "4"), 2, "no samples: what a network does is counted on data"),
        (("--model", "net.py:net", "--data", "noise.npz", "--timesteps", "4"), 3, "noise.npz is noise"),
        (("--model", "net.py:trained", "--data", "samples.npz", "--timesteps", "4"), 3, "net is in training mode"),
        (("--model", "net.py:net", "--data", "samples.npz"), 2, "say with timesteps how many"),
        (("--model", "net.py:other", "--data", "samples.npz"), 2, "no function in net.py called 'other'"),
        (("--model", "net.py:net", "--bundle", "b"), 2, "a bundle and a model are given"),
        (("--data", "samples.npz"), 2, "--data: goes with --model"),
        (("other.json", "--model", "net.py:net"), 2, "--bundle, --model, --refresh and --samples are for one report"),
    ],
)
def test_bad_input_is_one_clear_error(arguments: tuple[str, ...], code_of_exit: int, text: str, code: Path) -> None:
    done = call("report.json", *arguments)
    assert done.exit_code == code_of_exit, done.output
    assert text in done.output
    assert done.output.count("error:") == 1
    assert not (code / "report.json").exists()
