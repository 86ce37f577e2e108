"""Data sets are read as they were written, and every damage is one DataError."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from snnkd_deploy import data
from snnkd_deploy.errors import ConfigError, DataError, UnknownNameError
from snnkd_deploy.events import decode, frames
from tests.recordings import write_recordings

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def some_images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def some_labels(count: int) -> NDArray[np.uint8]:
    return (np.arange(count) % 10).astype(np.uint8)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A folder with 12 training images as .gz and 5 test images as plain files."""
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(idx(some_images(12))))
    (tmp_path / f"{LABELS}.gz").write_bytes(gzip.compress(idx(some_labels(12))))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(some_images(5)))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(some_labels(5)))
    return tmp_path


def refused(name: str, folder: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        data.load(name, folder)
    assert all(word in str(caught.value) for word in words), caught.value


def test_digits_are_split_by_class_and_always_alike() -> None:
    first, second = data.load("digits"), data.load("digits")
    assert (len(first.train), len(first.test), first.input_shape) == (1438, 359, (1, 8, 8))
    assert first.train.images.dtype == np.uint8
    assert first.train.images.max() == 16
    assert first.scale == 1 / 16
    share = np.bincount(first.test.labels) / np.bincount(np.concatenate([first.train.labels, first.test.labels]))
    assert abs(share - 0.2).max() < 0.01
    assert first.sha256 == second.sha256 == "e552bb6f151332e4e1dd30926579df7d35bc8f492b5bafc3b00a8acfb3213f9b"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_come_back_as_written_plain_or_compressed(mnist: Path, name: str) -> None:
    found = data.load(name, mnist)
    assert_array_equal(found.train.images[:, 0], some_images(12))
    assert_array_equal(found.test.labels, some_labels(5))
    assert (found.input_shape, found.scale, len(found.classes)) == ((1, 28, 28), 1 / 255, 10)
    assert found.train.labels.dtype == np.int64


def test_sha256_sees_one_changed_pixel(mnist: Path) -> None:
    before = data.load("mnist", mnist).sha256
    images = some_images(5)
    images[4, 27, 27] ^= 1
    (mnist / "t10k-images-idx3-ubyte").write_bytes(idx(images))
    assert data.load("mnist", mnist).sha256 != before


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'cifar10'"):
        data.load("cifar-10")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_no_data_dir_is_an_error_that_says_which_files_are_needed(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data_dir must name a folder with .*(idx3|tar\.gz)"):
        data.load(name)
    refused(name, tmp_path / "nowhere", "does not exist", "needed")
    refused(name, tmp_path, "no", str(tmp_path))


def test_a_truncated_gz_is_refused(mnist: Path) -> None:
    path = mnist / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-100])
    refused("mnist", mnist, path.name)


def test_a_gz_that_is_none_is_refused(mnist: Path) -> None:
    (mnist / f"{IMAGES}.gz").write_bytes(idx(some_images(12)))
    refused("mnist", mnist, IMAGES, "Not a gzipped file")


def test_a_gz_with_a_flipped_bit_is_refused(mnist: Path) -> None:
    path = mnist / f"{IMAGES}.gz"
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 4
    path.write_bytes(bytes(body))
    refused("mnist", mnist, path.name)


@pytest.mark.parametrize("body", [b"", b"\0\0", b"\0\0\x08\x01" + b"\0" * 100, b"<html>not here</html>" * 9])
def test_another_magic_number_is_refused(mnist: Path, body: bytes) -> None:
    (mnist / IMAGES).write_bytes(body)
    refused("mnist", mnist, IMAGES, "00000803")


@pytest.mark.parametrize(("cut", "met"), [(-1, "only"), (None, "more")])
def test_a_body_of_another_length_than_promised_is_refused(mnist: Path, cut: int | None, met: str) -> None:
    (mnist / IMAGES).write_bytes((idx(some_images(12)) + (b"" if cut else b"!"))[:cut])
    refused("mnist", mnist, IMAGES, met, "(12, 28, 28)")


