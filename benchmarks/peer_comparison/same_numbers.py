"""First comparison: every tool tunes the same numbers of the same rule.

The rule's structure is fixed (``rules/price_by_type.py.j2``, in the package's template ``weighted``).
A point is the vector of its D numbers in unit coordinates, each on the parameter's own scale. All
tools maximise the mean share of the optimum on the train models of a suite, start from the same
vector, drawn from the seed, and are evaluated by the same function.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from evolve.candidates import Candidate
from evolve.configuration import RunConfig
from evolve.datasets import find_dataset
from evolve.engine import GenerationSummary, search
from evolve.evaluation import Arena, Failure, ModelScores, SearchArena, Task, summarise
from evolve.plugin_files import Heuristic, general_templates, load_plugin
from evolve.plugins import Catalogue
from evolve.search.base import OPERATORS
from evolve.setup import prepare_run
from evolve.store import create_run
from peer_comparison.outcomes import Outcome
from peer_comparison.problems import FloatArray, Recorder, Space
from peer_comparison.tools import TOOLS, run_tool

OURS = "evolve"
RULE = Path(__file__).parent / "rules" / "price_by_type.py.j2"
LEVEL = "gradient"
POPULATION = 24
#: Of our operators, those that can change nothing but numbers here, where all candidates share one structure.
NUMBER_OPERATORS = ("parameters", "crossover", "refine")
#: So many generations without a new candidate end our search: it has converged.
_PATIENCE = 50


class Tuning:
    """The rule and the models on which its numbers are tuned.

    Args:
        dataset: Name of the data set.
    """

    def __init__(self, dataset: str) -> None:
        self.dataset = find_dataset(dataset)
        self.rule: Heuristic = load_plugin(RULE)
        self.parameters = self.rule.template.parameters_of(self.rule.candidate)
        self.arena = SearchArena(self.dataset, LEVEL)
        self._names = tuple(each.name for each in self.parameters)
        self._source = self.rule.template.source(self.rule.candidate)

    @property
    def space(self) -> Space:
        """The unit cube of the rule's numbers."""
        return Space(len(self.parameters), None, POPULATION)

    def values(self, point: FloatArray) -> list[float]:
        """Return the rule's numbers at a point, (D,)."""
        pairs = zip(self.parameters, point.tolist(), strict=True)
        return [each.from_unit(unit) for each, unit in pairs]

    def candidate(self, point: FloatArray) -> Candidate:
        """Return the rule with the numbers of a point, (D,)."""
        numbers = tuple(zip(self._names, self.values(point), strict=True))
        return replace(self.rule.candidate, parameters=numbers)

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Return the mean share of the optimum on the train models at P points, (P,)."""
        results = self._scores(self.arena, np.array([self.values(each) for each in points]))
        return np.array([self.arena.summaries(each)[0].objective for each in results])

    def test_share(self, values: Sequence[float]) -> float:
        """Return the mean share of the optimum on the test models; it selects nothing."""
        (scores,) = self._scores(self._test_arena, np.array([values]))
        return summarise(scores, self._test_arena.optimum_fitness, slice(None)).objective

    @cached_property
    def _test_arena(self) -> Arena:
        return Arena(self.dataset.test, LEVEL)

    def _scores(self, arena: Arena, values: FloatArray) -> Iterator[ModelScores]:
        for result in arena.evaluate(Task(self._source, str(RULE), self._names, values)):
            if isinstance(result, Failure):
                raise RuntimeError(f"{RULE.name}: {result.reason}")
            yield result


@cache
def tuning(dataset: str) -> Tuning:
    """Return the problem of a data set, prepared once a process."""
    return Tuning(dataset)


def contestants() -> tuple[str, ...]:
    """Return all that are compared: ours first."""
    return (OURS, *TOOLS)


def run(dataset: str, tool: str, seed: int, budget: int) -> Outcome:
    """Let one tool tune the numbers with one seed."""
    _warm(dataset, tool)
    problem = tuning(dataset)
    best_so_far, values, seconds = _search(dataset, tool, seed, budget)
    return Outcome(tool, "", seed, best_so_far, seconds, problem.test_share(values))


@cache
def _warm(dataset: str, tool: str) -> None:
    """Run a tool once before its time counts: imports and caches are nobody's search."""
    _search(dataset, tool, 0, 3 * POPULATION)


def _search(dataset: str, tool: str, seed: int, budget: int) -> tuple[FloatArray, list[float], float]:
    """Return the best share after each evaluation, the best numbers and the seconds spent."""
    problem = tuning(dataset)
    start = problem.space.draw(np.random.default_rng([seed, 0]), 1)[0]
    if tool == OURS:
        return _run_ours(dataset, start, seed, budget)
    began = time.perf_counter()
    recorder = Recorder(problem.evaluate, problem.space, budget)
    run_tool(tool, recorder, problem.space, start, seed)
    return recorder.best_so_far, problem.values(recorder.best_point), time.perf_counter() - began


def _run_ours(
    dataset: str, start: FloatArray, seed: int, budget: int
) -> tuple[FloatArray, list[float], float]:
    """Run the default strategy on numbers alone: an ordinary run, with its journal."""
    problem = tuning(dataset)
    seed_rule = replace(problem.rule, candidate=problem.candidate(start))
    catalogue = Catalogue({seed_rule.name: seed_rule}, general_templates(), ())
    config = RunConfig(
        datasets=dataset,
        generations=100 * budget,
        population=POPULATION,
        seed=seed,
        signals=LEVEL,
        operators={name: OPERATORS[name] for name in NUMBER_OPERATORS if name in OPERATORS},
        start_from=(seed_rule.name,),
        # Everybody has to find the numbers by evaluating.
        fit=False,
    )
    setup = replace(prepare_run(config, catalogue), arena=problem.arena)
    summaries: list[GenerationSummary] = []

    def should_stop() -> bool:
        stuck = len(summaries) >= _PATIENCE and not any(each.evaluations for each in summaries[-_PATIENCE:])
        return stuck or summaries[-1].total >= budget

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        store = create_run(f"seed-{seed}", setup.resolved(), Path(folder))
        outcome = search(setup, store, observe=summaries.append, should_stop=should_stop)
    seconds = time.perf_counter() - began
    scored = outcome.scored[:budget]
    best = max(scored, key=lambda each: each.evaluation.objective)
    reached = np.maximum.accumulate([each.evaluation.objective for each in scored])
    best_so_far = np.append(reached, np.full(budget - len(reached), reached[-1]))
    return best_so_far, [value for _, value in best.candidate.parameters], seconds
