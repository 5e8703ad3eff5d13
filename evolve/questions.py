"""What people ask of a model, and the answer: an allocation, its proof, the best uniform format beside it.

Shapes: L layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evolve.allocations import Allocation, allocation_of, allocation_to_json, predict
from evolve.budgets import (
    AVG_BITS,
    RETENTION,
    SIZE,
    Budget,
    Cost,
    find_cost,
    loss_of,
    parse_budgets,
    parse_floor,
)
from evolve.constraints import PROVEN, Best, Choices, best_uniform, best_within, cliff
from evolve.errors import BudgetError
from evolve.pareto import Front, pareto_front, within
from evolve.profiles import ModelProfile
from evolve.ruled import NamedRule, Ruling, rule_as_it_is, rule_within
from evolve.scoring import THRESHOLD, cliff_fitness


@dataclass(frozen=True, eq=False)
class Question:
    """What is wanted of a model.

    Attributes:
        profile: The model.
        goal: What is minimised; None for the fitness with its cliff.
        budgets: What is limited; a floor of the retention is a budget of the loss.
    """

    profile: ModelProfile
    goal: Cost | None
    budgets: tuple[Budget, ...] = ()

    def words(self) -> str:
        """Return the question in words."""
        if self.goal is None:
            return f"the highest fitness with the cliff at {THRESHOLD:g}"
        wanted = "the best retention" if self.goal.name == RETENTION else f"the least {self.goal.name}"
        limits = [
            f"{each.cost.name} {'at least' if each.cost.name == RETENTION else 'at most'} "
            f"{each.cost.words(each.most)}"
            for each in self.budgets
        ]
        return f"{wanted} with {' and '.join(limits)}" if limits else wanted


@dataclass(frozen=True, eq=False)
class Answer:
    """An allocation, and what it is worth.

    Attributes:
        question: What was asked.
        choices: Format index of each layer, (L,).
        best: The proven best: of the question, or for a rule, of all that costs no more than the rule's.
        uniform: The best allocation with one format everywhere, (L,); None where none keeps the budgets.
        source: What made the allocation.
        ruling: What a rule gave, where one was asked.
        notes: What people must know about it.
    """

    question: Question
    choices: Choices
    best: Best
    uniform: Choices | None
    source: str
    ruling: Ruling | None = None
    notes: tuple[str, ...] = ()

    def allocation(self) -> Allocation:
        """Return the allocation as data that travels."""
        return allocation_of(self.question.profile, self.choices, self.source)


def ask(
    profile: ModelProfile,
    budgets: Sequence[str] = (),
    retention: float | None = None,
    minimise: str | None = None,
) -> Question:
    """Return the question that people's words make.

    Args:
        profile: The model.
        budgets: Such as ``size=8.4MB``.
        retention: A floor; a cost is then minimised.
        minimise: That cost; ``size`` by default.

    Raises:
        BudgetError: Something is badly written, unknown or contradictory.
    """
    limits = parse_budgets(budgets, profile)
    if retention is None and minimise is None:
        return Question(profile, loss_of(profile) if limits else None, limits)
    if retention is None:
        cure = "Give --retention FLOOR, or leave --minimise out for the best retention within budgets."
        raise BudgetError("a cost is minimised under a floor", field="--minimise", found=minimise, cure=cure)
    goal = find_cost(profile, minimise or SIZE, "--minimise")
    if minimise is not None and not np.ptp(goal.table, axis=1).any():
        words = "a cost that differs from format to format"
        raise BudgetError("nothing to minimise", field="--minimise", expected=words, found=goal.name)
    return Question(profile, goal, (parse_floor(retention, profile), *limits))


def solve_question(question: Question) -> Answer:
    """Return the best allocation there is, with its proof.

    Raises:
        BudgetError: Nothing keeps the budgets.
    """
    profile, goal = question.profile, question.goal
    source = f"evolve allocate: {question.words()}"
    if goal is None:
        return Answer(question, (best := cliff(profile)).choices, best, _uniform_at_cliff(profile), source)
    best = best_within(goal, question.budgets, profile.tied_layers)
    if goal.name != RETENTION and best.proven:
        # Of all that cost as little, the one that retains most.
        same = (Budget(goal, best.value), *question.budgets)
        choices = best_within(loss_of(profile), same, profile.tied_layers).choices
        best = Best(choices, goal.total(choices), min(best.bound, goal.total(choices)))
    return Answer(question, best.choices, best, best_uniform(goal, question.budgets), source)


def ask_rule(
    question: Question,
    rule: NamedRule,
    level: str = "curves",
    swept: str | None = None,
    fall_back: bool = True,
) -> Answer:
    """Return what a rule gives, beside the proven best that costs no more.

    Args:
        question: With budgets, the rule's price is set to keep them; else the rule is taken as it is.
        rule: The rule.
        level: The information level that the rule may read.
        swept: The parameter that is the rule's price; found by what it does where none is named.
        fall_back: Hand out the best uniform format where the rule is worse than that.

    Raises:
        PluginError: The rule fails on this model, or has no price.
        BudgetError: The rule never keeps the budgets, or there are none to fit its price to.
    """
    profile = question.profile
    if swept is not None and not question.budgets:
        raise BudgetError("no budget to keep", field="--sweep", found=swept, cure="Give --budget too.")
    if question.budgets:
        ruling = rule_within(rule, profile, question.budgets, level, swept)
    else:
        ruling = rule_as_it_is(rule, profile, level)
    goal, budgets = question.goal or loss_of(profile), question.budgets
    if goal.name == RETENTION:
        # The rule's own size, within which it kept the other budgets.
        size = find_cost(profile, AVG_BITS)
        budgets = (*budgets, Budget(size, size.total(ruling.choices)))
    best = best_within(goal, budgets, profile.tied_layers)
    uniform = best_uniform(goal, budgets)
    numbers = ", ".join(f"{each.name} {each.default:.6g}" for each in ruling.rule.parameters)
    source = f"{rule.name} with {numbers}" if numbers else rule.name
    notes = [f"ties put {ruling.widened} layers in a wider format than {rule.name} did"]
    notes = notes if ruling.widened else []
    own, name = goal.total(ruling.choices), ""
    if uniform is not None and goal.total(uniform) < own - PROVEN * abs(own):
        name = profile.format_names[int(uniform[0])]
        facts = f"{goal.name} {goal.words(goal.total(uniform))} against {goal.words(own)}"
        notes.append(f"{rule.name} is worse than {name} everywhere, which takes no more: {facts}")
    if not (name and fall_back and uniform is not None):
        return Answer(question, ruling.choices, best, uniform, source, ruling, tuple(notes))
    notes.append(f"{name} everywhere is handed out")
    source = f"{name} everywhere, in place of {source}"
    return Answer(question, uniform, best, uniform, source, ruling, tuple(notes))


def _uniform_at_cliff(profile: ModelProfile) -> Choices:
    every = [np.full(profile.num_layers, at, dtype=np.uint8) for at in range(len(profile.formats))]
    return max(every, key=lambda each: _fitness(profile, each))


def _fitness(profile: ModelProfile, choices: Choices) -> float:
    found = predict(profile, choices)
    return float(cliff_fitness(32 / found["avg_bits"], found["retention"]))


def figures(question: Question, choices: Choices) -> dict[str, float]:
    """Return what an allocation is predicted to be and cost, by name."""
    found = predict(question.profile, choices)
    return {"fitness": _fitness(question.profile, choices), **found} if question.goal is None else found


def shortfall(answer: Answer) -> float:
    """Return how far at most the allocation is from the best there could be, as a share of that."""
    question, bound = answer.question, answer.best.bound
    goal = question.goal
    if goal is None and answer.ruling is None:
        return max(0.0, 1 - answer.best.value / bound) if bound else 0.0
    if goal is None or goal.name == RETENTION:
        return max(0.0, -math.expm1(bound - loss_of(question.profile).total(answer.choices)))
    value = goal.total(answer.choices)
    return max(0.0, (value - bound) / abs(value)) if value else 0.0


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """Return an answer as a JSON object: the allocation's own fields, and the proof."""
    question, profile = answer.question, answer.question.profile
    goal, ruling = question.goal, answer.ruling
    bounded = goal or (loss_of(profile) if ruling else None)
    found = allocation_to_json(answer.allocation())
    found["question"] = question.words()
    found["predicted"] = figures(question, answer.choices)
    found["budgets"] = [
        {
            "name": each.cost.name,
            "limit": each.cost.amount(each.most),
            "used": each.cost.amount(each.cost.total(answer.choices)),
            "unit": each.cost.unit,
        }
        for each in question.budgets
    ]
    found["optimum"] = {
        "goal": bounded.name if bounded else "fitness",
        "value": bounded.amount(answer.best.value) if bounded else answer.best.value,
        "bound": bounded.amount(answer.best.bound) if bounded else answer.best.bound,
        "unit": bounded.unit if bounded else "",
        "proven": answer.best.proven,
        "predicted": figures(question, answer.best.choices),
        "formats": [profile.format_names[index] for index in answer.best.choices],
    }
    found["shortfall"] = shortfall(answer)
    found["uniform"] = None
    if answer.uniform is not None:
        name = profile.format_names[int(answer.uniform[0])]
        found["uniform"] = {"format": name, "predicted": figures(question, answer.uniform)}
    if ruling is not None:
        found["rule"] = {
            "name": ruling.rule.name,
            "parameters": {each.name: each.default for each in ruling.rule.parameters},
            "swept": ruling.swept,
            "widened_by_ties": ruling.widened,
            "predicted": figures(question, ruling.choices),
            "handed_out": bool((ruling.choices == answer.choices).all()),
        }
    found["notes"] = list(answer.notes)
    return found


def ask_front(
    profile: ModelProfile,
    budgets: Sequence[str] = (),
    retention: float | None = None,
    minimise: str | None = None,
) -> Front:
    """Return the trade-offs of a cost against the retention, within budgets.

    Args:
        profile: The model.
        budgets: A budget of that cost, if any: what is beyond is left out.
        retention: A floor: what is below is left out.
        minimise: The cost; that of the budget by default, else the size.

    Raises:
        BudgetError: Something is badly written, or another cost is limited, or nothing is left.
    """
    limits = parse_budgets(budgets, profile)
    cost = (
        limits[0].cost if limits and minimise is None else find_cost(profile, minimise or SIZE, "--minimise")
    )
    for each in limits:
        if each.cost.name != cost.name:
            words = f"a budget of {cost.name}, which is what is traded"
            cure = f"Give --minimise {each.cost.name}, or leave --front out."
            raise BudgetError(
                "another cost", field="--budget", expected=words, found=each.cost.name, cure=cure
            )
    if retention is not None:
        limits = (*limits, parse_floor(retention, profile))
    if limits:
        best_within(cost, limits, profile.tied_layers)  # says so where nothing keeps them
    return within(pareto_front(profile, cost), limits)
