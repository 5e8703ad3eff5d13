"""How the work of a search is mapped: evaluations, and whatever else breeding needs for many candidates."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from evolve.evaluation import Arena, Failure, ModelScores, Task
from evolve.search.base import Found, Item, Problem, Spread

#: Pieces for each worker that many small calls are handed out in: some take longer than others.
_PIECES = 8
Results = list[list[ModelScores | Failure]]


class Executor(Protocol):
    """Evaluates tasks; results come in the order of the tasks, whoever computed them."""

    @property
    def spread(self) -> Spread | None:
        """What `Problem.spread` is to be."""

    def map(self, tasks: Sequence[Task]) -> Results:
        """Evaluate the tasks."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Serial:
    """Evaluates in this process.

    Args:
        arena: The models and the information level.
    """

    #: Breeding needs nobody's help.
    spread: Spread | None = None

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
        problem: What is searched; None where nothing is bred.
    """

    def __init__(self, arena: Arena, workers: int, problem: Problem | None = None) -> None:
        # Plugins are not needed there, and modules cannot be sent.
        sent = None if problem is None else replace(problem, plugins={}, spread=None)
        self._workers = workers
        self._pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(arena, sent),
        )

    def map(self, tasks: Sequence[Task]) -> Results:
        """Evaluate the tasks, several at once."""
        with _interrupts_held():
            results = self._pool.map(_evaluate_in_worker, tasks)
        return list(results)

    def spread(self, function: Callable[[Problem, Item], Found], items: Sequence[Item]) -> Generator[Found]:
        """Call a function for each item, several at once, with the problem."""
        size = max(1, len(items) // (_PIECES * self._workers))
        pieces = [items[start : start + size] for start in range(0, len(items), size)]
        with _interrupts_held():
            futures = [self._pool.submit(_call_in_worker, function, each) for each in pieces]
        try:
            for future in futures:
                yield from future.result()
        finally:
            for future in futures:
                future.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def make_executor(arena: Arena, workers: int, problem: Problem | None = None) -> Executor:
    """Return the executor for this number of workers; with a problem it helps to breed too."""
    return Serial(arena) if workers == 1 else Processes(arena, workers, problem)


def single_threaded() -> AbstractContextManager[object]:
    """Let linear algebra use one thread: its matrices are small, and more threads wait for each other.

    Fits of losses take four times as long with two. Nor can what is found depend on how many there are.
    """
    from threadpoolctl import threadpool_limits

    limited: AbstractContextManager[object] = threadpool_limits(limits=1, user_api="blas")
    return limited


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
_worker_problem: Problem | None = None


def _start_worker(arena: Arena, problem: Problem | None) -> None:
    global _worker_arena, _worker_problem
    end_with_parent()
    single_threaded()
    _worker_arena, _worker_problem = arena, problem


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


def _call_in_worker(function: Callable[[Problem, Item], Found], items: Sequence[Item]) -> list[Found]:
    assert _worker_problem is not None
    return [function(_worker_problem, each) for each in items]
