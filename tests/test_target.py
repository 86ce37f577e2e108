"""Targets are files; a mistake in one is named with its file and key."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from snnkd_deploy.errors import ConfigError, UnknownNameError
from snnkd_deploy.registry import exporter_names
from snnkd_deploy.target import limits, load_target, parse_target, target_names

TEXT = (resources.files("snnkd_deploy.targets") / "loihi.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", target_names())
def test_every_shipped_target_loads_and_has_its_exporter(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert target.exporter in exporter_names()
    for part in (
        target.weights,
        target.bias,
        target.threshold,
        target.decay,
        target.state,
        target.entry,
        target.layout,
    ):
        assert len(part.source) > 10
    assert target.resources is None or len(target.resources.source) > 10


def test_limits_are_told_with_their_sources() -> None:
    told = {rule: (value, source) for rule, value, source in limits(load_target("loihi2"))}
    assert told["bias"] == ("minimum -4095, maximum 4095", load_target("loihi2").bias.source)
    assert told["weights"][0] == "minimum -127, maximum 127, granularity layer"
    assert told["decay"][0] == "bits 12, minimum numerator 1, granularity layer, exact in float32 no"
    assert told["resets"] == ("zero", "")
    assert "input axons" not in told["resources"][0]
    assert "resources" not in {rule for rule, *_ in limits(load_target("onnx"))}


def test_the_issue_s_targets_are_there() -> None:
    assert {"loihi", "loihi2", "onnx", "nir"} <= set(target_names())


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(UnknownNameError, match="no target 'loihi3'; known: .*did you mean 'loihi"):
        load_target("loihi3")


def test_a_file_is_a_target_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.replace('name = "loihi"', 'name = "mine"'))
    assert load_target(str(path)).name == "mine"
    with pytest.raises(ConfigError, match="no target file"):
        load_target(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("maximum = 4095", "maximun = 4095", r"unknown key 'bias\.maximun'; did you mean 'maximum'"),
        ("maximum = 4095", "maximun = 4095", r"missing key 'bias\.maximum'"),
        ("bits = 24", "bits = 24.5", r"state\.bits = 24\.5: accepted is an integer"),
        ('resets = ["zero"]', 'resets = ["soft"]', "accepted is a list of 'zero' or 'subtract'"),
        ('"Neuron", ', '"Neurone", ', "no node 'Neurone'; known: Input"),
        ('wiring = "chain"', 'wiring = ""', r"layout\.wiring = '': accepted is 'any' or 'chain'"),
        ("[state]", "[state", "is not valid TOML"),
        (
            "cores_per_chip = 128",
            "core_per_chip = 128",
            r"unknown key 'resources\.core_per_chip'; did you mean",
        ),
        ("cores_per_chip = 128", "core_per_chip = 128", r"missing key 'resources\.cores_per_chip'"),
        ("input_axons_per_core = 4096", 'input_axons_per_core = "4096"', "accepted is an integer"),
        ("exact_in_float32 = false", "exact_in_float32 = 0", "accepted is true or false"),
    ],
)
def test_mistakes_are_named_with_file_and_key(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError, match=message) as caught:
        parse_target(TEXT.replace(old, new), "mine.toml")
    assert "mine.toml" in str(caught.value)


def test_every_constant_needs_its_source() -> None:
    lines = [line for line in TEXT.splitlines() if not line.startswith("source")]
    with pytest.raises(ConfigError) as caught:
        parse_target("\n".join(lines), "mine.toml")
    assert str(caught.value).count(".source'") == 10


def test_resources_and_limits_that_are_not_published_may_be_left_out() -> None:
    before, _, resources = TEXT.partition("[resources]")
    assert parse_target(before, "mine.toml").resources is None
    kept = "\n".join(line for line in resources.splitlines() if "axons" not in line.partition("=")[0])
    found = parse_target(f"{before}[resources]{kept}", "mine.toml").resources
    assert found is not None
    assert (found.input_axons_per_core, found.output_axons_per_core, found.neurons_per_core) == (None, None, 1024)
