"""What is written computes what the simulator computes; what cannot be written is refused with every reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from snnkd_deploy.errors import BundleError, LegalityError, ProofError
from snnkd_deploy.exporters import netx
from snnkd_deploy.exporters._netx_replay import Answer
from snnkd_deploy.ir import Flatten, Graph, Input, MaxPool2d, Stage
from snnkd_deploy.proof import first_difference
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import Target
from tests.exporters.netx_graphs import (
    CHAIN,
    GRAPHS,
    KEEPING,
    LOIHI,
    LOIHI2,
    chain,
    changed,
    compiled,
    linear,
    neuron,
    pictures,
    samples,
)
from tests.networks import Recipe, random_inputs, seeds


@pytest.mark.parametrize("case", GRAPHS)
def test_the_file_computes_what_the_simulator_does(case: str, tmp_path: Path) -> None:
    target, graph = GRAPHS[case]
    inputs, path = samples(graph), tmp_path / "network.net"
    loader = netx.write(graph, target, path)
    met, expected = netx.run_replay(path, inputs, loader), simulate(graph, inputs)
    assert first_difference(graph, expected, met) is None
    assert list(met.spikes) == list(expected.spikes)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=seeds, target=st.sampled_from((LOIHI, LOIHI2)), recipe=st.sampled_from((CHAIN, KEEPING)))
def test_compiled_networks_keep_every_spike(seed: int, target: Target, recipe: Recipe, tmp_path: Path) -> None:
    legal, path = compiled(seed, target, recipe), tmp_path / "network.net"
    inputs = random_inputs(legal, 40, seed=1)
    met = netx.run_replay(path, inputs, netx.write(legal, target, path))
    assert first_difference(legal, simulate(legal, inputs), met) is None


@pytest.mark.parametrize("target", [LOIHI, LOIHI2], ids=lambda target: str(target.name))
def test_a_shipped_target_and_the_format_have_the_same_limits(target: Target) -> None:
    """The format's own limits guard it against targets of users; two numbers for one limit must not part."""
    assert (-target.weights.minimum, target.weights.maximum) == (netx.WEIGHT, netx.WEIGHT)
    assert (-target.bias.minimum, target.bias.maximum) == (netx.BIAS, netx.BIAS)
    assert target.threshold.maximum == netx.THRESHOLD
    assert (2**target.decay.bits, target.state.fraction_bits) == (netx.DECAY_UNITY, netx.FRACTION_BITS)


def test_networks_fire_in_these_tests() -> None:
    rates = [rate.mean() for _, graph in GRAPHS.values() for rate in simulate(graph, samples(graph)).spikes.values()]
    assert np.mean([0.02 < rate < 0.98 for rate in rates]) > 0.7


def test_the_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    target, graph = GRAPHS["host conv"]
    for name in ("one.net", "two.net"):
        netx.write(graph, target, tmp_path / name)
    assert (tmp_path / "one.net").read_bytes() == (tmp_path / "two.net").read_bytes()


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    target, graph = GRAPHS["host conv"]
    path = tmp_path / "network.net"
    loader = netx.write(graph, target, path)
    with h5py.File(path) as file:
        assert file["snnkd/digest"][()].decode() == (graph.origin or graph.digest)
        assert file["snnkd/timesteps"][()] == graph.timesteps
        assert file["snnkd/blocks"][()].tolist() == [b"lif1", b"lif2", b"readout"]
        assert [file[f"layer/{index}/type"][0] for index in range(4)] == [b"input", b"conv", b"flatten", b"dense"]
        assert "messageBits" not in file["layer/0/neuron"]
        assert file["layer/3/neuron/vThMant"][()] == 131071
        assert_array_equal(file["host/weight"][()], graph["conv1"].weight)  # type: ignore[attr-defined]
    assert loader["input_shape"] == [3, 5, 4]
    assert (loader["entry"], loader["reset_offset"], loader["timing_offset"]) == ("input-neuron", 0, 2)
    assert [block["delay"] for block in loader["blocks"]] == [0, 1, 2]


