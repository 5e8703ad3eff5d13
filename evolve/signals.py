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


def _measured() -> Mapping[str, Signal]:
    def entry(level: Level, name: str, meaning: str, low: float, high: float) -> tuple[str, Signal]:
        scale: Scale = "log" if low > 0 else "linear"
        middle = (low * high) ** 0.5 if low > 0 else (low + high) / 2
        return name, Signal(level, meaning, Parameter(name, middle, low, high, scale))

    return MappingProxyType(
        dict(
            [
                entry("statistics", "condition_number", "condition number of the weights", 1.0, 1e6),
                entry("statistics", "activation_mean", "mean activation", -10.0, 10.0),
                entry("statistics", "activation_std", "spread of the activations", 1e-2, 1e2),
                entry("statistics", "activation_magnitude", "mean magnitude of the activations", 1e-2, 1e2),
                entry("statistics", "input_rms", "root mean square of the inputs", 1e-2, 1e2),
                entry("gradient", "fisher", "Fisher information", 1e-8, 1e1),
                entry("gradient", "hessian_trace", "Hessian trace", 1e-5, 1e3),
            ]
        )
    )


@dataclass(frozen=True)
class Table:
    """A quantity of each layer in each format: the level it costs, and its meaning."""

    level: Level
    meaning: str


#: Signals that only profiles of measured networks have, among their measurements, (L,), by name.
MEASURED_SIGNALS: Mapping[str, Signal] = _measured()
#: The same for tables, (L, K).
MEASURED_TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "squared_error": Table("statistics", "squared error of the weights"),
        "sqnr": Table("statistics", "signal-to-noise ratio of the weights in dB"),
        "fisher_loss": Table("gradient", "loss by Fisher information"),
    }
)

#: The signals that are attributes of a model view, by name. Sensitivities, which also depend
#: on a format, are read by `ModelView.sensitivity` and the table `ModelView.loss`.
PER_LAYER_SIGNALS: Mapping[str, Signal] = _signals()
#: These and those that only measured networks have.
ALL_SIGNALS: Mapping[str, Signal] = MappingProxyType({**PER_LAYER_SIGNALS, **MEASURED_SIGNALS})
