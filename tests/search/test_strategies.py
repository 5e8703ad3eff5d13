"""What every search strategy keeps to; a new one is under test as soon as it is in `STRATEGIES`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from statistics import median

import pytest

from evolve.batches import evaluate_candidates
from evolve.candidates import Evaluation, Offspring, Scored
from evolve.configuration import RunConfig
from evolve.errors import InputError
from evolve.executors import Serial
from evolve.search import STRATEGIES, genetic, make_strategy
from evolve.search.base import OPERATORS, Problem, Strategy
from evolve.setup import Setup, prepare_run
from evolve.store import scored_from_json, scored_to_json

NAMES = [*STRATEGIES, "islands:3:hillclimb"]
every_strategy = pytest.mark.parametrize("name", NAMES)
Judge = Callable[[Offspring, Evaluation], Evaluation]


#: Few, so that generations can be small: plain functions, templates, with and without parameters.
SEEDS = ("uniform_fp16", "mixed_fp16_int8", "uniform_int8", "hybrid", "sensitivity_threshold", "uniform_fp32")


@cache
def loaded() -> Setup:
    return prepare_run(RunConfig(start_from=SEEDS))


def problem(seed: int = 0, population: int = 12) -> Problem:
    return replace(loaded().problem, seed=seed, population=population)


@dataclass
class Search:
    """A strategy with everything it was told, as the engine keeps it."""

    strategy: Strategy
    archive: dict[str, Scored]
    generation: int = 0
    judge: Judge = lambda _, evaluation: evaluation

    def step(self) -> list[Offspring]:
        """Ask, evaluate, tell; returns what was asked for."""
        setup = loaded()
        asked = self.strategy.ask()
        fresh = list(
            {each.candidate.id: each for each in asked if each.candidate.id not in self.archive}.values()
        )
        evaluations = evaluate_candidates(
            [each.candidate for each in fresh], setup.problem.templates, setup.arena, Serial(setup.arena)
        )
        for each, evaluation in zip(fresh, evaluations, strict=True):
            scored = Scored(each, self.judge(each, evaluation), self.generation)
            self.archive[each.candidate.id] = scored
        self.strategy.tell([self.archive[each.candidate.id] for each in asked])
        self.generation += 1
        return asked

    def steps(self, count: int) -> Iterator[list[Offspring]]:
        for _ in range(count):
            yield self.step()

    def restored(self, name: str, searched: Problem) -> Search:
        """Return what a killed process would continue with: all from JSON texts."""
        state = json.loads(json.dumps(self.strategy.state(), allow_nan=False))
        journal = [json.dumps(scored_to_json(each)) for each in self.archive.values()]
        archive = {each.candidate.id: each for each in map(scored_from_json, map(json.loads, journal))}
        strategy = make_strategy(name, searched)
        strategy.restore(state, archive)
        return Search(strategy, archive, self.generation, self.judge)


def all_work(_offspring: Offspring, evaluation: Evaluation) -> Evaluation:
    return evaluation


def failing(_offspring: Offspring, evaluation: Evaluation) -> Evaluation:
    return Evaluation("failed", "raised ValueError", "ValueError", complexity=evaluation.complexity)


def started(name: str, judge: Judge = all_work, **changes: int) -> Search:
    return Search(make_strategy(name, problem(**changes)), {}, 0, judge)


def only_seeds_work(offspring: Offspring, evaluation: Evaluation) -> Evaluation:
    return evaluation if offspring.operator == "seed" else failing(offspring, evaluation)


def origins(asked: list[Offspring]) -> list[tuple[str, str, tuple[str, ...], str]]:
    return [(each.candidate.id, each.operator, each.parents, each.change) for each in asked]


@every_strategy
@pytest.mark.parametrize("population", [5, 15])
def test_a_generation_has_as_many_as_the_population(name, population):
    search = started(name, population=population)
    seeds = [each.candidate.id for each in problem().seeds]
    first = [each.candidate.id for each in search.step()]
    assert set(seeds) <= set(first)
    # Islands each begin with the seeds, which costs nothing.
    assert len(set(first)) == max(population, len(seeds)) or name.startswith("islands")
    sizes = [len(asked) for asked in search.steps(3)]
    # Fewer where a dozen rounds of proposals found no more that is new.
    assert max(sizes) == population
    assert min(sizes) > population // 2


@every_strategy
def test_seeds_come_first_and_only_at_the_start(name):
    search = started(name)
    first = search.step()
    assert {each.change for each in first if each.operator == "seed"} == {
        each.change for each in problem().seeds
    }
    assert all(not each.parents for each in first if each.operator == "seed")
    assert not [each for asked in search.steps(4) for each in asked if each.operator == "seed"]


@every_strategy
def test_where_nothing_new_is_left_fewer_are_asked_for(name):
    """A single format leaves one allocation, so no rule is new but a simpler one."""
    poor = replace(problem(), fingerprint=lambda candidates: [("same", 5)] * len(candidates))
    search = Search(make_strategy(name, poor), {})
    first = search.step()
    assert {each.operator for each in first} == {"seed"}
    # CMA-ES needs every sample it draws.
    assert not [each for asked in search.steps(2) for each in asked if each.operator != "refine"]


@every_strategy
def test_parents_are_known_and_offspring_are_new(name):
    search = started(name, seed=1)
    for _ in range(4):
        known = set(search.archive)
        asked = search.step()
        ids = [each.candidate.id for each in asked]
        for each in asked:
            assert each.operator == "seed" or set(each.parents) <= known | set(ids)
            assert each.operator == "seed" or each.parents
            assert each.operator in ("seed", *problem().operators)
            assert each.change
        made = [each.candidate.id for each in asked if each.operator not in ("seed", "refine")]
        assert len(set(made)) == len(made)
        assert not set(made) & known


@every_strategy
def test_nothing_is_asked_for_that_allocates_as_a_known_one_unless_it_is_simpler(name):
    search = started(name, seed=2)
    simplest: dict[str, int] = {}
    fingerprint = problem().fingerprint
    for asked in search.steps(4):
        marks = fingerprint([each.candidate for each in asked])
        for each, (behaviour, size) in zip(asked, marks, strict=True):
            # Seeds are given, and CMA-ES needs every sample it draws.
            if each.operator not in ("seed", "refine"):
                assert size < simplest.get(behaviour, 10**9), each
            simplest[behaviour] = min(size, simplest.get(behaviour, 10**9))


@every_strategy
@pytest.mark.parametrize("surplus", [-1, 1])
def test_tell_wants_one_evaluation_an_offspring(name, surplus):
    search = started(name)
    asked = search.strategy.ask()
    scored = [Scored(each, failing(each, Evaluation("ok"))) for each in asked]
    told = scored[:surplus] if surplus < 0 else scored + scored[:surplus]
    with pytest.raises(ValueError, match=f"expected {len(asked)} evaluations, .* found {len(told)}"):
        search.strategy.tell(told)


@every_strategy
# Small populations tune no numbers in the first generations unless told to.
@pytest.mark.parametrize("generations", [0, 1, 6, 11, 14])
@pytest.mark.parametrize("operators", [OPERATORS, {"refine": 1.0}], ids=["all", "refine"])
def test_a_restored_strategy_asks_as_the_original(name, generations, operators):
    searched = replace(problem(seed=3), operators=operators)
    original = Search(make_strategy(name, searched), {})
    used = {each.operator for asked in original.steps(generations) for each in asked}
    copy = original.restored(name, searched)
    assert copy.strategy.state() == original.strategy.state()
    for _ in range(3):
        asked = original.step()
        used |= {each.operator for each in asked}
        assert origins(asked) == origins(copy.step())
        assert json.dumps(original.strategy.state()) == json.dumps(copy.strategy.state())
    assert name == "random" or set(operators) <= used or len(operators) > 1


@pytest.mark.parametrize("name", [each for each in STRATEGIES if each != "random"])
def test_small_populations_look_around_before_they_tune_numbers(name):
    """A default run of six generations has no time for it; a longer one does not get far without."""
    search = started(name, seed=13, population=24)
    used = [{each.operator for each in asked} for asked in search.steps(6)]
    assert "refine" not in set().union(*used)
    # Each island looks around by itself.
    assert "refine" in {each.operator for asked in search.steps(30) for each in asked}


@every_strategy
def test_a_state_is_a_copy(name):
    """Going on does not change a state that was written down."""
    search = started(name)
    search.step()
    state = search.strategy.state()
    before = json.dumps(state)
    search.step()
    assert json.dumps(state) == before


@every_strategy
def test_the_same_seed_asks_the_same_and_another_seed_does_not(name):
    first, second, other = started(name, seed=4), started(name, seed=4), started(name, seed=5)
    asks = [[origins(asked) for asked in each.steps(3)] for each in (first, second, other)]
    assert asks[0] == asks[1]
    assert all(one != another for one, another in zip(asks[0][1:], asks[2][1:], strict=True))


@every_strategy
def test_no_global_generator_is_touched(name):
    search = started(name)
    random.seed("mine")
    before = random.getstate()
    first = [origins(asked) for asked in search.steps(3)]
    assert random.getstate() == before
    random.seed("another")
    assert [origins(asked) for asked in started(name).steps(3)] == first


@every_strategy
def test_failures_everywhere_stop_nothing(name):
    search = started(name, failing, seed=6)
    for asked in search.steps(4):
        assert asked
    copy = search.restored(name, problem(seed=6))
    assert origins(copy.step()) == origins(search.step())


@every_strategy
def test_a_failure_never_wins_selection(name):
    search = started(name, only_seeds_work, seed=7)
    search.step()
    seeds = {each.candidate.id for each in problem().seeds}
    for asked in search.steps(3):
        for each in asked:
            # A newcomer's parent lends it its form only.
            assert each.operator == "newcomer" or set(each.parents) <= seeds


@every_strategy
def test_where_one_rule_works_it_is_everybodys_parent(name):
    survivor = problem().seeds[2].candidate.id

    def judge(offspring: Offspring, evaluation: Evaluation) -> Evaluation:
        return evaluation if offspring.candidate.id == survivor else failing(offspring, evaluation)

    search = started(name, judge, seed=8)
    search.step()
    for asked in search.steps(3):
        for each in asked:
            assert each.operator == "newcomer" or set(each.parents) == {survivor}


@every_strategy
def test_welcome_takes_in_what_others_found(name):
    """Immigrants may become parents, failures among them; in any case they break nothing."""
    searched = problem(seed=9)
    search = Search(make_strategy(name, searched), {}, 0, only_seeds_work)
    search.step()
    search.strategy.welcome([*search.archive.values()][::-1])
    search.strategy.welcome([])
    copy = search.restored(name, searched)
    for _ in range(2):
        assert origins(search.step()) == origins(copy.step())


@pytest.mark.parametrize("name", [each for each in STRATEGIES if each != "random"])
def test_a_search_finds_better_rules(name):
    """In the median: one short search may be unlucky."""
    gains = []
    for seed in range(11, 16):
        search = started(name, seed=seed, population=20)
        seeds = {each.candidate.id for each in problem().seeds}
        for _ in search.steps(8):
            pass
        objectives = {id_: each.evaluation.objective for id_, each in search.archive.items()}
        gains.append(max(objectives.values()) - max(objectives[each] for each in seeds))
    assert median(gains) > 0.02


@pytest.mark.parametrize("generations", [6, 9, 13])
def test_a_restored_search_starts_anew_as_the_original(monkeypatch, generations):
    """A search that has come to rest forgets what it knew; a restored one must forget the same."""
    monkeypatch.setattr(genetic, "_PATIENCE", 2)
    searched = problem(seed=3, population=60)
    original = Search(make_strategy("genetic", searched), {})
    for _ in original.steps(generations):
        pass
    copy = original.restored("genetic", searched)
    assert original.strategy.state()["epoch"] >= 1
    for mine, theirs in zip(original.steps(4), copy.steps(4), strict=True):
        assert mine == theirs
    assert copy.strategy.state() == original.strategy.state()


def test_epochs_begin_at_random_and_now_and_then_with_the_best_of_all(monkeypatch):
    monkeypatch.setattr(genetic, "_PATIENCE", 1)
    search = Search(make_strategy("genetic", problem(seed=3, population=60)), {})
    begun: dict[int, set[str]] = {}
    for _ in range(16):
        epoch = search.strategy.state()["epoch"]
        begun.setdefault(epoch, {each.operator for each in search.step()})
    assert max(begun) > 3
    assert all(operators == {"newcomer"} for epoch, operators in begun.items() if epoch and epoch % 4 != 3)
    assert begun[3] - {"newcomer"}


@every_strategy
@pytest.mark.parametrize(
    "operators", [{"parameters": 1.0}, {"newcomer": 1.0}, {"crossover": 1.0}, {"refine": 1.0}]
)
def test_only_the_operators_of_the_problem_are_used(name, operators):
    searched = replace(problem(seed=12), operators=operators)
    search = Search(make_strategy(name, searched), {})
    made = [each for asked in search.steps(3) for each in asked if each.operator != "seed"]
    allowed = {*operators, "newcomer"} if name == "random" else set(operators)
    if operators == {"refine": 1.0}:
        # CMA-ES starts from a rule that was scored, so the first generation mutates parameters.
        allowed.add("parameters")
    assert {each.operator for each in made} <= allowed
    assert made or operators == {"crossover": 1.0}


@every_strategy
def test_no_search_opens_with_an_operator_of_no_weight(name):
    searched = replace(problem(seed=12, population=50), operators={**OPERATORS, "newcomer": 0.0})
    search = Search(make_strategy(name, searched), {})
    made = {each.operator for asked in search.steps(3) for each in asked}
    assert name == "random" or "newcomer" not in made
    assert len(made) > 1


def test_one_island_is_its_strategy():
    alone, island = started("genetic", seed=13), started("islands:1:genetic", seed=13)
    for _ in range(4):
        assert origins(alone.step()) == origins(island.step())


@pytest.mark.parametrize("name", ["", "none", "islands:", "islands:0:genetic", "islands:x", "genetic:2"])
def test_an_unknown_strategy_is_an_error_that_names_those_there_are(name):
    with pytest.raises(InputError, match="unknown strategy; expected one of genetic, random"):
        make_strategy(name, problem())
