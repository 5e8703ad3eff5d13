"""What a rule may read of a layer, and what reading it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from evolve.errors import InputError
from evolve.parameters import Parameter, Scale

Level = Literal["metadata", "statistics", "gradient", "curves"]

#: Information levels from the cheapest to the dearest; each includes those before it.
LEVELS: tuple[Level, ...] = get_args(Level)


def level_index(level: str) -> int:
    """Return the place of an information level in `LEVELS`.

    Raises:
        InputError: There is no such level.
    """
    for index, name in enumerate(LEVELS):
        if name == level:
            return index
    raise InputError("unknown level", field="signals", expected=f"one of {', '.join(LEVELS)}", found=level)


@dataclass(frozen=True)
class Signal:
    """A per-layer quantity: the level it costs, its meaning, and natural bounds of a threshold on it."""

    level: Level
    meaning: str
    threshold: Parameter


def _signals() -> Mapping[str, Signal]:
    def entry(
        level: Level, name: str, meaning: str, default: float, low: float, high: float, scale: Scale
    ) -> tuple[str, Signal]:
        return name, Signal(level, meaning, Parameter(name, default, low, high, scale))

    return MappingProxyType(
        dict(
            [
                entry("metadata", "relative_position", "place in the model", 0.5, 0.0, 1.0, "linear"),
                entry("metadata", "edge_distance", "distance from the nearer end", 0.1, 0.0, 0.5, "linear"),
                entry("metadata", "num_params", "number of weights", 1e6, 1e2, 1e9, "log"),
                entry("metadata", "param_fraction", "share of the weights", 1e-2, 1e-7, 1.0, "log"),
                entry("metadata", "depth", "number of layers of the model", 100.0, 5.0, 1000.0, "log"),
                entry("statistics", "weight_mean", "mean weight", 0.0, -0.1, 0.1, "linear"),
                entry("statistics", "weight_std", "spread of the weights", 0.02, 1e-3, 1.0, "log"),
                entry("statistics", "weight_range", "range of the weights", 0.1, 1e-2, 10.0, "log"),
                entry("statistics", "activation_range", "range of the activations", 3.0, 0.1, 100.0, "log"),
                entry("gradient", "gradient_sensitivity", "gradient sensitivity", 0.5, 0.0, 1.0, "linear"),
            ]
        )
    )


#: The signals that are attributes of a model view, by name. Sensitivities, which also depend
#: on a format, are read by `ModelView.sensitivity` and the table `ModelView.loss`.
PER_LAYER_SIGNALS: Mapping[str, Signal] = _signals()
