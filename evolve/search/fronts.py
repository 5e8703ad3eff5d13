"""Pareto fronts over what a rule achieves, how long it is, and what it has to know."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import cache

from evolve.candidates import Candidate, Scored
from evolve.search.base import objective_bucket
from evolve.signals import ALL_SIGNALS, MEASURED_TABLES, level_index
from evolve.templates import Template

#: Objective (larger is better), complexity and information level (smaller is better).
Point = tuple[float, int, int]
#: What a model view offers that only the full table of sensitivities gives.
_FROM_CURVES = ("sensitivity", "loss")


@cache
def source_level(source: str) -> int:
    """Return the lowest information level (an index) at which a rule can be run, from its source.

    Whatever is read as ``model.NAME`` counts, in slots, bodies and plugins alike.
    """
    levels = [0]
    for node in ast.walk(ast.parse(source)):
        if (
            not isinstance(node, ast.Attribute)
            or not isinstance(node.value, ast.Name)
            or node.value.id == "p"
        ):
            continue
        if node.attr in ALL_SIGNALS:
            levels.append(level_index(ALL_SIGNALS[node.attr].level))
        elif node.attr in MEASURED_TABLES:
            levels.append(level_index(MEASURED_TABLES[node.attr].level))
        elif node.attr in _FROM_CURVES:
            levels.append(level_index("curves"))
    return max(levels)


def rule_level(candidate: Candidate, templates: Mapping[str, Template]) -> int:
    """Return the information level (an index) that a candidate needs."""
    return source_level(templates[candidate.template].source(candidate))


def objectives_of(scored: Scored, templates: Mapping[str, Template]) -> Point:
    """Return what a candidate is judged by on a front."""
    return (
        objective_bucket(scored.evaluation.objective),
        scored.evaluation.complexity,
        rule_level(scored.candidate, templates),
    )


def dominates(first: Point, second: Point) -> bool:
    """Tell whether the first point is no worse anywhere and better somewhere."""
    no_worse = first[0] >= second[0] and first[1] <= second[1] and first[2] <= second[2]
    return no_worse and first != second


def pareto_front(scored: Iterable[Scored], templates: Mapping[str, Template]) -> tuple[Scored, ...]:
    """Return the candidates no other dominates, one a point, the shortest rule first.

    Args:
        scored: The candidates of any run; failures are left out.
        templates: Their code templates, by name.
    """
    points: dict[Point, Scored] = {}
    for each in scored:
        if each.evaluation.status == "ok":
            points.setdefault(objectives_of(each, templates), each)
    front: list[Point] = []
    # Whatever dominates a point comes before it in this order.
    for point in sorted(points, key=lambda each: (-each[0], each[1], each[2])):
        if not any(dominates(other, point) for other in front):
            front.append(point)
    return tuple(points[each] for each in sorted(front, key=lambda each: (each[1], each[2], each[0])))
