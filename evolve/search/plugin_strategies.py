"""Strategies from plugins: searched with as all others are, their faults blamed on their file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from typing import Any, TypeVar

from evolve.candidates import Candidate, Offspring, Scored
from evolve.errors import EvolveError, PluginError, RunError
from evolve.extensions import StrategyPlugin
from evolve.python_source import line_in
from evolve.search.base import Problem, Strategy

Found = TypeVar("Found")

_CURE = "'evolve heuristics check {}' searches with it for a few generations."


class PluginStrategy:
    """A strategy from a plugin, or islands of it.

    A fault ends the search with the plugin's file and line: going on without what the strategy meant to
    do would be another search than the one asked for.

    Args:
        plugin: Where the strategy comes from.
        problem: What is searched.
        make: Makes the strategy.

    Raises:
        PluginError: The strategy cannot be made; so do all methods at what breaks the contract of `Strategy`.
    """

    def __init__(self, plugin: StrategyPlugin, problem: Problem, make: Callable[[], Strategy]) -> None:
        self._plugin = plugin
        self._problem = problem
        self._has_asked = False
        self._strategy = self._call("is made", make)

    def ask(self) -> list[Offspring]:
        """Return the offspring of the next generation."""
        asked = self._call("is asked", self._strategy.ask)
        if not isinstance(asked, list | tuple):
            raise self._fault("asks for no candidates", "a list of evolve.candidates.Offspring", asked)
        for each in asked:
            self._check_offspring(each)
        self._has_asked = self._has_asked or bool(asked)
        if not self._has_asked:
            raise self._fault("asks for nothing", "candidates from the first generation on", asked)
        return list(asked)

    def tell(self, scored: Sequence[Scored]) -> None:
        """Take the evaluations of the offspring asked for, in the same order."""
        self._call("is told", self._strategy.tell, scored)

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        state = self._call("gives its state", self._strategy.state)
        if not isinstance(state, dict):
            raise self._fault("has no state", "a dict that is JSON", state)
        try:
            json.dumps(state)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._fault(f"has a state that is not JSON: {error}") from error
        return state

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        self._has_asked = bool(archive)
        self._call("is restored", self._strategy.restore, state, archive)

    def welcome(self, immigrants: Sequence[Scored]) -> None:
        """Take in candidates that another strategy found."""
        self._call("welcomes immigrants", self._strategy.welcome, immigrants)

    def _call(self, when: str, method: Callable[..., Found], *arguments: Any) -> Found:
        try:
            return method(*arguments)
        except (RunError, BrokenExecutor):
            raise
        except (Exception, SystemExit) as error:
            if type(error) is PluginError and error.file is not None:
                raise  # an operator's, which names its own file
            words = f"raises {type(error).__name__} when it {when}: {error}"
            raise self._fault(words, line=line_in(error, self._plugin.file)) from error

    def _check_offspring(self, asked: object) -> None:
        """Raise `PluginError` at what could be neither evaluated nor written down."""
        good = isinstance(asked, Offspring) and isinstance(asked.candidate, Candidate)
        if not isinstance(asked, Offspring) or not good:
            raise self._fault("asks for no candidate", "evolve.candidates.Offspring", asked)
        origin = (asked.operator, asked.change, *asked.parents) if isinstance(asked.parents, tuple) else ()
        if not origin or not all(isinstance(each, str) for each in origin):
            words = "texts for operator and change, a tuple of ids for parents"
            raise self._fault("does not say where a candidate comes from", words, asked)
        template = self._problem.templates.get(asked.candidate.template)
        if template is None:
            names = f"one of {', '.join(self._problem.templates)}"
            raise self._fault("asks for a candidate of an unknown template", names, asked.candidate.template)
        try:
            for _, value in asked.candidate.parameters:
                float(value)
            template.source(asked.candidate)
        except EvolveError:
            return  # a rule that cannot be made is a failed candidate, as any other
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise self._fault(f"asks for a candidate that cannot be read: {error}") from error

    def _fault(
        self, problem: str, expected: str | None = None, found: object = None, line: int | None = None
    ) -> PluginError:
        return PluginError(
            f"the strategy {problem}",
            file=self._plugin.file,
            place=f"line {line or self._plugin.line}",
            expected=expected,
            found=found,
            cure=_CURE.format(self._plugin.name),
        )
