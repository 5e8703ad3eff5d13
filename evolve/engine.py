"""The generational loop: ask, evaluate, tell, commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from evolve.ancestry import ancestors
from evolve.batches import evaluate_candidates
from evolve.candidates import Offspring, Scored
from evolve.configuration import RunConfig
from evolve.errors import RunError
from evolve.executors import make_executor, single_threaded
from evolve.search.base import Strategy, rank_key
from evolve.setup import Setup
from evolve.store import RunStore, Snapshot, scored_to_json

#: The champion is the best on valid among so many structures that are best on train.
FINALISTS = 10
#: A search with a limit of evaluations has run dry after so many generations without one.
_DRY = 10


@dataclass(frozen=True)
class GenerationSummary:
    """What happened in one generation; a line of the journal.

    Attributes:
        generation: Its number, from 0.
        best: Best fitness on train of any candidate so far (mean over models).
        median: Median fitness on train of this generation's working candidates; None if none works.
        best_objective: Best objective on train so far.
        champion: Id of the champion so far; None if nothing works yet.
        evaluations: Candidates evaluated in this generation.
        duplicates: Offspring known already, which cost nothing.
        failures: Candidates that failed.
        total: Evaluations so far.
    """

    generation: int
    best: float | None
    median: float | None
    best_objective: float | None
    champion: str | None
    evaluations: int
    duplicates: int
    failures: int
    total: int


def finalists(scored: Iterable[Scored]) -> list[Scored]:
    """Return the candidates that the champion is chosen among, the best on train first.

    A structure stands once among them: rules that differ only in their numbers are no choice. The
    finalists of some candidates and of more are those of the former's finalists and the latter.
    """
    working = [each for each in scored if each.evaluation.status == "ok"]
    best: dict[object, Scored] = {}
    for each in sorted(working, key=rank_key, reverse=True):
        if len(best) == FINALISTS:
            break
        best.setdefault(each.candidate.structure, each)
    return list(best.values())


def choose_champion(scored: Iterable[Scored]) -> Scored | None:
    """Return the champion: of the finalists, the best on valid; the simpler one at equal fitness.

    Differences below a billionth are rounding. Without a valid split, train decides alone.
    """

    def merit(each: Scored) -> tuple[float, int, float]:
        valid = each.evaluation.valid or each.evaluation.train
        assert valid is not None
        return round(valid.objective, 9), -each.evaluation.complexity, round(each.evaluation.objective, 9)

    return max(finalists(scored), key=merit, default=None)


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Attributes:
        champion: The champion; None where every candidate failed.
        scored: Every candidate, in the order of the journal.
        generations: One summary a generation.
        finished: False if it was stopped before its end.
    """

    champion: Scored | None
    scored: tuple[Scored, ...]
    generations: tuple[GenerationSummary, ...]
    finished: bool

    def ancestry(self) -> tuple[Scored, ...]:
        """Return the champion and all its ancestors, from the seed heuristics on."""
        return () if self.champion is None else ancestors(self.champion, self.scored)


def recorded_outcome(store: RunStore) -> Outcome:
    """Return what a run has found so far, from its journal."""
    scored = tuple(store.scored())
    snapshot = store.snapshot()
    return Outcome(
        choose_champion(scored), scored, tuple(_summaries(store)), snapshot is not None and snapshot.finished
    )


