"""Prices against SpikingJelly's own, where the definitions agree, and against KerasSpiking's published formula.

They agree on fully connected layers: SpikingJelly takes whole kernels and ceil(kernel / stride) taps in convolutions,
and KerasSpiking knows neither padding nor inactive neurons. SpikingJelly adds nothing for a compare, and one addition
for a spike.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snnkd_deploy import energy
from snnkd_deploy.ir import Array, Graph, Input, Linear, Neuron, Node, Output, Stage
from snnkd_deploy.price_files import load_table
from tests.energy.reports import report, row

PYTHON = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"
STEPS = 4

SPIKINGJELLY = """
import json, sys
import torch
from spikingjelly.activation_based import layer, neuron
from spikingjelly.activation_based.op_counter import estimate_lemaire_energy, estimate_simple_energy

given = json.load(sys.stdin)
first, second = (torch.tensor(one, dtype=torch.float32) for one in given["weights"])
biases = [torch.tensor(one, dtype=torch.float32) for one in given["biases"]]


def linear(weight, bias=None):
    made = layer.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, step_mode="m")
    made.weight.data = weight
    if bias is not None:
        made.bias.data = bias
    return made


sums = {"lemaire": {}, "ac_pj": 0.0, "mac_pj": 0.0}
for sample in torch.tensor(given["spikes"], dtype=torch.float32):
    frames = sample[:, None]
    fires = neuron.IFNode(v_threshold=given["threshold"], v_reset=0.0, step_mode="m")
    network = torch.nn.Sequential(linear(first, biases[0]), fires, linear(second, biases[1]))
    found = estimate_lemaire_energy(network, frames)
    for key, value in {**found.breakdown_pj, **found.counts}.items():
        sums["lemaire"][key] = sums["lemaire"].get(key, 0) + value
    sums["ac_pj"] += estimate_simple_energy(linear(first), frames).energy_ac_pj
    sums["mac_pj"] += estimate_simple_energy(linear(first), frames * 3).energy_mac_pj
print(json.dumps(sums))
"""


def weights() -> tuple[Array, Array]:
    generator = np.random.default_rng(0)
    return generator.integers(-3, 4, (30, 70)), generator.integers(-3, 4, (5, 30))


def network(high: int = 1) -> Graph:
    """70 inputs, 30 neurons, 5 outputs; every weight and bias an integer, every bias there."""
    first, second = weights()
    nodes: tuple[Node, ...] = (
        Input(name="x", shape=(70,), high=high, static=False),
        Linear(name="one", inputs=("x",), weight=first, bias=np.full(30, 1)),
        Neuron(name="lif", inputs=("one",), decay=1.0, threshold=np.asarray(6)),
        Linear(name="two", inputs=("lif",), weight=second, bias=np.full(5, -1)),
        Output(name="y", inputs=("two",)),
    )
    return Graph(nodes=nodes, timesteps=STEPS, stage=Stage.INTEGER)


def spikes() -> Array:
    return np.random.default_rng(1).integers(0, 2, (STEPS, 3, 70))


def groups(name: str) -> dict[str, float]:
    """pJ of all three samples, by class of operation."""
    entry = energy.price(report(network(), inputs=spikes()), [load_table(name)])["energy"][0]
    return {group: 3 * three[1] for group, three in entry["snn"]["by_class"].items()}


@pytest.fixture(scope="module")
def spikingjelly() -> dict[str, Any]:
    if not PYTHON.exists():
        pytest.skip("SpikingJelly is not there: make peers")
    given = {
        "weights": [one.tolist() for one in weights()],
        "biases": [[1] * 30, [-1] * 5],
        "threshold": 6.5,  # it fires at `>=`, here at `>` 6
        "spikes": np.moveaxis(spikes(), 1, 0).tolist(),
    }
    command = [str(PYTHON), "-W", "ignore", "-c", SPIKINGJELLY]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.peers
def test_memory_is_charged_as_spikingjelly_charges_lemaire_s_model(spikingjelly: dict[str, Any]) -> None:
    ours, theirs = groups("lemaire2022"), spikingjelly["lemaire"]
    assert ours["events"] == pytest.approx(theirs["inout_pj"])
    assert ours["weights"] == pytest.approx(theirs["params_pj"])
    assert ours["states"] == pytest.approx(theirs["potential_pj"])
    assert ours["addresses"] == pytest.approx(theirs["addressing_pj"])


@pytest.mark.peers
def test_arithmetic_differs_from_it_by_compares_and_by_what_a_spike_adds(spikingjelly: dict[str, Any]) -> None:
    ours, theirs = groups("lemaire2022"), spikingjelly["lemaire"]
    found = report(network(), inputs=spikes())
    synops = row(found, "one")["synops"] + row(found, "two")["synops"]
    assert synops == theirs["synop"]
    additions = ours["synapses"] + ours["bias"] + 0.1 * row(found, "lif")["spikes_out"]
    assert additions == pytest.approx(theirs["ops_pj"])


@pytest.mark.peers
def test_synapses_cost_what_its_simple_estimate_says(spikingjelly: dict[str, Any]) -> None:
    """A layer without bias: 0.9 pJ a synaptic operation on spikes, 4.6 pJ a multiplication on anything else."""
    entry = energy.price(report(network(), inputs=spikes()), [load_table("cmos45_fp32")])["energy"][0]
    first = entry["snn"]["by_layer_and_class"]["one"]["synapses"]
    assert 3 * first == pytest.approx(spikingjelly["ac_pj"])
    counted = report(network(high=9), inputs=3 * spikes())
    real = energy.price(counted, [load_table("cmos45_fp32")])["energy"][0]["snn"]["by_layer_and_class"]["one"]
    assert 3 * real["graded"] == pytest.approx(4.6 * row(counted, "one")["synops"])
    assert spikingjelly["mac_pj"] == pytest.approx(4.6 * 30 * 70 * STEPS * 3)  # it multiplies what is zero too


@pytest.mark.parametrize(
    ("name", "synop", "neuron"), [("spinnaker1", 13300, 26000), ("spinnaker2_prototype", 450, 2190)]
)
def test_a_dense_network_on_spinnaker_costs_what_kerasspiking_s_formula_says(
    name: str, synop: float, neuron: float
) -> None:
    """E = e_synop x connections x rate x steps + e_neuron x neurons x steps, connections fully dense."""
    ours = groups(name)
    rates = spikes().mean(), row(report(network(), inputs=spikes()), "lif")["rate"]
    connections = 70 * 30, 30 * 5
    synops = sum(one * rate * STEPS for one, rate in zip(connections, rates, strict=True))
    assert ours["synapses"] + ours["neurons"] == pytest.approx(3 * (synop * synops + neuron * 30 * STEPS))
