"""What NeuroBench, SpikingJelly and sinabs count of single layers: `python -m tests.peers.counters_side`.

With `--table` beside our own count, as Markdown.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from neurobench.metrics.workload import SynapticOperations
from neurobench.models import TorchModel
from sinabs import hooks
from spikingjelly.activation_based import op_counter
from torch import Tensor, nn

from tests.peers.layers import LAYERS, Case


def neurobench(case: Case) -> dict[str, int]:
    """Its effective operations, of all samples."""
    model, x, metric = TorchModel(nn.Sequential(case.module)), case.tensor(), SynapticOperations()
    model.register_hooks()
    with torch.no_grad():
        found = metric(model, model(x), (x, torch.zeros(len(x))))
    model.cleanup_hooks()
    return {name: round(found[f"Effective_{name.upper()[:-1]}s"] * len(x)) for name in ("macs", "acs")}


def spikingjelly(case: Case) -> dict[str, int]:
    """Its three counters; in inference mode they would see no convolution."""
    counters = {
        "macs": op_counter.MACCounter(),
        "acs": op_counter.ACCounter(),
        "synops": op_counter.SynOpCounter(),
    }
    with torch.no_grad(), op_counter.DispatchCounterMode(list(counters.values())):
        case.module(case.tensor())
    return {name: int(one.get_total()) for name, one in counters.items()}


def sinabs(case: Case) -> float | str | None:
    """The mean of its hook over the batch, times the batch; None where it has no hook."""
    module: Any = case.module
    hook = {nn.Conv2d: hooks.conv_layer_synops_hook, nn.Linear: hooks.linear_layer_synops_hook}.get(type(module))
    if hook is None:
        return None
    x = case.tensor()
    handle = module.register_forward_hook(hook)
    try:
        with torch.no_grad():
            module(x)
    except (TypeError, ValueError, RuntimeError) as error:
        return type(error).__name__
    finally:
        handle.remove()
    total: Tensor = module.hook_data["layer_synops_per_timestep"] * len(x)
    return round(float(total), 3)


def row(name: str, case: Case) -> str:
    """Our count and theirs."""
    ours, other = case.counted(), sinabs(case)
    kind = "MACs" if ours.event_macs else "ACs"
    nonzero = f" ({ours.synops_nonzero:,} without zero weights)" if ours.synops_nonzero != ours.synops else ""
    said = [told(found(case)) for found in (neurobench, spikingjelly)]
    hook = "no hook" if other is None else other if isinstance(other, str) else f"{other:,.6g}"
    return f"| {name} | {ours.synops:,} {kind}{nonzero} | {' | '.join(said)} | {hook} |"


def told(found: dict[str, int]) -> str:
    """Multiplications and additions in words."""
    return " and ".join(f"{found[key]:,} {key[:-1].upper()}s" for key in ("macs", "acs") if found[key]) or "0"


def main(form: str = "--json") -> None:
    """A line of JSON, or a table."""
    cases = {name: make() for name, make in LAYERS.items()}
    if form == "--table":
        heading = (
            "| layer | events times reach | NeuroBench 2.3 | SpikingJelly 2.0 | sinabs 3.1 |\n|---|---|---|---|---|"
        )
        print("\n".join([heading, *(row(name, one) for name, one in cases.items())]))
        return
    counters = (neurobench, spikingjelly, sinabs)
    print(json.dumps({name: {one.__name__: one(case) for one in counters} for name, case in cases.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
