"""CIFAR10-DVS and DVS128 Gesture are read as they are published, from folders and archives."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from snnkd_deploy import data
from snnkd_deploy.datasets.aedat import decode2
from snnkd_deploy.datasets.dvs import CLASSES
from snnkd_deploy.errors import ConfigError, DataError
from snnkd_deploy.events import frames
from tests.aedat_files import aedat2, aedat3, packet
from tests.dataset_files import tar_of
from tests.recordings import Event


def some_events(seed: int, count: int = 60, start: int = 0) -> list[Event]:
    """At most a pixel per microsecond, over 1 ms."""
    random = np.random.default_rng(seed)
    x, y, polarity = (random.integers(0, high, count).tolist() for high in (128, 128, 2))
    time = np.sort(random.integers(start, start + 1000, count)).tolist()
    return list(zip(x, y, polarity, time, strict=True))


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Eleven recordings of each class, the tenth and eleventh of which are for test."""
    for label, name in enumerate(CLASSES):
        for number in range(11):
            path = tmp_path / "cifar" / name / f"cifar10_{name}_{number}.aedat"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(aedat2(some_events(100 * label + number)))
    return tmp_path / "cifar"


def test_the_first_nine_tenths_of_a_class_by_number_are_for_training(cifar: Path) -> None:
    found = data.load("cifar10-dvs", cifar, 4)
    assert (found.classes, found.input_shape, found.high) == (tuple(CLASSES), (4, 2, 128, 128), 1)
    assert_array_equal(found.train.labels, np.repeat(np.arange(10), 10))
    assert_array_equal(found.test.labels, np.arange(10))
    body = (cifar / "bird" / "cifar10_bird_10.aedat").read_bytes()
    assert_array_equal(found.test.images[2], frames(decode2(body, ""), 4, (128, 128), 1))
    body = (cifar / "bird" / "cifar10_bird_2.aedat").read_bytes()
    assert_array_equal(found.train.images[22], frames(decode2(body, ""), 4, (128, 128), 1))


def test_counts_of_a_smaller_sensor_keep_every_event(cifar: Path) -> None:
    found = data.load("cifar10-dvs-counts", cifar, 2, image_size=48)
    assert (found.input_shape, found.high, found.scale) == ((2, 2, 48, 48), 255, 1.0)
    assert_array_equal(found.train.images.sum(axis=(1, 2, 3, 4)), [60] * 100)
    with pytest.raises(ConfigError, match="image_size = 129: the camera has 128x128"):
        data.load("cifar10-dvs-counts", cifar, 2, image_size=129)


def test_zipped_classes_are_the_same(cifar: Path, tmp_path: Path) -> None:
    (tmp_path / "zips").mkdir()
    for name in CLASSES:
        with zipfile.ZipFile(tmp_path / "zips" / f"{name}.zip", "w") as archive:
            for path in sorted((cifar / name).iterdir(), reverse=True):
                archive.write(path, f"{name}/{path.name}")
    assert data.load("cifar10-dvs", tmp_path / "zips", 3).sha256 == data.load("cifar10-dvs", cifar, 3).sha256
    (tmp_path / "zips" / "cat.zip").write_bytes(b"PK\3\4 no")
    with pytest.raises(DataError, match=r"cannot read .*cat\.zip"):
        data.load("cifar10-dvs", tmp_path / "zips", 3)


def test_a_class_without_recordings_and_a_damaged_recording_are_named(cifar: Path) -> None:
    path = cifar / "dog" / "cifar10_dog_4.aedat"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"dog/cifar10_dog_4\.aedat of .*: 479 bytes from offset"):
        data.load("cifar10-dvs", cifar, 3)
    for one in (cifar / "dog").iterdir():
        one.unlink()
    with pytest.raises(DataError, match="no recordings of dog in"):
        data.load("cifar10-dvs", cifar, 3)


def trial(seed: int) -> bytes:
    """Three gestures, one after the other, from 10 ms on."""
    return aedat3(*(packet(some_events(seed + n, start=10_000 * (n + 1))) for n in range(3)))


LABELS = "class,startTime_usec,endTime_usec\n1,10000,11000\n11,20000,20500\n3,30000,31000\n"


@pytest.fixture
def gestures() -> dict[str, bytes]:
    """Two trials for training, in an order that is not the alphabet's, and one for test."""
    files = {f"DvsGesture/user0{n}_led.aedat": trial(n) for n in (1, 2, 3)}
    files |= {f"DvsGesture/user0{n}_led_labels.csv": LABELS.encode() for n in (1, 2, 3)}
    files["DvsGesture/trials_to_train.txt"] = b"user02_led.aedat\nuser01_led.aedat\n\n"
    files["DvsGesture/trials_to_test.txt"] = b"user03_led.aedat\n"
    return files


def unpacked(folder: Path, files: dict[str, bytes]) -> Path:
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return folder


def test_gestures_are_cut_out_of_their_trials(gestures: dict[str, bytes], tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "there", gestures)
    found = data.load("dvs128-gesture-counts", folder, 3, image_size=32)
    assert (found.input_shape, len(found.classes)) == ((3, 2, 32, 32), 11)
    assert_array_equal(found.train.labels, [0, 10, 2, 0, 10, 2])
    assert_array_equal(found.test.labels, [0, 10, 2])
    half = sum(time < 20_500 for *_, time in some_events(2 + 1, start=20_000))
    assert_array_equal(found.train.images[:3].sum(axis=(1, 2, 3, 4)), [60, half, 60])
    (tmp_path / "packed").mkdir()
    packed = tar_of(tmp_path / "packed" / "DvsGesture.tar.gz", dict(reversed(gestures.items())), "w:gz")
    assert data.load("dvs128-gesture-counts", packed, 3, image_size=32).sha256 == found.sha256
    bits = data.load("dvs128-gesture", folder, 3, image_size=32)
    assert_array_equal(bits.test.images, found.test.images > 0)


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("trials_to_test.txt", None, r"no trials_to_test\.txt in"),
        ("trials_to_test.txt", b"user09_led.aedat", r"no user09_led\.aedat in .*listed"),
        ("user01_led_labels.csv", None, r"no user01_led_labels\.csv in"),
        ("user01_led_labels.csv", b"class\n1,2\n", r"user01_led_labels\.csv, line 2: '1,2'"),
        ("user01_led_labels.csv", b"class\n12,1,2\n", r"labels\.csv, line 2: class 12; 1 to 11"),
        ("user01_led_labels.csv", b"class\n1,1,2\n", r"labels\.csv: no event from 1 to 2 us; the recording has 180"),
        ("user02_led.aedat", trial(2)[:-1], r"user02_led\.aedat of .*: the packet at offset"),
    ],
)
def test_what_is_missing_or_damaged_is_named(
    gestures: dict[str, bytes], tmp_path: Path, name: str, body: bytes | None, words: str
) -> None:
    del gestures[f"DvsGesture/{name}"]
    files = gestures if body is None else {**gestures, f"DvsGesture/{name}": body}
    with pytest.raises(DataError, match=words):
        data.load("dvs128-gesture", unpacked(tmp_path / "there", files), 2)
