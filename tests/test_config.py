"""Settings come from options, file, data set and defaults, in that order, and are checked."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from snnkd_deploy.config import DATASET_DEFAULTS, TrainConfig, load_config
from snnkd_deploy.data import SOURCES
from snnkd_deploy.errors import ConfigError


def test_the_defaults_are_those_of_the_digits() -> None:
    config = load_config()
    assert (config.dataset, config.timesteps, config.decay, config.threshold) == ("digits", 4, 0.5, 1.0)
    assert (config.reset, config.method) == ("zero", "logits")
    assert config.epochs == DATASET_DEFAULTS["digits"]["epochs"]


def test_an_option_beats_the_file_which_beats_the_data_set_which_beats_the_default(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('dataset = "cifar10"\nwidth = 5\nepochs = 7\n[method_options]\ntemperature = 2.0\n')
    config = load_config(path, epochs=3, seed=None)
    assert (config.epochs, config.width, config.seed) == (3, 5, TrainConfig().seed)
    assert config.augment == DATASET_DEFAULTS["cifar10"]["augment"] != TrainConfig().augment
    assert config.method_options == {"temperature": 2.0}


def test_defaults_belong_to_data_sets_that_exist_and_are_valid() -> None:
    assert DATASET_DEFAULTS.keys() <= SOURCES.keys()
    for name in DATASET_DEFAULTS:
        assert load_config(dataset=name).dataset == name


def test_the_effective_settings_are_plain_json_and_come_back() -> None:
    config = load_config(dataset="cifar10", method_options={"temperature": 2.0}, data_dir=Path("here"))
    values = json.loads(json.dumps(config.as_dict()))
    assert values.keys() == {f.name for f in fields(TrainConfig)}
    assert TrainConfig(**values) == config
    assert config.data_dir == "here"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        load_config().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "value", "need"),
    [
        ("timesteps", 0, "a whole number from 1 to 64"),
        ("timesteps", 2.0, "a whole number"),
        ("timesteps", True, "a whole number"),
        ("decay", 0, "a number above 0 to 1"),
        ("decay", 1.5, "a number above 0 to 1"),
        ("decay", float("nan"), "a number above 0"),
        ("threshold", "1", "a number"),
        ("reset", "soft", "one of zero, subtract"),
        ("encoding", "phase", "one of direct, rate, latency"),
        ("image_size", 4, "a whole number from 8 to 1024"),
        ("optimizer", ["sgd"], "one of sgd, adamw"),
        ("augment", "mixdown", "one of none, flip, shift, shift-flip"),
        ("augment", "crop+", "one of none, .*, or several joined by"),
        ("augment", ["crop", 3], "a text"),
        ("detach_reset", 1, "true or false"),
        ("dataset", 3, "a text"),
        ("method_options", "temperature=2", "a table"),
        ("batch_size", 1, "a whole number from 2"),
        ("learning_rate", float("inf"), "a number above 0"),
        ("weight_decay", -1e-4, "a number from 0"),
        ("threads", 0, "a whole number from 1"),
        ("seed", -1, "a whole number from 0"),
    ],
)
def test_a_value_of_the_wrong_kind_or_size_is_refused(key: str, value: Any, need: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} = .*: {need}"):
        load_config(**{key: value})
    with pytest.raises(ConfigError, match=f"{key} = .*: {need}"):
        TrainConfig(**{key: value})


def test_whole_numbers_are_numbers() -> None:
    assert load_config(decay=1, threshold=2).decay == 1


def test_every_problem_is_told_at_once_with_the_file_and_the_near_miss(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('tymesteps = 4\nreset = "soft"\nseed = 1\n')
    with pytest.raises(ConfigError) as caught:
        load_config(path, width=0)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("width = 0")
    assert lines[1] == f"{path}: no setting 'tymesteps'; did you mean 'timesteps'?"
    assert lines[2].startswith(f"{path}: reset = 'soft'")


def test_a_setting_that_resembles_none_lists_all() -> None:
    with pytest.raises(ConfigError, match="no setting 'xyzzy'; known: dataset, data_dir"):
        load_config(xyzzy=1)


@pytest.mark.parametrize("body", [b"width = ", b"\xff\xfe", b"a = 1\na = 2"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "run.toml").write_bytes(body)
    with pytest.raises(ConfigError, match=r"run\.toml is not TOML"):
        load_config(tmp_path / "run.toml")


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*run\.toml: No such file"):
        load_config(tmp_path / "run.toml")


def test_settings_that_make_no_sense_together_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="readout 'spikes': over one step each count is 0 or 1, so classes tie; use more"
    ):
        load_config(readout="spikes", timesteps=1)
    assert load_config(readout="spikes", timesteps=2).readout == "spikes"


def test_changes_of_images_are_a_list_or_one_text(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('augment = ["crop", "flip"]\n')
    assert load_config(path).augment == "crop+flip" == TrainConfig(augment="crop+flip").augment
    assert load_config(path, augment="cutout+shift-flip").augment == "cutout+shift-flip"
    assert load_config(augment=[]).augment == "none"
    with pytest.raises(ConfigError, match=r"augment = 'crop\+mixdown': one of none, flip"):
        load_config(augment=["crop", "mixdown"])
