"""Runs, for a changed layer, only what lies downstream of it.

Layers are visited in the order they run in. Between two layers each batch's values are advanced
through the steps in between, so that a whole profile costs one forward pass for all that lies
upstream; only the values that later steps still read are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evolve.networks.network import Network, OutputArray, Program, Value, WeightArray
from evolve.networks.slicing import Slices

#: Small networks may keep this much, whatever their own size.
LEAST_CACHE = 64 * 2**20


class Replay:
    """Outputs of a network with one layer changed at a time.

    Args:
        network: What to run.
        cache_bytes: Memory for kept values; what does not fit is computed anew each time. By default
            as much as the weights take.
    """

    def __init__(self, network: Network, cache_bytes: int | None = None) -> None:
        self._network = network
        weights = 4 * sum(layer.num_params for layer in network.layers)
        self._limit = max(LEAST_CACHE, weights) if cache_bytes is None else cache_bytes
        self._slices: dict[int, Slices] = {}
        self._batches = [_Batch(self, network, batch) for batch in range(network.num_batches)]

    def outputs(self, layer: str, weights: WeightArray) -> Iterator[OutputArray]:
        """Yield each batch's outputs with one layer's weights replaced.

        Args:
            layer: The layer's name; quick only while layers come in the order they run in.
            weights: Its weights, output channels first.
        """
        value = None
        for number, batch in enumerate(self._batches):
            if not batch.enter(layer):
                yield self._network.outputs(number, {layer: weights})
                continue
            if value is None:
                value = self._network.value_of(layer, weights)
            yield self._network.array_of(batch.run(layer, value), number)
        self._drop_what_does_not_fit()

    def slices(self, program: Program) -> Slices:
        """Return the slices of a program, which batches may share."""
        return self._slices.setdefault(id(program), Slices(program))

    def _drop_what_does_not_fit(self) -> None:
        room = self._limit
        for batch in self._batches:
            room -= batch.num_bytes
            if room < 0:
                batch.drop()


class _Batch:
    """One batch's values at the current layer."""

    def __init__(self, replay: Replay, network: Network, number: int) -> None:
        self._network, self._number = network, number
        self._program = network.program(number)
        self._slices = None if self._program is None else replay.slices(self._program)
        self._layer: str | None = None
        self._position = 0
        self._live: dict[Value, Any] = {}
        self._frontier: dict[Value, Any] = {}
        self._plan: Any = None
        self._kept = self._program is not None
        self.num_bytes = 0

    def drop(self) -> None:
        """Keep nothing any more: from now on, full forward passes."""
        self._kept, self.num_bytes = False, 0
        self._live, self._frontier, self._plan, self._layer = {}, {}, None, None

    def enter(self, layer: str) -> bool:
        """Make ready for a layer; return whether that can be done."""
        if not self._kept or self._program is None or self._slices is None:
            return False
        if self._layer == layer:
            return True
        found = self._slices.of(layer)
        if found is None:
            return False
        program = self._program
        self._frontier = {}
        self._advance(program, self._slices, found.first)
        available = self._live
        if found.beside:
            wanted = found.frontier - available.keys()
            available = available | program.run(program.plan(found.beside, wanted), available)
        self._frontier = {value: available[value] for value in found.frontier}
        self._plan = program.plan(found.dependent, frozenset({program.output}))
        self._layer = layer
        self.num_bytes = program.num_bytes(self._live | self._frontier)
        return True

    def run(self, layer: str, value: Any) -> Any:
        """Return the output with the layer's value replaced."""
        assert self._program is not None
        return self._program.run(self._plan, {**self._frontier, layer: value})[self._program.output]

    def _advance(self, program: Program, slices: Slices, position: int) -> None:
        if position < self._position or not self._live:
            self._live, self._position = self._network.inputs(self._number), 0
        between = [each for each in slices.needed if self._position <= each < position]
        wanted = slices.live(position)
        kept = {value: self._live[value] for value in wanted if value in self._live}
        if between:
            kept |= program.run(program.plan(between, wanted - kept.keys()), self._live)
        self._live, self._position = kept, position
