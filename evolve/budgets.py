"""Budgets as people write them: ``size=8.4MB``, ``avg_bits=4.5``, ``latency=4.2ms``.

Shapes: L layers, K formats.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evolve.errors import BudgetError
from evolve.fields import Words, near_match
from evolve.profiles import ModelProfile

FloatArray = NDArray[np.float64]

#: What the loss is called where people set a floor for it.
RETENTION = "retention"
SIZE = "size"
AVG_BITS = "avg_bits"

_BITS_A_BYTE = 8
_BYTES = {
    "B": 1.0,
    "bytes": 1.0,
    "kB": 1e3,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
    "TiB": 2.0**40,
}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_ALIASES = {"bits": AVG_BITS, "average_bits": AVG_BITS, "bytes": SIZE}
_WRITTEN = re.compile(
    r"\s*(?P<name>\w+)\s*(?:<=|=|≤)\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>[A-Za-zµ]*)\s*"
)
_DIGITS = 6
# Relative difference that comes of rounding alone, and that budgets forgive.
_SAME = 5e-13


@dataclass(frozen=True, eq=False)
class Cost:
    """Something that adds up over the layers.

    Attributes:
        name: ``size``, ``avg_bits``, ``retention`` (whose table is the loss) or one of the profile's costs.
        table: What each layer costs in each format, (L, K).
        unit: What amounts are told in.
        per_unit: How much of the table's sum is one such unit.
    """

    name: str
    table: FloatArray
    unit: str = ""
    per_unit: float = 1.0

    def total(self, choices: ArrayLike) -> float:
        """Return the sum over the layers of an allocation, (L,)."""
        return float(self.table[np.arange(len(self.table)), np.asarray(choices)].sum())

    def amount(self, total: float) -> float:
        """Return a sum as people tell it: in the unit, a loss as what is retained."""
        return math.exp(-total) if self.name == RETENTION else total / self.per_unit

    def words(self, total: float, digits: int = _DIGITS) -> str:
        """Return the amount with its unit."""
        return f"{self.amount(total):.{digits}g} {self.unit}".rstrip()

    def reachable(self, total: float) -> str:
        """Return the amount rounded so that whoever asks for it, gets it."""
        amount = self.amount(total)
        if amount == 0:
            return self.words(total)
        step = 10.0 ** (math.floor(math.log10(abs(amount))) + 1 - _DIGITS)
        steps = amount / step
        if self.name == RETENTION:
            rounded = math.floor(steps)
        else:
            rounded = round(steps) if abs(steps - round(steps)) <= _SAME * abs(steps) else math.ceil(steps)
        return f"{rounded * step:.{_DIGITS}g} {self.unit}".rstrip()


@dataclass(frozen=True, eq=False)
class Budget:
    """The most that an allocation may cost, in the unit of the cost's table."""

    cost: Cost
    most: float


def loss_of(profile: ModelProfile) -> Cost:
    """Return the loss of a profile, which people know as what is retained."""
    return Cost(RETENTION, profile.loss)


def find_cost(profile: ModelProfile, name: str, field: str = "budget") -> Cost:
    """Return a cost of a profile.

    Args:
        profile: The model.
        name: ``size``, ``avg_bits`` (or ``bits``), a cost of the profile, or a word of one cost's name
            alone, such as ``latency`` of ``latency_ms``.
        field: The option to name in errors.

    Raises:
        BudgetError: There is no such cost, or there are several.
    """
    if name == RETENTION:
        cure = "Give --retention FLOOR."
        raise BudgetError("what is retained has a floor, no budget", field=field, found=name, cure=cure)
    exact = name if name in profile.costs else _ALIASES.get(name, name)
    if exact in profile.costs:
        return Cost(exact, profile.cost_table(exact), _unit_of(exact))
    if exact in (SIZE, AVG_BITS):
        bits = profile.num_params[:, None] * profile.bits_table
        if exact == AVG_BITS:
            return Cost(AVG_BITS, bits, "bits", profile.total_params)
        unit = _readable_unit(float(bits.min(axis=1).sum()))
        return Cost(SIZE, bits, unit, _BYTES[unit] * _BITS_A_BYTE)
    named = [each for each in profile.costs if name in each.split("_")]
    # A cost that no choice of formats changes is never what a budget is about.
    moved = [each for each in named if np.ptp(profile.cost_table(each), axis=1).any()] or named
    if len(moved) == 1:
        return find_cost(profile, moved[0], field)
    known = (SIZE, AVG_BITS, *profile.costs)
    problem = "several costs have this name" if moved else "unknown cost"
    cure = f"Name one of {', '.join(moved)}." if moved else near_match(name, known)
    raise BudgetError(problem, field=field, expected=f"one of {', '.join(known)}", found=name, cure=cure)


