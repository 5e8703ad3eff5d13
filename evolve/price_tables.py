"""What every price of a Lagrangian rule brings, on many models at once.

A Lagrangian rule gives each layer the format of least weighted bits plus priced loss. Of two formats one is
cheaper up to the price at which both cost the same, the other beyond. So a format is a layer's choice for the
prices of one interval; bits and losses of a model are sums over its layers, and tables of them are made by
adding what each layer has where its interval begins and taking it away where it ends. Sweeping the price is
Shoham & Gersho 1988, "Efficient bit allocation for an arbitrary set of quantizers".

Shapes: G prices of a table, M models, N layers of all of them, K formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolve.evaluation import Stack, optimum_of, optimum_share
from evolve.profiles import ModelProfile
from evolve.scoring import cliff_fitness, layer_totals

FloatArray = NDArray[np.float64]
Rows = NDArray[Any]
Sums = tuple[FloatArray, FloatArray, FloatArray]

#: The range of prices: so many over all of it, and then so many over the part in which bits change in more
#: than a few of the models.
_LEAST, _MOST, _COARSE, _FINE, _FEW = 1e-4, 1e7, 23, 192, 0.02
#: Layers times prices that are allocated at once, so that memory is bounded and a cache holds most of it.
_CHUNK = 60_000
#: Retention is a logarithm; below this nothing is retained.
_NOTHING = -700.0
_REFERENCE_BITS = 32.0


@dataclass(frozen=True)
class PriceTable:
    """What each price brings on each model.

    Attributes:
        prices: (G,) prices, each larger than the one before by the same factor.
        shares: (G, M) shares of the optimum.
        spent: (G, M) weighted bits.
        lost: (G, M) predicted losses.
    """

    prices: FloatArray
    shares: FloatArray
    spent: FloatArray
    lost: FloatArray

    def at(self, values: FloatArray, prices: FloatArray) -> FloatArray:
        """Return (…, M) what one of the tables holds at the prices nearest to (…, M) others."""
        return self.at_places(values, self.places(prices))

    def places(self, prices: FloatArray) -> FloatArray:
        """Return where prices stand in the table, in rows from its first on."""
        step = np.log(self.prices[1] / self.prices[0])
        found: FloatArray = np.log(prices / self.prices[0]) / step
        return found

    def at_places(self, values: FloatArray, places: FloatArray) -> FloatArray:
        """Return (…, M) what one of the tables holds in the rows nearest to (…, M) places."""
        count = values.shape[1]
        rows = np.clip(np.rint(places), 0, len(values) - 1).astype(np.intp)
        found: FloatArray = np.take(values, rows * count + np.arange(count))
        return found


class PriceTables:
    """Makes tables of prices from the weights and losses of the layers of some models.

    Args:
        models: Models of the same formats.
        level: The information level that rules may read.

    Attributes:
        view: What rules see of the models.
    """

    def __init__(self, models: Sequence[ModelProfile], level: str) -> None:
        self._stack = Stack(models, level)
        self.view = self._stack.view
        self._optima = np.array([optimum_of(each).fitness for each in models])
        params = np.concatenate([each.num_params for each in models])
        self._params = np.add.reduceat(params, self.view.offsets[:-1])
        bits = np.concatenate([each.bits_table for each in models])
        sensitivity = np.concatenate([each.sensitivity for each in models])
        totals = layer_totals(params, bits, sensitivity, self.view.offsets)
        self._bits = totals.real.T.copy()
        self._retained = np.maximum(totals.imag.T, _NOTHING, order="C")
        self._owner = np.repeat(np.arange(len(models)), np.diff(self.view.offsets))

    def make(self, weights: FloatArray, losses: FloatArray) -> PriceTable | None:
        """Return the table of (N,) weights and (K, N) losses; None where no price changes anything."""
        finite = bool(np.isfinite(weights).all() and np.isfinite(losses).all())
        sums = self._sums if finite and not self._stack.ties else self.sums_one_by_one
        prices = np.geomspace(_LEAST, _MOST, _COARSE)
        _, spent, _ = sums(weights, losses, prices)
        changing = np.flatnonzero((np.diff(spent, axis=0) != 0).mean(axis=1) > _FEW)
        if not len(changing):
            return None
        prices = np.geomspace(prices[changing[0]], prices[changing[-1] + 1], _FINE)
        fitness, spent, lost = sums(weights, losses, prices)
        return PriceTable(prices, optimum_share(fitness, self._optima), spent, lost)

    def sums_one_by_one(self, weights: FloatArray, losses: FloatArray, prices: FloatArray) -> Sums:
        """Return fitness, weighted bits and losses at G prices, each (G, M), one allocation after the other.

        It is what `make` does without intervals, and how it does it where layers are tied, which get the
        widest of what each would have, or where numbers are not finite.
        """
        first = self.view.offsets[:-1]
        size = max(1, _CHUNK // self.view.num_layers)
        weighted, lost = weights * self.view.bits, losses[:, None, :]
        fitness, spent, summed = np.empty((3, len(prices), len(first)))
        for start in range(0, len(prices), size):
            rows = slice(start, start + size)
            choices = self.view.cheapest(weighted + prices[rows, None] * lost)
            fitness[rows] = self._stack.score(choices).fitness
            spent[rows] = np.add.reduceat(weights * self.view.bits_of(choices), first, axis=1)
            summed[rows] = np.add.reduceat(self.view.pick(lost, choices), first, axis=1)
        return fitness, spent, summed

    def _sums(self, weights: FloatArray, losses: FloatArray, prices: FloatArray) -> Sums:
        """Return the same from the intervals in which formats are chosen."""
        weighted = weights * self.view.bits[:, 0, :]
        choices = _Choices(
            *chosen_rows(weighted, losses, prices), self._owner, (len(prices), len(self._params))
        )
        bits, retained = choices.from_last(self._bits), choices.from_last(self._retained)
        fitness = cliff_fitness(_REFERENCE_BITS * self._params / bits, np.exp(retained))
        return fitness, choices.from_first(weighted), choices.from_last(losses)


class _Choices:
    """What layers choose at each price, and sums over it. Sums that only grow lose no digits.

    Args:
        first: The first row in which each format is each layer's choice, (K, N).
        end: The row after the last, (K, N).
        owner: The model of each layer, (N,).
        shape: G, M.
    """

    def __init__(self, first: Rows, end: Rows, owner: Rows, shape: tuple[int, int]) -> None:
        self._shape = shape[0] + 1, shape[1]
        self._chosen = np.flatnonzero((first < end).ravel())
        layers = self._chosen % len(owner)
        self._cells = [rows.ravel()[self._chosen] * shape[1] + owner[layers] for rows in (first, end)]

    def from_first(self, values: FloatArray) -> FloatArray:
        """Return (G, M) sums over the layers of (K, N) values that grow with the price."""
        begins, ends = self._changes(values)
        sums: FloatArray = np.cumsum(begins - ends, axis=0)[:-1]
        return sums

    def from_last(self, values: FloatArray) -> FloatArray:
        """Return (G, M) sums over the layers of (K, N) values that fall with the price."""
        begins, ends = self._changes(values)
        sums: FloatArray = np.cumsum((ends - begins)[::-1], axis=0)[-2::-1]
        return sums

    def _changes(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return what begins and what ends in each row and in the one after the last, (G + 1, M) both."""
        chosen = values.ravel()[self._chosen]
        sums = [np.bincount(each, chosen, self._shape[0] * self._shape[1]) for each in self._cells]
        begins, ends = (np.asarray(each, dtype=np.float64).reshape(self._shape) for each in sums)
        return begins, ends


