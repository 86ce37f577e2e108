"""NeuroBench, SpikingJelly and sinabs count a layer as we do where they are right; where they are not, how and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from snnkd_deploy.counts import Synapses
from tests.peers.layers import LAYERS, SAMPLES
from tests.peers.nets import said

BINARY = [
    *("linear", "conv, no padding", "conv, padding", "conv, stride 2", "conv 1x1, stride 2", "conv, groups"),
    *("conv, dilation", "conv, reflect", "conv, same", "conv1d", "transposed", "zero weights"),
]
NOT_SINABS = ("conv, reflect", "conv, same", "conv1d", "transposed")


@pytest.fixture(scope="module")
def peers() -> dict[str, Any]:
    return dict(said("counters_side"))


@pytest.mark.peers
@pytest.mark.parametrize("name", [name for name in LAYERS if name != "transposed"])
def test_neurobench_counts_the_same_pairs(name: str, peers: dict[str, Any]) -> None:
    """Without zero weights; it calls them MACs where it sees anything but -1, 0 and 1."""
    ours, theirs = LAYERS[name]().counted(), peers[name]["neurobench"]
    assert theirs["macs"] + theirs["acs"] == ours.synops_nonzero
    assert not (theirs["macs"] and theirs["acs"])
    other = {"spikes of 0.25": "macs", "black-and-white picture": "acs"}
    assert theirs[other.get(name, "macs" if ours.event_macs else "acs")] == ours.synops_nonzero


@pytest.mark.peers
def test_neurobench_passes_over_transposed_convolutions(peers: dict[str, Any]) -> None:
    assert peers["transposed"]["neurobench"] == {"macs": 0, "acs": 0}
    assert LAYERS["transposed"]().counted().synops


@pytest.mark.peers
@pytest.mark.parametrize("name", BINARY)
def test_spikingjelly_counts_spikes_of_one_as_we_do(name: str, peers: dict[str, Any]) -> None:
    ours, theirs = LAYERS[name]().counted(), peers[name]["spikingjelly"]
    assert theirs == {"macs": 0, "acs": ours.synops, "synops": ours.synops}


@pytest.mark.peers
@pytest.mark.parametrize("name", [name for name in BINARY if name not in NOT_SINABS])
def test_sinabs_counts_spikes_of_one_as_we_do(name: str, peers: dict[str, Any]) -> None:
    assert peers[name]["sinabs"] == LAYERS[name]().counted().synops


@pytest.mark.peers
@pytest.mark.parametrize("name", ["spikes of 0.25", "ternary", "sums 0 to 4", "grey picture"])
def test_spikingjelly_takes_any_value_but_0_and_1_for_a_dense_layer(name: str, peers: dict[str, Any]) -> None:
    ours, theirs = LAYERS[name]().counted(), peers[name]["spikingjelly"]
    assert theirs == {"macs": ours.dense_macs * SAMPLES, "acs": 0, "synops": 0}
    assert theirs["macs"] > 1.5 * ours.synops


@pytest.mark.peers
def test_spikingjelly_takes_weights_of_one_for_the_spikes(peers: dict[str, Any]) -> None:
    ours, theirs = LAYERS["weights of 1"]().counted(), peers["weights of 1"]["spikingjelly"]
    assert theirs == {"macs": 0, "acs": ours.dense_macs * SAMPLES, "synops": ours.dense_macs * SAMPLES}
    assert ours.event_macs == ours.synops < theirs["acs"]


@pytest.mark.peers
def test_spikingjelly_takes_a_black_and_white_picture_for_spikes(peers: dict[str, Any]) -> None:
    ours, theirs = LAYERS["black-and-white picture"]().counted(), peers["black-and-white picture"]["spikingjelly"]
    assert (theirs["macs"], theirs["acs"]) == (0, ours.event_macs)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("spikes of 0.25", lambda ours: ours.synops / 4),  # a spike weighs what it is worth
        ("sums 0 to 4", lambda ours: ours.synops_unit),  # of a sum of n spikes n events
        ("conv, reflect", lambda ours: LAYERS["conv, padding"]().counted().synops),  # pads with zeros all the same
    ],
)
def test_sinabs_weighs_events_by_their_value(
    name: str, meant: Callable[[Synapses], float], peers: dict[str, Any]
) -> None:
    ours = LAYERS[name]().counted()
    assert peers[name]["sinabs"] == meant(ours)
    assert meant(ours) != ours.synops


@pytest.mark.peers
def test_sinabs_adds_up_signs_and_grey_values(peers: dict[str, Any]) -> None:
    assert peers["ternary"]["sinabs"] < 0 < LAYERS["ternary"]().counted().synops
    assert 0 < peers["grey picture"]["sinabs"] < 0.6 * LAYERS["grey picture"]().counted().synops


@pytest.mark.peers
def test_sinabs_fails_on_same_and_has_no_hook_for_other_ranks(peers: dict[str, Any]) -> None:
    assert peers["conv, same"]["sinabs"] == "TypeError"
    assert peers["conv1d"]["sinabs"] is peers["transposed"]["sinabs"] is None


@pytest.mark.peers
def test_zero_weights_are_work_to_both(peers: dict[str, Any]) -> None:
    ours = LAYERS["zero weights"]().counted()
    assert ours.synops_nonzero < ours.synops == peers["zero weights"]["sinabs"]
    assert peers["zero weights"]["spikingjelly"]["synops"] == ours.synops