def parse_budget(text: str, profile: ModelProfile) -> Budget:
    """Return a budget as it is written on the command line: a cost, ``=``, a number and perhaps a unit.

    A size without a unit is in bytes, any other cost without a unit in the profile's own.

    Raises:
        BudgetError: It is badly written, or the profile has no such cost, or not in such a unit.
    """
    found = _WRITTEN.fullmatch(text)
    if found is None:
        words = "COST=NUMBER, with a unit where there is one, as in size=8.4MB or avg_bits=4.5"
        raise BudgetError("bad budget", field="--budget", expected=words, found=text)
    cost = find_cost(profile, found["name"], "--budget")
    per_unit = _per_unit(cost, found["unit"], cost.name not in profile.costs)
    limit = float(found["number"]) * per_unit
    if not math.isfinite(limit):
        raise BudgetError("bad budget", field=f"--budget {cost.name}", expected="a finite number", found=text)
    if limit <= 0 and cost.name in (SIZE, AVG_BITS):
        raise BudgetError("bad budget", field=f"--budget {cost.name}", expected="more than 0", found=text)
    if found["unit"] in _BYTES and cost.name == SIZE and per_unit == _BYTES[found["unit"]] * _BITS_A_BYTE:
        cost = Cost(SIZE, cost.table, found["unit"], per_unit)
    return Budget(cost, limit)


def parse_budgets(texts: Sequence[str], profile: ModelProfile) -> tuple[Budget, ...]:
    """Return the budgets of a command line.

    Raises:
        BudgetError: One of them is wrong, or two limit the same cost.
    """
    budgets = tuple(parse_budget(text, profile) for text in texts)
    seen: set[str] = set()
    for budget in budgets:
        if budget.cost.name in seen:
            raise BudgetError("given twice", field="--budget", found=budget.cost.name, cure="Give it once.")
        seen.add(budget.cost.name)
    return budgets


def parse_floor(floor: float, profile: ModelProfile) -> Budget:
    """Return a floor of the retention as a budget of the loss.

    Raises:
        BudgetError: The floor is not above 0 and at most 1.
    """
    if not 0 < floor <= 1:
        words = "a number above 0 and at most 1"
        raise BudgetError("bad floor", field="--retention", expected=words, found=floor)
    return Budget(loss_of(profile), -math.log(floor))


def _per_unit(cost: Cost, unit: str, built_in: bool) -> float:
    """Return how much of a cost's table one of a unit is."""
    if built_in and cost.name == SIZE:
        if unit in _BYTES or not unit:
            return _BYTES[unit or "B"] * _BITS_A_BYTE
        expected = f"one of {', '.join(_BYTES)}"
    elif built_in:
        if unit in ("", "bit", "bits"):
            return cost.per_unit
        expected = "a number of bits per weight"
    else:
        own = cost.unit
        if unit in ("", own):
            return 1.0
        if own in _SECONDS and unit in _SECONDS:
            return _SECONDS[unit] / _SECONDS[own]
        names = ", ".join(_SECONDS) if own in _SECONDS else own
        expected = f"one of {names}, or no unit" if names else "a number without a unit"
    raise BudgetError("unknown unit", field=f"--budget {cost.name}", expected=expected, found=Words(unit))


def _unit_of(name: str) -> str:
    """Return the unit that a cost's name ends in: ``ms`` of ``latency_ms``, none of ``bit_operations``."""
    last = name.rpartition("_")[2] if "_" in name else ""
    return last if last in _SECONDS or last in ("J", "mJ", "uJ", "kB", "MB", "GB", "bytes") else ""


def _readable_unit(bits: float) -> str:
    fitting = [unit for unit in ("B", "kB", "MB", "GB") if bits >= _BYTES[unit] * _BITS_A_BYTE]
    return fitting[-1] if fitting else "B"