def search(
    setup: Setup,
    store: RunStore,
    *,
    workers: int = 1,
    observe: Callable[[GenerationSummary], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run a search from where its store left off to its end.

    Args:
        setup: What is searched, from `prepare_run`.
        store: The run's directory, possibly with committed generations.
        workers: Processes that evaluate, and fit where a search does; the result is the same for any number.
        observe: Called after each committed generation.
        should_stop: Asked after each generation; True ends the search so that it can be resumed.
    """
    scored = store.scored()
    archive = {each.candidate.id: each for each in scored}
    best = finalists(scored)
    summaries = _summaries(store)
    snapshot = store.snapshot()
    generation = 0 if snapshot is None else snapshot.generation
    finished = snapshot is not None and snapshot.finished
    with make_executor(setup.arena, workers, setup.problem) as executor, single_threaded():
        strategy = setup.new_strategy(executor.spread)
        if snapshot is not None and not snapshot.finished:
            _restore(strategy, snapshot, archive, store)
        while not finished:
            asked = strategy.ask()
            offspring = within_limit(asked, archive, setup.config.evaluations)
            fresh = list(
                {each.candidate.id: each for each in offspring if each.candidate.id not in archive}.values()
            )
            evaluations = evaluate_candidates(
                [each.candidate for each in fresh], setup.problem.templates, setup.arena, executor
            )
            new = [Scored(*pair, generation) for pair in zip(fresh, evaluations, strict=True)]
            archive |= {each.candidate.id: each for each in new}
            scored += new
            if len(offspring) == len(asked):  # else the limit has cut the last generation
                strategy.tell([archive[each.candidate.id] for each in offspring])
            best = finalists([*best, *new])
            summaries.append(_summarise(generation, offspring, new, best, len(scored)))
            generation += 1
            finished = _has_ended(summaries, setup.config)
            records = [scored_to_json(each) for each in new]
            records.append({"kind": "generation", **asdict(summaries[-1])})
            store.commit(records, generation, strategy.state(), finished)
            observe(summaries[-1])
            if should_stop():
                break
    outcome = Outcome(choose_champion(scored), tuple(scored), tuple(summaries), finished)
    if finished and outcome.champion is not None:
        store.write("champion.json", scored_to_json(outcome.champion))
    return outcome


def _summarise(
    generation: int, offspring: Sequence[Offspring], new: Sequence[Scored], best: Sequence[Scored], total: int
) -> GenerationSummary:
    working = [each.evaluation.train.fitness for each in new if each.evaluation.train is not None]
    champion = choose_champion(best)
    first = best[0].evaluation.train if best else None
    return GenerationSummary(
        generation=generation,
        best=None if first is None else first.fitness,
        median=median(working) if working else None,
        best_objective=None if first is None else first.objective,
        champion=None if champion is None else champion.candidate.id,
        evaluations=len(new),
        duplicates=len(offspring) - len(new),
        failures=sum(1 for each in new if each.evaluation.status == "failed"),
        total=total,
    )


def _summaries(store: RunStore) -> list[GenerationSummary]:
    found = []
    for number, record in enumerate(store.records(), 1):
        if record["kind"] == "generation":
            try:
                found.append(GenerationSummary(**{key: record[key] for key in record if key != "kind"}))
            except TypeError as error:
                raise store.damaged(number) from error
    return found


def _restore(strategy: Strategy, snapshot: Snapshot, archive: Mapping[str, Scored], store: RunStore) -> None:
    try:
        strategy.restore(snapshot.strategy, archive)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            "the state of the search cannot be taken over",
            file=store.path / "snapshot.json",
            cure="Another version has written it, or somebody has changed it: start a new run.",
        ) from error


def within_limit(
    offspring: Sequence[Offspring], archive: Mapping[str, Scored], limit: int | None
) -> Sequence[Offspring]:
    """Return as many of the offspring, from the first on, as can be evaluated within the limit."""
    if limit is None:
        return offspring
    fresh: set[str] = set()
    for place, each in enumerate(offspring):
        if each.candidate.id not in archive:
            fresh.add(each.candidate.id)
        if len(archive) + len(fresh) > limit:
            return offspring[:place]
    return offspring


def _has_ended(summaries: Sequence[GenerationSummary], config: RunConfig) -> bool:
    if config.evaluations is not None:
        dry = len(summaries) >= _DRY and not any(each.evaluations for each in summaries[-_DRY:])
        if dry or summaries[-1].total >= config.evaluations:
            return True
    return len(summaries) >= config.generations or _on_plateau(summaries, config.plateau)


def _on_plateau(summaries: Sequence[GenerationSummary], patience: int | None) -> bool:
    if patience is None or len(summaries) <= patience:
        return False
    before = summaries[-1 - patience].best_objective
    return summaries[-1].best_objective == before