@pytest.mark.parametrize("shape", [(12, 28, 27), (2**32 - 1, 28, 28)])
def test_a_header_with_another_or_a_monstrous_shape_is_refused(mnist: Path, shape: tuple[int, ...]) -> None:
    (mnist / IMAGES).write_bytes(struct.pack(">4I", 0x0803, *shape) + b"\0" * 100)
    refused("mnist", mnist, IMAGES, str(shape[0]), "accepted")


def test_images_and_labels_must_be_equally_many(mnist: Path) -> None:
    (mnist / LABELS).write_bytes(idx(some_labels(11)))
    refused("mnist", mnist, "12 images but 11 labels")


def test_an_empty_set_is_refused(mnist: Path) -> None:
    (mnist / LABELS).write_bytes(idx(some_labels(0)))
    (mnist / IMAGES).write_bytes(idx(some_images(0)))
    refused("mnist", mnist, "0 images but 0 labels")


def test_labels_out_of_range_are_refused(mnist: Path) -> None:
    (mnist / LABELS).write_bytes(idx(some_labels(12) + np.uint8(1)))
    refused("mnist", mnist, "labels from 1 to 10", "0 to 9")


def batch(count: int, key: str, classes: int) -> dict[str, Any]:
    pixels = np.random.default_rng(count).integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"data": pixels, key: [n % classes for n in range(count)], "batch_label": "x"}


def cifar100_members() -> dict[str, bytes]:
    names = {"fine_label_names": [f"class {n}" for n in range(100)]}
    members = {"train": batch(7, "fine_labels", 100), "test": batch(3, "fine_labels", 100), "meta": names}
    return {name: old_pickle(value) for name, value in members.items()}


def old_pickle(value: Any) -> bytes:
    """Protocol 2 with byte keys and numpy under its old name, as the published files are."""
    value = {key.encode(): _bytes(entry) for key, entry in value.items()}
    return pickle.dumps(value, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def _bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_bytes(entry) for entry in value]
    return value.encode() if isinstance(value, str) else value


