"""What a person sees while a network trains: bars on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Watch(Protocol):
    """Told by `train` what happens; it must not change anything."""

    def stage(self, name: str, epochs: int, done: int, images: int) -> None:
        """A network (teacher, student) starts training for `epochs` of `images` each, `done` of them already over."""

    def step(self, images: int, loss: float) -> None:
        """One more batch of that many images was trained."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch ended; `row` is its line of history.csv."""

    def note(self, text: str) -> None:
        """Something worth a line: a stage that was skipped, a teacher that was reused."""


class Silent:
    """Shows nothing."""

    def stage(self, name: str, epochs: int, done: int, images: int) -> None:
        """A stage starts."""

    def step(self, images: int, loss: float) -> None:
        """A batch is over."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is over."""

    def note(self, text: str) -> None:
        """A line."""


class Lines(Silent):
    """One line per epoch, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console, self.epochs = console, 0

    def stage(self, name: str, epochs: int, done: int, images: int) -> None:
        """A stage starts."""
        self.epochs = epochs

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is over."""
        self.note(
            f"{row['stage']} {row['epoch']}/{self.epochs}  loss {row['loss']:.4f}  "
            f"test accuracy {row['accuracy']:.2%}  {row['images_per_second']:.0f} images/s"
        )

    def note(self, text: str) -> None:
        """A line."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bars(Silent):
    """A bar per stage with loss, accuracy, rate and the time that remains."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.task = progress, TaskID(0)
        self.epochs = self.images = 0

    def stage(self, name: str, epochs: int, done: int, images: int) -> None:
        """A stage starts."""
        self.epochs, self.images = epochs, images
        total, completed = epochs * images, done * images
        self.task = self.progress.add_task(name, total=total, completed=completed, state="", accuracy="")

    def step(self, images: int, loss: float) -> None:
        """A batch is over."""
        rate = self.progress.tasks[self.task].speed or 0
        self.progress.update(self.task, advance=images, state=f"loss {loss:.3f}  {rate:.0f} images/s")

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is over."""
        accuracy = f"epoch {row['epoch']}/{self.epochs}  {row['accuracy']:.2%}"
        self.progress.update(self.task, completed=row["epoch"] * self.images, accuracy=accuracy)

    def note(self, text: str) -> None:
        """A line."""
        self.progress.console.print(text, markup=False, highlight=False)


@contextmanager
def watching(console: Console | None = None) -> Iterator[Watch]:
    """A watch that suits where the output goes: standard error, unless a console is given."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = [TextColumn("{task.description:8}"), BarColumn(), TextColumn("{task.percentage:3.0f} %")]
    details = [TextColumn("{task.fields[accuracy]}"), TextColumn("{task.fields[state]}"), TimeRemainingColumn()]
    with Progress(*columns, *details, console=console) as progress:
        yield Bars(progress)
