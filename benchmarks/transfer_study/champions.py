"""The form of the published champion, fitted to budgets: a ladder of two formats.

The published rule gives FP32 to LayerNorm, Classifier, a share of the layers at each end and those that
lose more than a threshold, and FP16 to the others. Neither fits into the budgets here. So its form is
given its best chance: for each budget the two formats and the share of the ends are those that do best
on the training families, and the threshold is set on each network to keep the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evolve.families import Families, FamilyScores
from evolve.objectives import Budgets, share_of_best
from evolve.parameters import Parameter
from evolve.profiles import ModelProfile
from evolve.python_source import compile_rule
from evolve.rule_calls import Failure, Task
from evolve.views import ChoiceArray

FloatArray = NDArray[np.float64]
_RULE = """
def allocate(model, p):
    return model.select(
        (model.is_type("LayerNorm", "Classifier"), "{wide}"),
        ((model.relative_position < {edge}) | (model.relative_position > {end}), "{wide}"),
        (model.sensitivity("{narrow}") > p.threshold, "{wide}"),
        otherwise="{narrow}",
    )
"""
_THRESHOLD = Parameter("threshold", 1e-3, 1e-9, 1.0, "log")
_EDGES = (0.0, 0.075)


@dataclass(frozen=True)
class Forms:
    """All forms on all networks.

    Attributes:
        profiles: M networks with the same K formats.
        budgets: B budgets.
    """

    profiles: Sequence[ModelProfile]
    budgets: Budgets

    @cached_property
    def sources(self) -> list[str]:
        """The form with any two formats and either share of the ends, F rules."""
        names = self.profiles[0].format_names
        return [
            _RULE.format(narrow=narrow, wide=wide, edge=edge, end=1 - edge)
            for at, narrow in enumerate(names)
            for wide in names[at + 1 :]
            for edge in _EDGES
        ]

    @cached_property
    def _scores(self) -> list[list[FamilyScores]]:
        families = Families(self.profiles, "curves", self.budgets)
        found = []
        for source in self.sources:
            task = Task(source, "", ("threshold",), np.array([[_THRESHOLD.default]]), _THRESHOLD)
            rule = compile_rule(source)
            row = [families.within(rule, task, at) for at in range(len(self.profiles))]
            assert not any(isinstance(each, Failure) for each in row)
            found.append([each for each in row if not isinstance(each, Failure)])
        return found

    @cached_property
    def _shares(self) -> FloatArray:
        """How near each form comes to the least sum of losses, (F, M, B); 0 beyond the budget."""
        best = Families(self.profiles, "curves", self.budgets).best()
        losses = np.array([[each.losses[0] for each in row] for row in self._scores])
        within = np.array([[each.within[0] for each in row] for row in self._scores])
        shares: FloatArray = np.where(within, share_of_best(losses, best), 0.0)
        return shares

    def fitted(self, training: Sequence[ModelProfile], budget: int) -> int:
        """Return which form does best on some of the networks within a budget, by its place."""
        names = {each.name for each in training}
        members = [at for at, each in enumerate(self.profiles) if each.name in names]
        return int(np.nanmean(self._shares[:, members, budget], axis=1).argmax())

    def choices(self, form: int, profile: ModelProfile, budget: int) -> ChoiceArray | None:
        """Return a form's allocation of one of the networks, (L,); None where it never keeps the budget."""
        scores = self._scores[form][list(self.profiles).index(profile)]
        return scores.choices[0, budget] if scores.within[0, budget] else None