def chosen_rows(weighted: FloatArray, losses: FloatArray, prices: FloatArray) -> tuple[Rows, Rows]:
    """Return the rows of prices for which layers choose each format: the first, and that after the last.

    Of two formats of equal cost the narrower is chosen. What is never chosen begins where it ends, or later.

    Args:
        weighted: (K, N) weighted bits, formats by increasing bits.
        losses: (K, N) losses, finite.
        prices: (G,) prices, increasing.
    """
    first = np.zeros(losses.shape, dtype=np.intp)
    end = np.full(losses.shape, len(prices), dtype=np.intp)
    for narrow, wide in combinations(range(len(losses)), 2):
        dearer = weighted[wide] - weighted[narrow]
        saved = losses[narrow] - losses[wide]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            turn = dearer / saved
        # The wide one is cheaper where price * saved > dearer: from a row on, or up to one.
        gains, costs = saved > 0, saved < 0
        whatever = np.where(dearer < 0, 0, len(prices))
        begin = np.where(gains, np.searchsorted(prices, turn, "right"), np.where(costs, 0, whatever))
        np.maximum(first[wide], begin, out=first[wide])
        np.minimum(end[narrow], np.where(costs, len(prices), begin), out=end[narrow])
        if costs.any():
            stop = np.where(costs, np.searchsorted(prices, turn, "left"), 0)
            np.minimum(end[wide], np.where(costs, stop, len(prices)), out=end[wide])
            np.maximum(first[narrow], stop, out=first[narrow])
    return first, end
