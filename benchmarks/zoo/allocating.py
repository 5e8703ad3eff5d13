"""Which allocations of a network are measured jointly: uniform, random in bands of bits, and searched.

Shapes: L layers, K formats, G groups of tied layers; a layer tied to none is a group of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from evolve.allocators import lagrangian_path
from evolve.optimum import sum_groups, tied_groups
from evolve.profiles import ModelProfile

FloatArray = NDArray[np.float64]
Choices = NDArray[np.intp]

#: Average bits that random allocations are drawn around, and how far they may lie from it.
BANDS = (2.5, 3.0, 3.5, 4.5, 6.0)
HALF_BAND = 0.25
PER_BAND = 16
#: Budgets of average bits that searched allocations keep.
BUDGETS = (2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 4.0, 4.5, 5.0, 6.0)
#: Allocations near the best ones: what a search looks at. The signal is multiplied by log-normal noise.
NEAR_BUDGETS = (2.5, 3.0, 3.5, 4.5)
NEAR_EACH, NEAR_NOISE = 6, 1.0
#: Networks with few layers have bands without enough allocations; others then take their place.
AT_LEAST = 112
_TRIES = 400


def choose_allocations(profile: ModelProfile, seed: int) -> dict[tuple[int, ...], str]:
    """Return allocations, each a format index a layer, with what made it; none twice, ties kept.

    Where several ways lead to one allocation, its text names them all: ``kl 3; fisher 3``.

    Args:
        profile: The network.
        seed: Of the random ones.
    """
    space = _Space(profile)
    rng = np.random.default_rng([seed, profile.num_layers])
    chosen: dict[tuple[int, ...], str] = {}

    def add(choice: tuple[int, ...], source: str) -> None:
        chosen[choice] = f"{chosen[choice]}; {source}" if choice in chosen else source

    for at, name in enumerate(profile.format_names):
        add(space.layers(np.full(space.G, at)), f"uniform {name}")
    signals = {
        "kl": profile.loss,
        "fisher": fisher_loss(profile),
        "error": profile.measurements["squared_error"],
    }
    for word, loss in signals.items():
        for budget, choice in space.lagrangian(loss, BUDGETS).items():
            add(choice, f"{word} {budget:g}")
    for _ in range(NEAR_EACH):
        noise = np.exp(NEAR_NOISE * rng.standard_normal((space.G, 1)))
        for budget, choice in space.lagrangian(profile.loss, NEAR_BUDGETS, noise).items():
            chosen.setdefault(choice, f"near kl {budget:g}")
    for band in BANDS:
        missing = PER_BAND
        for choice in space.random(rng, band, _TRIES):
            if missing and choice not in chosen:
                chosen[choice] = f"random {band:g}"
                missing -= 1
    for choice in space.random(rng, None, 4 * _TRIES):
        if len(chosen) >= AT_LEAST:
            break
        chosen.setdefault(choice, "random")
    return chosen


def fisher_loss(profile: ModelProfile) -> FloatArray:
    """Return the divergence that the Fisher information predicts, (L, K)."""
    known: Mapping[str, FloatArray] = profile.measurements
    if "fisher_loss" in known:
        return known["fisher_loss"]
    return 0.5 * known["fisher"][:, None] * known["squared_error"]


class _Space:
    """The allocations of a network, by its groups of tied layers."""

    def __init__(self, profile: ModelProfile) -> None:
        self._groups = tied_groups(profile.tied_layers, profile.num_layers)
        self.G, self._K = int(self._groups.max()) + 1, len(profile.formats)
        bits = profile.cost_table("size") / profile.total_params
        # Each group's share of the average bits, (G, K).
        self._bits = sum_groups(np.array(bits), self._groups)
        self._widths = profile.bits

    def layers(self, choice: Choices) -> tuple[int, ...]:
        """Return an allocation of groups as one of layers."""
        return tuple(choice[self._groups].tolist())

    def lagrangian(
        self, loss: FloatArray, budgets: tuple[float, ...], noise: FloatArray | float = 1.0
    ) -> dict[float, tuple[int, ...]]:
        """Return for each budget that can be kept the vertex of the Lagrangian path that fills it best."""
        path = lagrangian_path(self._bits, sum_groups(np.array(loss), self._groups) * noise)
        found = {}
        for budget in budgets:
            fitting = np.flatnonzero(path.costs <= budget + 1e-9)
            if len(fitting):
                found[budget] = self.layers(path.vertex(int(fitting[0])))
        return found

    def random(self, rng: np.random.Generator, band: float | None, tries: int) -> Iterator[tuple[int, ...]]:
        """Yield allocations within a band of average bits, or, without one, of up to 8 bits."""
        shares = None if band is None else self._shares(self._price(band))
        for _ in range(tries):
            if band is None:
                shares = self._shares(self._price(float(rng.uniform(2, 8))))
            assert shares is not None
            drawn = (rng.random((self.G, 1)) > shares.cumsum(axis=1)).sum(axis=1)
            choice = np.minimum(drawn, self._K - 1)
            bits = self._bits[np.arange(self.G), choice].sum()
            if (bits <= 8) if band is None else (abs(bits - band) <= HALF_BAND):
                yield self.layers(choice)

    def _shares(self, price: float) -> FloatArray:
        """Return how likely each format is for a group if bits have a price, (G, K)."""
        weights = np.exp(-price * (self._widths - self._widths[0]))
        shares: FloatArray = np.tile(weights / weights.sum(), (self.G, 1))
        return shares

    def _price(self, bits: float) -> float:
        """Return the price at which average bits are expected to be so many."""
        low, high = -1.0, 20.0
        for _ in range(50):
            middle = (low + high) / 2
            expected = (self._shares(middle) * self._bits).sum()
            low, high = (middle, high) if expected > bits else (low, middle)
        return low
