"""Budgets, floors, the Pareto front and rules within them: against brute force and published optima."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import constrained_profiles

from evolve import constraints
from evolve.budgets import Budget, Cost, find_cost, loss_of, parse_budget, parse_floor
from evolve.constraints import best_uniform, best_within, cliff, keeps
from evolve.datasets import find_dataset
from evolve.errors import BudgetError
from evolve.optimum import optimum
from evolve.pareto import front_to_csv, front_to_json, pareto_front, within
from evolve.profiles import ModelProfile
from evolve.questions import answer_to_json, ask, ask_front, solve_question
from evolve.scoring import cliff_fitness

HAWQ = find_dataset("hawqv3").train[0]
REFERENCE = find_dataset("reference")
COSTS = ("size", "latency_ms", "energy", "operations")


def every_allocation(profile: ModelProfile) -> NDArray[np.uint8]:
    """Return all allocations that keep the ties, (P, L)."""
    leaders = list(range(profile.num_layers))
    for group in profile.tied_layers:
        for layer in group:
            leaders[layer] = group[0]
    free = sorted(set(leaders))
    options = itertools.product(range(len(profile.formats)), repeat=len(free))
    return np.array([[chosen[free.index(at)] for at in leaders] for chosen in options], dtype=np.uint8)


def totals(cost: Cost, every: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.array([sum(cost.table[layer, at] for layer, at in enumerate(each)) for each in every])


def assert_the_best(profile: ModelProfile, goal: Cost, budgets: tuple[Budget, ...]) -> None:
    """Compare with brute force: the least value, a bound that holds, or nothing at all."""
    every = every_allocation(profile)
    fitting = np.array([keeps(each, budgets) for each in every])
    values = totals(goal, every)
    if not fitting.any():
        with pytest.raises(BudgetError, match=r"nothing keeps this budget.*expected at (least|most)"):
            best_within(goal, budgets, profile.tied_layers)
        return
    best = best_within(goal, budgets, profile.tied_layers)
    assert keeps(best.choices, budgets)
    assert (every == best.choices).all(axis=1).any()
    least = values[fitting].min()
    assert best.value == pytest.approx(least, rel=1e-9, abs=1e-12)
    assert best.bound <= least + 1e-9 * abs(least)
    assert best.proven or best.value < 1e-9


class TestAgainstBruteForce:
    @settings(max_examples=150)
    @given(constrained_profiles(max_layers=6), st.sampled_from(COSTS), st.data())
    def test_the_best_retention_within_one_budget(self, profile, name, data):
        cost = find_cost(profile, name)
        reached = totals(cost, every_allocation(profile))
        most = data.draw(st.sampled_from(reached.tolist())) * data.draw(st.sampled_from([0.9, 1.0, 1.1]))
        assert_the_best(profile, loss_of(profile), (Budget(cost, most),))

    @settings(max_examples=150)
    @given(constrained_profiles(max_layers=6), st.sampled_from(COSTS), st.data())
    def test_the_least_cost_above_a_floor(self, profile, name, data):
        reached = np.exp(-totals(loss_of(profile), every_allocation(profile)))
        floor = data.draw(st.sampled_from(reached.tolist())) * data.draw(st.sampled_from([0.9, 1.0, 1.1]))
        assume(0 < floor <= 1)
        assert_the_best(profile, find_cost(profile, name), (parse_floor(floor, profile),))

    @settings(max_examples=100)
    @given(constrained_profiles(max_layers=5), st.data())
    def test_several_budgets(self, profile, data):
        names = data.draw(st.lists(st.sampled_from(COSTS), min_size=2, max_size=3, unique=True))
        costs = [find_cost(profile, name) for name in names]
        example = every_allocation(profile)[-1 if data.draw(st.booleans()) else 0]
        slack = st.sampled_from([0.7, 0.95, 1.0, 1.2, 1.5])
        budgets = tuple(Budget(each, each.total(example) * data.draw(slack)) for each in costs)
        assert_the_best(profile, loss_of(profile), budgets)

    @settings(max_examples=100)
    @given(constrained_profiles(max_layers=5), st.floats(0.3, 1), st.floats(0.1, 1.2))
    def test_a_floor_and_a_budget(self, profile, floor, share):
        latency = find_cost(profile, "latency")
        budgets = (parse_floor(floor, profile), Budget(latency, share * float(latency.table.max(1).sum())))
        assert_the_best(profile, find_cost(profile, "size"), budgets)

    @settings(max_examples=100)
    @given(constrained_profiles(max_layers=5), st.floats(0.3, 1))
    def test_of_equal_cost_the_one_that_retains_most(self, profile, floor):
        try:
            answer = solve_question(ask(profile, retention=floor))
        except BudgetError:
            return
        every = every_allocation(profile)
        sizes, losses = (totals(each, every) for each in (find_cost(profile, "size"), loss_of(profile)))
        fitting = losses <= -math.log(floor) * (1 + 1e-12)
        least = sizes[fitting].min()
        assert answer.best.value == pytest.approx(least, rel=1e-9)
        equal = fitting & (sizes <= least * (1 + 1e-12))
        assert loss_of(profile).total(answer.choices) == pytest.approx(
            losses[equal].min(), rel=1e-9, abs=1e-12
        )

    @settings(max_examples=100)
    @given(constrained_profiles(max_layers=6, max_sensitivity=0.1))
    def test_the_cliff(self, profile):
        every = every_allocation(profile)
        raw = 32 * profile.total_params
        ratio = raw / totals(Cost("", profile.num_params[:, None] * profile.bits_table), every)
        fitness = cliff_fitness(ratio, np.exp(-totals(loss_of(profile), every)))
        best = cliff(profile)
        assert best.value == pytest.approx(fitness.max(), rel=1e-9)
        assert best.proven
        if profile.layer_bits is None:
            found = optimum(
                profile.num_params, profile.bits, profile.sensitivity, tied_layers=profile.tied_layers
            )
            assert best.value == pytest.approx(found.fitness, rel=1e-12)

    @settings(max_examples=100)
    @given(constrained_profiles(max_layers=6), st.sampled_from(COSTS))
    def test_the_whole_front(self, profile, name):
        cost = find_cost(profile, name)
        every = every_allocation(profile)
        costs, losses = totals(cost, every), totals(loss_of(profile), every)
        front = pareto_front(profile, cost)
        assert front.complete
        assert (np.diff(front.costs) > 0).all()
        assert (np.diff(front.losses) < 0).all()
        for choices, total, loss in zip(front.choices, front.costs, front.losses, strict=True):
            assert (every == choices).all(axis=1).any()
            assert total == pytest.approx(cost.total(choices))
            beaten = (costs < total * (1 - 1e-9) - 1e-12) & (losses < loss * (1 - 1e-9) - 1e-12)
            assert not beaten.any()
        for total, loss in zip(costs, losses, strict=True):
            reached = (front.costs <= total * (1 + 1e-9) + 1e-12) & (
                front.losses <= loss * (1 + 1e-9) + 1e-12
            )
            assert reached.any()

    @given(constrained_profiles(max_layers=6), st.sampled_from(COSTS))
    def test_a_front_of_too_many_points_is_the_hull(self, profile, name):
        cost = find_cost(profile, name)
        whole, hull = pareto_front(profile, cost), pareto_front(profile, cost, most_points=0)
        assert not hull.complete
        for total, loss in zip(whole.costs, whole.losses, strict=True):
            line = np.interp(total, hull.costs, hull.losses)
            assert loss >= line - 1e-9 * (1 + abs(line))


class TestMeasuredNetwork:
    """A ResNet-18 with published measurements and separately proven optima (HAWQ-V3, Yao 2021)."""

    @pytest.mark.parametrize(
        ("name", "budget"),
        [
            ("model_size", "size={}MB"),
            ("bops", "bit_operations={}"),
            ("bops", "operations={}"),
            ("latency", "latency_ms={}"),
            ("latency", "latency={}ms"),
        ],
    )
    def test_proven_allocation(self, name: str, budget: str) -> None:
        expected = HAWQ.provenance["optimal"][name]
        answer = solve_question(ask(HAWQ, [budget.format(expected["limit"])]))
        assert list(answer.allocation().formats) == expected["formats"]
        assert answer.best.proven
        assert answer.best.value == pytest.approx(expected["loss"], rel=1e-9)
        (cost,) = (each["used"] for each in answer_to_json(answer)["budgets"])
        assert cost == pytest.approx(expected["cost"], rel=1e-9)

    def test_all_three_budgets_at_once(self) -> None:
        limits = {name: each["limit"] for name, each in HAWQ.provenance["optimal"].items()}
        written = [f"size={limits['model_size']}MB", f"bops={limits['bops']}", f"latency={limits['latency']}"]
        written[1] = f"operations={limits['bops']}"
        answer = solve_question(ask(HAWQ, written))
        assert answer.best.proven
        assert keeps(answer.choices, answer.question.budgets)
        losses = [each["loss"] for each in HAWQ.provenance["optimal"].values()]
        assert answer.best.value >= max(losses) * (1 - 1e-9)


class TestBudgets:
    @pytest.mark.parametrize(
        ("written", "name", "most"),
        [
            ("size=1000", "size", 8000),
            ("size=1000B", "size", 8000),
            ("size = 8.4 MB", "size", 8.4e6 * 8),
            ("size<=2MiB", "size", 2**24),
            ("avg_bits=4.5", "avg_bits", 4.5 * HAWQ.total_params),
            ("bits=4.5", "avg_bits", 4.5 * HAWQ.total_params),
            ("latency_ms=4.2", "latency_ms", 4.2),
            ("latency=4.2ms", "latency_ms", 4.2),
            ("latency=4200us", "latency_ms", 4.2),
            ("latency=0.0042s", "latency_ms", 4.2),
            ("operations=6.6e1", "bit_operations", 66),
            ("million_operations=2000", "million_operations", 2000),
        ],
    )
    def test_as_people_write_them(self, written: str, name: str, most: float) -> None:
        budget = parse_budget(written, HAWQ)
        assert budget.cost.name == name
        assert budget.most == pytest.approx(most, rel=1e-12)

    @pytest.mark.parametrize(
        ("written", "words"),
        [
            ("8MB", ["bad budget", "COST=NUMBER"]),
            ("size=much", ["bad budget"]),
            ("size=8XB", ["unknown unit", "MiB", "XB"]),
            ("size=8ms", ["unknown unit"]),
            ("size=-8MB", ["more than 0"]),
            ("size=0", ["more than 0"]),
            ("avg_bits=4MB", ["unknown unit", "bits per weight"]),
            ("latency=4MB", ["unknown unit", "s, ms, us"]),
            ("operations=4ms", ["unknown unit", "without a unit"]),
            ("latncy=4", ["unknown cost", "Did you mean 'latency_ms'"]),
            ("retention=0.9", ["Give --retention FLOOR"]),
            ("siz=4", ["unknown cost", "Did you mean 'size'"]),
        ],
    )
    def test_refusals(self, written: str, words: list[str]) -> None:
        with pytest.raises(BudgetError) as caught:
            parse_budget(written, HAWQ)
        for word in ["--budget", *words]:
            assert word in str(caught.value)

    def test_a_word_of_several_costs_is_refused(self) -> None:
        costs = {"latency_ms": np.arange(38.0).reshape(19, 2), "latency_gpu": np.arange(38.0).reshape(19, 2)}
        both = dataclasses.replace(HAWQ, costs=costs)
        with pytest.raises(BudgetError, match=r"several.*Name one of latency_gpu, latency_ms"):
            parse_budget("latency=4", both)

    def test_a_size_of_the_profile_comes_first(self) -> None:
        own = dataclasses.replace(HAWQ, costs={"size": np.ones((19, 2))})
        assert parse_budget("size=20", own).most == 20

    @given(constrained_profiles(), st.sampled_from(["size", "avg_bits", "latency"]))
    def test_the_least_that_is_named_is_enough(self, profile, name):
        cost = find_cost(profile, name)
        assume(cost.table.min() > 1e-3)
        with pytest.raises(BudgetError) as caught:
            solve_question(ask(profile, [f"{name}=1e-9"]))
        least = str(caught.value.expected).removeprefix("at least ").replace(" ", "")
        answer = solve_question(ask(profile, [f"{name}={least}"]))
        smallest = best_within(cost, (), profile.tied_layers).value
        assert cost.total(answer.choices) == pytest.approx(smallest, rel=1e-5)

    @given(constrained_profiles())
    def test_the_most_retention_that_is_named_is_reached(self, profile):
        most = math.exp(-best_within(loss_of(profile), (), profile.tied_layers).value)
        assume(most < 0.999)
        with pytest.raises(BudgetError) as caught:
            solve_question(ask(profile, retention=1.0))
        named = float(str(caught.value.expected).removeprefix("at most "))
        assert named == pytest.approx(most, rel=1e-5)
        solve_question(ask(profile, retention=named))

    def test_the_budget_out_of_reach_beside_others_is_named(self) -> None:
        budgets = (
            Budget(find_cost(HAWQ, "latency"), 3.2),
            parse_floor(0.28, HAWQ),
            parse_budget("size=5.58MB", HAWQ),
        )
        words = r"size: nothing keeps .* with latency_ms 3.2 ms and retention 0.28; expected at least"
        with pytest.raises(BudgetError, match=words):
            best_within(loss_of(HAWQ), budgets)

    def test_contradictions(self) -> None:
        with pytest.raises(BudgetError, match="given twice"):
            ask(HAWQ, ["size=8MB", "size=9MB"])
        with pytest.raises(BudgetError, match=r"--minimise.*Give --retention"):
            ask(HAWQ, minimise="size")
        for floor in (0.0, 1.5, -1.0, math.nan):
            with pytest.raises(BudgetError, match=r"--retention.*above 0 and at most 1"):
                ask(HAWQ, retention=floor)
        with pytest.raises(BudgetError, match="nothing to minimise"):
            ask(HAWQ, retention=0.9, minimise="million_operations")


def test_what_runs_out_of_time_is_still_no_worse_than_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraints, "TIME_LIMIT", 0.0)
    rng = np.random.default_rng(3)
    params, bits = np.round(10 ** rng.uniform(3, 7, 60)), np.array([2.0, 3, 4, 6, 8])
    loss = Cost("retention", rng.uniform(0.5, 1.5, (60, 5)) * 2.0**-bits)
    size = Cost("size", params[:, None] * bits)
    other = Cost("other", rng.uniform(0.5, 1.5, (60, 1)) * bits)
    budgets = (Budget(size, 4 * params.sum()), Budget(other, 1.02 * other.total(np.full(60, 2))))
    best = best_within(loss, budgets)
    uniform = best_uniform(loss, budgets)
    assert uniform is not None
    assert keeps(best.choices, budgets)
    assert best.bound <= best.value <= loss.total(uniform)


class TestFronts:
    def test_of_the_measured_network(self) -> None:
        front = ask_front(HAWQ, ["latency=4.25ms"], retention=0.5)
        assert front.complete
        assert front.costs[-1] <= 4.25
        assert front.losses[0] <= -math.log(0.5) * (1 + 1e-9)
        limit = HAWQ.provenance["optimal"]["latency"]["limit"]
        fitting = front.costs <= limit
        best = HAWQ.provenance["optimal"]["latency"]["loss"]
        assert front.losses[fitting].min() == pytest.approx(best, rel=1e-9)

    def test_json_and_csv_say_the_same(self) -> None:
        front = pareto_front(HAWQ, find_cost(HAWQ, "size"))
        found = front_to_json(front, HAWQ)
        heading, *rows = front_to_csv(front, HAWQ).splitlines()
        assert heading.split(",")[:4] == ["size_MB", "retention", "loss", "layer_0"]
        assert len(rows) == len(found["points"]) == len(front.costs)
        for row, point in zip(rows, found["points"], strict=True):
            assert row.split(",")[3:] == point["formats"]
            assert float(row.split(",")[1]) == point["retention"]
        assert found["points"][0]["cost"] == pytest.approx(5.578752)
        assert within(front, ()).costs.tolist() == front.costs.tolist()

    def test_only_its_own_cost_can_be_limited(self) -> None:
        with pytest.raises(BudgetError, match="another cost"):
            ask_front(HAWQ, ["size=8MB", "latency=4"])
        with pytest.raises(BudgetError, match="nothing keeps this budget"):
            ask_front(HAWQ, ["size=5MB"])
