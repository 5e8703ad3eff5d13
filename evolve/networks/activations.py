"""What layers read and make: their place in the program, and the activations of one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolve.networks.network import Network, Program, Value
from evolve.networks.slicing import Slices


@dataclass(frozen=True)
class Consumer:
    """The step where a layer's weights meet data.

    Attributes:
        step: Its position.
        inputs: The values it reads that no weight alone determines.
        outputs: The values it makes.
    """

    step: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def find_consumer(program: Program, layer: str) -> Consumer | None:
    """Return the first step where a layer's weights meet data, None if they never do."""
    own: set[Value] = {layer}
    for position, step in enumerate(program.steps):
        if own.isdisjoint(step.inputs):
            continue
        data = tuple(each for each in step.inputs if each not in own and each not in program.constants)
        if data:
            return Consumer(position, data, step.outputs)
        own.update(step.outputs)
    return None


def activation_statistics(network: Network) -> dict[str, dict[str, float]]:
    """Return what one forward pass over all batches shows of each layer's activations.

    Returns:
        By layer ``activation_range`` (largest output minus smallest), ``activation_mean``,
        ``activation_std``, ``activation_magnitude`` (mean of absolute values) and ``input_rms`` (root mean
        square of what the weights are applied to; 0 for token numbers). Layers whose place is not known
        have zeros.
    """
    outputs = {layer.name: _Moments() for layer in network.layers}
    inputs = {layer.name: _Moments() for layer in network.layers}
    for batch in range(network.num_batches):
        program = network.program(batch)
        if program is None:
            continue
        found = {layer.name: find_consumer(program, layer.name) for layer in network.layers}
        consumers = {name: each for name, each in found.items() if each is not None}
        start = network.inputs(batch)
        wanted = frozenset(
            value for each in consumers.values() for value in (each.inputs[0], each.outputs[0])
        )
        plan = program.plan(Slices(program).needed, wanted - start.keys())
        made = start | program.run(plan, start)
        for name, each in consumers.items():
            inputs[name].add(program.array(made[each.inputs[0]]))
            outputs[name].add(program.array(made[each.outputs[0]]))
    return {
        name: {
            "activation_range": moments.range,
            "activation_mean": moments.mean,
            "activation_std": moments.std,
            "activation_magnitude": moments.magnitude,
            "input_rms": inputs[name].rms,
        }
        for name, moments in outputs.items()
    }


class _Moments:
    """Sums over activations, a batch after the other."""

    def __init__(self) -> None:
        self._count = 0
        self._sums = np.zeros(3)
        self._low, self._high = np.inf, -np.inf

    def add(self, array: NDArray[Any]) -> None:
        if not array.size or not np.issubdtype(array.dtype, np.floating):
            return
        exact = array.astype(np.float64)
        self._count += array.size
        self._sums += (exact.sum(), (exact**2).sum(), np.abs(exact).sum())
        self._low, self._high = min(self._low, exact.min()), max(self._high, exact.max())

    @property
    def range(self) -> float:
        return float(self._high - self._low) if self._count else 0.0

    @property
    def mean(self) -> float:
        return float(self._sums[0] / max(self._count, 1))

    @property
    def std(self) -> float:
        return float(np.sqrt(max(self._sums[1] / max(self._count, 1) - self.mean**2, 0)))

    @property
    def magnitude(self) -> float:
        return float(self._sums[2] / max(self._count, 1))

    @property
    def rms(self) -> float:
        return float(np.sqrt(self._sums[1] / max(self._count, 1)))
