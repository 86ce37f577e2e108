"""Published break-even points and the survey that come with the package."""

from __future__ import annotations

import pytest

from snnkd_deploy.prices import EVIDENCE
from snnkd_deploy.published import Band, bands, survey


def test_every_band_names_its_source_and_its_evidence() -> None:
    found = {one.name: one for one in bands()}
    assert set(found) == {"dampfhoffer_2023", "davidson_furber_2021", "yan_2024"}
    for one in found.values():
        assert one.quantity in ("spikes_per_synapse", "spikes_per_neuron")
        assert 0 < one.low <= one.high
        assert one.evidence in EVIDENCE
        assert one.source
    assert (found["dampfhoffer_2023"].low, found["dampfhoffer_2023"].high) == (0.15, 1.38)
    assert found["yan_2024"].low == pytest.approx(5 * 0.034)
    assert found["yan_2024"].high == pytest.approx(5 * 0.108)


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.1, "plausible"), (0.2, "marginal"), (0.4, "marginal"), (0.5, "refuted")]
)
def test_a_verdict_is_where_a_network_lies(value: float, verdict: str) -> None:
    band = Band("a", "spikes_per_synapse", 0.2, 0.4, "", "derived", "")
    assert band.verdict(value) == verdict


def test_the_survey_lists_prices_and_what_is_not_published() -> None:
    found = survey()
    assert all(0 < pj < 100 for pj in found.synop_pj.values())
    assert found.synop_pj["Loihi"] == 23.6
    assert "Loihi 2" in found.not_published
    assert "Loihi2" not in found.synop_pj
