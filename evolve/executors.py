"""How evaluations are mapped: an executor is nothing but an ordered ``map`` over tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

from evolve.evaluation import Arena, Failure, ModelScores, Task

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
            initargs=(arena,),
        )

    def map(self, tasks: Sequence[Task]) -> Results:
        """Evaluate the tasks, several at once."""
        with _interrupts_held():
            results = self._pool.map(_evaluate_in_worker, tasks)
        return list(results)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def make_executor(arena: Arena, workers: int) -> Executor:
    """Return the executor for this number of workers."""
    return Serial(arena) if workers == 1 else Processes(arena, workers)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back for the block, and for ever in processes that start within it.

    It reaches the whole process group, and the main process decides what it means. Workers start
    with the first tasks, and one that had it before it could ignore it would break the pool.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker_arena: Arena | None = None


def _start_worker(arena: Arena) -> None:
    global _worker_arena
    end_with_parent()
    _worker_arena = arena


def end_with_parent() -> None:
    """End this worker once the main process is gone, which may have been killed and can tell nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _evaluate_in_worker(task: Task) -> list[ModelScores | Failure]:
    assert _worker_arena is not None
    return _worker_arena.evaluate(task)
