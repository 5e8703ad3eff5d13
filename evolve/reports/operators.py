"""What each operator earned, as a report tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evolve.engine import Outcome
from evolve.search.earnings import OperatorEarnings, operator_earnings
from evolve.setup import Setup

#: What the built-in operators do.
_WORDS: Mapping[str, str] = {
    "seed": "the seed heuristics, as they are",
    "parameters": "moves some numbers",
    "structure": "changes what one slot holds",
    "crossover": "takes numbers or a branch from a second parent",
    "template": "moves to another code template",
    "newcomer": "draws a rule at random",
    "refine": "refines numbers by CMA-ES",
}


@dataclass(frozen=True)
class OperatorRow:
    """An operator of a run.

    Attributes:
        words: What it does; of a plugin the first line of its docstring.
        share: Its part of the offspring that were evaluated; None for the seed heuristics.
        earnings: What it earned.
    """

    words: str
    share: float | None
    earnings: OperatorEarnings


def operator_rows(setup: Setup, outcome: Outcome) -> tuple[OperatorRow, ...]:
    """Return every operator that made a candidate or was to, those that earned most first."""
    found = operator_earnings(outcome.scored)
    made = {each.operator for each in found}
    # What was to be used and came to nothing has earned nothing, which is worth knowing.
    found += [
        OperatorEarnings(name)
        for name, weight in setup.problem.operators.items()
        if weight > 0 and name not in made
    ]
    total = sum(each.evaluations for each in found if each.operator != "seed")
    return tuple(
        OperatorRow(
            _words(each.operator, setup),
            None if each.operator == "seed" else each.evaluations / max(total, 1),
            each,
        )
        for each in found
    )


def _words(name: str, setup: Setup) -> str:
    if name in setup.problem.plugins:
        return setup.problem.plugins[name].summary.rstrip(".")
    return _WORDS.get(name, "")


def operators_json(rows: tuple[OperatorRow, ...]) -> list[dict[str, Any]]:
    """Return the rows as JSON objects."""
    return [{**asdict(each.earnings), "share": each.share, "words": each.words} for each in rows]
