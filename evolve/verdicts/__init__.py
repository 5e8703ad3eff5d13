"""Verdicts on a run, each from a measurement.

Does the champion overfit, is it luck, is it robust, what carried it, and is it better than what one
would do without a search? All is computed from what the run found and the models, with the run's seed:
the same run gives the same verdicts. Test is scored here to report on it; nothing is selected by it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from evolve.engine import Outcome
from evolve.price_fitting import PriceFit
from evolve.setup import Setup
from evolve.store import RunStore
from evolve.verdicts.alternatives import Alternatives, judge_alternatives
from evolve.verdicts.ancestry import Carriers, judge_carriers
from evolve.verdicts.control import control_search
from evolve.verdicts.luck import Luck, judge_luck
from evolve.verdicts.models import shares, splits_of
from evolve.verdicts.overfitting import Overfitting, generation_gaps, judge_overfitting
from evolve.verdicts.robustness import Robustness, judge_robustness

__all__ = ["Verdicts", "judge"]


@dataclass(frozen=True)
class Verdicts:
    """All that is judged of a run.

    Attributes:
        overfitting: Whether the champion overfits.
        luck: Whether it is luck.
        robustness: Whether it is robust.
        carriers: What carried it.
        alternatives: Whether it is better than what one would do without a search.
        failing: Splits that are left out because the champion fails there.
    """

    overfitting: Overfitting
    luck: Luck
    robustness: Robustness
    carriers: Carriers
    alternatives: Alternatives
    failing: tuple[str, ...]


def judge(
    store: RunStore, setup: Setup, outcome: Outcome, read: Collection[str] | None = None
) -> Verdicts | None:
    """Judge what a run found; None where no candidate worked.

    Args:
        store: The run, where a full control search is kept if there was one.
        setup: What was searched.
        outcome: What the search found.
        read: The parameters that the champion reads as readers see it, by name; None for all.
    """
    if outcome.champion is None:
        return None
    rule, templates = outcome.champion.candidate, setup.problem.templates
    seed = setup.config.seed
    every = splits_of(setup.dataset, setup.config.signals, setup.arena.budgets)
    measured = {split.name: shares([rule], templates, split.arena)[0] for split in every}
    failing = tuple(name for name, values in measured.items() if np.isnan(values).any())
    splits = [split for split in every if split.name not in failing]
    champion = {split.name: measured[split.name] for split in splits}
    gaps = generation_gaps(outcome.generations, outcome.scored)
    if setup.arena.shared:
        gaps = ()
    prices = setup.problem.prices
    if prices is None and setup.arena.budgets is None:  # rules for budgets are swept over all prices as it is
        prices = PriceFit(setup.dataset.train, setup.config.signals, templates)
    return Verdicts(
        overfitting=judge_overfitting(champion, seed, gaps),
        luck=judge_luck(outcome, control_search(store, setup), templates, splits, champion, seed),
        robustness=judge_robustness(rule, templates, splits, champion, seed),
        carriers=judge_carriers(outcome, templates, splits, champion, read, prices),
        alternatives=judge_alternatives(champion, splits, seed),
        failing=failing,
    )
