"""What profiling and verification ask of a real network, whoever runs it.

Shapes: N samples in a batch, R rows that are compared (samples, or tokens), V classes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from evolve.errors import NetworkError
from evolve.fields import near_match

WeightArray = NDArray[np.float32]
OutputArray = NDArray[np.float32]

#: So many names stand for a long list of them.
_NAMED = 3

#: Names a value in a program: a number of a tape, a tensor of a graph, or the name of a layer.
Value = Hashable


@dataclass(frozen=True)
class WeightLayer:
    """A tensor of weights that gets one format.

    Attributes:
        name: What profiles, allocations and exports call it: the module's path where the module has
            one such tensor, else the tensor's own.
        kind: One of `evolve.profiles.LAYER_TYPES`.
        shape: Output channels first, whatever the network's own layout is; (experts · out, in) for a stack.
        parameter: The tensor's name in the network: its key in the state, or its initializer.
        stored_bits: Bits that the network itself stores a weight in.
        aliases: What the other modules that use the same tensor would be called.
        channel_axis: Where a module's own weight has its output channels, which stand first in ``shape``.
        num_experts: Number of matrices that are stacked along the first axis of the network's own weight, as
            the experts of a mixture are.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameter: str
    stored_bits: int
    aliases: tuple[str, ...] = ()
    channel_axis: int = 0
    num_experts: int = 1

    @property
    def num_params(self) -> int:
        """Number of weights."""
        return int(np.prod(self.shape))


class Step(NamedTuple):
    """One step of a program: the values it reads and those it makes."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


class Program(Protocol):
    """The steps that turn a batch into the network's output, in an order they can run in."""

    @property
    def steps(self) -> Sequence[Step]:
        """What each step reads and makes; a weight layer is the value of its name."""

    @property
    def output(self) -> Value:
        """The value that is the network's output."""

    @property
    def constants(self) -> Mapping[Value, Any]:
        """What needs no step to make it, the weights included."""

    def plan(self, steps: Sequence[int], wanted: frozenset[Value]) -> Any:
        """Prepare some steps, by their positions in order, that are to make the values wanted."""

    def run(self, plan: Any, values: Mapping[Value, Any]) -> dict[Value, Any]:
        """Run prepared steps; ``values`` holds what they read and do not make, and changed weights."""

    @property
    def operators(self) -> Sequence[tuple[str, ...]]:
        """The names of each step's operators."""

    def array(self, value: Any) -> NDArray[Any]:
        """Return a value as an array."""

    def num_bytes(self, values: Mapping[Value, Any]) -> int:
        """Return the memory that values hold, shared memory counted once."""


@dataclass(frozen=True, eq=False)
class Targets:
    """What the outputs of a batch should be.

    Attributes:
        labels: Right class of each row, negative where there is none, (R,); or the right outputs of a
            regression, (R, …); or None.
        counted: Which rows are compared at all (padding is not), (R,); None for all.
    """

    labels: NDArray[Any] | None = None
    counted: NDArray[np.bool_] | None = None


class Network(Protocol):
    """A real network with the batches it is measured on."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def task(self) -> str:
        """One of `evolve.networks.metrics.TASKS`."""

    @property
    def layers(self) -> tuple[WeightLayer, ...]:
        """Its weight layers, in the order they run in."""

    @property
    def left_out(self) -> Mapping[str, int]:
        """Number of weights of each parameter of two axes or more that is in no layer, by its name."""

    @property
    def num_batches(self) -> int:
        """Number of batches."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Hashes of weights and data, and versions of what runs it."""

    def weights(self, layer: str) -> WeightArray:
        """Return a layer's weights, output channels first."""

    def outputs(self, batch: int, weights: Mapping[str, WeightArray] | None = None) -> OutputArray:
        """Return the outputs of a batch with some layers' weights replaced: a full forward pass."""

    def targets(self, batch: int) -> Targets:
        """Return what the outputs of a batch should be."""

    def program(self, batch: int) -> Program | None:
        """Return the steps of a batch, None where only a full forward pass is sure to be right."""

    def inputs(self, batch: int) -> dict[Value, Any]:
        """Return the values that a batch's program starts from."""

    def value_of(self, layer: str, weights: WeightArray) -> Any:
        """Return weights as a program wants them: in the network's own layout."""

    def array_of(self, output: Any, batch: int) -> OutputArray:
        """Return a program's output as `outputs` would."""

    @property
    def endings(self) -> tuple[str, ...]:
        """How the name of a file that `save` writes may end."""

    def save(self, path: Path, weights: Mapping[str, WeightArray]) -> None:
        """Write the network with some layers' weights replaced."""


def find_layer(network: Network, name: str) -> WeightLayer:
    """Return a network's layer by its name.

    Raises:
        NetworkError: There is none.
    """
    for layer in network.layers:
        if layer.name == name:
            return layer
    names = {layer.name: layer for layer in network.layers}
    raise NetworkError(
        "no such layer", file=network.name, field="layer", found=name, cure=near_match(name, names)
    )


def left_out_words(network: Network) -> str | None:
    """Return how many weights are in no layer, and in which parameters; None where there are none."""
    left = network.left_out
    if not left:
        return None
    weights = sum(left.values())
    share = weights / (weights + sum(layer.num_params for layer in network.layers))
    largest = sorted(left, key=lambda name: -left[name])
    counted = "1 parameter" if len(left) == 1 else f"{len(left)} parameters"
    return f"{weights:,} weights in {some(largest)} ({counted}, {_percent(share)} of the network)"


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %") if share >= 0.01 else "less than 1 %"


def some(names: Sequence[str]) -> str:
    """Return the first few of many names in one text."""
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


#: Words in a module's path, or its class, that make a matrix product one of attention.
_ATTENTION = ("attention", "attn")


def product_kind(*names: str) -> str:
    """Return the layer type of a matrix product, by the names of what it is part of."""
    return "Attention" if any(word in name.lower() for name in names for word in _ATTENTION) else "Linear"
