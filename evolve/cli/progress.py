"""Progress of a search on standard error: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evolve.engine import GenerationSummary


class SearchProgress:
    """Shows generations as they are committed.

    Args:
        generations: How many there will be.
        done: How many were committed before, in a run that is resumed.
    """

    def __init__(self, generations: int, done: int = 0) -> None:
        self._generations = generations
        self._done = done
        self._start = self._last = time.perf_counter()
        self._evaluations = 0
        self._live: Progress | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._live = Progress(
                TextColumn("generation"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._live.add_task("", total=self._generations, completed=self._done, figures="")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def seconds(self) -> float:
        """Seconds since the search began."""
        return time.perf_counter() - self._start

    @property
    def evaluations(self) -> int:
        """Evaluations since the search began."""
        return self._evaluations

    def show(self, summary: GenerationSummary) -> None:
        """Show a committed generation."""
        now = time.perf_counter()
        self._evaluations += summary.evaluations
        rate = summary.evaluations / max(now - self._last, 1e-9)
        self._last = now
        figures = f"best {_figure(summary.best)}  median {_figure(summary.median)}  {rate:,.0f} evaluations/s"
        if self._live is not None:
            self._live.update(self._task, completed=summary.generation + 1, figures=figures)
        else:
            place = f"generation {summary.generation + 1}/{self._generations}"
            click.echo(f"{place}  {figures}  {summary.failures} failed", err=True)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


class CellProgress:
    """Shows what is measured of a network, with the time left.

    Args:
        noun: What is counted.
    """

    def __init__(self, noun: str = "cell") -> None:
        self._noun = noun
        self._start = time.perf_counter()
        self._first: int | None = None
        self._live: Progress | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._live = Progress(
                TextColumn(self._noun),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.fields[layer]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._live.add_task("", total=None, layer="")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, done: int, total: int, layer: str) -> None:
        """Show that ``done`` of ``total`` are measured and what is next."""
        if self._first is None:
            self._first, self._start = done, time.perf_counter()
        if self._live is not None:
            self._live.update(self._task, completed=done, total=total, layer=layer)
            return
        measured = done - self._first
        left = (time.perf_counter() - self._start) / max(measured, 1) * (total - done)
        when = f"  {left:,.0f} s left" if measured else ""
        click.echo(f"{self._noun} {done}/{total}{when}  {layer}", err=True)


class Interrupts:
    """First Ctrl-C: finish the generation and stop. Second: stop at once. Both leave a run to resume."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        click.echo("finishing this generation; Ctrl-C again stops at once", err=True)
