"""Makes a run again from its journal: every candidate evaluated, every offspring asked for anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from statistics import median
from typing import Any

from evolve.batches import evaluate_candidates
from evolve.candidates import Evaluation, Offspring, Scored
from evolve.engine import GenerationSummary, Outcome, choose_champion, finalists, within_limit
from evolve.errors import EvolveError
from evolve.executors import Executor, make_executor
from evolve.setup import Setup
from evolve.store import RunStore, Snapshot, scored_from_json, scored_to_json

#: Differences smaller than this are rounding, which another machine or numpy can bring.
_ROUNDING = 1e-12

Record = Mapping[str, Any]
#: The records of one generation with their lines: its candidates, then its summary.
_Generation = tuple[list[tuple[int, Record]], tuple[int, Record]]


def replay(
    store: RunStore,
    setup: Setup,
    workers: int = 1,
    observe: Callable[[GenerationSummary], None] = lambda _: None,
) -> tuple[Outcome | None, list[str]]:
    """Make a run again, generation by generation; its configuration is compared by `config_differences`.

    Args:
        store: The run.
        setup: What was searched.
        workers: Processes that evaluate.
        observe: Called after each generation.

    Returns:
        What the search found by what was recomputed, and the differences to what is stored; no
        outcome if the journal is too damaged to tell.

    Raises:
        RunError: A file of the run cannot be read.
    """
    snapshot = store.snapshot()
    with make_executor(setup.arena, workers) as executor:
        run = _Replay(store, setup, executor)
        found = list(run.check_structure())
        if run.broken:
            return None, found
        for number, generation in enumerate(run.generations):
            found += run.make_again(number, generation)
            if run.broken:
                return None, found
            observe(run.summaries[-1])
    found += run.check_snapshot(snapshot)
    finished = snapshot is not None and snapshot.finished
    outcome = Outcome(choose_champion(run.scored), tuple(run.scored), tuple(run.summaries), finished)
    return outcome, found


def config_differences(store: RunStore, setup: Setup) -> Iterator[str]:
    """Yield what differs between a run's configuration, as it is stored, and as it is resolved now."""
    stored = store.config()
    for name, value in setup.resolved().items():
        # Another version may give the same numbers; whether it does is what is found out here.
        if name != "version" and stored.get(name) != value:
            yield _difference(f"{store.path / 'config.json'}, {name}", stored.get(name), value)


