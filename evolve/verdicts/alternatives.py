"""Is the champion better than what one would do without a search?

Each alternative allocates for every model anew, knowing that model. What is left to choose, one price
or one budget for all models, is chosen on train.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolve.allocators import greedy, lagrangian_path, uniform
from evolve.evaluation import Arena, Failure, Task, optimum_share
from evolve.layer_groups import widest_of_groups
from evolve.optimum import minimise_cost
from evolve.profiles import ModelProfile
from evolve.scoring import score
from evolve.verdicts.bootstrap import Interval, mean_interval
from evolve.verdicts.budget_alternatives import Measure, budget_measures, uniform_within
from evolve.verdicts.models import FloatArray, Shares, Split
from evolve.verdicts.wording import listed, percent, points

UNIFORM = "best uniform format"
GREEDY = "greedy"
LAGRANGIAN = "Lagrangian, one global price"
INTEGER_PROGRAM = "integer program on gradient sensitivity"

#: `evolve.allocators.lagrangian` as a rule, which is evaluated at many prices in one call.
_LAGRANGIAN_RULE = """
def allocate(model, p):
    return model.cheapest(model.param_fraction * model.bits + p.price * model.loss)
"""
_PRICES = np.geomspace(1.0, 1e4, 81)
_BUDGETS = np.geomspace(1e-12, 1.0, 73)
#: Partial sums of the integer program; the fewest bits are found within about a thousandth.
_STATES = 200


@dataclass(frozen=True)
class AlternativeScore:
    """An alternative on one split.

    Attributes:
        split: ``train``, ``valid`` or ``test``.
        mean, worst: Its shares of the optimum.
        lead: Mean share of the champion minus that of the alternative.
        interval: Of the lead, models paired; None for a single model.
    """

    split: str
    mean: float
    worst: float
    lead: float
    interval: Interval | None


@dataclass(frozen=True)
class Alternative:
    """What one would do without a search.

    Attributes:
        name: What it is called.
        needs: What it has to measure or solve for each new model.
        scores: One a split.
    """

    name: str
    needs: str
    scores: tuple[AlternativeScore, ...]


@dataclass(frozen=True)
class Alternatives:
    """Whether the champion is better than what one would do without a search.

    Attributes:
        verdict: In words, by the split that selected least.
        better, equal, worse: Names of the alternatives that the champion beats, that it cannot be told
            from, and that beat it.
        rows: The alternatives.
        price: The Lagrangian's price, chosen on train; 0 within budgets, where each has its own.
        budget: The integer program's budget, as a part of the loss of the narrowest formats; 0 likewise.
    """

    verdict: str
    better: tuple[str, ...]
    equal: tuple[str, ...]
    worse: tuple[str, ...]
    rows: tuple[Alternative, ...]
    price: float
    budget: float


def judge_alternatives(champion: Shares, splits: Sequence[Split], seed: int) -> Alternatives:
    """Compare the champion with what one would do without a search.

    Args:
        champion: By split, its (M,) shares of the optimum.
        splits: The models; the first one is train.
        seed: Of the bootstrap.
    """
    if splits[0].arena.budgets is not None:
        # A price or a format for each model and budget: nothing is left to choose on train.
        return _judged(budget_measures(splits[0]), champion, splits, seed, 0.0, 0.0)
    price, budget = best_price(splits[0]), best_budget(splits[0].profiles, splits[0].arena.optimum_fitness)

    def by_table(allocate: Callable[..., NDArray[np.uint8]]) -> Callable[[Split], FloatArray]:
        return lambda split: _allocated(
            split, lambda each: allocate(each.num_params, each.own_bits, each.sensitivity)
        )

    measured: list[Measure] = [
        (UNIFORM, "one evaluation of the model a format", by_table(uniform)),
        (GREEDY, "its whole sensitivity table", by_table(greedy)),
        (LAGRANGIAN, "its whole sensitivity table", lambda split: _at_prices(split, np.array([price]))[0]),
        (
            INTEGER_PROGRAM,
            "its gradients, and a solver",
            lambda split: _allocated(split, lambda each: gradient_program(each, budget)),
        ),
    ]
    return _judged(measured, champion, splits, seed, price, budget)


def _judged(
    measured: Sequence[Measure],
    champion: Shares,
    splits: Sequence[Split],
    seed: int,
    price: float,
    budget: float,
) -> Alternatives:
    rows = []
    for name, needs, measure in measured:
        scores = tuple(_score(split.name, measure(split), champion[split.name], seed) for split in splits)
        rows.append(Alternative(name, needs, scores))
    groups: dict[str, list[str]] = {"better": [], "equal": [], "worse": []}
    for row in rows:
        groups[_comparison(row.scores[-1])].append(row.name)
    return Alternatives(
        _verdict(groups, rows, splits[-1], float(champion[splits[-1].name].mean())),
        tuple(groups["better"]),
        tuple(groups["equal"]),
        tuple(groups["worse"]),
        tuple(rows),
        price,
        budget,
    )


def uniform_shares(split: Split) -> FloatArray:
    """Return (M,) the share of the optimum that each model's best uniform format reaches."""
    if split.arena.budgets is not None:
        return uniform_within(split)
    return _allocated(split, lambda each: uniform(each.num_params, each.own_bits, each.sensitivity))


