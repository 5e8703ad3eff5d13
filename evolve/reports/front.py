"""The Pareto front of a run: every rule that no other beats in share, length and knowledge at once.

``front/front.md`` and ``front/front.csv`` list them; each stands in ``front/`` as a Python file of its own.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evolve.candidates import Candidate, Scored
from evolve.engine import Outcome
from evolve.errors import PluginError
from evolve.evaluation import Arena
from evolve.reports.champion import standalone_source
from evolve.reports.markdown import percent, render
from evolve.search.fronts import pareto_front, rule_level
from evolve.setup import Setup
from evolve.signals import LEVELS
from evolve.templates import Template
from evolve.verdicts.models import shares

FRONT = "front"


@dataclass(frozen=True)
class FrontRule:
    """A rule of the front.

    Attributes:
        id: The candidate's id.
        champion: Whether it is the run's champion.
        complexity: Nodes of the rule's syntax tree.
        level: The information level that it needs.
        train, valid, test: Mean shares of the optimum; None without such models, or where it fails.
        worst_test: The least share of any model of test.
        file: The name of its file in ``front/``; empty if it cannot stand alone.
        problem: Why it cannot.
    """

    id: str
    champion: bool
    complexity: int
    level: str
    train: float | None
    valid: float | None
    test: float | None
    worst_test: float | None
    file: str
    problem: str


@dataclass(frozen=True)
class Front:
    """The front of a run.

    Attributes:
        rules: The shortest rule first.
        sources: By file name, the rules that can stand alone.
    """

    rules: tuple[FrontRule, ...]
    sources: Mapping[str, str]


def collect_front(setup: Setup, outcome: Outcome) -> Front:
    """Return the front of everything a run has evaluated; its rules are scored on test here."""
    templates = setup.problem.templates
    chosen = pareto_front(outcome.scored, templates)
    champion = None if outcome.champion is None else outcome.champion.candidate.id
    test = _test_shares(setup, [each.candidate for each in chosen])
    tied = any(each.tied_layers for _, each in setup.dataset.splits())
    rules, sources = [], {}
    for each, (mean, worst) in zip(chosen, test, strict=True):
        level = LEVELS[rule_level(each.candidate, templates)]
        # No two rules of a front have both in common.
        file = f"rule_{each.evaluation.complexity:03d}_{level}.py"
        valid = None if setup.arena.shared else each.evaluation.valid
        rule = FrontRule(
            id=each.candidate.id,
            champion=each.candidate.id == champion,
            complexity=each.evaluation.complexity,
            level=level,
            train=None if each.evaluation.train is None else each.evaluation.train.optimum_ratio,
            valid=None if valid is None else valid.optimum_ratio,
            test=mean,
            worst_test=worst,
            file=file,
            problem="",
        )
        text, problem = _standalone(each, templates, rule, tied)
        rules.append(FrontRule(**{**asdict(rule), "file": file if text else "", "problem": problem}))
        if text:
            sources[file] = text
    return Front(tuple(rules), sources)


def _test_shares(setup: Setup, candidates: Sequence[Candidate]) -> list[tuple[float | None, float | None]]:
    """Return each rule's mean and least share on test; nothing where it fails or there is no test."""
    models = setup.dataset.test
    if not models or not candidates:
        return [(None, None)] * len(candidates)
    arena = Arena(models, setup.config.signals, setup.arena.budgets)
    table = shares(candidates, setup.problem.templates, arena)
    return [(None, None) if np.isnan(row).any() else (float(row.mean()), float(row.min())) for row in table]


def _standalone(
    scored: Scored, templates: Mapping[str, Template], rule: FrontRule, tied: bool
) -> tuple[str, str]:
    facts = {
        split: f"{percent(share)} of the proven optimum"
        for split, share in (("train", rule.train), ("valid", rule.valid), ("test", rule.test))
        if share is not None
    }
    facts |= {"level": rule.level, "complexity": f"{rule.complexity} nodes of syntax"}
    title = f"Allocates a number format to each layer of a network: candidate {rule.id}."
    try:
        template = templates[scored.candidate.template]
        text = standalone_source(
            scored.candidate, template, title=title, facts=facts, file=rule.file, tied=tied
        )
        return text, ""
    except PluginError as error:
        # Without the plugin's file, which is a path of this machine.
        return "", ": ".join(part for part in (error.field, error.problem) if part)


def front_texts(front: Front) -> dict[str, str]:
    """Return the files of a front by their place in the report's folder; none for an empty front."""
    if not front.rules:
        return {}
    tables = {"front.md": render("front.md.j2", {"rules": front.rules}), "front.csv": front_csv(front)}
    return {f"{FRONT}/{name}": text for name, text in (tables | dict(front.sources)).items()}


def front_csv(front: Front) -> str:
    """Return the table of a front as CSV; shares as fractions."""
    text = io.StringIO()
    columns = ("file", "id", "complexity", "level", "train", "valid", "test", "worst_test", "champion")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(each) for each in front.rules)
    return text.getvalue()


def front_json(front: Front) -> list[dict[str, Any]]:
    """Return the rules of a front as JSON; ``file`` is within the report's folder."""
    return [{**asdict(each), "file": f"{FRONT}/{each.file}" if each.file else None} for each in front.rules]
