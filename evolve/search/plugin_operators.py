"""Operators from plugins: called as those of `evolve.variation` are, and held to the same contract."""

from __future__ import annotations

from collections.abc import Sequence

from evolve.candidates import Candidate, Offspring
from evolve.errors import EvolveError, PluginError
from evolve.extensions import OperatorPlugin
from evolve.python_source import line_in
from evolve.search.base import Problem

_CURE = "'evolve heuristics check {}' tries it on many candidates."


def apply_plugin(plugin: OperatorPlugin, problem: Problem, given: Sequence[Candidate]) -> Offspring:
    """Make one offspring by an operator from a plugin; call within `grammar.seeded`.

    Args:
        plugin: The operator.
        problem: What is searched.
        given: As many parents as the operator takes.

    Raises:
        PluginError: The operator raises, or returns no candidate of a template of the run; names
            file and line. It is part of the search, so that the run ends: with an operator that
            works only now and then it would be another search than the one asked for.
    """
    forms = problem.templates[given[0].template] if len(given) == 1 else problem.templates
    try:
        found = plugin.vary(*given, forms, problem.words)
    except (Exception, SystemExit) as error:
        line = line_in(error, plugin.file) or plugin.line
        raise _fault(plugin, f"raises {type(error).__name__}: {error}", line=line) from error
    candidate, change = _checked(plugin, problem, found)
    return Offspring(candidate, plugin.name, tuple(each.id for each in given), change)


def _checked(plugin: OperatorPlugin, problem: Problem, found: object) -> tuple[Candidate, str]:
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Candidate)):
        raise _fault(plugin, "returns no candidate", "(candidate, words for the change)", found)
    candidate, change = found
    if not isinstance(change, str) or not change.strip():
        raise _fault(plugin, "does not say what it changed", "words, 'nothing' among them", change)
    template = problem.templates.get(candidate.template)
    if template is None:
        names = f"one of {', '.join(problem.templates)}"
        raise _fault(plugin, "returns a candidate of an unknown template", names, candidate.template)
    try:
        # In canonical form, whatever form the plugin gave it, for equal rules must be one candidate.
        return template.write(template.read(candidate)), " ".join(change.split())
    except (EvolveError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _fault(plugin, f"returns a candidate that cannot be read: {error}") from error


def _fault(
    plugin: OperatorPlugin,
    problem: str,
    expected: str | None = None,
    found: object = None,
    line: int | None = None,
) -> PluginError:
    return PluginError(
        f"the operator {problem}",
        file=plugin.file,
        place=f"line {line or plugin.line}",
        expected=expected,
        found=found,
        cure=_CURE.format(plugin.name),
    )
