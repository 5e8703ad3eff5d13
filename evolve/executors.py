"""How evaluations are mapped: an executor is nothing but an ordered ``map`` over tasks."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import Protocol, Self

from evolve.evaluation import Arena, Failure, ModelScores, Task
from evolve.profiles import ModelProfile

Results = list[list[ModelScores | Failure]]


class Executor(Protocol):
    """Evaluates tasks; results come in the order of the tasks, whoever computed them."""

    def map(self, tasks: Sequence[Task]) -> Results:
        """Evaluate the tasks."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Serial:
    """Evaluates in this process."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena

    def map(self, tasks: Sequence[Task]) -> Results:
        """Evaluate the tasks one after the other."""
        return [self._arena.evaluate(task) for task in tasks]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Processes:
    """Evaluates in spawned processes, each with its own copy of the models.

    Args:
        arena: The models and the information level.
        workers: How many processes.
    """

    def __init__(self, arena: Arena, workers: int) -> None:
        self._pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(arena.profiles, arena.level),
        )

    def map(self, tasks: Sequence[Task]) -> Results:
        """Evaluate the tasks, several at once."""
        return list(self._pool.map(_evaluate_in_worker, tasks))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def make_executor(arena: Arena, workers: int) -> Executor:
    """Return the executor for this number of workers."""
    return Serial(arena) if workers == 1 else Processes(arena, workers)


_worker_arena: Arena | None = None


def _start_worker(profiles: Sequence[ModelProfile], level: str) -> None:
    global _worker_arena
    # Ctrl-C reaches the whole process group; the main process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker_arena = Arena(profiles, level)


def _evaluate_in_worker(task: Task) -> list[ModelScores | Failure]:
    assert _worker_arena is not None
    return _worker_arena.evaluate(task)
