"""Evaluates rules on models: many parameter vectors of one source in one call.

In a group of tied layers every layer gets the widest format that the rule chooses for one of them; that
allocation is what is scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from evolve.candidates import SplitScore
from evolve.copies import altered_copies
from evolve.datasets import Dataset
from evolve.families import Families
from evolve.heuristics import Rule
from evolve.layer_groups import widest_of_groups
from evolve.objectives import Budgets
from evolve.optimum import Optimum, optimum
from evolve.profiles import ModelProfile
from evolve.rule_calls import Failure, Task, allocate, compile_task, template_failure
from evolve.scoring import THRESHOLD, Scores, ScoreTable, prepare
from evolve.views import ChoiceArray, ModelView

__all__ = [
    "Arena",
    "BudgetScores",
    "Failure",
    "ModelScores",
    "SearchArena",
    "Stack",
    "Task",
    "allocate",
    "optimum_of",
    "optimum_share",
    "summarise",
    "template_failure",
]

FloatArray = npt.NDArray[np.float64]
Members = npt.NDArray[np.intp] | slice
#: Share of the optimum on train from which on a rule is tried on altered copies too.
_WELL = 0.95
#: Elements of the largest array a rule makes at once, so that it stays in the processor's cache;
#: more parameter vectors go in chunks.
_CHUNK_ELEMENTS = 70_000


@lru_cache(maxsize=1024)
def optimum_of(profile: ModelProfile) -> Optimum:
    """Return a model's optimum, computed once a process: equal profiles are equal by their content."""
    return optimum(profile.num_params, profile.own_bits, profile.sensitivity, THRESHOLD, profile.tied_layers)


@dataclass(frozen=True)
class ModelScores:
    """How one rule does on each of M models: arrays of shape (M,)."""

    compression_ratio: FloatArray
    accuracy_retention: FloatArray
    avg_bits: FloatArray
    fitness: FloatArray

    def worst(self, ratios: FloatArray, members: Members) -> float:  # noqa: ARG002
        """Return the least share of the optimum on some models.

        Args:
            ratios: The shares on these models.
            members: Which models.
        """
        return float(ratios.min())

    def followed_by(self, others: Self) -> Self:
        """Return these scores and then those on other models."""
        pairs = ((getattr(self, each.name), getattr(others, each.name)) for each in fields(self))
        return type(self)(*(np.concatenate(pair) for pair in pairs))


@dataclass(frozen=True)
class BudgetScores(ModelScores):
    """How one family does on each of M models: (M,) means over the budgets; the fitness is the share.

    Attributes:
        shares: (M, B) share of the best within each budget; NaN where no allocation is within it.
    """

    shares: FloatArray

    def worst(self, ratios: FloatArray, members: Members) -> float:
        """Return the least share on some models within any budget."""
        shares = self.shares[members]
        return float(np.nanmin(shares)) if not np.isnan(shares).all() else float(ratios.min())


