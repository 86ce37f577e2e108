"""How many outputs read an input."""

from __future__ import annotations

import numpy as np

from snnkd_deploy.counts.fan_out import dense, pairs
from snnkd_deploy.ir import Conv2d


def test_an_input_at_the_border_is_read_less_often() -> None:
    weight = np.ones((5, 1, 3, 3), dtype=int)
    weight[0, 0, 0, 0] = 0
    node = Conv2d(name="layer", inputs=("x",), weight=weight, bias=np.zeros(5, int), padding=(1, 1))
    corner, middle = np.zeros((2, 1, 4, 4), dtype=int)
    corner[0, 0, 0], middle[0, 1, 1] = 1, 1
    assert (pairs(node, corner), pairs(node, middle)) == (5 * 4, 5 * 9)
    assert (pairs(node, corner, nonzero=True), pairs(node, middle, nonzero=True)) == (5 * 4 - 1, 5 * 9 - 1)
    assert dense(node, (1, 4, 4)) == (5 * 9 * 16, 5 * 10 * 10, 5 * 10 * 10 - 9)
