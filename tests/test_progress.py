"""Lines for a log, bars for a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from snnkd_deploy.progress import Bars, Lines, Silent, Watch, watching

ROW = {"stage": "teacher", "epoch": 1, "loss": 0.5, "accuracy": 0.925, "images_per_second": 1234.5}


def told(watch: Watch) -> None:
    watch.note("teacher taken from [elsewhere]")
    watch.stage("teacher", 2, 0, 100)
    watch.step(50, 0.75)
    watch.step(50, 0.5)
    watch.epoch(ROW)


def test_a_pipe_gets_one_line_per_epoch() -> None:
    text = io.StringIO()
    with watching(Console(file=text)) as watch:
        assert isinstance(watch, Lines)
        told(watch)
    assert text.getvalue().splitlines() == [
        "teacher taken from [elsewhere]",
        "teacher 1/2  loss 0.5000  test accuracy 92.50%  1234 images/s",
    ]


def test_a_terminal_gets_a_bar_with_epoch_accuracy_loss_and_remaining_time() -> None:
    text = io.StringIO()
    with watching(Console(file=text, force_terminal=True, width=120)) as watch:
        assert isinstance(watch, Bars)
        told(watch)
        watch.stage("student", 4, 3, 100)
    shown = text.getvalue()
    assert all(part in shown for part in ("teacher", "50 %", "epoch 1/2  92.50%", "loss 0.500", "student", "75 %"))
    assert "teacher taken from [elsewhere]" in shown


def test_silence_shows_nothing() -> None:
    told(Silent())
