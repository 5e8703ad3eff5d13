"""What a plugin declares that is no rule: a variation operator, or a search strategy.

An operator is a function that varies candidates, as those of `evolve.variation` do: of one parent,
``vary(parent, template, words)``, or of two, ``vary(first, second, templates, words)``. It returns the
new candidate and the words for what it changed, and draws from Python's global generator `random`,
which is seeded for each candidate. A strategy is a class that keeps to `evolve.search.base.Strategy`,
made of a problem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from evolve.candidates import Candidate
from evolve.errors import PluginError

Kind = Literal["operator", "strategy"]
Vary = Callable[..., tuple[Candidate, str]]
_Class = TypeVar("_Class", bound=type)

#: What a strategy can do, beside being made.
METHODS = ("ask", "tell", "state", "restore", "welcome")


@dataclass(frozen=True)
class OperatorPlugin:
    """A variation operator from a file.

    Attributes:
        name: The file's name without its ending.
        file: The file.
        text: Its content, which a run's hash covers.
        summary: The first line of its docstring.
        parents: How many candidates it is given.
        vary: The function.
        line: The line where it stands.
    """

    name: str
    file: str
    text: str
    summary: str
    parents: int
    vary: Vary
    line: int
    kind: Literal["operator"] = "operator"


@dataclass(frozen=True)
class StrategyPlugin:
    """A search strategy from a file.

    Attributes:
        name: The file's name without its ending.
        file: The file.
        text: Its content, which a run's hash covers.
        summary: The first line of its docstring.
        make: The class: called with a problem and what knows the candidates tried, or None.
        line: The line where it stands.
    """

    name: str
    file: str
    text: str
    summary: str
    make: Callable[..., Any]
    line: int
    kind: Literal["strategy"] = "strategy"


Extension = OperatorPlugin | StrategyPlugin


@dataclass(frozen=True)
class ExtensionDeclaration:
    """What `operator` or `strategy` attaches to what it decorates."""

    kind: Kind
    parents: int = 0


def operator(*, parents: int = 1) -> Callable[[Vary], Vary]:
    """Declare a function as a variation operator.

    Args:
        parents: How many candidates it is given, 1 or 2.

    Raises:
        PluginError: It can be given no such number.
    """
    if parents not in (1, 2):
        raise PluginError("bad operator", field="parents", expected="1 or 2", found=parents)

    def declare(vary: Vary) -> Vary:
        vary.extension = ExtensionDeclaration("operator", parents)  # type: ignore[attr-defined]
        return vary

    return declare


def strategy(made: _Class) -> _Class:
    """Declare a class as a search strategy."""
    made.extension = ExtensionDeclaration("strategy")  # type: ignore[attr-defined]
    return made