def test_a_graded_input_needs_its_bits_and_one_more_step(tmp_path: Path) -> None:
    target, graph = GRAPHS["graded conv"]
    loader = netx.write(graph, target, tmp_path / "network.net")
    assert (loader["input_message_bits"], loader["input_shape"]) == (8, [4, 5, 2])
    assert (loader["entry"], loader["reset_offset"], loader["timing_offset"]) == ("source", 1, 3)


def test_relays_are_in_the_file_and_not_in_the_record(tmp_path: Path) -> None:
    target, graph = GRAPHS["relays"]
    path = tmp_path / "network.net"
    loader = netx.write(graph, target, path)
    blocks = {block["name"]: (block["shape"][0], block.get("own_channels")) for block in loader["blocks"]}
    assert blocks == {
        "lif0": (3, None),
        "lif1": (7, 4),
        "lif2": (4, None),
        "lif3.copies": (8, 0),
        "lif3": (8, 4),
        "lif4": (4, None),
        "readout": (3, None),
    }
    record = netx.run_replay(path, samples(graph), loader)
    assert {name: spikes.shape[2] for name, spikes in record.spikes.items()} == {
        f"lif{n}": 3 + (n > 0) for n in range(5)
    }


def test_large_kernels_that_are_mostly_zero_are_packed(tmp_path: Path) -> None:
    weight = np.zeros((80, 60), np.int64)
    weight[:, 0] = 7
    graph = chain(
        linear("wide", "input", weight), neuron("lif", "wide", 3), linear("readout", "lif", [[1] * 80]),
        source=Input(name="input", shape=(60,), high=1),
    )  # fmt: skip
    path = tmp_path / "network.net"
    netx.write(graph, LOIHI, path)
    with h5py.File(path) as file:
        assert file["layer/1/weight"].compression == "gzip"
        assert file["layer/2/weight"].compression is None
        assert_array_equal(file["layer/1/weight"][()], weight)


