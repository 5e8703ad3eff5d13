"""Candidates as a long search may hold them."""

from __future__ import annotations

import hashlib
import json
import random

import numpy as np
from hypothesis import strategies as st

from evolve.candidates import Candidate
from evolve.datasets import find_dataset
from evolve.evaluation import Arena, ModelScores, Task
from evolve.grammar import vocabulary
from evolve.plugins import load_catalogue
from evolve.signals import LEVELS
from evolve.templates import expressions_of
from evolve.typed_trees import MAX_SIZE
from evolve.variation import (
    MAX_CLAUSES,
    cross_structure,
    mutate_parameters,
    mutate_structure,
    newcomer,
    switch_template,
)

CATALOGUE = load_catalogue()
TEMPLATES = CATALOGUE.templates
SEEDS = [each.candidate for each in CATALOGUE.heuristics.values()]
MODEL = find_dataset("reference").train[0]
WORDS = vocabulary(MODEL.format_names, "curves")
ARENAS = {level: Arena([MODEL], level) for level in LEVELS}
RANDOM = st.integers(0, 2**63 - 1)


def as_newcomer(first, _second, words):
    return newcomer(TEMPLATES[first.template], TEMPLATES, words)


OPERATORS = {
    "parameters": lambda first, _second, _words: mutate_parameters(first, TEMPLATES[first.template]),
    "structure": lambda first, _second, words: mutate_structure(first, TEMPLATES[first.template], words),
    "crossover": lambda first, second, _words: cross_structure(first, second, TEMPLATES),
    "template": lambda first, _second, words: switch_template(first, TEMPLATES, words),
    "newcomer": as_newcomer,
}


def evolved(generations: int, words=WORDS, start: Candidate | None = None) -> Candidate:
    """Walk at random from a seed heuristic: a candidate as a long search may hold it."""
    candidate = start or random.choice(SEEDS)
    for _ in range(generations):
        operator = OPERATORS[random.choice(list(OPERATORS))]
        candidate = operator(candidate, random.choice(SEEDS), words)[0]
    return candidate


def evaluated(candidate: Candidate, level: str = "curves") -> object:
    source = TEMPLATES[candidate.template].source(candidate)
    values = np.array([[value for _, value in candidate.parameters]])
    names = tuple(name for name, _ in candidate.parameters)
    (result,) = ARENAS[level].evaluate(Task(source, "", names, values.reshape(1, -1)))
    return result


def check_sound(candidate: Candidate) -> None:
    """Check what holds for every candidate, whatever made it."""
    template = TEMPLATES[candidate.template]
    # Canonical: writing what was read changes nothing.
    assert template.write(template.read(candidate)) == candidate
    assert Candidate.from_json(json.loads(json.dumps(candidate.to_json()))) == candidate
    content = json.dumps([candidate.template, candidate.slots, candidate.parameters], separators=(",", ":"))
    assert candidate.id == hashlib.sha256(content.encode()).hexdigest()[:12]
    bounds = template.parameters_of(candidate)
    assert [each.name for each in bounds] == [name for name, _ in candidate.parameters]
    for each, (_, value) in zip(bounds, candidate.parameters, strict=True):
        assert type(value) is float
        assert each.low <= value <= each.high
    for slot, (name, tree) in zip(template.slots, template.read(candidate).slots, strict=True):
        assert slot.name == name
        assert slot.type != "clauses" or len(tree) <= MAX_CLAUSES
        assert all(node.size <= MAX_SIZE for node in expressions_of(tree))
    assert isinstance(evaluated(candidate), ModelScores)
