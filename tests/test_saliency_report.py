"""The study of a real run: figures that follow from each other, and a page with pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from snnkd_deploy.cli import main
from snnkd_deploy.config import load_config
from snnkd_deploy.run import Run
from snnkd_deploy.saliency_report import SHARES, Study, chosen, study, write
from snnkd_deploy.snn import models
from snnkd_deploy.snn.saliency import agreement
from snnkd_deploy.train import train
from tests.recordings import write_recordings


@pytest.fixture(scope="module")
def found(tiny_run: Run) -> Study:
    return study(tiny_run, 100)


def test_the_figures_are_those_of_the_agreement(found: Study, tiny_run: Run) -> None:
    student, teacher = models.load(tiny_run)
    expected = agreement(student, teacher, found.images, found.labels)
    assert found.figures["cosine"] == pytest.approx(expected.cosine)
    assert found.figures["spearman"] == pytest.approx(expected.spearman)
    assert found.figures["samples"] == 100


def test_the_same_picture_agrees_better_than_another(found: Study) -> None:
    assert found.figures["cosine"] > found.chance["cosine"]
    assert found.figures["spearman"] > found.chance["spearman"]


def test_with_no_pixel_blurred_accuracy_is_that_of_the_predictions(found: Study) -> None:
    for name, orders in found.losses.items():
        whole = (found.predictions[name] == found.labels).double().mean().item()
        assert {accuracies[0] for accuracies in orders.values()} == {whole}
        assert all(len(accuracies) == len(SHARES) for accuracies in orders.values())
        assert orders[name][-1] < whole


def test_pictures_are_of_different_classes_before_any_comes_twice() -> None:
    assert chosen([3, 3, 1, 3, 1, 2], 4) == [0, 2, 5, 1]
    assert chosen([0, 0], 12) == [0, 1]


def test_the_command_writes_a_page_with_pictures_and_prints_the_figures(tiny_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    done = CliRunner().invoke(main, ["saliency", str(tiny_run.path), "--out", str(path), "--samples", "20", "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert (printed["samples"], printed["page"]) == (20, str(path))
    text = path.read_text(encoding="utf-8")
    assert text.count("<svg") == 2
    assert text.count("<image") == 3 * 12
    table = CliRunner().invoke(main, ["saliency", str(tiny_run.path), "--out", str(path), "--samples", "20"])
    assert f"{printed['cosine']:.3f}" in table.output


def test_frames_of_events_are_shown_too(tmp_path: Path) -> None:
    few = {"width": 2, "epochs": 1, "teacher_epochs": 1, "timesteps": 2, "threads": 1}
    config = load_config(dataset="n-mnist", data_dir=write_recordings(tmp_path, train=2, test=1), **few)
    seen = study(train(config, out=tmp_path / "run"), 4)
    assert seen.maps["student"].shape == (len(seen.labels), 34, 34)
    write(seen, tmp_path / "page.html")
    assert "<image" in (tmp_path / "page.html").read_text(encoding="utf-8")
