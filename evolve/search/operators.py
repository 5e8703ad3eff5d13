"""From operators' names to offspring with their origin; call within `grammar.seeded`."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from evolve.candidates import Candidate, Offspring, Scored
from evolve.search.base import Problem
from evolve.search.plugin_operators import apply_plugin
from evolve.variation import (
    cross_parameters,
    cross_structure,
    mutate_parameters,
    mutate_structure,
    newcomer,
    switch_template,
)

Select = Callable[[], Scored]


def parents_of(operator: str, problem: Problem) -> int:
    """Return of how many parents the named operator makes an offspring."""
    if operator in problem.plugins:
        return problem.plugins[operator].parents
    return {"newcomer": 0, "crossover": 2}.get(operator, 1)


def apply_operator(operator: str, problem: Problem, parents: Sequence[Candidate]) -> Offspring:
    """Make one offspring by the named operator.

    Args:
        operator: Its name; refinement spreads over generations and has a place of its own.
        problem: What is searched.
        parents: As many as `parents_of` says.
    """
    if operator == "newcomer":
        return draw_newcomer(problem)
    if operator in problem.plugins:
        return apply_plugin(problem.plugins[operator], problem, parents)
    if operator == "crossover":
        return _crossover(problem, *parents)
    (parent,) = parents
    template = problem.templates[parent.template]
    if operator == "parameters":
        candidate, change = mutate_parameters(parent, template)
    elif operator == "structure" and template.slots:
        candidate, change = mutate_structure(parent, template, problem.words)
    else:
        # A plain function has no structure to vary: moving to a template is its way on.
        operator = "template"
        candidate, change = switch_template(parent, problem.templates, problem.words)
    return Offspring(candidate, operator, (parent.id,), change)


def _crossover(problem: Problem, first: Candidate, second: Candidate) -> Offspring:
    if first.structure == second.structure and first.parameters:
        candidate, change = cross_parameters(first, second, problem.templates[first.template])
    else:
        candidate, change = cross_structure(first, second, problem.templates)
    return Offspring(candidate, "crossover", (first.id, second.id), change)


def draw_newcomer(problem: Problem) -> Offspring:
    """Draw a random candidate of any template; a seed heuristic stands as its parent."""
    seed = random.choice(problem.seeds)
    form = random.choice([each for each in problem.templates.values() if each.slots])
    candidate, change = newcomer(form, problem.templates, problem.words)
    return Offspring(candidate, "newcomer", (seed.candidate.id,), change)