def unpacked(folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in members.items():
        (folder / name).write_bytes(body)
    return folder


def archived(path: Path, members: dict[str, bytes], **sizes: int) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = sizes.get(name, len(body))
            if name not in sizes:
                archive.addfile(info, io.BytesIO(body))
            else:  # a header that promises more than follows; addfile would insist on the content
                assert archive.fileobj is not None
                archive.fileobj.write(info.tobuf(archive.format))
    return path.parent


def test_cifar100_is_read_from_the_folder_above_it_the_folder_itself_and_the_archive(tmp_path: Path) -> None:
    members = cifar100_members()
    inside = unpacked(tmp_path / "one" / "cifar-100-python", members)
    (tmp_path / "two").mkdir()
    packed = archived(
        tmp_path / "two" / "cifar-100-python.tar.gz", {f"cifar-100-python/{n}": b for n, b in members.items()}
    )
    found = [data.load("cifar100", folder) for folder in (inside, inside.parent, packed)]
    assert len({one.sha256 for one in found}) == 1
    assert_array_equal(found[0].train.images.reshape(7, 3072), batch(7, "", 1)["data"])
    assert_array_equal(found[0].test.labels, [0, 1, 2])
    assert found[0].classes[99] == "class 99"
    assert found[0].input_shape == (3, 32, 32)


def test_cifar10_joins_its_five_batches_in_order(tmp_path: Path) -> None:
    members = {f"data_batch_{n}": old_pickle(batch(n, "labels", 10)) for n in range(1, 6)}
    members["test_batch"] = old_pickle(batch(4, "labels", 10))
    members["batches.meta"] = old_pickle({"label_names": [f"class {n}" for n in range(10)]})
    found = data.load("cifar10", unpacked(tmp_path, members))
    assert (len(found.train), len(found.test), len(found.classes)) == (15, 4, 10)
    assert_array_equal(found.train.labels, [0, 0, 1, 0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 4])


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("reached",)


@pytest.mark.parametrize(
    "body",
    [
        pickle.dumps({b"data": Hostile()}, protocol=2),
        pickle.dumps({b"data": np.frombuffer}, protocol=2),
        b"",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L999999999999L\ntS'b'\ntR.",
        b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.",
    ],
)
def test_a_pickle_that_wants_to_call_something_is_refused_and_calls_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    refused("cifar100", unpacked(tmp_path, {**cifar100_members(), "train": body}), "train of", "plain arrays")
    assert not (tmp_path / "reached").exists()


@pytest.mark.parametrize(
    ("train", "word"),
    [
        ([1, 2], "a dictionary is needed"),
        ({b"fine_labels": [0]}, "no data"),
        ({b"data": np.zeros((1, 3072), np.uint8)}, "no fine_labels"),
        ({b"data": np.zeros((1, 3072)), b"fine_labels": [0]}, "3072 unsigned bytes"),
        ({b"data": np.zeros((1, 3071), np.uint8), b"fine_labels": [0]}, "3072 unsigned bytes"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": ["a"]}, "list of integers"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [0, 1]}, "1 images but 2 labels"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [100]}, "0 to 99"),
    ],
)
def test_a_member_with_other_content_is_refused(tmp_path: Path, train: Any, word: str) -> None:
    members = {**cifar100_members(), "train": pickle.dumps(train, protocol=2)}
    refused("cifar100", unpacked(tmp_path, members), word)


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    members = {**cifar100_members(), "meta": pickle.dumps({b"fine_label_names": 3}, protocol=2)}
    refused("cifar100", unpacked(tmp_path, members), "meta of", "list of names")


@pytest.mark.parametrize("name", ["../train", "/train", "a/../../train"])
def test_an_archive_that_points_outside_is_refused(tmp_path: Path, name: str) -> None:
    refused("cifar100", archived(tmp_path / "cifar-100-python.tar.gz", {name: b"x"}), "outside the archive")


def test_an_archive_with_a_huge_member_is_refused_before_it_is_read(tmp_path: Path) -> None:
    refused("cifar100", archived(tmp_path / "cifar-100-python.tar.gz", {"train": b""}, train=1 << 40), "256 MiB")


def test_an_archive_without_a_member_is_refused(tmp_path: Path) -> None:
    members = cifar100_members()
    del members["test"]
    refused("cifar100", archived(tmp_path / "cifar-100-python.tar.gz", members), "no test in it")


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = archived(tmp_path / "cifar-100-python.tar.gz", cifar100_members()) / "cifar-100-python.tar.gz"
    path.write_bytes(path.read_bytes()[:2000])
    refused("cifar100", tmp_path, path.name)


def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    members = cifar100_members()
    del members["meta"]
    refused("cifar100", unpacked(tmp_path, members), "meta", "cannot read")


def test_a_data_set_is_one_function(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data, "SOURCES", dict(data.SOURCES))

    @data.dataset("dots", files="dots.npy")
    def dots(folder: Path) -> data.DataSet:
        split = data.Split(np.zeros((2, 1, 4, 4), np.uint8), np.array([0, 1]))
        return data.DataSet("dots", split, split, ("none", "some"), 1.0)

    assert data.load("dots", tmp_path).input_shape == (1, 4, 4)


def tar_of(path: Path, files: dict[str, bytes], mode: Literal["w", "w:gz", "w:xz"]) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return path.parent


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """A folder with two training recordings and one test recording of each digit."""
    return write_recordings(tmp_path / "events", train=2, test=1)


def test_recordings_are_frames_in_the_order_of_their_numbers(events: Path) -> None:
    found = data.load("n-mnist", events, 5)
    assert (found.frames, found.input_shape, found.scale, found.high) == (True, (5, 2, 34, 34), 1.0, 1)
    assert_array_equal(found.train.labels, [*range(10), *range(10)])
    assert_array_equal(found.test.labels, range(10))
    for row in (0, 13, 19):
        body = (events / "Train" / str(row % 10) / f"{row + 1:05}.bin").read_bytes()
        assert_array_equal(found.train.images[row], frames(decode(body, (34, 34), ""), 5, (34, 34), 1))


def test_counts_are_the_same_recordings_with_numbers_of_events(events: Path) -> None:
    counts, bits = data.load("n-mnist-counts", events, 2), data.load("n-mnist", events, 2)
    assert (counts.high, counts.scale, counts.train.images.max() > 1) == (255, 1.0, True)
    assert_array_equal(counts.test.images > 0, bits.test.images)
    assert_array_equal(counts.train.images.sum(axis=(1, 2, 3, 4), dtype=np.int64), [300] * 20)
    assert counts.sha256 != bits.sha256 != data.load("n-mnist", events, 3).sha256


def test_samples_come_as_the_simulator_takes_them(events: Path, mnist: Path) -> None:
    split = data.load("n-mnist", events, 3).train
    assert_array_equal(split.integers(np.array([4, 1]))[2, 0], split.images[4, 2])
    assert split.integers(slice(7)).shape == (3, 7, 2, 34, 34)
    still = data.load("mnist", mnist).train
    assert_array_equal(still.integers(slice(7)), still.images[:7])
    assert still.integers(slice(7)).dtype == np.int64


@pytest.mark.parametrize(
    ("name", "mode"), [("n-mnist.tar", "w"), ("nmnist.tar.gz", "w:gz"), ("N-MNIST.tar.xz", "w:xz")]
)
def test_recordings_are_the_same_from_a_folder_below_and_from_an_archive_in_any_order(
    events: Path, tmp_path: Path, name: str, mode: Literal["w", "w:gz", "w:xz"]
) -> None:
    paths = sorted(events.rglob("*.bin"), reverse=True)
    files = {"some/prefix/labels.csv": b"x", "some/Train/._x": b"junk"}
    files |= {f"some/prefix/{path.relative_to(events)}": path.read_bytes() for path in paths}
    (tmp_path / "packed").mkdir()
    packed = tar_of(tmp_path / "packed" / name, files, mode)
    expected = data.load("n-mnist", events, 4).sha256
    assert [data.load("n-mnist", folder, 4).sha256 for folder in (events.parent, packed)] == [expected] * 2


def test_frames_need_a_number_of_timesteps(events: Path) -> None:
    for timesteps in (None, 0):
        with pytest.raises(ConfigError, match="timesteps"):
            data.load("n-mnist", events, timesteps)


def test_damaged_recordings_are_refused_by_name(events: Path) -> None:
    path = events / "Test" / "3" / "00004.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"Test/3/00004.bin of .*1499 bytes"):
        data.load("n-mnist", events, 4)


def test_places_without_recordings_are_refused(tmp_path: Path) -> None:
    def message(folder: Path) -> str:
        with pytest.raises(DataError) as caught:
            data.load("n-mnist", folder, 1)
        return str(caught.value)

    (tmp_path / "file").touch()
    assert "met none" in message(tmp_path / "file")
    assert "met none" in message(tmp_path)
    tar_of(tmp_path / "n-mnist-a.tar", {"Train/1/1.bin": b"\0" * 5, "b/Train/1/1.bin": b"\0" * 5}, "w")
    assert "Train/1/1.bin is there twice" in message(tmp_path)
    tar_of(tmp_path / "n-mnist-b.tar.xz", {}, "w:xz")
    assert "met n-mnist-a.tar, n-mnist-b.tar.xz" in message(tmp_path)
    (tmp_path / "n-mnist-a.tar").unlink()
    assert "training set: 0 images" in message(tmp_path)
    (tmp_path / "n-mnist-b.tar.xz").write_bytes(b"\xfd7zXZ\0" + b"\0" * 50)
    assert "cannot read" in message(tmp_path)
