"""A picture is resized by its shorter side, and its middle is what is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snnkd_deploy.datasets.pictures import Pictures


@pytest.mark.parametrize("shape", [(30, 50, 3), (50, 30, 3), (20, 20, 3)])
def test_one_resampling_is_resize_and_then_crop(tmp_path: Path, shape: tuple[int, ...]) -> None:
    ramp = np.linspace(0, 255, shape[0] * shape[1]).reshape(shape[:2]).astype(np.uint8)
    Image.fromarray(np.stack([ramp, ramp.T.reshape(ramp.shape), 255 - ramp], axis=-1)).save(tmp_path / "a.png")
    met = Pictures(tmp_path, ["a.png"], size=14, shorter=16)[:][0].transpose(1, 2, 0)
    with Image.open(tmp_path / "a.png") as image:
        scale = 16 / min(image.size)
        width, height = (round(side * scale) for side in image.size)
        left, top = (width - 14) // 2, (height - 14) // 2
        whole = image.resize((width, height), Image.Resampling.BILINEAR)
        expected = np.asarray(whole.crop((left, top, left + 14, top + 14)))
    assert abs(met[:, :, 2].astype(int) - expected[:, :, 2]).max() <= 12  # half a pixel off where sides are odd


def test_files_behave_as_one_array(tmp_path: Path) -> None:
    for number in range(5):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / f"{number}.png")
    pictures = Pictures(tmp_path, [f"{number}.png" for number in range(5)], 4, 4)
    assert pictures.shape == (5, 3, 4, 4)
    assert pictures[np.array([3, 1, 3])][:, 0, 0, 0].tolist() == [3, 1, 3]
    assert pictures[4:][:, 0, 0, 0].tolist() == [4]
    assert pictures[np.array([], dtype=np.int64)].shape == (0, 3, 4, 4)
