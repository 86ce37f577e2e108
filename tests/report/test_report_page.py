"""The page: complete in itself, six plots, every column explained, the same bytes for the same report."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from snnkd_deploy import energy
from snnkd_deploy.price_files import load_table, load_tables
from snnkd_deploy.report.report_page import main_entry, points_of, report_page
from tests.energy.reports import entry_of, priced, report, teacher


@pytest.fixture(scope="module")
def found() -> energy.Report:
    return priced(taught=teacher())


@pytest.fixture(scope="module")
def text(found: energy.Report) -> str:
    return report_page(found)


def test_nothing_is_loaded_and_nothing_runs(text: str) -> None:
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="(?!#|data:image/png;base64)', text)
    assert not re.findall(r"url\((?!#)", text)
    assert "@import" not in text


def test_it_has_the_six_plots_and_opens_with_the_verdict(found: energy.Report, text: str) -> None:
    assert text.count("<figure>") == 6
    assert text.index(found["headline"]["statement"]) < text.index("<figure>")
    for title in (
        "ANN against spiking network, under each price table",
        "Where the energy goes, under cmos45_int8_sram",
        "How much may spike, under cmos45_int8_sram",
        "From the papers&#x27; formula to the exact figure",
        "Firing rates",
        "Accuracy against energy, under cmos45_int8_sram",
    ):
        assert f"<h2>{title}</h2>" in text


class Tags(HTMLParser):
    """Open elements, and whether each one is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables = self.details = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "path", "use", "rect", "image"):
            self.open.append(tag)
        self.tables += tag == "table"
        self.details += tag == "details"

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "path", "use", "rect", "image"):
            assert self.open.pop() == tag


def test_every_table_is_explained_one_click_away(text: str) -> None:
    tags = Tags()
    tags.feed(text.split("<body>")[1].split("</body>")[0])
    assert tags.open == []
    assert tags.tables == tags.details >= 10
    for part in (
        "energy per inference. All operations of the spiking network",
        "spikes per neuron and step. Mean over",
    ):
        assert part in text


def test_the_same_report_gives_the_same_page() -> None:
    bare = report()
    assert report_page(bare) == report_page(bare)


def test_the_table_drawn_in_detail_has_memory_and_the_network_s_own_bits() -> None:
    assert main_entry(priced()) == entry_of(priced(), "cmos45_int8_sram")
    assert main_entry(priced(load_table("cmos45_fp32"))) is not None
    assert main_entry(priced(*load_tables(["loihi1_davies"]))) is None


def test_a_report_without_prices_has_a_page_too() -> None:
    text = report_page(report())
    assert "No comparison" in text
    assert text.count("<figure>") == 1  # the firing rates


def test_without_labels_there_is_no_accuracy_to_draw(found: energy.Report) -> None:
    entry = main_entry(found)
    assert entry is not None
    assert [one["kind"] for one in points_of(found, entry)] == ["spiking", "ann", "ann"]
    blind = {**found, "accuracy": {**found["accuracy"], "snn_counted": None}}
    assert points_of(blind, entry) == []
