"""The block for NeuroBench is what NeuroBench itself prints of the same network."""

from __future__ import annotations

from typing import Any

import pytest

from snnkd_deploy import energy
from snnkd_deploy.unexported import report
from tests.peers.nets import DATA, NETS, STEPS, said

NAMES = {"Footprint": "footprint", "ConnectionSparsity": "connection_sparsity", "MembraneUpdates": "membrane_updates"}
OPERATIONS = {"Effective_MACs": "effective_macs", "Effective_ACs": "effective_acs", "Dense": "dense"}


def counted(net: str, kind: str) -> energy.Report:
    more: dict[str, Any] = {} if kind == "frames" else {"timesteps": STEPS}
    return report(NETS[net](), x=DATA[kind](), input_shape=(1, 8, 8), **more)


@pytest.mark.peers
@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("net", NETS)
def test_the_block_is_what_neurobench_prints(net: str, kind: str) -> None:
    theirs, ours = said("neurobench_side", net, kind), counted(net, kind)["neurobench"]
    assert {NAMES[name]: theirs[name] for name in NAMES} == {name: ours[name] for name in NAMES.values()}
    operations = theirs["SynapticOperations"]
    assert {OPERATIONS[name]: operations[name] for name in OPERATIONS} == ours["synaptic_operations"]
    assert ours["synaptic_operations"]["effective_acs"] > 0
    assert ours["activation_sparsity"] == pytest.approx(theirs["ActivationSparsity"], abs=1e-12)  # a mean of batches
