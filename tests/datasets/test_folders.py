"""Folders of pictures are read by class, at once or batch by batch, and go all the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image

from snnkd_deploy import api, data
from snnkd_deploy.batches import Images
from snnkd_deploy.config import TrainConfig
from snnkd_deploy.datasets import folders
from snnkd_deploy.errors import ConfigError, DataError
from snnkd_deploy.train import train

COLOURS = {"blue": (10, 20, 230), "green": (10, 200, 30), "red": (240, 20, 10)}


def paint(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (16, 16), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Four training and two test pictures of each colour."""
    for part, count in (("train", 4), ("test", 2)):
        for name, colour in COLOURS.items():
            for number in range(count):
                dimmed = tuple(value * (9 - number) // 9 for value in colour)
                paint(tmp_path / part / name / f"{number}.png", dimmed, (16 + 2 * number, 16))
    return tmp_path


def test_classes_are_folders_in_alphabetical_order(own: Path) -> None:
    found = data.load("folder", own, image_size=8)
    assert (found.classes, found.input_shape, found.scale) == (("blue", "green", "red"), (3, 8, 8), 1 / 255)
    assert_array_equal(found.train.labels, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    assert_array_equal(found.test.images[4, :, 3, 3], COLOURS["red"])
    (own / "test").rename(own / "val")
    assert data.load("folder", own, image_size=8).sha256 == found.sha256


def test_pictures_that_stay_in_files_are_those_in_memory(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = data.load("folder", own, image_size=8)
    monkeypatch.setattr(folders, "MEMORY", 0)
    lazy = data.load("folder", own, image_size=8)
    assert isinstance(lazy.train.images, data.Pictures)
    assert not isinstance(whole.train.images, data.Pictures)
    for some in (slice(5), slice(3, None), np.array([7, 0, 7])):
        assert_array_equal(lazy.train.integers(some), whole.train.integers(some))
    one, other = (Images.of(each.train, each.scale, torch.device("cpu")) for each in (lazy, whole))
    one.expect(torch.tensor([2, 11]))
    rows = torch.tensor([11, 2, 5])
    torch.manual_seed(0)
    first, labels = one.batch(rows, "crop+flip")
    torch.manual_seed(0)
    second, expected = other.batch(rows, "crop+flip")
    assert torch.equal(first, second)
    assert torch.equal(labels, expected)
    for (met, _), (wanted, _) in zip(one.in_order(5), other.in_order(5), strict=True):
        assert torch.equal(met, wanted)


def test_the_hash_of_files_sees_names_sizes_and_contents(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MEMORY", 0)

    def digest(size: int = 8) -> str:
        return data.load("folder", own, image_size=size).sha256

    first, path = digest(), own / "test" / "red" / "1.png"
    assert (digest(), digest(9) == first) == (first, False)
    body = path.read_bytes()
    path.write_bytes(body[:-6] + b"X" + body[-5:])
    changed = digest()
    path.rename(path.with_name("2.png"))
    assert len({first, changed, digest()}) == 3


def test_a_whole_run_on_pictures_in_files(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MEMORY", 0)
    config = TrainConfig(
        dataset="folder", data_dir=str(own), image_size=8, width=2, depth=1, epochs=2, teacher_epochs=1, batch_size=4,
        timesteps=2, threads=1, augment="resized-crop+flip",
    )  # fmt: skip
    bundle = api.export(train(config, out=tmp_path / "run"), "onnx")
    assert bundle.verified
    assert [proof["differing"] for proof in api.verify(bundle.path)] == [0]
    report = api.energy(tmp_path / "report.json", bundle.path)
    assert report["layers"][0]["events_in"] == (data.configured(config).test.integers(slice(None)) > 0).sum()
    (own / "train" / "red" / "0.png").unlink()
    with pytest.raises(DataError, match="SHA-256"):
        api.verify(bundle.path)


def test_the_middle_of_the_shorter_side_is_kept(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part / "n1").mkdir(parents=True)
        picture = np.zeros((64, 128, 3), np.uint8)
        picture[:, 36:92] = 255  # what is 56 of 64 pixels wide around the middle
        Image.fromarray(picture).save(tmp_path / part / "n1" / "a.JPEG", quality=100)
    found = data.load("imagenet", tmp_path, image_size=56)
    assert found.input_shape == (3, 56, 56)
    assert found.train.images.min() > 240
    assert data.load("imagenet", tmp_path).input_shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "jpg"), ("CMYK", "jpeg"), ("P", "png"), ("RGBA", "png"), ("1", "png")]
)
def test_grey_cmyk_palette_and_transparency_become_rgb(own: Path, mode: str, suffix: str) -> None:
    paint(own / "test" / "red" / f"z.{suffix}", (255, 255, 255), mode=mode)
    found = data.load("folder", own, image_size=8).test
    assert found.images[-1].shape == (3, 8, 8)
    assert found.images[-1].min() > 250


@pytest.mark.parametrize("memory", [0, 1 << 31])
def test_a_damaged_picture_is_one_error_that_names_it(own: Path, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MEMORY", memory)
    path = own / "train" / "green" / "3.png"
    for body in (b"", b"not a picture", path.read_bytes()[:50]):
        path.write_bytes(body)
        with pytest.raises(DataError, match=r"cannot decode .*train/green/3\.png"):
            data.load("folder", own, image_size=8).train.integers(slice(None))
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(path)
    with pytest.raises(DataError, match=r"green/3\.png: a picture of mode I.*8 bits"):
        data.load("folder", own, image_size=8).train.integers(slice(None))


def test_what_is_missing_is_named(own: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="image_size must say"):
        data.load("folder", own)
    with pytest.raises(ConfigError, match="'digits' has one size only; image_size = 9"):
        data.load("digits", image_size=9)
    paint(own / "test" / "violet" / "a.png", (0, 0, 0))
    with pytest.raises(DataError, match="no class violet in"):
        data.load("folder", own, image_size=8)
    with pytest.raises(DataError, match="cannot read .*train"):
        data.load("imagenet", own / "test")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Two classes in the layout of the original archive, the first of wnids.txt not the first in the alphabet."""
    root = tmp_path / "tiny-imagenet-200"
    for number, (wnid, colour) in enumerate({"n02": COLOURS["red"], "n01": COLOURS["blue"]}.items()):
        for index in range(3):
            paint(root / "train" / wnid / "images" / f"{wnid}_{index}.JPEG", colour, (64, 64), "RGB" if index else "L")
        paint(root / "val" / "images" / f"val_{number}.JPEG", colour, (64, 64))
    (root / "wnids.txt").write_text("n02\nn01\n")
    (root / "words.txt").write_text("n00\tnothing\nn01\tthe sea\nn02\ta fire, flames\n")
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n")
    return root


def test_tiny_imagenet_is_read_in_the_layout_of_its_archive(tiny: Path) -> None:
    found = data.load("tiny-imagenet", tiny.parent)
    assert (found.classes, found.input_shape) == (("the sea", "a fire, flames"), (3, 64, 64))
    assert_array_equal(found.train.labels, [0, 0, 0, 1, 1, 1])
    assert_array_equal(found.test.labels, [1, 0])
    assert abs(found.test.images[1, :, 30, 30].astype(int) - COLOURS["blue"]).max() < 8  # JPEG is lossy
    assert data.load("tiny-imagenet", tiny, image_size=32).input_shape == (3, 32, 32)


def test_tiny_imagenet_with_an_unknown_class_or_without_its_lists_is_refused(tiny: Path) -> None:
    (tiny / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\nval_1.JPEG\tn05\t0\n")
    with pytest.raises(DataError, match=r"val_annotations\.txt, line 2: .*n05.*wnids"):
        data.load("tiny-imagenet", tiny)
    (tiny / "wnids.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read .*wnids\.txt"):
        data.load("tiny-imagenet", tiny)
