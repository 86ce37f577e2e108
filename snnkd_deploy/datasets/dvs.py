"""CIFAR10-DVS and DVS128 Gesture from their original AEDAT files, binned into frames."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snnkd_deploy.datasets.aedat import SIDE, between, decode2, decode3, smaller
from snnkd_deploy.datasets.archives import contents
from snnkd_deploy.datasets.samples import DataSet, Split
from snnkd_deploy.errors import ConfigError, DataError
from snnkd_deploy.events import Events, frames

CIFAR10_DVS = "<class>/*.aedat, or <class>.zip, for each of the ten classes, or one archive of them"
GESTURE = "DvsGesture.tar.gz, or the folder DvsGesture unpacked from it"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
GESTURES = (
    "hand clapping,right hand wave,left hand wave,right arm clockwise,right arm counter clockwise,left arm clockwise,"
    "left arm counter clockwise,arm roll,air drums,air guitar,other gestures"
)
SHARE = 0.9  # of the recordings of each class that are for training

Frames = NDArray[np.uint8]


def cifar10_dvs(folder: Path, timesteps: int, size: int | None) -> DataSet:
    """CIFAR-10 on a screen, seen by a DVS128, Tx2x128x128; a pixel is 1 if it had an event in the bin: a spike.

    Li et al., Frontiers in Neuroscience 11:309, 2017. There is no split of theirs: of each class the first 90 % by
    number, 0 to 899, are for training and the others for test, as in most of the literature.
    """
    return _cifar10_dvs("cifar10-dvs", folder, timesteps, size, highest=1)


def cifar10_dvs_counts(folder: Path, timesteps: int, size: int | None) -> DataSet:
    """The same with the number of events in the bin, at most 255."""
    return _cifar10_dvs("cifar10-dvs-counts", folder, timesteps, size, highest=255)


def gesture(folder: Path, timesteps: int, size: int | None) -> DataSet:
    """Gestures seen by a DVS128, Tx2x128x128; a pixel is 1 if it had an event in the bin: a spike.

    Amir et al., CVPR 2017. A sample is what lies between the times that a recording's labels name.
    """
    return _gesture("dvs128-gesture", folder, timesteps, size, highest=1)


def gesture_counts(folder: Path, timesteps: int, size: int | None) -> DataSet:
    """The same with the number of events in the bin, at most 255."""
    return _gesture("dvs128-gesture-counts", folder, timesteps, size, highest=255)


def _cifar10_dvs(name: str, folder: Path, timesteps: int, size: int | None, highest: int) -> DataSet:
    found: dict[str, dict[int, Frames]] = {one: {} for one in CLASSES}
    for place, file, body in contents(folder, _CIFAR_FILE):
        kind, number = _named(_CIFAR_FILE, file)
        if int(number) in found[kind]:
            raise DataError(f"{place}: number {number} of {kind} is there twice")
        found[kind][int(number)] = _binned(decode2(body, f"{file} of {place}"), timesteps, size, highest)
    if missing := [one for one in CLASSES if not found[one]]:
        raise DataError(f"no recordings of {', '.join(missing)} in {folder}; {CIFAR10_DVS} are needed")
    parts: tuple[list[tuple[Frames, int]], list[tuple[Frames, int]]] = [], []
    for label, one in enumerate(CLASSES):
        ordered = [found[one][number] for number in sorted(found[one])]
        for place_in_class, sample in enumerate(ordered):
            parts[place_in_class >= round(SHARE * len(ordered))].append((sample, label))
    return _dataset(name, parts, tuple(CLASSES), highest)


def _gesture(name: str, folder: Path, timesteps: int, size: int | None, highest: int) -> DataSet:
    texts = {Path(file).name: body.decode("utf-8", "replace") for _, file, body in contents(folder, _GESTURE_TEXT)}
    trials = [_trials(texts, f"trials_to_{part}.txt", folder) for part in ("train", "test")]
    found: dict[str, list[tuple[Frames, int]]] = {}
    for place, file, body in contents(folder, _GESTURE_FILE):
        trial = Path(file).name
        if trial not in trials[0] and trial not in trials[1]:
            continue
        events, where = decode3(body, f"{file} of {place}"), f"{trial.removesuffix('.aedat')}_labels.csv"
        rows = _labels(texts, where, folder)
        found[trial] = [(_binned(_part(events, row, where), timesteps, size, highest), row[0] - 1) for row in rows]
    if missing := [trial for part in trials for trial in part if trial not in found]:
        raise DataError(f"no {', '.join(missing[:3])} in {folder}, though it is listed in trials_to_train or _test.txt")
    train, test = ([sample for trial in part for sample in found[trial]] for part in trials)
    return _dataset(name, (train, test), tuple(GESTURES.split(",")), highest)


_CIFAR_FILE = re.compile(r"(?:^|/)(" + "|".join(CLASSES) + r")/[^/.][^/]*?(\d+)\.aedat$")
_GESTURE_FILE = re.compile(r"(?:^|/)([^/.]+)()\.aedat$")
_GESTURE_TEXT = re.compile(r"(?:^|/)(trials_to_(?:train|test)\.txt|[^/.]+_labels\.csv)$")


def _named(pattern: re.Pattern[str], file: str) -> tuple[str, str]:
    match = pattern.search(file)
    assert match is not None, file
    return match[1], match[2]


def _trials(texts: dict[str, str], name: str, folder: Path) -> list[str]:
    if name not in texts:
        raise DataError(f"no {name} in {folder}; {GESTURE} is needed")
    return [line.strip() for line in texts[name].splitlines() if line.strip()]


def _labels(texts: dict[str, str], name: str, folder: Path) -> Iterator[tuple[int, int, int]]:
    """Class from 1, first and last microsecond of each sample of a recording."""
    if name not in texts:
        raise DataError(f"no {name} in {folder}, though its recording is there")
    for number, line in enumerate(texts[name].splitlines()[1:], 2):
        try:
            label, start, end = (int(field) for field in line.split(","))
        except ValueError:
            raise DataError(f"{name}, line {number}: {line!r}; class,start,end in microseconds are needed") from None
        if not 1 <= label <= GESTURES.count(",") + 1:
            raise DataError(f"{name}, line {number}: class {label}; 1 to {GESTURES.count(',') + 1} are accepted")
        yield label, start, end


def _part(events: Events, row: tuple[int, int, int], where: str) -> Events:
    part = between(events, *row[1:])
    if not len(part.time):
        raise DataError(f"{where}: no event from {row[1]} to {row[2]} us; the recording has {len(events.time)} events")
    return part


def _binned(events: Events, timesteps: int, size: int | None, highest: int) -> Frames:
    side = size or SIDE
    if side > SIDE:
        raise ConfigError(f"image_size = {side}: the camera has {SIDE}x{SIDE} pixels")
    return frames(smaller(events, side), timesteps, (side, side), highest)


def _dataset(
    name: str, parts: tuple[list[tuple[Frames, int]], list[tuple[Frames, int]]], classes: tuple[str, ...], highest: int
) -> DataSet:
    train, test = (
        Split(
            np.array([one for one, _ in part], dtype=np.uint8), np.array([label for _, label in part], dtype=np.int64)
        )
        for part in parts
    )
    return DataSet(name, train, test, classes, 1.0, largest=highest)
