"""What makes each strategy the one it is; what they share is in `test_strategies`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evolve.candidates import Candidate, Evaluation, Offspring, Scored, SplitScore
from evolve.configuration import RunConfig
from evolve.engine import search
from evolve.search import make_strategy
from evolve.search.base import RESOLUTION, rank_key
from evolve.search.earnings import operator_earnings
from evolve.search.fronts import dominates, objectives_of, pareto_front, rule_level, source_level
from evolve.search.islands import Islands
from evolve.search.map_elites import MapElites, cell_of
from evolve.search.nsga2 import Nsga2
from evolve.search.rates import OperatorRates
from evolve.setup import prepare_run
from evolve.signals import LEVELS
from evolve.store import create_run


def run(folder, strategy, generations=4, population=24, **changes):
    setup = prepare_run(
        RunConfig(strategy=strategy, generations=generations, population=population, **changes)
    )
    store = create_run(strategy.replace(":", "-"), setup.resolved(), folder)
    return setup, search(setup, store), store


def evaluated(objective, complexity=10, name="a", operator="seed", parents=(), retention=0.99, status="ok"):
    score = SplitScore(objective, objective, 2.0, retention, 16.0, objective, objective)
    evaluation = Evaluation(status, train=score if status == "ok" else None, complexity=complexity)
    return Scored(Offspring(Candidate(name), operator, parents), evaluation)


@pytest.mark.parametrize("strategy", ["genetic", "hillclimb", "map-elites", "nsga2", "random"])
def test_one_island_is_its_strategy_byte_for_byte(tmp_path, strategy):
    alone = run(tmp_path, strategy)[2]
    island = run(tmp_path, f"islands:1:{strategy}")[2]
    assert (alone.path / "journal.jsonl").read_bytes() == (island.path / "journal.jsonl").read_bytes()
    assert (alone.path / "champion.json").read_bytes() == (island.path / "champion.json").read_bytes()


@pytest.mark.parametrize(("population", "openings"), [(500, 2), (1000, 1)])
def test_about_a_thousand_random_rules_open_a_search(population, openings):
    search = make_strategy("genetic", replace(prepare_run(RunConfig()).problem, population=population))
    random_ones = []
    for generation in range(3):
        asked = search.ask()
        random_ones.append(all(each.operator == "newcomer" for each in asked))
        score = SplitScore(0.5, 0.5, 2.0, 0.99, 16.0, 0.5, 0.5)
        search.tell([Scored(each, Evaluation("ok", train=score), generation) for each in asked])
    # The first generation has the seeds and what is made of them.
    assert random_ones == [False, *([True] * (openings - 1)), *([False] * (3 - openings))]


def test_islands_divide_the_population_and_exchange_their_best():
    problem = replace(prepare_run(RunConfig()).problem, population=26)
    welcomed = []

    def make(part, novelty):
        inner = make_strategy("random", part)
        inner.welcome = lambda immigrants: welcomed.append((part.seed, immigrants))
        sizes.append(part.population)
        return inner

    sizes: list[int] = []
    islands = Islands(problem, make, 4)
    assert sizes == [7, 7, 6, 6]
    for generation in range(5):
        asked = islands.ask()
        islands.tell(
            [replace(evaluated(i / 100 + generation), offspring=each) for i, each in enumerate(asked)]
        )
        assert len(welcomed) == (4 if generation == 4 else 0)
    assert len({seed for seed, _ in welcomed}) == 4
    assert all(len(immigrants) == 1 for _, immigrants in welcomed)


def test_small_populations_have_fewer_islands():
    problem = replace(prepare_run(RunConfig()).problem, population=5)
    assert len(make_strategy("islands", problem).state()["islands"]) == 1


def test_hillclimb_has_one_parent_a_generation(tmp_path):
    _, outcome, _ = run(tmp_path, "hillclimb", generations=8)
    by_generation: dict[int, set[str]] = {}
    for each in outcome.scored:
        if each.offspring.operator not in ("seed", "newcomer", "refine") and each.generation:
            by_generation.setdefault(each.generation, set()).update(each.offspring.parents)
    assert by_generation
    assert all(len(parents) == 1 for parents in by_generation.values())
    assert not [each for each in outcome.scored if each.offspring.operator == "crossover"]


def test_hillclimb_starts_again_from_another_seed():
    problem = prepare_run(RunConfig()).problem
    climb = make_strategy("hillclimb", problem)
    asked = climb.ask()
    climb.tell([replace(evaluated(1.0 - i / 100), offspring=each) for i, each in enumerate(asked)])
    starts = [climb.state()["current"]]
    for _ in range(10):
        climb.tell([replace(evaluated(0.1), offspring=each) for each in climb.ask()])
        if climb.state()["current"] != starts[-1]:
            starts.append(climb.state()["current"])
    assert starts == [each.candidate.id for each in problem.seeds[:3]]


def test_the_grid_holds_the_best_of_each_cell(tmp_path):
    setup, outcome, _ = run(tmp_path, "map-elites")
    grid = MapElites(setup.problem)
    grid.welcome(outcome.scored)
    cells = {}
    for each in outcome.scored:
        cell = cell_of(each.evaluation)
        if cell is not None and (cell not in cells or rank_key(each) > rank_key(cells[cell])):
            cells[cell] = each
    assert grid.grid() == cells
    assert len(cells) > 5
    assert all(cell_of(each.evaluation) == cell for cell, each in cells.items())


def test_a_failure_has_no_cell_and_lossless_rules_share_one():
    assert cell_of(evaluated(0.5, status="failed").evaluation) is None
    assert cell_of(evaluated(0.5, retention=1.0).evaluation) == cell_of(
        evaluated(0.5, retention=1 - 1e-9).evaluation
    )


def test_the_front_of_nsga2_is_not_dominated_by_anything_it_found(tmp_path):
    setup, outcome, store = run(tmp_path, "nsga2", generations=6)
    templates = setup.problem.templates
    strategy = Nsga2(setup.problem)
    strategy.restore(store.snapshot().strategy, {each.candidate.id: each for each in outcome.scored})
    front = pareto_front(outcome.scored, templates)
    assert strategy.front() == [each.candidate.id for each in front]
    points = [objectives_of(each, templates) for each in front]
    assert len(set(points)) == len(points) > 1
    everything = [objectives_of(each, templates) for each in outcome.scored]
    assert not [one for one in points for other in everything if dominates(other, one)]
    assert all(any(one == other or dominates(one, other) for one in points) for other in everything)


@pytest.mark.parametrize(
    ("body", "level"),
    [
        ("model.relative_position > p.gradient_sensitivity", "metadata"),
        ("model.weight_std > p.limit", "statistics"),
        ("m.gradient_sensitivity > 0.5", "gradient"),
        ("model.loss / model.bits", "curves"),
        ('model.sensitivity("FP16") > model.depth', "curves"),
    ],
)
def test_a_rules_level_is_read_from_its_source(body, level):
    assert LEVELS[source_level(f"def allocate(model, p):\n    return {body}\n")] == level


def test_levels_see_what_plain_functions_and_bodies_read():
    problem = prepare_run(RunConfig(start_from=("all",))).problem
    levels = {each.change: LEVELS[rule_level(each.candidate, problem.templates)] for each in problem.seeds}
    assert levels["uniform_fp16"] == "metadata"
    assert levels["hybrid"] == "gradient"


def test_differences_by_rounding_are_ties_that_the_simpler_rule_wins():
    longer, simpler = evaluated(0.9 + RESOLUTION / 20, 30), evaluated(0.9, 10)
    assert rank_key(simpler) > rank_key(longer)
    assert rank_key(evaluated(0.9 + 2 * RESOLUTION, 30)) > rank_key(simpler)
    assert rank_key(evaluated(0.9, status="failed")) < rank_key(evaluated(-1.0))


def test_what_succeeds_is_tried_more_and_nothing_dies():
    rates = OperatorRates({"good": 1.0, "bad": 1.0, "never": 0.0})
    assert rates.shares() == {"good": 0.5, "bad": 0.5}
    for _ in range(50):
        rates.tell([("good", True), ("good", False), ("bad", False), ("bad", False), ("seed", True)] * 10)
    shares = rates.shares()
    assert shares["good"] > 0.7
    assert shares["bad"] > 0.1
    assert sum(shares.values()) == pytest.approx(1)
    copy = OperatorRates({"good": 1.0, "bad": 1.0, "never": 0.0})
    copy.restore(rates.state())
    assert copy.shares() == shares


def test_earnings_add_up_to_what_the_run_gained():
    seed = evaluated(0.5, name="seed")
    key = (seed.candidate.id,)
    better = evaluated(0.7, name="b", operator="parameters", parents=key)
    worse = evaluated(0.4, name="c", operator="parameters", parents=key)
    best = evaluated(0.75, name="d", operator="structure", parents=(better.candidate.id,))
    late = evaluated(0.6, name="e", operator="structure", parents=key)
    failed = evaluated(0.0, name="f", operator="structure", parents=key, status="failed")
    rows = {each.operator: each for each in operator_earnings([seed, better, worse, best, late, failed])}
    assert list(rows) == ["parameters", "structure", "seed"]
    assert rows["parameters"].earned == pytest.approx(0.2)
    assert rows["structure"].earned == pytest.approx(0.05)
    assert rows["seed"].earned == 0.0
    structure = rows["structure"]
    assert (structure.evaluations, structure.failures, structure.improved, structure.records) == (3, 1, 2, 1)
    assert structure.best_gain == pytest.approx(0.1)
    assert rows["seed"].best_gain is None


def test_a_newcomer_is_compared_with_the_best_before_it():
    form = evaluated(0.2, name="form")
    best = evaluated(0.9, name="best")
    drawn = [
        evaluated(objective, name=f"n{objective}", operator="newcomer", parents=(form.candidate.id,))
        for objective in (0.6, 0.95)
    ]
    rows = {each.operator: each for each in operator_earnings([form, best, drawn[0]])}
    assert (rows["newcomer"].improved, rows["newcomer"].records) == (0, 0)
    assert rows["newcomer"].best_gain == pytest.approx(-0.3)
    rows = {each.operator: each for each in operator_earnings([form, best, *drawn])}
    assert (rows["newcomer"].improved, rows["newcomer"].records) == (1, 1)
    assert rows["newcomer"].best_gain == pytest.approx(0.05)
    alone = {each.operator: each for each in operator_earnings(drawn[:1])}
    assert (alone["newcomer"].improved, alone["newcomer"].records) == (1, 1)
