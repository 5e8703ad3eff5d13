"""What rules and rivals choose on every network within every budget, before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evolve.profiles import ModelProfile
from evolve.rule_calls import Failure, compile_task
from evolve.views import ChoiceArray
from transfer_study.champions import Forms
from transfer_study.folds import Fold
from transfer_study.measuring import Choices
from transfer_study.rivals import exact_within, lagrangian_within, random_within, uniform_formats
from transfer_study.searching import BUDGETS, Found
from transfer_study.spending import implied_losses

UNIFORM = "best uniform format"
FISHER = "Lagrangian, Fisher"
FISHER_EXACT = "exact solver, Fisher"
KL = "Lagrangian, KL curves"
KL_EXACT = "exact solver, KL curves"
CHAMPION = "published champion's form"
RANDOM = "random, median of 9"
RIVALS = (UNIFORM, FISHER, FISHER_EXACT, KL, KL_EXACT, CHAMPION, RANDOM)


@dataclass(frozen=True)
class Proposal:
    """An allocation that somebody proposes.

    Attributes:
        way: Who.
        profile: The network.
        budget: Average bits allowed.
        choices: Format index of each layer, as bytes.
    """

    way: str
    profile: ModelProfile
    budget: float
    choices: Choices


def of_rule(way: str, found: Found, level: str, profiles: Sequence[ModelProfile]) -> Iterator[Proposal]:
    """Yield what a rule chooses where it can keep the budget, which is spent as its price implies."""
    task = found.task
    rule = compile_task(task)
    assert not isinstance(rule, Failure), "a finalist has run before"
    for profile in profiles:
        loss = implied_losses(rule, task, level, profile)
        for budget in () if loss is None else BUDGETS:
            choices = exact_within(profile, loss, budget)
            if choices is not None:
                yield Proposal(way, profile, budget, choices.tobytes())


def of_rivals(fold: Fold, forms: Forms, seed: int) -> Iterator[Proposal]:
    """Yield what the rivals choose on the networks left out: several of some, of which one will count."""
    for profile in fold.left_out:
        for place, budget in enumerate(BUDGETS):
            for way, choices in _single(profile, budget):
                if choices is not None:
                    yield Proposal(way, profile, budget, choices.tobytes())
            fitted = forms.choices(forms.fitted((*fold.training, *fold.choosing), place), profile, place)
            if fitted is not None:
                yield Proposal(CHAMPION, profile, budget, fitted.tobytes())
            for way, several in (
                (UNIFORM, uniform_formats(profile, budget)),
                (RANDOM, random_within(profile, budget, seed)),
            ):
                yield from (Proposal(way, profile, budget, each.tobytes()) for each in several)


def _single(profile: ModelProfile, budget: float) -> Iterator[tuple[str, ChoiceArray | None]]:
    fisher = profile.measurements["fisher_loss"]
    yield FISHER, lagrangian_within(profile, fisher, budget)
    yield FISHER_EXACT, exact_within(profile, fisher, budget)
    yield KL, lagrangian_within(profile, profile.loss, budget)
    yield KL_EXACT, exact_within(profile, profile.loss, budget)
