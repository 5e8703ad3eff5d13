"""Scores rules as families: one parameter is swept, and each budget gets the allocation that suits it.

The parameter is swept over a grid on its own scale, and then twice more where a budget is crossed, by
steps finer each time, for every model by itself. Of all allocations met, a budget gets the one of most
bits within it; of several such the first met.

Shapes: C candidates of one source, G values of the swept parameter, M models, B budgets, L layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evolve.heuristics import Rule
from evolve.layer_groups import widest_of_groups
from evolve.objectives import Budgets, FloatArray, best_losses, share_of_best
from evolve.parameters import Parameter
from evolve.profiles import ModelProfile
from evolve.rule_calls import Failure, Task, allocate
from evolve.scoring import ROUNDING, ScoreTable, prepare
from evolve.views import BoolArray, ChoiceArray, ModelView

#: Values of the first sweep, places a later one tries at each crossing, and later ones.
_GRID = 64
_STEPS = 8
_ROUNDS = 2
#: Values that a fingerprint looks at.
_PROBED = 8
#: Elements of the largest array a rule makes at once.
_CHUNK_ELEMENTS = 70_000

NO_PRICE = Failure(
    "no price",
    "the rule declares no parameter that trades bits for loss, which the objective needs: "
    'sweep = "NAME" in the header of a code template, sweep="NAME" in @heuristic',
)


@dataclass(frozen=True)
class FamilyScores:
    """What C families give one model within B budgets: arrays of shape (C, B).

    Attributes:
        bits: Bits per weight of the allocation; of the narrowest one met where none is within the budget.
        losses: Its loss; where the objective relaxes budgets, interpolated to the budget.
        within: Whether it is within the budget.
        choices: Format index of each layer, (C, B, L).
    """

    bits: FloatArray
    losses: FloatArray
    within: BoolArray
    choices: ChoiceArray


class Families:
    """The models that families are scored on.

    Args:
        profiles: M models.
        level: The information level that rules may read.
        budgets: The budgets.
    """

    def __init__(self, profiles: Sequence[ModelProfile], level: str, budgets: Budgets) -> None:
        self.budgets = budgets
        self._limits = np.array(budgets.bits) * (1 + ROUNDING)
        self._profiles = tuple(profiles)
        self._views = [ModelView([each], level) for each in profiles]
        self.score_with(profiles)

    def score_with(self, truth: Sequence[ModelProfile]) -> None:
        """Score from now on with other models than those that rules see, of the same formats and layers."""
        self._tables: list[ScoreTable] = [
            prepare(each.num_params, each.own_bits, each.sensitivity) for each in truth
        ]
        self._truth = tuple(truth)

    def best(self) -> FloatArray:
        """Return (M, B) the least loss within each budget; NaN where no allocation is within it."""
        return np.array([best_losses(each, self.budgets) for each in self._truth])

    def evaluate(self, rule: Rule, task: Task) -> list[tuple[FloatArray, FloatArray, FloatArray] | Failure]:
        """Score C families of one source.

        Returns:
            For each family its (M, B) bits, losses, and shares of the best; or why it failed.
        """
        if task.sweep is None:
            return [NO_PRICE] * len(task.values)
        # Families that differ in the swept parameter alone are one.
        task, places = _distinct(task)
        best = self.best()
        found: list[tuple[FloatArray, FloatArray, FloatArray] | Failure] = []
        for result in self._scored(rule, task):
            if isinstance(result, Failure):
                found.append(result)
                continue
            bits, losses, within = result
            shares = share_of_best(np.where(within, losses, np.inf), best)
            found.append((bits, losses, shares))
        return [found[place] for place in places]

    def _scored(self, rule: Rule, task: Task) -> list[tuple[FloatArray, FloatArray, FloatArray] | Failure]:
        models = []
        for index in range(len(self._profiles)):
            scores = self.within(rule, task, index)
            if isinstance(scores, Failure):
                if len(task.values) == 1:
                    return [scores]
                # Whose fault it is shows only when each family is alone.
                alone = [self._scored(rule, replace(task, values=row[None])) for row in task.values]
                return [result for (result,) in alone]
            models.append((scores.bits, scores.losses, scores.within))
        bits, losses, within = (np.stack(each, axis=1) for each in zip(*models, strict=True))
        return list(zip(bits, losses, within, strict=True))

    def within(self, rule: Rule, task: Task, index: int) -> FamilyScores | Failure:
        """Return what C families give one of the models, by its index, or why one of them fails."""
        assert task.sweep is not None
        count = len(task.values)
        units = np.broadcast_to(np.linspace(0.0, 1.0, _GRID), (count, _GRID))
        first = self._sweep(rule, task, index, units)
        if isinstance(first, Failure):
            return first
        bits, losses, choices = first
        best = _pick(bits, losses, choices, self._limits)
        met = [(bits, losses)]
        for _ in range(_ROUNDS):
            low, high = _crossings(bits, units, self._limits)
            steps = np.linspace(0.0, 1.0, _STEPS + 2)[1:-1]
            inner = (low[..., None] + (high - low)[..., None] * steps).reshape(count, -1)
            more = self._sweep(rule, task, index, inner)
            if isinstance(more, Failure):
                return more
            best = _better(best, _pick(*more, self._limits))
            met.append(more[:2])
            # In order, so that neighbours are neighbours.
            everything = np.concatenate([units, inner], axis=1)
            order = np.argsort(everything, axis=1, kind="stable")
            units = np.take_along_axis(everything, order, axis=1)
            bits = np.take_along_axis(np.concatenate([bits, more[0]], axis=1), order, axis=1)
        if self.budgets.relaxed:
            bits, losses = (np.concatenate(each, axis=1) for each in zip(*met, strict=True))
            return _relaxed(best, bits, losses, self._limits)
        return best

    def _sweep(
        self, rule: Rule, task: Task, index: int, units: FloatArray
    ) -> tuple[FloatArray, FloatArray, ChoiceArray] | Failure:
        """Return bits and losses, (C, G), and choices, (C, G, L), at (C, G) places of the swept parameter."""
        choices = self._choices(rule, task, index, units)
        if isinstance(choices, Failure):
            return choices
        bits, losses = self._tables[index].totals(choices)
        return bits.reshape(units.shape), losses.reshape(units.shape), choices.reshape(*units.shape, -1)

    def _choices(self, rule: Rule, task: Task, index: int, units: FloatArray) -> ChoiceArray | Failure:
        assert task.sweep is not None
        values = np.repeat(task.values, units.shape[1], axis=0)
        values[:, task.names.index(task.sweep.name)] = _values(task.sweep, units)
        view = self._views[index]
        size = max(1, _CHUNK_ELEMENTS // (view.num_layers * len(view.formats)))
        parts = []
        for start in range(0, len(values), size):
            part = allocate(rule, view, task.names, values[start : start + size])
            if isinstance(part, Failure):
                return part
            parts.append(part)
        return widest_of_groups(np.concatenate(parts), self._profiles[index].tied_layers)

    def behaviours(self, rule: Rule, task: Task) -> list[str]:
        """Fingerprint C families of one source; equal where all that was looked at is equal."""
        if task.sweep is None:
            return [NO_PRICE.reason] * len(task.values)
        digests = [hashlib.blake2b(digest_size=12) for _ in task.values]
        units = np.broadcast_to(np.linspace(0.0, 1.0, _PROBED + 2)[1:-1], (len(task.values), _PROBED))
        for index in range(len(self._profiles)):
            choices = self._choices(rule, task, index, units)
            if isinstance(choices, Failure):
                if len(task.values) == 1:
                    return [choices.reason]
                return [self.behaviours(rule, replace(task, values=row[None]))[0] for row in task.values]
            for digest, rows in zip(digests, np.split(choices, len(digests)), strict=True):
                digest.update(rows.tobytes())
        return [digest.hexdigest() for digest in digests]


def _distinct(task: Task) -> tuple[Task, list[int]]:
    """Return a task without families that differ in the swept parameter alone, and where each stands."""
    assert task.sweep is not None
    others = task.values.copy()
    others[:, task.names.index(task.sweep.name)] = task.sweep.default
    rows = [row.tobytes() for row in others]
    known = {row: place for place, row in enumerate(dict.fromkeys(rows))}
    first = [rows.index(row) for row in known]
    return replace(task, values=others[first]), [known[row] for row in rows]


def _values(parameter: Parameter, units: FloatArray) -> FloatArray:
    """Return the values at places from 0 to 1 on a parameter's own scale."""
    low, high = parameter.low, parameter.high
    places: list[float] = units.ravel().tolist()
    # Python's own power: numpy's may round otherwise where more values stand beside one.
    if parameter.scale == "log":
        values = [low * (high / low) ** place for place in places]
    else:
        values = [low + (high - low) * place for place in places]
    return np.asarray(np.clip(values, low, high))


