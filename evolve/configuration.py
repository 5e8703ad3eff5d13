"""The configuration of a run."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evolve.errors import InputError
from evolve.objectives import CLIFF, parse_objective
from evolve.search.base import OPERATORS
from evolve.signals import LEVELS, level_index

#: Stands for all built-in operators, each with its usual weight.
DEFAULT = "default"
#: The least and the most of each number; candidates of a generation and copies are in memory together.
_BOUNDS = {
    "generations": (1, math.inf),
    "population": (2, 1_000_000),
    "seed": (0, math.inf),
    "plateau": (1, math.inf),
    "evaluations": (1, math.inf),
    "copies": (0, 100),
}


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run finds.

    Whether there are such data sets, heuristics, operators and strategies shows only when they are
    looked up, by `evolve.setup.prepare_run`.

    Attributes:
        datasets: Name or path of the data set.
        generations: Generations, the first included.
        population: Candidates a generation.
        seed: Seed of all randomness.
        signals: Information level.
        objective: What is maximised: ``cliff``, or ``budgets:`` and average bits, see `evolve.objectives`.
        strategy: Name of the search strategy.
        operators: Weight of each variation operator, built in or from a plugin.
        start_from: Roles or names of the seed heuristics.
        plateau: Stop after so many generations without a better train score; None never stops early.
        evaluations: Stop after exactly so many evaluations, if the generations have not ended before;
            None sets no limit.
        copies: Altered copies of each model of train and valid that are searched on too, see `evolve.copies`.
        fit: Fit the numbers of predicted losses to those measured on train, and prices to what they bring,
            see `evolve.loss_fitting` and `evolve.price_fitting`; where rules may read losses, prices alone.
            None becomes true where rules have to predict losses, and false where they read them.
    """

    datasets: str = "reference"
    generations: int = 6
    population: int = 24
    seed: int = 0
    signals: str = "curves"
    strategy: str = "genetic"
    operators: Mapping[str, float] = field(default_factory=lambda: dict(OPERATORS))
    start_from: tuple[str, ...] = ("baseline",)
    plateau: int | None = None
    evaluations: int | None = None
    objective: str = CLIFF
    copies: int = 0
    fit: bool | None = None

    def __post_init__(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if name in ("plateau", "evaluations") and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                expected = f"at least {least}" if math.isinf(most) else f"from {least} to {most:,}"
                raise InputError(
                    "bad configuration", field=name, expected=f"a whole number, {expected}", found=value
                )
        if self.fit is not None and not isinstance(self.fit, bool):
            raise InputError("bad configuration", field="fit", expected="true or false", found=self.fit)
        if self.fit is None:
            object.__setattr__(self, "fit", self.predicts)
        if not isinstance(self.operators, Mapping) or not self.operators:
            raise InputError(
                "bad configuration", field="operators", expected="weights by operator", found=self.operators
            )
        for name, weight in self.operators.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < 1e9:
                raise InputError(
                    "bad weight", field=f"operators.{name}", expected="a number, at least 0", found=weight
                )
        if not any(self.operators.values()):
            raise InputError("no operator has a weight", field="operators", found=dict(self.operators))
        if not self.start_from:
            raise InputError("no seed heuristics", field="start_from", expected="roles or names", found=())
        level_index(self.signals)
        parse_objective(self.objective)

    @property
    def predicts(self) -> bool:
        """Whether rules have to predict losses, because they may not read them."""
        return self.signals != LEVELS[-1]

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as JSON; objective and copies only where not the usual ones.

        Whether numbers are fitted is told wherever rules predict losses, since the usual once was that they
        are not.
        """
        found = asdict(self) | {"operators": dict(self.operators), "start_from": list(self.start_from)}
        if self.objective == CLIFF:
            del found["objective"]
        if not self.copies:
            del found["copies"]
        if not self.fit and not self.predicts:
            del found["fit"]
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunConfig:
        """Make a configuration from JSON or TOML.

        Raises:
            InputError: A key is unknown or a value cannot be right.
        """
        known = set(cls.__dataclass_fields__)
        for key in data:
            if key not in known:
                raise InputError(
                    "unknown key",
                    field="configuration",
                    expected=f"one of {', '.join(sorted(known))}",
                    found=key,
                )
        values = dict(data)
        if isinstance(values.get("operators"), str):
            values["operators"] = parse_operators(values["operators"])
        if "start_from" in values:
            start_from = values["start_from"]
            words = start_from.split(",") if isinstance(start_from, str) else start_from
            if not isinstance(words, list | tuple) or not all(isinstance(each, str) for each in words):
                raise InputError(
                    "bad configuration", field="start_from", expected="a list of names", found=words
                )
            values["start_from"] = tuple(words)
        for key in ("datasets", "signals", "strategy", "objective"):
            if key in values and not isinstance(values[key], str):
                raise InputError("bad configuration", field=key, expected="a text", found=values[key])
        return cls(**values)


def read_config(file: Path) -> dict[str, Any]:
    """Read a configuration file in TOML.

    Raises:
        InputError: It cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", file=file) from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"not TOML: {error}", file=file) from error


def parse_operators(text: str) -> dict[str, float]:
    """Read weights as people write them: ``parameters,structure=8`` or ``default,mine=4``.

    A name alone has its usual weight, that of a plugin 1; ``default`` stands for all built-in
    operators with their usual weights.

    Raises:
        InputError: A weight is no number.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, given, weight = part.strip().partition("=")
        if part.strip() == DEFAULT:
            weights |= OPERATORS
            continue
        try:
            weights[name] = float(weight) if given else OPERATORS.get(name, 1.0)
        except ValueError:
            raise InputError(
                "bad weight", field=f"operators.{name}", expected="a number", found=weight
            ) from None
    return weights
