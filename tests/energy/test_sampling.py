"""Resampling: sums that stay sums, intervals as wide as the spread of samples says, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from snnkd_deploy.energy import sampling
from snnkd_deploy.energy.sampling import GROUPS, Resampled, interval, layer_intervals
from tests.energy.reports import PIXELS, report, row, teacher


def test_groups_add_up_to_the_counts() -> None:
    inputs = np.random.default_rng(0).integers(0, 4, (250, 1, 2, 2))
    found = report(inputs=inputs, taught=teacher())
    kept = found["sampling"]
    assert (len(kept["group_sizes"]), sum(kept["group_sizes"])) == (GROUPS, 250)
    assert max(kept["group_sizes"]) - min(kept["group_sizes"]) <= 1
    for name, fields in kept["layers"].items():
        assert fields
        for field, groups in fields.items():
            assert sum(groups) == row(found, name)[field]
    taught = next(ann for ann in found["ann"] if ann["role"] == "teacher")
    multiplied = [sum(fields["macs_effective"]) for fields in kept["teacher"]]
    assert sum(multiplied) == taught["macs_effective"]


def test_counts_that_no_sample_moves_are_not_kept() -> None:
    assert report(inputs=np.tile(PIXELS[:1], (5, 1, 1, 1)))["sampling"]["layers"] == {
        name: {} for name in ("conv", "lif", "pool", "fc")
    }


def test_a_resampling_that_draws_each_group_once_is_the_report_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    found = report(inputs=np.random.default_rng(1).integers(0, 4, (30, 1, 2, 2)), taught=teacher())
    monkeypatch.setattr(sampling, "_multiplicities", lambda groups: np.ones((1, groups), int))
    resampled = Resampled(found)
    for mine, given in zip(resampled.report(found)["layers"], found["layers"], strict=True):
        numbers = {key: np.asarray(value).item() for key, value in mine.items() if isinstance(value, np.ndarray)}
        assert {key: given[key] for key in numbers} == {key: pytest.approx(value) for key, value in numbers.items()}
    layers = resampled.ann(found["ann"][0])["layers"]
    assert [float(np.squeeze(layer["macs_effective"])) for layer in layers] == [
        pytest.approx(layer["macs_effective"]) for layer in found["ann"][0]["layers"]
    ]


def test_an_interval_is_as_wide_as_the_spread_of_the_samples_says() -> None:
    """Of 400 samples with a standard deviation s, a mean is known to 1.96 s / 20 on either side."""
    values = np.random.default_rng(2).normal(100, 10, 400)
    groups = values.reshape(GROUPS, 4).sum(axis=1)
    kept = {"group_sizes": [4] * GROUPS, "layers": {"a": {"synops": groups.tolist()}}}
    low, high = layer_intervals(kept, 400)["a"]["synops"]
    assert low < values.mean() < high
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.25)


def test_intervals_hold_the_true_mean_about_as_often_as_they_say() -> None:
    generator, held = np.random.default_rng(3), 0
    for _ in range(100):
        kept = {"group_sizes": [1] * 60, "layers": {"a": {"b": generator.poisson(50, 60).tolist()}}}
        low, high = layer_intervals(kept, 60)["a"]["b"]
        held += low <= 50 <= high
    assert 88 <= held <= 100


def test_the_middle_of_known_values() -> None:
    assert interval(np.arange(1001.0)) == [pytest.approx(25), pytest.approx(975)]


def test_the_interval_of_a_layer_stands_beside_its_counts() -> None:
    found = report(inputs=np.random.default_rng(4).integers(0, 4, (40, 1, 2, 2)))
    low, high = row(found, "fc")["ci95"]["synops"]
    assert low < row(found, "fc")["per_inference"]["synops"] < high
