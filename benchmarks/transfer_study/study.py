"""The steps of the study: searches, what all rules and rivals choose, measurements, the rule of each fold."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from evolve.executors import end_with_parent
from evolve.objectives import Budgets
from transfer_study.allocating import RIVALS, UNIFORM, Proposal, of_rivals, of_rule
from transfer_study.champions import Forms
from transfer_study.comparing import Measured, Row, choose, handed_out, merits, rows_of
from transfer_study.folds import Fold, folds_of, measured_networks
from transfer_study.measuring import measure_all
from transfer_study.searching import BUDGETS, CHEAP, CURVES, Found, search_fold

CHEAP_RULE, CURVES_RULE = "rule from cheap signals", "rule from curves"
#: The studies: what rules may read, and what they are called.
STUDIES = {CHEAP: CHEAP_RULE, CURVES: CURVES_RULE}
#: The rule from cheap signals as the tool hands it out: beside uniform formats measured on calibration data.
HANDED_OUT = f"{CHEAP_RULE}, handed out"
#: The networks that the study was designed on; any others make a replication.
MEASURED = "measured"
#: Told what is being done, how much of it is done, and of how much.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """What decides the study, and where it is kept.

    Attributes:
        evaluations: Candidates that each search evaluates.
        seed: Of the searches and of random allocations.
        runs: The folder that keeps searches and measurements.
        weights: The folder of trained weights.
        dataset: The profiles of the networks, a data set by name or folder.
    """

    evaluations: int
    seed: int
    runs: Path
    weights: Path
    dataset: str


@dataclass(frozen=True)
class Chosen:
    """The rule of a fold.

    Attributes:
        family: The family left out.
        level: What the rule may read.
        rule: The rule that was chosen.
        place: Its place among those that were measured, from 0, the simplest first.
        candidates: How many there were.
    """

    family: str
    level: str
    rule: Found
    place: int
    candidates: int


def run_study(settings: Settings, workers: int, progress: Progress) -> tuple[list[Chosen], list[Row]]:
    """Do everything that is not done yet; the outcome is the same with any number of workers."""
    profiles = measured_networks(settings.dataset)
    folds = folds_of(profiles)
    first = {fold.name: place for place, fold in reversed(list(enumerate(folds)))}
    jobs = [(settings, level, place) for level in STUDIES for place in sorted(first.values())]
    searches: dict[tuple[str, str], list[Found]] = {}
    for done, ((_, level, place), found) in enumerate(zip(jobs, _searched(jobs, workers), strict=True)):
        searches[level, folds[place].name] = found
        progress("searches", done + 1, len(jobs))
    proposed = {
        (level, name, at): list(of_rule(STUDIES[level], each, level, profiles))
        for (level, name), found in searches.items()
        for at, each in enumerate(found)
    }
    forms = Forms(profiles, Budgets(BUDGETS))
    rivals = [list(of_rivals(fold, forms, settings.seed)) for fold in folds]
    wanted = {each: set[bytes]() for each in profiles}
    for proposals in (*proposed.values(), *rivals):
        for each in proposals:
            wanted[each.profile].add(each.choices)
    measured = measure_all(
        wanted,
        settings.weights,
        settings.runs / "measured",
        workers,
        progress=lambda done: progress("networks", done, len(profiles)),
    )
    chosen, rows, guarded = [], [], []
    for level, way in STUDIES.items():
        for fold in folds:
            found = searches[level, fold.name]
            own: list[list[Proposal]] = [proposed[level, fold.name, at] for at in range(len(found))]
            best = choose([merits(each, fold, measured) for each in own])
            chosen.append(Chosen(fold.family, level, found[best], best, len(found)))
            rows += rows_of(way, own[best], fold, measured)
            if way == CHEAP_RULE:
                guarded.append(own[best])
    guarded = [
        [*own, *(each for each in other if each.way == UNIFORM)]
        for own, other in zip(guarded, rivals, strict=True)
    ]
    calibration = _on_calibration(guarded, folds, settings, workers)
    for fold, proposals in zip(folds, guarded, strict=True):
        rows += handed_out(HANDED_OUT, proposals, fold, calibration, measured)
    for fold, proposals in zip(folds, rivals, strict=True):
        for way in RIVALS:
            rows += rows_of(way, proposals, fold, measured)
    return chosen, rows


def _on_calibration(
    proposals: list[list[Proposal]], folds: list[Fold], settings: Settings, workers: int
) -> Measured:
    """Return what each fold's proposals measure on calibration data of the networks left out."""
    wanted = {each: set[bytes]() for fold in folds for each in fold.left_out}
    for fold, several in zip(folds, proposals, strict=True):
        for each in several:
            if each.profile in fold.left_out:
                wanted[each.profile].add(each.choices)
    return measure_all(wanted, settings.weights, settings.runs / "measured", workers, "calibration")


def _searched(jobs: list[tuple[Settings, str, int]], workers: int) -> Iterator[list[Found]]:
    if workers == 1:
        yield from (_search(*job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        yield from pool.map(_search, *zip(*jobs, strict=True))


def _search(settings: Settings, level: str, place: int) -> list[Found]:
    fold = folds_of(measured_networks(settings.dataset))[place]
    return search_fold(fold, level, settings.evaluations, settings.seed, settings.runs)
