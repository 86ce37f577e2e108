"""Step time of the busiest core and static energy in that time, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from snnkd_deploy import energy
from snnkd_deploy.energy.latency import timing
from tests.energy.reports import only, report

TIMES = """
[times]
synop_ns = 2
neuron_active_ns = 10
neuron_inactive_ns = 5
barrier_ns = [100, 200, 300]

[static]
mw_per_chip = [1, 2, 3]
volt = 1
evidence = "derived"
source = "s"
"""
CHIP = only("synop_pj = 1\nneuron_active_pj = 1\nneuron_inactive_pj = 1", "chip", '"bias", "spikes"', "loihi", TIMES)


def mapped(**more: Any) -> energy.Report:
    layers: list[dict[str, Any]] = [
        {"name": "lif", "source": None, "busiest_synops": 0, "busiest_neurons": 8, "messages": 0},
        {"name": "fc", "source": "lif", "busiest_synops": 60, "busiest_neurons": 2, "messages": 0},
    ]
    hops: dict[str, Any] = {"hops_east_west": None, "hops_north_south": None}
    mapping = {"target": "loihi", "chips": 2, "layers": [{**one, **hops} for one in layers], **more}
    return {**report(), "mapping": mapping}


def test_a_step_lasts_as_long_as_the_busiest_core_and_the_barrier() -> None:
    """lif: 8 neurons, 33 of 48 updates active; fc: 60 synops over 2 samples of 3 steps."""
    found = timing(mapped(), CHIP, [50, 100, 200])
    assert found is not None
    core = 8 * (33 / 48 * 10 + 15 / 48 * 5)
    assert found["busiest"] == "lif"
    assert found["step_ns"] == [pytest.approx(core + one) for one in (100, 200, 300)]
    assert found["inference_us"] == [pytest.approx(3 * (core + one) / 1000) for one in (100, 200, 300)]
    static = [2 * mw * 3 * (core + one) for mw, one in ((1, 100), (2, 200), (3, 300))]
    assert found["static_pj"] == [pytest.approx(one) for one in static]
    assert found["static_share"] == pytest.approx(static[1] / (static[1] + 100))
    assert found["total_pj"][1] == pytest.approx(static[1] + 100)
    assert found["energy_delay_pj_us"][1] == pytest.approx(found["total_pj"][1] * found["inference_us"][1])


def test_many_synops_on_one_core_decide() -> None:
    layers = mapped()["mapping"]["layers"]
    busy = mapped(layers=[layers[0], {**layers[1], "busiest_synops": 6000}])
    found = timing(busy, CHIP, [0, 0, 0])
    assert found is not None
    assert (found["busiest"], found["step_ns"][1]) == ("fc", pytest.approx(6000 / 6 * 2 + 200))


def test_no_times_no_mapping_or_another_chip_gives_no_time() -> None:
    assert timing({**mapped(), "mapping": None}, CHIP, [1, 1, 1]) is None
    assert timing(mapped(target="loihi2"), CHIP, [1, 1, 1]) is None
    assert timing(mapped(), only("synop_pj = 1", "chip", mapped="loihi"), [1, 1, 1]) is None
