"""Numbers of a rule's price, set by tables of what every price brings.

A Lagrangian rule gives each layer the format of least weighted bits plus priced loss. While weights and
losses stay what they are, all that it does to a model hangs on one number, the price. So the models are
allocated once for each of a range of prices, and what any form of a price brings, with any numbers, is read
from that table: tens of thousands of prices for the cost of a few evaluations.

Shapes: M models, N layers of all of them, P places tried together, F numbers of a price, S values of the
number that multiplies it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from evolve.candidates import Candidate
from evolve.errors import RuleError
from evolve.heuristics import ParameterValues
from evolve.parameters import Parameter, Sweep
from evolve.price_tables import PriceTable, PriceTables
from evolve.profiles import ModelProfile
from evolve.python_source import compile_rule
from evolve.templates import Template
from evolve.views import ModelView

FloatArray = NDArray[np.float64]

#: Tables kept; a price that changes finds that of its weights and losses again.
_TABLES = 64
#: Places tried at once, and how often. The next are drawn around the best few, ever nearer.
_PLACES, _ROUNDS, _BEST = 48, 6, 6
#: Spread of the draws, in parts of each number's range, by what it falls, and that around the first place.
_SPREAD, _NARROWER, _NEAR = 0.25, 0.55, 0.05
#: Values of the number that multiplies the price, over its range and then around the best.
_SWEPT, _BETWEEN = 65, 15
#: Significant digits of the numbers.
_DIGITS = 4
#: Prices that differ by less within a model, relatively, are one.
_EQUAL = 1e-9
_TINY = 1e-30

_compiled = lru_cache(maxsize=4096)(compile_rule)
_FAILURES = (ValueError, ArithmeticError, TypeError, RuleError)


class PriceFit:
    """Sets the numbers of a rule's price to those of the largest mean share of the optimum.

    Args:
        profiles: The models; those with the formats of the first are used.
        level: The information level that rules may read.
        templates: The code templates, by name.
    """

    def __init__(
        self, profiles: Sequence[ModelProfile], level: str, templates: Mapping[str, Template]
    ) -> None:
        models = [each for each in profiles if each.formats == profiles[0].formats]
        self._price_tables = PriceTables(models, level)
        self._templates = templates
        self._tables: dict[object, PriceTable | None] = {}

    def __call__(self, candidate: Candidate) -> Candidate:
        """Return a candidate with the numbers of its price set.

        It is as it was where it has no price, or where layers of one model have different prices.
        """
        template = self._templates[candidate.template]
        sweep = template.sweep
        numbers = {each.name: each for each in template.parameters_of(candidate)}
        if sweep is None or not sweep.loss or sweep.parameter not in numbers:
            return candidate
        table = self.table(candidate)
        if table is None:
            return candidate
        source = str(dict(candidate.slots)[sweep.price]) if sweep.price else "1.0"
        own = [each for name, each in numbers.items() if name in sweep.along or _reads(source, name)]
        price = _Price(self._price_tables.view, table, source, sweep, own)
        digest = hashlib.blake2b(candidate.id.encode(), digest_size=8).digest()
        try:
            with np.errstate(all="ignore"):
                found = _search(price, numbers[sweep.parameter], default_rng(int.from_bytes(digest, "big")))
        except _FAILURES:
            return candidate
        parameters = tuple((name, found.get(name, value)) for name, value in candidate.parameters)
        return replace(candidate, parameters=parameters)

    def table(self, candidate: Candidate) -> PriceTable | None:
        """Return what each price brings with a candidate's weights and losses; None where that is nothing."""
        sweep = self._templates[candidate.template].sweep
        assert sweep is not None  # what has no loss has no price
        slots = dict(candidate.slots)
        weight, loss = str(slots[sweep.weight]), str(slots[sweep.loss])
        read = tuple(
            each for each in candidate.parameters if _reads(weight, each[0]) or _reads(loss, each[0])
        )
        key = (weight, loss, read)
        if key not in self._tables:
            if len(self._tables) == _TABLES:
                del self._tables[next(iter(self._tables))]
            try:
                with np.errstate(all="ignore"):
                    self._tables[key] = self._tabulate(weight, loss, dict(read))
            except _FAILURES:
                self._tables[key] = None
        return self._tables[key]

    def _tabulate(self, weight: str, loss: str, numbers: Mapping[str, float]) -> PriceTable | None:
        view = self._price_tables.view
        rule = _compiled(f"def allocate(model, p):\n    return ({weight}), ({loss})\n", "<price>")
        weights, losses = rule(view, ParameterValues({name: np.array([[n]]) for name, n in numbers.items()}))
        layers = np.broadcast_to(weights, (1, view.num_layers))[0]
        return self._price_tables.make(
            layers, np.broadcast_to(losses, (len(view.formats), 1, view.num_layers))[:, 0]
        )


