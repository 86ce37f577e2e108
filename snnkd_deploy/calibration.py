"""What quantisation may look at and how it shall choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from snnkd_deploy.ir import Array


@dataclass(frozen=True, eq=False)
class Calibration:
    """`samples`: integers as `simulate` takes them. `weight_bits`: fewer than the target's own, if given.

    `granularity`: one scale per layer, or one per channel where the target allows it. `method`: "max" maps the largest
    weight to the largest integer, "mse" may clip weights where that makes the layer's input more exact.
    """

    samples: Array
    weight_bits: int | None = None
    granularity: Literal["layer", "channel"] = "layer"
    method: Literal["max", "mse"] = "mse"
