"""Engines by name; a method that needs more than one gives is refused with the way out."""

from __future__ import annotations

import pytest
import torch

from snnkd_deploy.errors import ConfigError, UnknownNameError
from snnkd_deploy.snn import engines
from snnkd_deploy.snn.engines import Engine, bptt, load_engine
from tests.distill.setups import batch, pair


def test_bptt_is_the_network_s_own_outputs() -> None:
    student = pair().student.eval()
    images, _ = batch()
    assert torch.equal(
        load_engine("bptt", "any", frozenset({"steps"})).outputs(student, images).logits, student(images)
    )


def test_what_an_engine_does_not_give_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "ENGINES", {**engines.ENGINES, "poor": Engine(bptt, frozenset())})
    with pytest.raises(
        ConfigError, match="method 'tser' needs steps, which engine 'poor' does not give; use engine bptt"
    ):
        load_engine("poor", "tser", frozenset({"steps"}))
    with pytest.raises(UnknownNameError, match="no engine 'bpt'; known: bptt, poor, rate; did you mean 'bptt'"):
        load_engine("bpt", "any", frozenset())


def test_membranes_are_there_for_those_who_need_them_alone() -> None:
    student, (images, _) = pair().student, batch()
    plain = load_engine("bptt", "any", frozenset()).outputs(student, images)
    asked = load_engine("bptt", "feature", frozenset({"membranes"})).outputs(student, images)
    assert plain.membranes == ()
    assert len(asked.membranes) == len(asked.taps) == 2
    assert torch.equal(asked.logits, plain.logits)
    with pytest.raises(ConfigError, match="method 'feature' needs membranes, which engine 'rate' does not give"):
        load_engine("rate", "feature", frozenset({"membranes"}))
