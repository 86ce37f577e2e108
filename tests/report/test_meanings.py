"""The glossary: words for every number, and no doubt about units."""

from __future__ import annotations

from snnkd_deploy.report.meanings import MEANINGS

UNITS = ("energy", "time", "spikes", "number", "factor", "ratio", "tables", "steps", "bits", "share", "reads", "writes")


def test_units_are_those_of_a_reader() -> None:
    for heading, (unit, meaning) in MEANINGS.items():
        assert not unit or unit.startswith((*UNITS, "per inference", "synops", "operations")), heading
        assert meaning.endswith("."), heading
        assert "  " not in meaning
