"""Each device has the kernel that can read its memory, or none."""

from __future__ import annotations

import pytest
import torch

from snnkd_deploy.snn import doors, kernel


def test_the_device_decides() -> None:
    x = torch.zeros(4, 3)
    assert doors.of(x) is doors.needed(x) is kernel


def test_another_device_has_none() -> None:
    x = torch.zeros(4, 3, device="meta")
    assert doors.of(x) is None
    with pytest.raises(KeyError, match="meta"):
        doors.needed(x)
