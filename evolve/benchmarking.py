"""Benchmarks: the same search under several settings and seeds, at equal numbers of evaluations.

Finished cells are not repeated and killed ones continue, so the same command again goes on where
the last one ended. What else may follow under the same name, `evolve.benchmark_history` says.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from evolve.benchmark_cells import Cell, CellResult, read_result, read_timing, run_cell
from evolve.benchmark_history import check_continues, check_no_run
from evolve.configuration import RunConfig
from evolve.datasets import Dataset
from evolve.errors import InputError
from evolve.executors import end_with_parent
from evolve.setup import prepare_run
from evolve.store import BENCH_PREFIX, RUNS, check_name

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Setting:
    """One of the things compared: a name, and the values of the configuration that make it."""

    name: str
    overrides: Mapping[str, Any]


#: What flags can name several values of, as keys of a configuration.
AXES = ("strategy", "signals", "operators", "start_from")


def cross(axes: Mapping[str, Sequence[str]]) -> tuple[Setting, ...]:
    """Return a setting for each combination of values, named by the values that differ.

    Args:
        axes: Values by key of the configuration, some of `AXES` in that order; none is empty.
    """
    differing = [key for key, values in axes.items() if len(values) > 1] or list(axes)[:1]
    settings = []
    for values in product(*axes.values()):
        overrides = dict(zip(axes, values, strict=True))
        # islands:hillclimb and default,mine=4 are no names of folders.
        label = "-".join(re.sub(r"[:,=]+", "-", overrides[key]) for key in differing)
        settings.append(Setting(label, overrides))
    return tuple(settings)


@dataclass(frozen=True)
class Plan:
    """What a benchmark runs.

    Attributes:
        name: What it is called; its runs are in ``runs/bench-NAME``.
        settings: What is compared, each with the first.
        seeds: Seeds 0 to seeds − 1, the same for every setting.
        evaluations: Candidates evaluated in every run.
        base: Values of the configuration that all settings share.
    """

    name: str
    settings: tuple[Setting, ...]
    seeds: int
    evaluations: int
    base: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_name(self.name)
        for field, least in (("seeds", 1), ("evaluations", 2)):
            if getattr(self, field) < least:
                words = f"a whole number, at least {least}"
                raise InputError("bad benchmark", field=field, expected=words, found=getattr(self, field))
        names = [check_name(each.name) for each in self.settings]
        if not names or len(set(names)) < len(names):
            raise InputError("bad benchmark", field="settings", expected="names, none twice", found=names)

    @property
    def folder(self) -> str:
        """Name of the folder of its runs and of its report."""
        return f"{BENCH_PREFIX}{self.name}"

    def config(self, setting: Setting, seed: int) -> RunConfig:
        """Return the configuration of a cell; the number of evaluations alone ends it."""
        limits = {"seed": seed, "evaluations": self.evaluations, "generations": self.evaluations}
        return RunConfig.from_json({**self.base, **setting.overrides, **limits})


@dataclass(frozen=True)
class BenchOutcome:
    """What a benchmark found.

    Attributes:
        plan: What was run.
        dataset: The models.
        results: One a run: settings in the order of the plan, seeds within each.
        timings: For each result, its seconds by generation, see `read_timing`.
    """

    plan: Plan
    dataset: Dataset
    results: tuple[CellResult, ...]
    timings: tuple[list[dict[str, Any]], ...]

    def of(self, setting: Setting) -> list[CellResult]:
        """Return the results of a setting, by seed."""
        return [each for each in self.results if each.setting == setting.name]


def run_bench(
    plan: Plan,
    *,
    runs: Path = RUNS,
    reports: Path | None = None,
    workers: int = 1,
    observe: Callable[[Cell, CellResult], None] = lambda _cell, _result: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> BenchOutcome | None:
    """Run what is missing of a benchmark.

    Args:
        plan: What to run.
        runs: The folder of all runs.
        reports: The folder of all reports, where the one to be written must not replace another's; None if
            none is to be written.
        workers: Processes, each with one run at a time; the results are the same for any number.
        observe: Called with each run that has ended, first those that were there before.
        should_stop: True stops after the generations in progress.

    Returns:
        What was found; None if it was stopped.

    Raises:
        InputError: A setting is wrong, or the folder holds another benchmark of that name, or a run.
    """
    folder, report = runs / plan.folder, None if reports is None else reports / plan.folder
    check_no_run(folder, report)
    cells, dataset = _prepare(plan, runs)
    check_continues(cells, dataset, folder, report)
    found: dict[Path, CellResult] = {}
    missing = []
    for cell in cells:
        result = read_result(cell)
        if result is None:
            missing.append(cell)
        else:
            found[cell.path] = result
            observe(cell, result)
    # One seed of every setting, then the next: what is there after a stop can be compared.
    missing.sort(key=lambda cell: cell.config.seed)
    make = _in_this_process if workers == 1 or len(missing) < 2 else partial(_in_processes, workers=workers)
    for cell, result in make(missing, should_stop):
        if result is not None:
            found[cell.path] = result
            observe(cell, result)
    if len(found) < len(cells):
        return None
    return BenchOutcome(
        plan,
        dataset,
        tuple(found[cell.path] for cell in cells),
        tuple(read_timing(cell.path) for cell in cells),
    )


def _prepare(plan: Plan, runs: Path) -> tuple[list[Cell], Dataset]:
    """Check every setting before the first run; what a run depends on differs between seeds by the seed."""
    cells: list[Cell] = []
    datasets = []
    for setting in plan.settings:
        config = plan.config(setting, 0)
        setup = prepare_run(config)
        resolved = json.loads(json.dumps(setup.resolved()))
        datasets.append(setup.dataset)
        folder = runs / plan.folder / setting.name
        cells += [
            Cell(setting.name, replace(config, seed=seed), {**resolved, "seed": seed}, folder)
            for seed in range(plan.seeds)
        ]
    if len({each.content_hash for each in datasets}) > 1:
        names = [each.name for each in datasets]
        words = "the same models for all settings"
        raise InputError("nothing to compare", field="datasets", expected=words, found=names)
    return cells, datasets[0]


Made = Iterator[tuple[Cell, CellResult | None]]


def _in_this_process(cells: Sequence[Cell], should_stop: Callable[[], bool]) -> Made:
    for cell in cells:
        yield cell, run_cell(cell, should_stop)


def _in_processes(cells: Sequence[Cell], should_stop: Callable[[], bool], workers: int) -> Made:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(
        min(workers, len(cells)), mp_context=context, initializer=_start_worker, initargs=(stop,)
    ) as pool:
        places: dict[Future[CellResult | None], Cell] = {
            pool.submit(_run_in_worker, cell): cell for cell in cells
        }
        waiting = set(places)
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                for each in done:
                    yield places[each], each.result()
                if should_stop():
                    stop.set()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()  # what they have committed is kept
            raise


_stop: Event | None = None


def _start_worker(stop: Event) -> None:
    global _stop
    # Ctrl-C reaches the whole process group; the main process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    _stop = stop


def _run_in_worker(cell: Cell) -> CellResult | None:
    assert _stop is not None
    return run_cell(cell, _stop.is_set)
