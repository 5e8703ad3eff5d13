"""Checks that a strategy from a plugin keeps its contract, by searching with it for a few generations.

They are evaluated on models: twice from the same seed, restored in the middle, with immigrants, and once with
nothing but failures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evolve.batches import evaluate_candidates
from evolve.candidates import Candidate, Evaluation, Offspring, Scored
from evolve.configuration import RunConfig
from evolve.errors import EvolveError
from evolve.executors import Serial
from evolve.extensions import METHODS, Extension, StrategyPlugin
from evolve.plugins import Catalogue
from evolve.search.base import Strategy
from evolve.setup import Setup, prepare_run

#: Candidates a generation, and generations, that a strategy is tried with.
_POPULATION, _GENERATIONS = 24, 4
#: Of the strangers that a strategy is to welcome.
_SEED = 20


class FaultError(EvolveError):
    """A fault that ends the check."""


class Fault:
    """Makes the message of a fault, which begins with file and line: raise what it returns."""

    def __init__(self, extension: Extension) -> None:
        self._where = f"{extension.file}, line {extension.line}"

    def __call__(self, words: str) -> FaultError:
        """Return the fault said in these words."""
        return FaultError(f"{self._where}: {words}")


def prepared(catalogue: Catalogue, datasets: str, signals: str = "curves", **settings: Any) -> Setup:
    """Load what a trial on these models needs; further settings are those of a run."""
    return prepare_run(
        RunConfig(datasets=datasets, signals=signals, population=_POPULATION, **settings), catalogue
    )


def evaluate(setup: Setup, offspring: Sequence[Offspring], fault: Fault) -> list[Evaluation]:
    """Evaluate offspring, and raise `FaultError` at one that is no rule at all."""
    found = evaluate_candidates(
        [each.candidate for each in offspring], setup.problem.templates, setup.arena, Serial(setup.arena)
    )
    for each, evaluation in zip(offspring, found, strict=True):
        if evaluation.failure in ("does not render", "does not compile"):
            raise fault(f"makes a candidate that {evaluation.failure}: {evaluation.reason} ({each.change})")
    return found


class _Trial:
    """A strategy with everything it was told, as the engine keeps it."""

    def __init__(self, setup: Setup, fault: Fault, *, failing: bool = False) -> None:
        self._setup = setup
        self._fault = fault
        self._failing = failing
        self.archive: dict[str, Scored] = {}
        self.strategy = self._call("is made", setup.plain_strategy)
        missing = [name for name in METHODS if not callable(getattr(self.strategy, name, None))]
        if missing:
            raise fault(f"the strategy has no {missing[0]}; expected methods {', '.join(METHODS)}")

    def _call(self, when: str, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return method(*arguments)
        except EvolveError:
            raise
        except (Exception, SystemExit) as error:
            raise self._fault(f"raises {type(error).__name__} when it {when}: {error}") from error

    def step(self) -> list[Offspring]:
        """Ask, evaluate, tell; returns what was asked for."""
        asked = self._checked(self._call("is asked", self.strategy.ask))
        fresh = {each.candidate.id: each for each in asked if each.candidate.id not in self.archive}
        found = evaluate(self._setup, list(fresh.values()), self._fault)
        for each, evaluation in zip(fresh.values(), found, strict=True):
            failed = Evaluation("failed", "a trial", "a trial", complexity=evaluation.complexity)
            self.archive[each.candidate.id] = Scored(each, failed if self._failing else evaluation)
        told = [self.archive[each.candidate.id] for each in asked]
        self._call("is told", self.strategy.tell, told)
        return asked

    def _checked(self, asked: object) -> list[Offspring]:
        if not isinstance(asked, list) or not all(isinstance(each, Offspring) for each in asked):
            raise self._fault("ask returns no list of evolve.candidates.Offspring")
        known = {*self.archive, *(each.candidate.id for each in asked)}
        seeds = {each.candidate.id for each in self._setup.problem.seeds}
        for each in asked:
            if each.operator == "seed" and each.candidate.id not in seeds:
                raise self._fault("calls a candidate a seed that is no seed heuristic of the problem")
            if each.operator != "seed" and not each.parents:
                raise self._fault(f"makes offspring without parents (operator {each.operator})")
            strange = [name for name in each.parents if name not in known]
            if strange:
                raise self._fault(f"names a parent that was never asked for: {strange[0]!r}")
            self._check_candidate(each.candidate)
        return asked

    def _check_candidate(self, candidate: Candidate) -> None:
        template = self._setup.problem.templates.get(candidate.template)
        if template is None:
            raise self._fault(f"asks for a candidate of an unknown template {candidate.template!r}")
        try:
            template.read(candidate)
        except (EvolveError, KeyError) as error:
            raise self._fault(f"asks for a candidate that cannot be read: {error}") from error

    def state(self) -> Mapping[str, Any]:
        """Return the state as it comes back from a file."""
        state = self._call("gives its state", self.strategy.state)
        try:
            again = json.loads(json.dumps(state, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise self._fault(f"its state is not JSON: {error}") from error
        if again != state or not isinstance(again, dict):
            raise self._fault(
                "its state changes when it is written and read as JSON: use a dict with text keys, lists "
                "for tuples, ids for candidates"
            )
        return again

    def restored(self) -> _Trial:
        """Return what a killed run would go on with."""
        other = _Trial(self._setup, self._fault, failing=self._failing)
        other.archive = dict(self.archive)
        self._call("is restored", other.strategy.restore, self.state(), other.archive)
        return other

    def welcome(self, immigrants: Sequence[Scored]) -> None:
        """Let the strategy take in what another found."""
        strategy: Strategy = self.strategy
        self._call("welcomes immigrants", strategy.welcome, immigrants)


def check_strategy(plugin: StrategyPlugin, catalogue: Catalogue, datasets: str, fault: Fault) -> None:
    """Search with a strategy and raise `FaultError` at the first fault.

    Args:
        plugin: The strategy, which the catalogue has.
        catalogue: All plugins.
        datasets: Name or path of the models to search on.
        fault: Makes the message of a fault.
    """
    setup = prepared(catalogue, datasets, strategy=plugin.name)
    first, second = _Trial(setup, fault), _Trial(setup, fault)
    made = 0
    for generation in range(_GENERATIONS):
        when = f"after {generation} generations"
        asked = _step_with_copy(first, fault, when) if generation else first.step()
        made += sum(1 for each in asked if each.operator != "seed")
        if asked != second.step():
            raise fault("asks for other candidates when made again with the same seed")
    if not made:
        raise fault(f"asks for nothing but seed heuristics in {_GENERATIONS} generations")
    # As on islands, which share one archive and know together what was tried.
    first.welcome([*first.archive.values()][::-1])
    first.welcome([])
    _step_with_copy(first, fault, "after immigrants were welcomed")
    strangers = _Trial(prepared(catalogue, datasets, strategy="random", seed=_SEED), fault)
    strangers.step()
    first.archive |= strangers.archive
    first.welcome([*strangers.archive.values()])
    first.step()
    hopeless = _Trial(setup, fault, failing=True)
    for _ in range(2):
        hopeless.step()


def _step_with_copy(trial: _Trial, fault: Fault, when: str) -> list[Offspring]:
    """Make a step, and the same step with a strategy restored from its state; no one may tell them apart."""
    copy = trial.restored()
    if copy.state() != trial.state():
        raise fault(f"has another state once it is restored ({when})")
    asked = trial.step()
    if copy.step() != asked:
        raise fault(f"asks for other candidates once it is restored from its state ({when})")
    return asked