class _Price:
    """The price of one rule: its code, its F numbers, and the table it is read from."""

    def __init__(
        self, view: ModelView, table: PriceTable, source: str, sweep: Sweep, numbers: Sequence[Parameter]
    ) -> None:
        self.table = table
        self.numbers = numbers
        self._view = view
        self._first = sweep.along[0] if sweep.price else ""
        self._models = view.offsets[:-1]
        self._owner = np.repeat(np.arange(len(self._models)), np.diff(view.offsets))
        # A price that reads nothing of the layers is worked out once a model, a hundredth of the work.
        self._reads_layers = "model." in source
        self._rule = _compiled(f"def allocate(model, p, spent, lost):\n    return {source}\n", "<price>")

    def values(self, units: FloatArray) -> dict[str, FloatArray]:
        """Return each number's (P, 1) values for (P, F) places in [0, 1] on its own scale."""
        return {
            each.name: np.array([[each.from_unit(float(unit), _DIGITS)] for unit in units[:, index]])
            for index, each in enumerate(self.numbers)
        }

    def of(self, values: Mapping[str, FloatArray], count: int, checked: bool) -> FloatArray:
        """Return (P, M) prices of the models.

        Raises:
            ValueError: It is not yet checked whether a model has one price, and it has not.
        """
        table, owner = self.table, self._owner if self._reads_layers else slice(None)
        reads = [np.zeros((1, 1))] * 2
        if self._first:
            first = np.broadcast_to(values[self._first], (count, len(self._models)))
            reads = [table.at(each, first)[:, owner] for each in (table.spent, table.lost)]
        prices = np.asarray(self._rule(self._view, ParameterValues(values), *reads))
        if self._reads_layers:
            found = np.broadcast_to(prices, (count, self._view.num_layers))
            prices = found[:, self._models]
            if not checked and (np.abs(found - prices[:, owner]) > _EQUAL * np.abs(found)).any():
                raise ValueError("price: expected one a model")
        prices = np.broadcast_to(prices, (count, len(self._models)))
        return np.where(np.isfinite(prices) & (prices > 0), prices, _TINY)


def _search(price: _Price, swept: Parameter, random: Generator) -> dict[str, float]:
    """Return the best numbers found: those of the price, and the one that multiplies it."""
    start = np.array([each.to_unit(each.default) for each in price.numbers])
    places = _PLACES if len(start) else 1
    units = random.random((places, len(start)))
    near = places // 2
    units[:near] = start + random.normal(0.0, _NEAR, (near, len(start)))
    units[0] = start
    best, numbers = -np.inf, dict[str, float]()
    for turn in range(1, _ROUNDS + 1 if len(start) else 2):
        units = np.clip(units, 0.0, 1.0)
        values = price.values(units)
        factors, merits = _swept(price.table, price.of(values, places, turn > 1), swept)
        order = np.argsort(-merits, kind="stable")
        if merits[order[0]] > best:
            best = float(merits[order[0]])
            numbers = {name: float(each[order[0], 0]) for name, each in values.items()}
            numbers[swept.name] = float(f"{factors[order[0]]:.{_DIGITS}g}")
        kept = units[order[:_BEST]]
        drawn = kept[random.integers(len(kept), size=places)]
        units = drawn + random.normal(0.0, _SPREAD * _NARROWER**turn, drawn.shape)
        units[: len(kept)] = kept
    return numbers


def _swept(table: PriceTable, prices: FloatArray, swept: Parameter) -> tuple[FloatArray, FloatArray]:
    """Return, for (P, M) prices, the (P,) best number to multiply each by, and the mean shares it brings."""
    places = table.places(prices)[:, None, :]

    def shares(factors: FloatArray) -> FloatArray:
        """Return (P, S) mean shares for (P or 1, S) factors."""
        shifts = table.places(factors * table.prices[0])[:, :, None]
        means: FloatArray = table.at_places(table.shares, places + shifts).mean(axis=2)
        return means

    span = np.array([swept.from_unit(unit, 12) for unit in np.linspace(0.0, 1.0, _SWEPT).tolist()])
    middle = shares(span[None, :]).argmax(axis=1)
    low, high = span[np.maximum(middle - 1, 0)], span[np.minimum(middle + 1, _SWEPT - 1)]
    factors = np.linspace(low, high, _BETWEEN, axis=1)
    found = shares(factors)
    best = np.arange(len(prices)), found.argmax(axis=1)
    return factors[best], found[best]


def _reads(source: str, name: str) -> bool:
    """Tell whether an expression reads a parameter."""
    return re.search(rf"\bp\.{name}\b", source) is not None