def _allocated(split: Split, allocate: Callable[[ModelProfile], NDArray[np.uint8]]) -> FloatArray:
    fitness = []
    for each in split.profiles:
        choices = widest_of_groups(allocate(each), each.tied_layers)
        fitness.append(score(choices, each.num_params, each.own_bits, each.sensitivity).fitness[0])
    return optimum_share(np.array(fitness), split.arena.optimum_fitness)


def best_price(train: Split) -> float:
    """Return the one price of loss that does best on train, among 81 over four decades."""
    return float(_PRICES[_best(_at_prices(train, _PRICES).mean(axis=1))])


def _at_prices(split: Split, prices: FloatArray) -> FloatArray:
    """Return (P, M) the Lagrangian's shares of the optimum at P prices."""
    arena = Arena(split.profiles)
    results = arena.evaluate(Task(_LAGRANGIAN_RULE, "", ("price",), prices[:, None]))
    fitness = [each.fitness for each in results if not isinstance(each, Failure)]
    return optimum_share(np.array(fitness), split.arena.optimum_fitness)


def _gradient_tables(profile: ModelProfile) -> tuple[FloatArray, FloatArray]:
    """Return (L, K) bits, and (L, K) the loss that gradients alone predict.

    The loss of a layer is its gradient sensitivity times the noise power of a uniform quantizer,
    4 to the minus bits (Widrow 1956), as in HAWQ-V3 (Yao 2021) without the size of the weights.
    """
    cost = profile.num_params[:, None] * profile.own_bits
    return cost, profile.gradient_sensitivity[:, None] * 4.0**-profile.own_bits


def gradient_program(profile: ModelProfile, budget: float) -> NDArray[np.uint8]:
    """Return the allocation of the fewest bits within a budget of the loss that gradients predict.

    Args:
        profile: The model.
        budget: The budget, as a part of the loss with every layer in the narrowest format.
    """
    cost, loss = _gradient_tables(profile)
    least, most = loss.min(axis=1).sum(), loss.max(axis=1).sum()
    limit = max(budget * most, least)
    return minimise_cost(cost, loss, limit, profile.tied_layers, state_limit=_STATES).allocation


def best_budget(profiles: Sequence[ModelProfile], optima: FloatArray) -> float:
    """Return the budget that does best on these models, where a Lagrangian stands in for the program."""
    found = np.empty((len(profiles), len(_BUDGETS)))
    for row, profile in zip(found, profiles, strict=True):
        cost, loss = _gradient_tables(profile)
        path = lagrangian_path(cost, loss)
        budgets = np.maximum(_BUDGETS * loss.max(axis=1).sum(), loss.min(axis=1).sum() * (1 + 1e-12))
        vertices = np.searchsorted(path.losses, budgets, side="right") - 1
        distinct, place = np.unique(np.maximum(vertices, 0), return_inverse=True)
        choices = np.array([path.vertex(int(each)) for each in distinct], dtype=np.uint8)
        choices = widest_of_groups(choices, profile.tied_layers)
        row[:] = score(choices, profile.num_params, profile.own_bits, profile.sensitivity).fitness[place]
    return float(_BUDGETS[_best((optimum_share(found, optima[:, None])).mean(axis=0))])


def _best(means: FloatArray) -> int:
    """Return the index of the largest mean; of equals the middle one, which has most room on both sides."""
    best = np.flatnonzero(means >= means.max() - 1e-12)
    return int(best[len(best) // 2])


def _score(split: str, found: FloatArray, champion: FloatArray, seed: int) -> AlternativeScore:
    lead = champion - found
    return AlternativeScore(
        split, float(found.mean()), float(found.min()), float(lead.mean()), mean_interval(lead, seed)
    )


def _comparison(found: AlternativeScore) -> str:
    # What is the same allocation differs by rounding at most.
    low, high = (
        (found.lead, found.lead) if found.interval is None else (found.interval.low, found.interval.high)
    )
    return "better" if low > 1e-9 else "worse" if high < -1e-9 else "equal"


def _verdict(groups: dict[str, list[str]], rows: Sequence[Alternative], split: Split, own: float) -> str:
    leads = {row.name: row.scores[-1].lead for row in rows}

    def told(names: Sequence[str]) -> str:
        return listed([f"{name} (by {points(leads[name])})" for name in names])

    where = f"On {split.name}"
    if len(split.profiles) == 1:
        where += ", which is a single model,"
    parts = []
    if groups["better"]:
        parts.append(f"is better than {told(groups['better'])}")
    if groups["equal"]:
        parts.append(f"cannot be told from {listed(groups['equal'])}")
    if groups["worse"]:
        parts.append(f"is worse than {told(groups['worse'])}")
    return f"{where} the rule, with {percent(own)} of the optimum, {listed(parts)}."
