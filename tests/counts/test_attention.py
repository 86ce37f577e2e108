"""The products of an attention, sample by sample."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_array_equal

from snnkd_deploy.counts.attention import order, products
from snnkd_deploy.ir import Attention


def test_coincidences_are_counted_by_sample() -> None:
    node = Attention(name="a", inputs=("q", "k", "v"), heads=1)
    q, k, v = (np.zeros((1, 2, 2, 1, 3), dtype=int) for _ in range(3))
    k[0, 0, 0, 0, :2] = v[0, 0, 1, 0, 1:] = q[0, 1] = 1
    found = products(node, (q, k, v))
    assert order(2, 3) == "context"
    assert_array_equal(found["events_in"], [4, 6])
    assert_array_equal(found["attention_and"], [1, 0])  # token 1 has both k and v
    assert_array_equal(found["attention_adds"], [0, 6 * 2])  # each q reads the two channels of v