SOUND = pictures()
REFUSED: dict[str, tuple[Graph, str]] = {
    "stage": (replace(SOUND, stage=Stage.INTEGER), "a integer network; a legal one is needed"),
    "weight": (changed(SOUND, "conv2", weight=np.full((6, 2, 2, 1), 128)), "conv2: weight 128..128; -127..127"),
    "bias": (changed(SOUND, "readout", bias=np.array([0, 0, -4096])), "readout: bias -4096..0; -4095..4095"),
    "size": (changed(SOUND, "conv1", padding=(128, 0)), "groups of 128; up to 127 is accepted"),
    "reset": (changed(SOUND, "lif1", reset="subtract"), "lif1: reset 'subtract'; netx has 'zero' alone"),
    "thresholds": (changed(SOUND, "lif1", threshold=np.arange(1, 5)), "lif1: thresholds 1..4; a block has one"),
    "threshold": (changed(SOUND, "lif1", threshold=np.array(2**17)), "threshold 131072; 1..131071 is accepted"),
    "decay": (changed(SOUND, "lif1", decay=0.7), "lif1: decay 0.7; 1/4096..1 in steps of 1/4096"),
    "decays": (
        changed(SOUND, "lif1", decay=np.array([0.5, 0.75, 1.0, 0.7])),
        "lif1: decay 0.5..1; a block has one\n  - lif1: decay 0.7; 1/4096..1 in steps of 1/4096",
    ),
    "a current of fractions": (
        changed(SOUND, "lif1", current_decay=0.7),
        "lif1: current_decay 0.7; 0/4096..1 in steps of 1/4096 is accepted",
    ),
    "currents": (changed(SOUND, "lif2", current_decay=np.array([0.5] * 5 + [0.0])), "lif2: current_decay 0..0.5; a"),
    "a bias behind a current": (
        changed(SOUND, "lif1", current_decay=0.5),
        "in front of lif1, which keeps its current; this target adds biases behind the current",
    ),
    "no memory": (changed(SOUND, "lif1", decay=0.0), "lif1: decay 0.0"),
    "fraction": (changed(SOUND, "lif1", fraction_bits=7), "lif1: 7 bits behind the point of its membrane; 6 are kept"),
    "late host": (changed(SOUND, "conv2", placement="host"), "conv2: on the host; only what comes before"),
    "pixels": (changed(SOUND, "input", high=256), r"input: pixels 0..256; a graded spike has 8 bits, 0..255"),
    "signed": (changed(SOUND, "input", low=-1), r"input: pixels -1..255"),
    "no neuron": (
        chain(linear("one", "input", [[1, 2]]), source=Input(name="input", shape=(2,))),
        "one: a network without neurons",
    ),
    "a pool": (
        chain(MaxPool2d(name="pool", inputs=("input",), kernel=(2, 2), stride=(2, 2)), *SOUND.nodes[1:-1]),
        "pool: no MaxPool2d in netx; it has Input, Conv2d",
    ),
    "a branch": (
        chain(*SOUND.nodes[1:-2], linear("side", "flatten", [[1] * 60]), SOUND.nodes[-2]),
        "flatten: 2 nodes read it; this target runs layers in a row",
    ),
    "two in a row": (
        chain(linear("one", "input", [[1, 2]]), linear("two", "one", [[1]]), source=Input(name="input", shape=(2,))),
        "one: must feed a Neuron or the Output directly",
    ),
    "spoilt": (
        chain(
            Flatten(name="flatten", inputs=("input",)),
            linear("wide", "flatten", np.full((1, 256), -1)),
            neuron("lif", "wide", 3),
            linear("readout", "lif", [[1]]),
            source=Input(name="input", shape=(1, 2, 128)),
        ),
        "wide: netx would change the weights of wide",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_netx_cannot_hold_is_refused(case: str, tmp_path: Path) -> None:
    graph, message = REFUSED[case]
    with pytest.raises(LegalityError) as refusal:
        netx.write(graph, LOIHI2, tmp_path / "network.net")
    assert message in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_refusal_lists_every_reason(tmp_path: Path) -> None:
    graph = changed(changed(SOUND, "lif1", reset="subtract", decay=0.7), "readout", bias=np.array([9999, 0, 0]))
    with pytest.raises(LegalityError) as refusal:
        netx.write(graph, LOIHI, tmp_path / "network.net")
    text = "\n".join(refusal.value.reasons)
    assert len(refusal.value.reasons) == 4
    assert all(part in text for part in ("reset", "decay", "bias", "a host layer is needed"))


def test_a_file_without_its_host_layer_is_refused(tmp_path: Path) -> None:
    target, graph = GRAPHS["host conv"]
    path = tmp_path / "network.net"
    loader = netx.write(graph, target, path)
    with h5py.File(path, "a") as file:
        del file["host"]
    with pytest.raises(BundleError, match="no host; it holds layer, simulation, snnkd"):
        netx.run_replay(path, samples(graph), loader)


def test_loader_arguments_that_do_not_belong_to_the_file_are_refused(tmp_path: Path) -> None:
    target, graph = GRAPHS["features"]
    path = tmp_path / "network.net"
    loader = netx.write(graph, target, path)
    with pytest.raises(BundleError, match="the loader arguments lack 'reset_interval'"):
        netx.run_replay(path, samples(graph), {"static": True})
    with pytest.raises(BundleError, match="the file has 2 blocks, its loader arguments name 1"):
        netx.run_replay(path, samples(graph), {**loader, "blocks": loader["blocks"][:1]})


def test_a_readout_that_fires_proves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target, graph = GRAPHS["features"]
    path = tmp_path / "network.net"
    loader = netx.write(graph, target, path)
    fired = Answer(tuple(np.ones((12, 4, 1), np.uint8) for _ in range(2)), np.zeros((12, 1), np.int64))
    monkeypatch.setattr(netx, "replay", lambda *_, **__: fired)
    with pytest.raises(ProofError, match="linear1: the readout spikes"):
        netx.run_replay(path, samples(graph), loader)