class Arena:
    """The models that rules are evaluated on, prepared once.

    Args:
        profiles: M models.
        level: The information level that rules may read.
        budgets: Score rules as families within these budgets; None scores by the cliff.
    """

    def __init__(
        self, profiles: Sequence[ModelProfile], level: str = "curves", budgets: Budgets | None = None
    ) -> None:
        self._arguments: tuple[Any, ...] = (profiles, level, budgets)
        self.profiles = tuple(profiles)
        self.level = level
        self.budgets = budgets
        self.families = None if budgets is None else Families(self.profiles, level, budgets)
        self._groups = [
            (np.array(members), Stack([self.profiles[index] for index in members], level))
            for members in self._by_formats()
        ]

    def __reduce__(self) -> tuple[type[Arena], tuple[Any, ...]]:
        # Made anew in every process that evaluates: what is prepared is far larger than what it is made from.
        return type(self), self._arguments

    def _by_formats(self) -> list[list[int]]:
        found: dict[object, list[int]] = {}
        for index, profile in enumerate(self.profiles):
            found.setdefault(profile.formats, []).append(index)
        return list(found.values())

    @cached_property
    def optima(self) -> tuple[Optimum, ...]:
        """The proven optimum of each model, by the cliff."""
        return tuple(optimum_of(each) for each in self.profiles)

    @cached_property
    def optimum_fitness(self) -> FloatArray:
        """(M,) fitness of each model's optimum; within budgets the whole share, 1."""
        if self.budgets is not None:
            return np.ones(len(self.profiles))
        return np.array([each.fitness for each in self.optima])

    def evaluate(self, task: Task) -> list[ModelScores | Failure]:
        """Evaluate P parameter vectors of one source; one result a vector, in order."""
        rule = compile_task(task)
        if isinstance(rule, Failure):
            return [rule] * len(task.values)
        if self.families is not None:
            found = self.families.evaluate(rule, task)
            return [each if isinstance(each, Failure) else _family_scores(*each) for each in found]
        results: list[ModelScores | Failure] = []
        for start in range(0, len(task.values), self._chunk):
            results += self._evaluate_chunk(rule, task.names, task.values[start : start + self._chunk])
        return results

    def behaviours(self, task: Task) -> list[str]:
        """Fingerprint what P parameter vectors of one source allocate, without scoring it.

        Returns:
            P texts, equal where the allocations of all models are equal, or where the rules
            fail for the same reason.
        """
        rule = compile_task(task)
        if isinstance(rule, Failure):
            return [rule.reason] * len(task.values)
        if self.families is not None:
            return self.families.behaviours(rule, task)
        return self._behaviours(rule, task.names, task.values)

    def _behaviours(self, rule: Rule, names: tuple[str, ...], values: FloatArray) -> list[str]:
        digests = [hashlib.blake2b(digest_size=12) for _ in values]
        for _, stack in self._groups:
            choices = allocate(rule, stack.view, names, values)
            if isinstance(choices, Failure):
                if len(values) == 1:
                    return [choices.reason]
                # As in evaluation: a fingerprint must not depend on who else was asked for.
                return [self._behaviours(rule, names, row[None])[0] for row in values]
            for digest, row in zip(digests, widest_of_groups(choices, stack.ties), strict=True):
                digest.update(row)
        return [digest.hexdigest() for digest in digests]

    def score_with(self, truth: Sequence[ModelProfile]) -> None:
        """Score from now on with other models than those that rules see.

        Args:
            truth: M models of the same formats and layers; ties remain those of what is seen.
        """
        for members, stack in self._groups:
            stack.score_with([truth[index] for index in members])
        if self.families is not None:
            self.families.score_with(truth)

    @property
    def _chunk(self) -> int:
        widest = max(stack.view.num_layers * len(stack.view.formats) for _, stack in self._groups)
        return max(1, _CHUNK_ELEMENTS // widest)

    def _evaluate_chunk(
        self, rule: Rule, names: tuple[str, ...], values: FloatArray
    ) -> list[ModelScores | Failure]:
        table = np.empty((4, len(values), len(self.profiles)))
        for members, stack in self._groups:
            choices = allocate(rule, stack.view, names, values)
            if isinstance(choices, Failure):
                if len(values) == 1:
                    return [choices]
                # Whose fault it is shows only when each vector is alone.
                alone = [self._evaluate_chunk(rule, names, row[None]) for row in values]
                return [result for (result,) in alone]
            scores = stack.score(choices)
            for row, metric in enumerate(
                (scores.compression_ratio, scores.accuracy_retention, scores.avg_bits, scores.fitness)
            ):
                table[row][:, members] = metric
        return [ModelScores(*table[:, index]) for index in range(len(values))]


class Stack:
    """Models with the same formats, side by side.

    Args:
        profiles: The models.
        level: The information level that rules may read.

    Attributes:
        view: What rules see of them.
        ties: Groups of layers, counted over all models, that share a format.
        table: What scores their allocations.
    """

    def __init__(self, profiles: Sequence[ModelProfile], level: str) -> None:
        self.view = ModelView(profiles, level)
        self.ties = [
            [int(first) + layer for layer in group]
            for profile, first in zip(profiles, self.view.offsets[:-1], strict=True)
            for group in profile.tied_layers
        ]
        self.score_with(profiles)

    def score_with(self, profiles: Sequence[ModelProfile]) -> None:
        """Score from now on with other models than those that rules see, of the same formats and layers."""
        own = any(each.layer_bits is not None for each in profiles)
        self.table: ScoreTable = prepare(
            np.concatenate([each.num_params for each in profiles]),
            np.concatenate([each.bits_table for each in profiles]) if own else profiles[0].bits,
            np.concatenate([each.sensitivity for each in profiles]),
            self.view.offsets,
        )

    def score(self, choices: ChoiceArray) -> Scores:
        """Return the scores of (P, N) format indices as a rule gives them; what is tied gets the widest."""
        return self.table.score(widest_of_groups(choices, self.ties))


def _family_scores(bits: FloatArray, losses: FloatArray, shares: FloatArray) -> BudgetScores:
    """Return (M, B) bits, losses and shares as scores; budgets that no allocation keeps are left out."""
    kept = ~np.isnan(shares)

    def mean(values: FloatArray) -> FloatArray:
        count = np.maximum(kept.sum(axis=1), 1)
        total: FloatArray = np.where(kept, values, 0.0).sum(axis=1) / count
        return total

    # A model on which no budget can be kept tells nothing of the rule.
    fitness = np.where(kept.any(axis=1), mean(shares), 1.0)
    return BudgetScores(mean(32.0 / bits), mean(np.exp(-losses)), mean(bits), fitness, shares)


def optimum_share(fitness: FloatArray, optima: FloatArray) -> FloatArray:
    """Return (M,) fitness / optimum; 1 where the optimum itself is 0, for then nothing better can be had."""
    return np.divide(fitness, optima, out=np.ones_like(fitness), where=optima > 0)


def summarise(scores: ModelScores, optima: FloatArray, members: Members) -> SplitScore:
    """Average a rule's scores over some models.

    The objective is the mean share of each model's optimum, so that no model outweighs another;
    with one model it orders rules as the fitness does.

    Args:
        scores: The rule's scores on M models.
        optima: (M,) fitness of the optima.
        members: Which models.
    """
    ratios = optimum_share(scores.fitness[members], optima[members])
    mean_ratio = float(ratios.mean())
    return SplitScore(
        objective=mean_ratio,
        fitness=float(scores.fitness[members].mean()),
        compression_ratio=float(scores.compression_ratio[members].mean()),
        accuracy_retention=float(scores.accuracy_retention[members].mean()),
        avg_bits=float(scores.avg_bits[members].mean()),
        optimum_ratio=mean_ratio,
        worst_ratio=scores.worst(ratios, members),
    )


class SearchArena(Arena):
    """The arena of a search: the models of train and valid, never those of test.

    Where there are altered copies of them, a rule is tried on the copies too once it does well on the
    models themselves. Most of what a search tries does not, and copies are three quarters of the work.

    Args:
        dataset: The models.
        level: The information level that rules may read.
        budgets: Score rules as families within these budgets; None scores by the cliff.
        copies: Altered copies of each model, see `evolve.copies`.

    Attributes:
        shared: Whether train and valid are the same.
        copied: Where rules are evaluated on the copies, those of train first; None where there are none.
    """

    def __init__(self, dataset: Dataset, level: str, budgets: Budgets | None = None, copies: int = 0) -> None:
        # One file that serves as train and valid is evaluated once.
        self.shared = dataset.train == dataset.valid
        splits = (dataset.train,) if self.shared else (dataset.train, dataset.valid)
        super().__init__([each for split in splits for each in split], level, budgets)
        self._arguments = (dataset, level, budgets, copies)
        altered = [altered_copies(split, copies) for split in splits]
        self.copied = Arena([*chain(*altered)], level, budgets) if copies else None
        # Places of the models of each split, without and with their copies.
        own = np.repeat(np.arange(len(splits)), [len(each) for each in splits])
        every = np.concatenate([own, np.repeat(np.arange(len(splits)), [len(each) for each in altered])])
        last = len(splits) - 1
        self._train = {len(each): np.flatnonzero(each == 0) for each in (own, every)}
        self._valid = {len(each): np.flatnonzero(each == last) for each in (own, every)}
        self._has_valid = bool(dataset.valid)

    def evaluate(self, task: Task) -> list[ModelScores | Failure]:
        """Evaluate P parameter vectors of one source; one result a vector, in order.

        A result has (M,) scores of the models, then those of their copies if the rule was tried on them.
        """
        results = super().evaluate(task)
        if self.copied is None:
            return results
        good = [place for place, each in enumerate(results) if self._does_well(each)]
        if good:
            more = self.copied.evaluate(replace(task, values=task.values[good]))
            for place, copied in zip(good, more, strict=True):
                own = results[place]
                if isinstance(own, Failure) or isinstance(copied, Failure):
                    results[place] = copied
                else:
                    results[place] = own.followed_by(copied)
        return results

    def _does_well(self, result: ModelScores | Failure) -> bool:
        if isinstance(result, Failure):
            return False
        train = self._train[len(self.profiles)]
        return bool(optimum_share(result.fitness[train], self.optimum_fitness[train]).mean() >= _WELL)

    @cached_property
    def _optima(self) -> Mapping[int, FloatArray]:
        """Fitness of the optima of the models, and of the models and their copies, by how many these are."""
        own = self.optimum_fitness
        every = own if self.copied is None else np.concatenate([own, self.copied.optimum_fitness])
        return {len(own): own, len(every): every}

    def summaries(self, scores: ModelScores) -> tuple[SplitScore, SplitScore | None]:
        """Return the scores on train, and on valid if there is one."""
        count = len(scores.fitness)
        train = summarise(scores, self._optima[count], self._train[count])
        if not self._has_valid:
            return train, None
        return train, train if self.shared else summarise(scores, self._optima[count], self._valid[count])
