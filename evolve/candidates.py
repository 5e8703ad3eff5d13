"""All that travels between the floors: candidates and their evaluations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

Clause = tuple[str, str]
#: What a slot holds: the text of an expression, a format's name, or clauses (mask, format).
SlotContent = str | tuple[Clause, ...]
Status = Literal["ok", "failed"]


@dataclass(frozen=True)
class Candidate:
    """A rule as the search sees it: a code template, what its slots hold, its parameter values.

    Attributes:
        template: The code template's name.
        slots: (name, content) in the order of the template's slots.
        parameters: (name, value) in the order of their use.
    """

    template: str
    slots: tuple[tuple[str, SlotContent], ...] = ()
    parameters: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if any(type(value) is not float for _, value in self.parameters):
            # A plugin may write 5 for 5.0, and means the same candidate.
            exact = tuple((name, float(value)) for name, value in self.parameters)
            object.__setattr__(self, "parameters", exact)

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of exactly template, slots and parameters."""
        content = json.dumps([self.template, self.slots, self.parameters], separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def structure(self) -> tuple[str, tuple[tuple[str, SlotContent], ...]]:
        """What candidates share that differ only in their numbers."""
        return self.template, self.slots

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object from which `from_json` makes an equal candidate."""
        return {
            "template": self.template,
            "slots": {
                name: content if isinstance(content, str) else [list(clause) for clause in content]
                for name, content in self.slots
            },
            "parameters": dict(self.parameters),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        """Make a candidate from its JSON object."""
        return cls(
            data["template"],
            tuple(
                (name, content if isinstance(content, str) else tuple((mask, to) for mask, to in content))
                for name, content in data["slots"].items()
            ),
            tuple(data["parameters"].items()),
        )


@dataclass(frozen=True)
class SplitScore:
    """How a rule does on one split: means over its M models.

    Attributes:
        objective: What the search maximises on this split.
        fitness, compression_ratio, accuracy_retention, avg_bits, optimum_ratio: Means over models.
        worst_ratio: The lowest optimum ratio of any model.
    """

    objective: float
    fitness: float
    compression_ratio: float
    accuracy_retention: float
    avg_bits: float
    optimum_ratio: float
    worst_ratio: float


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        status: ``ok``, or ``failed``: a failure is a value.
        failure: The kind of failure, for counting; empty if it did not fail.
        reason: Why it failed, in words.
        train, valid: Scores on the splits the search may see; None where the split is empty or it failed.
        complexity: Nodes of the rule's syntax tree.
    """

    status: Status
    failure: str = ""
    reason: str = ""
    train: SplitScore | None = None
    valid: SplitScore | None = None
    complexity: int = 0

    @property
    def objective(self) -> float:
        """What selection maximises: the objective on train, −∞ for a failure."""
        return self.train.objective if self.train is not None else float("-inf")


@dataclass(frozen=True)
class Offspring:
    """A candidate with its origin.

    Attributes:
        candidate: The candidate.
        operator: The operator that made it: ``seed``, ``parameters``, ``crossover``, ….
        parents: Ids of the candidates it was made from, of a newcomer the seed whose form it has;
            empty for seeds.
        change: What the operator changed, in words.
    """

    candidate: Candidate
    operator: str
    parents: tuple[str, ...] = ()
    change: str = ""


@dataclass(frozen=True)
class Scored:
    """An offspring with its evaluation: what a strategy is told and the journal keeps."""

    offspring: Offspring
    evaluation: Evaluation
    generation: int = 0

    @property
    def candidate(self) -> Candidate:
        """The candidate that was evaluated."""
        return self.offspring.candidate
