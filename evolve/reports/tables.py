"""The benchmark tables of a report: every rule on every split, beside the proven optimum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from evolve.candidates import Candidate
from evolve.datasets import SPLITS, Dataset
from evolve.objectives import Budgets
from evolve.profiles import ModelProfile
from evolve.results import Result, evaluate_rules
from evolve.setup import Setup
from evolve.templates import Template

CHAMPION = "champion"
#: Whom the champion is compared with.
COMPARED_ROLES = ("published", "baseline")
#: Roles in the order of the tables.
_ROLES = (CHAMPION, "published", "discovered", "baseline", "user")
#: The champion's key among rules; plugins are named by identifiers, so none can be called this.
_CHAMPION_KEY = "the champion"

Rule = tuple[Candidate, Template]


@dataclass(frozen=True)
class RuleScore:
    """How one rule does on one split: means over the split's models.

    Attributes:
        name: The rule's name.
        role: ``champion``, or the heuristic's role.
        compression_ratio, accuracy_retention, avg_bits, fitness: Scores; None where it failed.
        optimum: The best fitness any allocation reaches.
        optimum_ratio: Share of the optimum.
        worst_ratio: Least share of the optimum on any model.
        failure: Why it failed; empty if it worked.
    """

    name: str
    role: str
    compression_ratio: float | None
    accuracy_retention: float | None
    avg_bits: float | None
    fitness: float | None
    optimum: float
    optimum_ratio: float | None
    worst_ratio: float | None
    failure: str


@dataclass(frozen=True)
class SplitTable:
    """All rules on one split.

    Attributes:
        split: ``train``, ``valid`` or ``test``.
        models: What the split's models are called, see `model_label`.
        rows: The champion, published rules, baselines; the better first within each.
    """

    split: str
    models: tuple[str, ...]
    rows: tuple[RuleScore, ...]

    @property
    def champion(self) -> RuleScore | None:
        """The champion's row."""
        return next((row for row in self.rows if row.role == CHAMPION), None)

    @property
    def best_published(self) -> RuleScore | None:
        """The published rule that does best on this split."""
        return next((row for row in self.rows if row.role == "published" and not row.failure), None)


def shown_splits(dataset: Dataset) -> tuple[str, ...]:
    """Return the splits that have models; valid only if it is not the same as train."""
    return tuple(
        split
        for split in SPLITS
        if dataset.split(split) and not (split == "valid" and dataset.valid == dataset.train)
    )


def model_label(split: str, profile: ModelProfile) -> str:
    """Return what a model is called beside its split; a name that only says the split says nothing."""
    if profile.name not in SPLITS or not profile.description:
        return profile.name
    return profile.description if profile.name == split else f"{profile.name} ({profile.description})"


def without_path(reason: str, template: Template) -> str:
    """Return why a rule failed, with its name for its file: where that lies is this machine's business."""
    return reason.replace(template.file, template.name) if template.file else reason


def split_tables(setup: Setup, champion: Rule | None) -> tuple[SplitTable, ...]:
    """Score the champion, the rules it is compared with and the seeds on every split that is shown.

    Rules may read every signal here, whatever the run allowed: the champion is compared with the best.
    """
    rules = _rules(setup, champion)
    budgets = setup.arena.budgets
    return tuple(_split_table(split, rules, setup.dataset, budgets) for split in shown_splits(setup.dataset))


def _rules(setup: Setup, champion: Rule | None) -> dict[str, tuple[str, Rule]]:
    """Return by key (role, rule): the champion, what it is compared with, and what it started from."""
    rules = {} if champion is None else {_CHAMPION_KEY: (CHAMPION, champion)}
    seeds = {each.change for each in setup.problem.seeds}
    for name, each in setup.catalogue.heuristics.items():
        # What is no family cannot keep a budget, and is left out where that is the objective.
        if setup.arena.budgets is not None and each.template.sweep_of(each.candidate) is None:
            continue
        if each.role in COMPARED_ROLES or name in seeds:
            rules[name] = (each.role, (each.candidate, each.template))
    return rules


def _split_table(
    split: str, rules: Mapping[str, tuple[str, Rule]], dataset: Dataset, budgets: Budgets | None
) -> SplitTable:
    profiles = dataset.split(split)
    # Each split on its own: what fails on the models of one may work on those of another.
    alone = replace(dataset, train=(), valid=(), test=profiles)
    named = {name: rule for name, (_, rule) in rules.items()}
    results = evaluate_rules(named, alone, budgets=budgets)
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.heuristic, []).append(result)
    rows = []
    for name, listed in found.items():
        role, (_, template) = rules[name]
        row = _mean_score(CHAMPION if name == _CHAMPION_KEY else name, role, listed)
        rows.append(replace(row, failure=without_path(row.failure, template)))
    rows.sort(key=lambda row: (_ROLES.index(row.role), -(row.optimum_ratio or 0.0), row.name))
    return SplitTable(split, tuple(model_label(split, each) for each in profiles), tuple(rows))


def _mean_score(name: str, role: str, results: Sequence[Result]) -> RuleScore:
    def mean(values: list[float | None]) -> float | None:
        present = [value for value in values if value is not None]
        return fmean(present) if len(present) == len(values) else None

    ratios = [each.optimum_ratio for each in results]
    return RuleScore(
        name=name,
        role=role,
        compression_ratio=mean([each.compression_ratio for each in results]),
        accuracy_retention=mean([each.accuracy_retention for each in results]),
        avg_bits=mean([each.avg_bits for each in results]),
        fitness=mean([each.fitness for each in results]),
        optimum=fmean(each.optimum for each in results),
        optimum_ratio=mean(ratios),
        worst_ratio=None if None in ratios else min(ratio for ratio in ratios if ratio is not None),
        failure=next((each.failure for each in results if each.failure), ""),
    )