def _pick(bits: FloatArray, losses: FloatArray, choices: ChoiceArray, limits: FloatArray) -> FamilyScores:
    """Return for C families and each budget the allocation of most bits within it; of G met, (C, G)."""
    fits = bits[:, None, :] <= limits[:, None]
    within: BoolArray = np.asarray(fits.any(axis=2))
    most = np.where(fits, bits[:, None, :], -np.inf).argmax(axis=2)
    place = np.where(within, most, bits.argmin(axis=1)[:, None])
    rows = np.arange(len(bits))[:, None]
    return FamilyScores(bits[rows, place], losses[rows, place], within, choices[rows, place])


def _better(one: FamilyScores, other: FamilyScores) -> FamilyScores:
    """Return for each family and budget the allocation of more bits within it, the first one at a tie."""
    nearer = np.where(one.within, other.within & (other.bits > one.bits), other.bits < one.bits)
    return FamilyScores(
        np.where(nearer, other.bits, one.bits),
        np.where(nearer, other.losses, one.losses),
        np.where(nearer, other.within, one.within),
        np.where(nearer[..., None], other.choices, one.choices),
    )


def _relaxed(best: FamilyScores, bits: FloatArray, losses: FloatArray, limits: FloatArray) -> FamilyScores:
    """Return the scores with losses interpolated to the budgets; of G allocations met, (C, G)."""
    above = np.where(bits[:, None, :] > limits[:, None], bits[:, None, :], np.inf)
    rows, place = np.arange(len(bits))[:, None], above.argmin(axis=2)
    nearest, its_loss = above.min(axis=2), losses[rows, place]
    between = best.within & np.isfinite(nearest)
    part = np.where(between, limits - best.bits, 0.0) / np.where(between, nearest - best.bits, 1.0)
    return replace(best, losses=best.losses + part * (its_loss - best.losses))


def _crossings(bits: FloatArray, units: FloatArray, limits: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (C, B) between which places of the swept parameter each budget is crossed.

    Beside the allocations of most bits within the budget, the side where they go beyond it; where none
    does, the place itself, from which nothing is learnt.
    """
    fits = bits[:, None, :] <= limits[:, None]
    best = np.where(fits, bits[:, None, :], -np.inf)
    first = best.argmax(axis=2)
    last = bits.shape[1] - 1 - best[..., ::-1].argmax(axis=2)
    after, before = np.minimum(last + 1, bits.shape[1] - 1), np.maximum(first - 1, 0)
    rows = np.arange(len(bits))[:, None]
    budgets = np.arange(len(limits))
    rises = ~fits[rows, budgets, after]
    falls = ~fits[rows, budgets, before] & ~rises
    low = np.where(rises, last, np.where(falls, before, first))
    high = np.where(rises, after, first)
    return units[rows, low], units[rows, high]
