"""Measures a network with all its layers quantized at once, each allocation once.

Shapes: U units that are drawn for intervals (samples, or tokens).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evolve.networks.applying import QuantizedWeights
from evolve.networks.measurement_cache import MeasurementCache, content_key
from evolve.networks.measuring import measure_weights, reference_of
from evolve.networks.metrics import Measurement, Reference, Rows
from evolve.networks.network import Network, OutputArray

#: With fewer samples than this, tokens are drawn instead: too few say nothing about others.
FEWEST_SAMPLES = 10


@dataclass(frozen=True, eq=False)
class Sums:
    """What each sample, or token, adds to the means.

    Attributes:
        unit: ``samples`` or ``tokens``.
        divergence: Sums and numbers of rows, (U, 2).
        loss: The same of the rows with a label.
        hit: The same of right rows.
        broken: Number of rows with an output that is infinite or no number.
        rows: Number of all rows.
    """

    unit: str
    divergence: NDArray[np.float64]
    loss: NDArray[np.float64]
    hit: NDArray[np.float64]
    broken: int
    rows: int


class JointMeasurer:
    """Measures allocations on one network.

    Args:
        network: The network with the data it is measured on.
        cache: Where measurements are kept, so that none is made twice.

    Attributes:
        measured: Allocations that the network was run for.
        found: Allocations that were in the cache.
    """

    def __init__(self, network: Network, cache: MeasurementCache | None = None) -> None:
        self.network = network
        self.measured = self.found = 0
        self._cache = cache or MeasurementCache()
        self._weights = QuantizedWeights(network)
        self.provenance = network.provenance
        self._about = {
            "task": network.task,
            **{name: self.provenance[name] for name in ("versions", "weights_sha256", "data_sha256")},
        }

    @cached_property
    def reference(self) -> Reference:
        """The unchanged outputs, made when they are first needed."""
        return reference_of(self.network)

    def measure(self, formats: Mapping[str, str]) -> Measurement:
        """Return the means over all rows with each layer in its format, from the cache if they are there."""
        key = content_key(self._about, formats)
        known = self._cache.find(key)
        if known is not None:
            self.found += 1
            return known
        self.measured += 1
        made = measure_weights(self.network, self.reference, self._weights.all(formats))
        self._cache.add(key, made)
        return made

    def sums(self, formats: Mapping[str, str] | None = None) -> Sums:
        """Return what each sample shows with each layer in its format; runs the network.

        Args:
            formats: The format of each layer, by name; None for the unchanged network.
        """
        weights = None if formats is None else self._weights.all(formats)
        parts, owners, samples = [], [], 0
        for batch in range(self.network.num_batches):
            outputs = self.network.outputs(batch, weights)
            parts.append(self.reference.rows(batch, outputs))
            owners.append(self._owners(batch, outputs) + samples)
            samples += len(outputs)
        if formats is not None:
            self.measured += 1
            self._cache.add(content_key(self._about, formats), self.reference.summarise(parts))
        owner = np.concatenate(owners)
        unit = "samples"
        if len(np.unique(owner)) < FEWEST_SAMPLES < len(owner):
            owner, unit = np.arange(len(owner)), "tokens"
        return _sums(unit, owner, parts)

    def _owners(self, batch: int, outputs: OutputArray) -> NDArray[np.int64]:
        """Return which sample of a batch each row that counts belongs to."""
        samples = len(outputs)
        rows = samples if self.network.task == "regression" else math.prod(outputs.shape[:-1])
        owner = np.arange(rows) * samples // rows
        counted = self.network.targets(batch).counted
        return owner if counted is None else owner[counted]


def _sums(unit: str, owner: NDArray[np.int64], parts: list[Rows]) -> Sums:
    _, position = np.unique(owner, return_inverse=True)
    size = int(position.max()) + 1

    def column(name: str) -> NDArray[np.float64]:
        values = np.concatenate([getattr(each, name) for each in parts])
        known = ~np.isnan(values)
        total = np.bincount(position[known], values[known], size)
        return np.column_stack([total, np.bincount(position[known], minlength=size)]).astype(np.float64)

    broken = int(sum(each.broken.sum() for each in parts))
    return Sums(unit, column("divergence"), column("loss"), column("hit"), broken, len(position))
