"""The numbers of a rule that the search may change."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from evolve.errors import PluginError

Scale = Literal["linear", "log"]


@dataclass(frozen=True)
class Parameter:
    """A named number of a rule.

    Attributes:
        name: A Python identifier; the rule reads it as ``p.name``.
        default: Its value in the seed heuristic.
        low: Smallest value the search may give it.
        high: Largest value the search may give it.
        scale: ``linear``, or ``log`` for numbers that matter by their magnitude (low > 0).
    """

    name: str
    default: float
    low: float
    high: float
    scale: Scale = "linear"

    def __post_init__(self) -> None:
        def bad(field: str, expected: str, found: object) -> PluginError:
            return PluginError(
                "bad parameter", place=str(self.name), field=field, expected=expected, found=found
            )

        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise bad("name", "a Python identifier", self.name)
        for field in ("default", "low", "high"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise bad(field, "a finite number", value)
        if self.scale not in get_args(Scale):
            raise bad("scale", "linear or log", self.scale)
        if not self.low < self.high:
            raise bad("high", f"more than low = {self.low}", self.high)
        if self.scale == "log" and self.low <= 0:
            raise bad("low", "a positive number on a log scale", self.low)
        if not self.low <= self.default <= self.high:
            raise bad("default", f"a number within [{self.low}, {self.high}]", self.default)

    def to_unit(self, value: float) -> float:
        """Map a value to [0, 1] on the parameter's own scale."""
        if self.scale == "log":
            unit = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            unit = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, unit))

    def from_unit(self, unit: float, digits: int = 3) -> float:
        """Map [0, 1] back to a value of few significant digits, as a person would write it."""
        if self.scale == "log":
            value = self.low * (self.high / self.low) ** unit
        else:
            value = self.low + unit * (self.high - self.low)
        return min(self.high, max(self.low, float(f"{value:.{digits}g}")))

    def with_default(self, value: float) -> Parameter:
        """Return this parameter holding another value, brought within the bounds."""
        return replace(self, default=min(self.high, max(self.low, value)))


@dataclass(frozen=True)
class Sweep:
    """Which parameter of a rule trades bits for loss, for those who look for the best within a budget.

    Attributes:
        parameter: Its name.
        low, high: What it is swept over, on its own scale; None stands for the parameter's own bound.
        loss, weight: The slots between which it trades, a table and a score: each layer's format is that of
            least weighted bits and priced loss. Empty where the template has no such slots.
        along: Other parameters that multiply the loss too, and change with it.
        price: The slot whose score is the price, times the parameter. It may read ``spent`` and ``lost``, the
            weighted bits and the loss of a first pass that had the parameter ``along`` for its price. Empty
            where the parameter alone is the price.
    """

    parameter: str
    low: float | None = None
    high: float | None = None
    loss: str = ""
    weight: str = ""
    along: tuple[str, ...] = ()
    price: str = ""

    def of(self, parameter: Parameter) -> Parameter:
        """Return the parameter with the bounds it is swept over."""
        low = parameter.low if self.low is None else self.low
        high = parameter.high if self.high is None else self.high
        default = min(high, max(low, parameter.default))
        return replace(parameter, default=default, low=low, high=high)


def linear(name: str, default: float, low: float, high: float) -> Parameter:
    """Declare a parameter on a linear scale."""
    return Parameter(name, default, low, high, "linear")


def log(name: str, default: float, low: float, high: float) -> Parameter:
    """Declare a parameter on a logarithmic scale; ``low`` must be positive."""
    return Parameter(name, default, low, high, "log")
