"""Adaptive operator choice: what has made better candidates lately is tried more often.

Probability matching (Goldberg 1990) with a floor, in the form that Thierens (2005) compares: an
operator's share of the offspring is its weight times its success rate, and never below a part of
what its weight alone would give it, so that none dies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: Trials that the common success rate counts for, before an operator's own record outweighs it.
_PRIOR_TRIALS = 30.0
#: What a record keeps of its weight from one generation to the next.
_MEMORY = 0.9
#: No operator's share falls below this part of what its weight alone would give it …
_FLOOR = 0.5
#: … nor does its success count for more than so many times the common rate.
_CEILING = 3.0


class OperatorRates:
    """How often each operator is to be tried.

    Args:
        weights: The weight of each operator; those at 0 are never tried.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = {name: weight for name, weight in weights.items() if weight > 0}
        self._tried = dict.fromkeys(self._weights, 0.0)
        self._improved = dict.fromkeys(self._weights, 0.0)

    def shares(self) -> dict[str, float]:
        """Return each operator's share of the next offspring; they sum to 1."""
        tried, improved = sum(self._tried.values()), sum(self._improved.values())
        common = (improved + 1.0) / (tried + _PRIOR_TRIALS)
        weighted = {}
        for name, weight in self._weights.items():
            rate = (self._improved[name] + _PRIOR_TRIALS * common) / (self._tried[name] + _PRIOR_TRIALS)
            weighted[name] = weight * min(_CEILING, max(_FLOOR, rate / common))
        total = sum(weighted.values())
        return {name: weight / total for name, weight in weighted.items()}

    def tell(self, outcomes: Iterable[tuple[str, bool]]) -> None:
        """Take note of a generation: for each offspring its operator, and whether it was a success."""
        for record in (self._tried, self._improved):
            for name in record:
                record[name] *= _MEMORY
        for name, success in outcomes:
            if name in self._weights:
                self._tried[name] += 1.0
                self._improved[name] += float(success)

    def state(self) -> dict[str, Any]:
        """Return the record as JSON."""
        return {"tried": dict(self._tried), "improved": dict(self._improved)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a record."""
        self._tried = dict(state["tried"])
        self._improved = dict(state["improved"])
