"""The champion's ancestry: every candidate it descends from, back to seed heuristics."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from evolve.ancestry import ancestors, refinements_folded
from evolve.candidates import Candidate, Evaluation, Scored, SplitScore
from evolve.reports.markdown import percent, render
from evolve.reports.readable import readable, values_above
from evolve.templates import Template

#: A graph of more nodes is no picture any more; code hosts also refuse graphs of over 500 edges.
MOST_NODES = 60


@dataclass(frozen=True)
class Parent:
    """A parent of a step: its candidate's id and the number of its own step."""

    id: str
    number: int


@dataclass(frozen=True)
class Score:
    """How a step does on one split.

    Attributes:
        split: ``train`` or ``valid``.
        fitness: Mean fitness; None where it failed.
        optimum_ratio: Mean share of the optimum.
        gain: Fitness above that of its better parent; None where no parent worked.
        ratio_gain: Share of the optimum above that of its better parent.
    """

    split: str
    fitness: float | None
    optimum_ratio: float | None
    gain: float | None
    ratio_gain: float | None


@dataclass(frozen=True)
class Step:
    """One candidate of the ancestry.

    Attributes:
        number: Its place, from 1; parents come before their offspring.
        id: The candidate's id.
        generation: The generation it was made in.
        operator: What made it.
        change: What the operator changed, in words; a seed's name.
        parents: What it was made from; the first is what the change is told against.
        source: Its rendered source with its parameters' values on top.
        difference: Unified diff from the first parent's source; empty for a seed.
        scores: On train, then valid, where the search had one.
        failure: Why it failed; empty if it worked.
    """

    number: int
    id: str
    generation: int
    operator: str
    change: str
    parents: tuple[Parent, ...]
    source: str
    difference: str
    scores: tuple[Score, ...]
    failure: str


def source_with_values(candidate: Candidate, template: Template) -> str:
    """Return a candidate's source in short lines, headed by its parameters' values as comments."""
    source = template.source(candidate)
    return values_above(candidate.parameters) + (readable(source) if template.kind == "code" else source)


def ancestry(
    champion: Scored, scored: Sequence[Scored], templates: Mapping[str, Template], splits: Sequence[str]
) -> tuple[Step, ...]:
    """Return the champion's ancestors and, last, the champion itself.

    All parents are followed, so the steps form a graph without cycles, in the order of the journal.
    Refinements that follow one another are one step.

    Args:
        champion: Whose ancestry.
        scored: Every candidate of the run.
        templates: Every code template, by name.
        splits: The splits to show: ``train``, ``valid`` or both.
    """
    chain = refinements_folded(ancestors(champion, scored))
    known = {each.candidate.id: each for each in chain}
    numbers = {each.candidate.id: number for number, each in enumerate(chain, 1)}
    sources = {
        each.candidate.id: source_with_values(each.candidate, templates[each.candidate.template])
        for each in chain
    }
    steps = []
    for number, each in enumerate(chain, 1):
        origin = [name for name in dict.fromkeys(each.offspring.parents) if name in numbers]
        parents = tuple(Parent(name, numbers[name]) for name in origin)
        evaluations = [known[name].evaluation for name in origin]
        scores = tuple(_score(split, each.evaluation, evaluations) for split in splits)
        before = sources[origin[0]] if origin else None
        steps.append(_step(number, each, parents, scores, sources[each.candidate.id], before))
    return tuple(steps)


def _step(
    number: int,
    each: Scored,
    parents: tuple[Parent, ...],
    scores: tuple[Score, ...],
    source: str,
    before: str | None,
) -> Step:
    return Step(
        number=number,
        id=each.candidate.id,
        generation=each.generation,
        operator=each.offspring.operator,
        change=each.offspring.change,
        parents=parents,
        source=source,
        difference="" if before is None else _difference(before, source, parents[0].id, each.candidate.id),
        scores=scores,
        failure=each.evaluation.failure,
    )


def _score(split: str, evaluation: Evaluation, parents: Iterable[Evaluation]) -> Score:
    own: SplitScore | None = getattr(evaluation, split)
    if own is None:
        return Score(split, None, None, None, None)
    working: list[SplitScore] = [score for each in parents if (score := getattr(each, split)) is not None]
    return Score(
        split=split,
        fitness=own.fitness,
        optimum_ratio=own.optimum_ratio,
        gain=own.fitness - max(each.fitness for each in working) if working else None,
        ratio_gain=own.optimum_ratio - max(each.optimum_ratio for each in working) if working else None,
    )


def _difference(before: str, after: str, old: str, new: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), old, new, lineterm="")
    return "\n".join(lines)


def main_line(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the champion and its first parents, one after the other, down to a seed; oldest first."""
    by_number = {step.number: step for step in steps}
    line = [steps[-1]]
    while line[-1].parents:
        line.append(by_number[line[-1].parents[0].number])
    return tuple(reversed(line))


def mermaid(steps: Sequence[Step]) -> str:
    """Draw steps as a mermaid flowchart, first parents by solid and second ones by dotted arrows."""
    drawn = {step.number for step in steps}
    lines = ["flowchart TD"]
    for step in steps:
        name = step.change if step.operator == "seed" else step.operator
        share = step.scores[0].optimum_ratio
        shown = "failed" if share is None else f"train {percent(share)}"
        lines.append(f'    s{step.number}["{step.number} {_safe(name)}<br/>{shown}"]')
    for step in steps:
        for place, parent in enumerate(step.parents):
            if parent.number in drawn:
                lines.append(f"    s{parent.number} {'-.->' if place else '-->'} s{step.number}")
    # Both colours are given, so that the text can be read on a dark page too.
    seeds = ",".join(f"s{step.number}" for step in steps if step.operator == "seed")
    if seeds:
        lines.append("    classDef seed fill:#e8edf3,stroke:#5b6b7c,color:#1b2733")
        lines.append(f"    class {seeds} seed")
    lines.append("    classDef champion fill:#ffd166,stroke:#a86b00,color:#3b2600,stroke-width:2px")
    lines.append(f"    class s{steps[-1].number} champion")
    return "\n".join(lines)


def _safe(text: str) -> str:
    """Keep to characters that mean nothing to mermaid, and to a node's width."""
    return re.sub(r"[^A-Za-z0-9_.,+ -]", " ", text)[:40].strip() or "unnamed"


def render_lineage(steps: Sequence[Step]) -> str:
    """Render ``lineage.md``; without steps it says that no candidate worked."""
    whole = len(steps) <= MOST_NODES
    graph = mermaid(steps if whole else main_line(steps)) if steps else ""
    return render("lineage.md.j2", {"steps": steps, "graph": graph, "whole": whole})
