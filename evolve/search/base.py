"""The contract of a search strategy, and what all of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from evolve.candidates import Offspring, Scored
from evolve.grammar import Vocabulary
from evolve.templates import Template

#: What may vary a candidate, with the default weight of each (its share of the offspring).
OPERATORS: Mapping[str, float] = {
    "parameters": 3.0,
    "structure": 8.0,
    "crossover": 5.0,
    "template": 1.0,
    "newcomer": 2.0,
}


@dataclass(frozen=True)
class Problem:
    """What a strategy searches.

    Attributes:
        seeds: The seed heuristics, named by their ``change``.
        templates: Every code template, by name.
        words: What random expressions are made of.
        population: Candidates a generation.
        seed: The run's seed.
        operators: Weight of each operator; those left out or at 0 are not used.
    """

    seeds: tuple[Offspring, ...]
    templates: Mapping[str, Template]
    words: Vocabulary
    population: int
    seed: int
    operators: Mapping[str, float] = field(default_factory=lambda: dict(OPERATORS))


class Strategy(Protocol):
    """Asked for offspring, told what they scored.

    A strategy's state is JSON: restored in another object, no public method can tell the two apart.
    """

    def ask(self) -> list[Offspring]:
        """Return the offspring of the next generation."""

    def tell(self, scored: Sequence[Scored]) -> None:
        """Take the evaluations of the offspring asked for, in the same order."""

    def state(self) -> dict[str, Any]:
        """Return the state as JSON; candidates by their ids."""

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state; ``archive`` holds every candidate evaluated so far, by id."""


def rank_key(scored: Scored) -> tuple[float, int]:
    """Order candidates: by objective on train, the simpler first at equal objective. Larger is better."""
    return scored.evaluation.objective, -scored.evaluation.complexity


class CandidateSeeds:
    """Draws one seed a candidate from the run's numpy generator, so that candidates are independent."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def draw(self, count: int) -> list[int]:
        """Return the next seeds."""
        return [int(each) for each in self._generator.integers(2**63, size=count)]

    def state(self) -> dict[str, Any]:
        """Return the generator's state as JSON."""
        return dict(self._generator.bit_generator.state)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self._generator.bit_generator.state = state


def check_count(asked: Sequence[Offspring], told: Sequence[Scored]) -> None:
    """Raise `ValueError` unless as many evaluations are told as offspring were asked for."""
    if len(asked) != len(told):
        raise ValueError(f"tell: expected {len(asked)} evaluations, one an offspring, found {len(told)}")
