"""Checks that a heuristic keeps the contract.

The contract of a rule: format indices for every layer of every model; the same ones whenever it is
called; each model allocated as if it were alone in view, each parameter vector as if it were
alone; and parameters that matter, over all of their bounds.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evolve.datasets import Dataset
from evolve.evaluation import Failure
from evolve.evaluation import allocate as run_rule
from evolve.heuristics import ParameterValues, Rule
from evolve.parameters import Parameter
from evolve.plugin_files import Heuristic
from evolve.profiles import ModelProfile
from evolve.python_source import compile_rule, line_in
from evolve.views import ChoiceArray, ModelView

#: Where between its bounds, on its own scale, a parameter is tried besides the bounds themselves.
_BETWEEN = (0.25, 0.5, 0.75)

FloatArray = npt.NDArray[np.float64]


def check_plugin(heuristic: Heuristic, datasets: Iterable[Dataset]) -> tuple[str, ...]:
    """Run a rule on all models of some data sets, at the level ``curves``, and look for faults.

    Args:
        heuristic: The rule.
        datasets: The models to try it on.

    Returns:
        One message a fault, each with file and line (of a code template: the line as rendered);
        empty if there is none. A fault that keeps the rule from running hides later ones.
    """
    distinct = {each.content_hash: each for dataset in datasets for _, each in dataset.splits()}
    profiles = tuple(distinct.values())
    subject = _Subject.of(heuristic)
    problems, alone = _check_each_model(subject, profiles)
    if problems:
        return problems
    problems = _check_stacked(subject, profiles, alone)
    return problems or _check_parameters(subject, profiles)


@dataclass(frozen=True)
class _Fault:
    """Why there is no allocation: faults of one kind in one place are the same fault."""

    place: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True)
class _Subject:
    """A rule under test.

    Attributes:
        rule: The compiled rule.
        source: Its source.
        file: The plugin, as messages name it.
        rendered: Whether the source was rendered, so that its lines are not those of the file.
        parameters: Its F parameters.
    """

    rule: Rule
    source: str
    file: str
    rendered: bool
    parameters: tuple[Parameter, ...]

    @classmethod
    def of(cls, heuristic: Heuristic) -> _Subject:
        source = heuristic.template.source(heuristic.candidate)
        rendered = heuristic.template.kind == "code"
        parameters = heuristic.template.parameters_of(heuristic.candidate)
        return cls(compile_rule(source, heuristic.file), source, heuristic.file, rendered, parameters)

    @property
    def defaults(self) -> FloatArray:
        """(1, F) the values the plugin gives its parameters."""
        return np.array([[each.default for each in self.parameters]])

    def allocate(self, view: ModelView, values: FloatArray) -> ChoiceArray | _Fault:
        """Return (P, N) format indices, or why there are none."""
        caught: list[BaseException] = []

        def rule(model: ModelView, p: ParameterValues) -> npt.NDArray[Any]:
            try:
                return np.asarray(self.rule(model, p))
            except BaseException as error:
                caught.append(error)
                raise

        found = run_rule(rule, view, tuple(each.name for each in self.parameters), values)
        if not isinstance(found, Failure):
            return found
        line = line_in(caught[0], self.file) if caught else None
        return _Fault(self.at(line or self.last_return), found.kind, found.reason)

    def at(self, line: int | None) -> str:
        """Return the file and the place in it, for the start of a message."""
        if line is None:
            return self.file
        if not self.rendered:
            return f"{self.file}, line {line}"
        return f"{self.file}, rendered line {line} `{self.source.splitlines()[line - 1].strip()}`"

    @property
    def last_return(self) -> int | None:
        """The line where ``allocate`` returns: the place of a wrong result."""
        for node in ast.walk(ast.parse(self.source)):
            if isinstance(node, ast.FunctionDef) and node.name == "allocate":
                returns = [each.lineno for each in ast.walk(node) if isinstance(each, ast.Return)]
                return max(returns, default=node.lineno)
        return None

    def line_reading(self, parameter: str) -> int | None:
        """Return the first line that reads a parameter."""
        match = re.search(rf"\bp\.{parameter}\b", self.source)
        return self.source.count("\n", 0, match.start()) + 1 if match else None


def _check_each_model(
    subject: _Subject, profiles: Sequence[ModelProfile]
) -> tuple[tuple[str, ...], list[ChoiceArray]]:
    """Run the rule on each model by itself, twice; returns the problems and the allocations."""
    faults: dict[tuple[str, str], list[str]] = {}
    allocations = []
    for profile in profiles:
        found = _allocate_twice(subject, ModelView([profile]))
        if not isinstance(found, _Fault):
            allocations.append(found)
            continue
        faults.setdefault((found.place, found.kind), []).append(f"{found} (model {profile.name}")
        if "took longer" in found.reason:
            break
    # What is said of the first model stands for the others, where sizes and names differ.
    problems = tuple(
        f"{said[0]} and {len(said) - 1} more)" if len(said) > 1 else f"{said[0]})" for said in faults.values()
    )
    return problems, allocations


def _allocate_twice(subject: _Subject, view: ModelView) -> ChoiceArray | _Fault:
    first = subject.allocate(view, subject.defaults)
    if isinstance(first, _Fault):
        return first
    again = subject.allocate(view, subject.defaults)
    if isinstance(again, _Fault):
        return _Fault(again.place, again.kind, f"{again.reason} (when called again)")
    if not np.array_equal(first, again):
        reason = "gives another allocation when called again"
        return _Fault(subject.at(subject.last_return), "differs", reason)
    return first


def _same_formats(profiles: Sequence[ModelProfile]) -> list[list[int]]:
    """Return the indices of the models that can stand side by side in a view."""
    members: dict[object, list[int]] = {}
    for index, profile in enumerate(profiles):
        members.setdefault(profile.formats, []).append(index)
    return list(members.values())


def _check_stacked(
    subject: _Subject, profiles: Sequence[ModelProfile], alone: Sequence[ChoiceArray]
) -> tuple[str, ...]:
    """Check that models side by side are allocated as each of them alone."""
    for members in _same_formats(profiles):
        # A model that has no companion stands beside itself.
        beside = members if len(members) > 1 else members * 2
        view = ModelView([profiles[index] for index in beside])
        together = subject.allocate(view, subject.defaults)
        if isinstance(together, _Fault):
            return (f"{together} (several models side by side)",)
        if not np.array_equal(together, np.concatenate([alone[index] for index in beside], axis=1)):
            return (
                f"{subject.at(subject.last_return)}: allocates models side by side otherwise than alone. "
                "Whatever adds up, compares or sorts the layers of a model must be model.total, mean, "
                "largest, fraction, rank or share_below: arrays can hold the layers of several models",
            )
    return ()


def _check_parameters(subject: _Subject, profiles: Sequence[ModelProfile]) -> tuple[str, ...]:
    """Check each parameter over its bounds, and that parameter vectors do not influence each other."""
    if not subject.parameters:
        return ()
    rows = _rows_to_try(subject)
    problems: dict[str, None] = {}
    changed = np.zeros(len(rows), dtype=bool)
    for members in _same_formats(profiles):
        view = ModelView([profiles[index] for index in members])
        alone = [subject.allocate(view, row[None]) for row in rows]
        good = [each for each in alone if not isinstance(each, _Fault)]
        if len(good) < len(rows):
            problems |= {
                f"{each} (with {_difference(subject, row)})": None
                for row, each in zip(rows, alone, strict=True)
                if isinstance(each, _Fault)
            }
            continue
        expected = np.concatenate(good)
        together = subject.allocate(view, rows)
        problem = None
        if isinstance(together, _Fault):
            problem = f"{together} (several parameter vectors in one call, each p.name of shape (P, 1))"
        elif not np.array_equal(together, expected):
            where = subject.at(subject.last_return)
            problem = (
                f"{where}: allocates parameter vectors in one call otherwise than each alone; "
                "each p.name has shape (P, 1)"
            )
        if problem:
            problems[problem] = None
        changed |= (expected != expected[0]).any(axis=1)
    if problems:
        return tuple(problems)
    matters = [bool(tried.any()) for tried in changed[1:].reshape(len(subject.parameters), -1)]
    return tuple(
        f"{subject.at(subject.line_reading(parameter.name))}: parameter {parameter.name} changes nothing "
        f"between {parameter.low:g} and {parameter.high:g}"
        for parameter, it_does in zip(subject.parameters, matters, strict=True)
        if not it_does
    )


def _rows_to_try(subject: _Subject) -> FloatArray:
    """Return (P, F) parameter vectors: the plugin's own, then each parameter in turn at other values."""
    rows = [subject.defaults[0]]
    for index, parameter in enumerate(subject.parameters):
        for value in (parameter.low, *map(parameter.from_unit, _BETWEEN), parameter.high):
            row = subject.defaults[0].copy()
            row[index] = value
            rows.append(row)
    return np.array(rows)


def _difference(subject: _Subject, row: FloatArray) -> str:
    """Say which parameter of a row is not the plugin's own value."""
    pairs = zip(subject.parameters, row.tolist(), strict=True)
    return ", ".join(f"{each.name} = {value:g}" for each, value in pairs if value != each.default)
