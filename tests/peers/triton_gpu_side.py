"""The Triton kernel compiled for GPUs on a machine that needs none: `python -m tests.peers.triton_gpu_side`.

Prints for each job and GPU the kernels that were launched, with the size of their code. What is compiled is what the
launches ask for: types and flags are read off the arguments.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from snnkd_deploy.snn import doors, triton_kernel
from snnkd_deploy.snn.fused import as_one
from snnkd_deploy.snn.lif import LIF
from snnkd_deploy.snn.models import Plan, build, channels_last
from snnkd_deploy.snn.rate import rate
from tests.snn.rows import inputs, outcome, row

TARGETS = {"sm_80": GPUTarget("cuda", 80, 32), "gfx942": GPUTarget("hip", "gfx942", 64)}
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
HARD = LIF(0.5, 1.0, "subtract", "sigmoid", False)


class Compiled:
    """A kernel that is compiled where it would be launched, and leaves its memory as it is."""

    def __init__(self, kernel: Any, target: GPUTarget, sizes: dict[str, int]) -> None:
        self.kernel, self.target, self.sizes = kernel, target, sizes

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        assert min(grid) >= 1
        return self.compile

    def compile(self, *values: Any, enable_fp_fusion: bool, **flags: Any) -> None:
        names = self.kernel.arg_names
        assert [*names[len(values) :]] == [name for name in names if name in flags]
        given = dict(zip(names, values, strict=False))
        signature = {name: "constexpr" if name in flags else kind(given[name]) for name in names}
        constants = {(names.index(name),): value for name, value in flags.items()}
        source, options = ASTSource(self.kernel, signature, constants), {"enable_fp_fusion": enable_fp_fusion}
        done = triton.compile(source, target=self.target, options=options)
        self.sizes[self.kernel.__name__] = len(done.asm["cubin" if self.target.backend == "cuda" else "hsaco"])


def kind(value: Any) -> str:
    """How a signature calls the type of this argument."""
    if isinstance(value, Tensor):
        return TYPES[value.dtype]
    return {int: "i32", float: "fp32"}[type(value)]


def compiled(target: GPUTarget, job: Callable[[], Any]) -> dict[str, int]:
    """The kernels that a job needs, and the bytes that each has."""
    true, sizes = triton_kernel.source(), dict[str, int]()
    names = ("forward", "sweep", "rescale", "renormalise")
    fakes = SimpleNamespace(**{name: Compiled(getattr(true, name), target, sizes) for name in names})
    with (
        patch.object(triton_kernel, "source", lambda: fakes),
        patch.object(triton_kernel, "available", lambda: True),
        patch.dict(doors.DOORS, {"cpu": triton_kernel}),
    ):
        job()
    return sizes


def of_a_row(
    shape: tuple[int, ...], neuron: LIF, steps: int, dtype: torch.dtype, shortcut: bool = False, **form: bool
) -> Callable[[], Any]:
    """A training step of a row of modules."""
    x = inputs(shape, 1 if form.get("still") else steps, dtype)
    residual = [inputs(shape, steps, dtype)] * shortcut
    return lambda: outcome(as_one, row(shape, neuron, steps, **form), x, *residual)


def rates() -> None:
    """A training step by mean rates; what no kernel has written is not compared."""
    network = channels_last(build("cnn", Plan((2, 8, 8), 5, 6, 2, 2, HARD))).train()
    with patch("snnkd_deploy.snn.rate._compare"):
        torch.autograd.backward(rate(network, torch.rand(3, 2, 8, 8)).logits.sum())


JOBS: dict[str, Callable[[], Any]] = {
    "plain": of_a_row((6, 16, 8, 8), LIF(), 4, torch.float32),
    "bfloat16, pool, residual": of_a_row((3, 70, 7, 9), HARD, 4, torch.bfloat16, True, pool=True),
    "still": of_a_row((3, 16, 4, 4), LIF(0.5, 1.0, "zero", "triangle", False), 3, torch.float32, still=True),
    "still, residual": of_a_row((7, 12), LIF(1.0, 1.0, "zero", "rectangle"), 1, torch.bfloat16, True, still=True),
    "a channel": of_a_row((2, 1, 5, 4), HARD, 2, torch.float32),
    "most steps": of_a_row((3, 64, 4, 4), LIF(), triton_kernel.MOST_STEPS, torch.bfloat16, pool=True),
    "rates": rates,
}


def main() -> None:
    """A line of JSON."""
    torch.set_num_threads(1)
    found = {name: {one: compiled(target, job) for one, target in TARGETS.items()} for name, job in JOBS.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