class _Replay:
    """A run in the making: what was recomputed so far."""

    def __init__(self, store: RunStore, setup: Setup, executor: Executor) -> None:
        self._executor = executor
        self._journal = store.path / "journal.jsonl"
        self._snapshot = store.path / "snapshot.json"
        self._setup = setup
        self._records = store.records()
        self._strategy = setup.new_strategy()
        self._in_step = True
        self._cut = False
        self.generations: list[_Generation] = []
        self.scored: list[Scored] = []
        self.known: dict[str, Scored] = {}
        self.summaries: list[GenerationSummary] = []
        self.broken = False
        self._best: list[Scored] = []

    def check_structure(self) -> Iterator[str]:
        """Divide the journal into generations; yields what does not fit."""
        candidates: list[tuple[int, Record]] = []
        for line, record in enumerate(self._records, 1):
            kind = record.get("kind") if isinstance(record, dict) else None
            if kind == "candidate":
                candidates.append((line, record))
            elif kind == "generation":
                self.generations.append((candidates, (line, record)))
                candidates = []
            else:
                self.broken = True
                yield _difference(f"{self._journal}, line {line}, kind", kind, "candidate or generation")
        if candidates:
            self.broken = True
            yield f"{self._journal}, line {candidates[0][0]}: no generation ends after these candidates"

    def make_again(self, number: int, generation: _Generation) -> Iterator[str]:
        """Recompute one generation; yields what differs from its records."""
        listed, (line, summary) = generation
        stored: list[Scored] = []
        for place, record in listed:
            try:
                each = replace(scored_from_json(record), generation=number)
                self._setup.problem.templates[each.candidate.template].source(each.candidate)
                stored.append(each)
            except (LookupError, TypeError, ValueError, AttributeError, EvolveError) as error:
                self.broken = True
                yield f"{self._journal}, line {place}: no candidate: {type(error).__name__}: {error}"
        if self.broken:
            return
        offspring = self._ask()
        fresh = [each.offspring for each in stored]
        if offspring is not None:
            asked = {each.candidate.id: each for each in offspring if each.candidate.id not in self.known}
            yield from self._compare_offspring(number, listed, stored, asked)
        new = self._evaluate(fresh, number)
        for (place, record), each in zip(listed, new, strict=True):
            yield from self._parents_missing(place, each)
            yield from _differences(f"{self._journal}, line {place}", record, scored_to_json(each))
            self.scored.append(each)
            self.known[each.candidate.id] = each
        made = int(summary.get("duplicates", 0)) + len(new) if offspring is None else len(offspring)
        self.summaries.append(self._summarise(number, made, new))
        expected = {"kind": "generation", **asdict(self.summaries[-1])}
        yield from _differences(f"{self._journal}, line {line}", summary, expected)
        self._tell(offspring)

    def _ask(self) -> Sequence[Offspring] | None:
        if not self._in_step:
            return None
        asked = self._strategy.ask()
        offspring = within_limit(asked, self.known, self._setup.config.evaluations)
        self._cut = len(offspring) < len(asked)
        return offspring

    def _compare_offspring(
        self,
        number: int,
        listed: Sequence[tuple[int, Record]],
        stored: Sequence[Scored],
        asked: Mapping[str, Offspring],
    ) -> Iterator[str]:
        if [each.candidate.id for each in stored] != list(asked):
            # From here on everything the search asks for is another search's.
            self._in_step = False
            yield (
                f"{self._journal}, generation {number}: the search, made again, asks for other candidates; "
                "operators and changes are not compared from here on"
            )
            return
        for (place, record), again in zip(listed, asked.values(), strict=True):
            origin = {"operator": again.operator, "parents": list(again.parents), "change": again.change}
            yield from _differences(f"{self._journal}, line {place}", record, {**record, **origin})

    def _evaluate(self, fresh: Sequence[Offspring], number: int) -> list[Scored]:
        candidates = [each.candidate for each in fresh]
        evaluations: list[Evaluation] = evaluate_candidates(
            candidates, self._setup.problem.templates, self._setup.arena, self._executor
        )
        return [Scored(*pair, number) for pair in zip(fresh, evaluations, strict=True)]

    def _parents_missing(self, place: int, each: Scored) -> Iterator[str]:
        for parent in each.offspring.parents:
            if parent not in self.known:
                yield f"{self._journal}, line {place}, parents: no candidate {parent} before this one"

    def _summarise(self, number: int, made: int, new: Sequence[Scored]) -> GenerationSummary:
        working = [each.evaluation.train.fitness for each in new if each.evaluation.train is not None]
        self._best = finalists([*self._best, *new])
        champion = choose_champion(self._best)
        best = self._best[0].evaluation.train if self._best else None
        return GenerationSummary(
            generation=number,
            best=None if best is None else best.fitness,
            median=median(working) if working else None,
            best_objective=None if best is None else best.objective,
            champion=None if champion is None else champion.candidate.id,
            evaluations=len(new),
            duplicates=made - len(new),
            failures=len(new) - len(working),
            total=len(self.scored),
        )

    def _tell(self, offspring: Sequence[Offspring] | None) -> None:
        if offspring is not None and self._in_step and not self._cut:
            self._strategy.tell([self.known[each.candidate.id] for each in offspring])

    def check_snapshot(self, snapshot: Snapshot | None) -> Iterator[str]:
        """Compare the stored state of the search with that of the search made again."""
        if snapshot is None:
            return
        if snapshot.generation != len(self.generations):
            name = f"{self._snapshot}, generation"
            yield _difference(name, snapshot.generation, len(self.generations))
        if self._in_step and snapshot.strategy != self._strategy.state():
            yield f"{self._snapshot}: the state of the search is not that of the search made again"


def _differences(where: str, stored: Any, again: Any, path: str = "") -> Iterator[str]:
    """Yield a line for each value that differs, with its place within the record."""
    if isinstance(stored, dict) and isinstance(again, dict):
        for name in dict.fromkeys((*again, *stored)):
            inner = f"{path}.{name}" if path else str(name)
            if name not in stored or name not in again:
                yield _difference(f"{where}, {inner}", stored.get(name), again.get(name))
            else:
                yield from _differences(where, stored[name], again[name], inner)
    elif stored != again or type(stored) is not type(again):
        yield _difference(f"{where}, {path}", stored, again)


def _difference(where: str, stored: Any, again: Any) -> str:
    numbers = isinstance(stored, float) and isinstance(again, float)
    rounding = numbers and abs(stored - again) <= _ROUNDING * max(abs(stored), abs(again))
    note = " (within rounding: was it made on another machine?)" if rounding else ""
    return f"{where}: reported {stored!r}, recomputed {again!r}{note}"
