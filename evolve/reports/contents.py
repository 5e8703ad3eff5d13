"""Everything a report shows, collected into plain data: what the texts and pictures are made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evolve.candidates import Candidate, Scored
from evolve.engine import Outcome
from evolve.reports.allocations import ModelMap, model_maps
from evolve.reports.front import Front, collect_front
from evolve.reports.generations import GenerationRow, generation_rows
from evolve.reports.lineage import Step, ancestry
from evolve.reports.networks import MeasuredNetworks, collect_networks
from evolve.reports.operators import OperatorRow, operator_rows
from evolve.reports.readable import shown_rule
from evolve.reports.reproduction import Reproduction, reproduction
from evolve.reports.tables import COMPARED_ROLES, SplitTable, shown_splits, split_tables, without_path
from evolve.setup import Setup
from evolve.store import RunStore
from evolve.templates import Template
from evolve.verdicts import Verdicts, judge


@dataclass(frozen=True)
class Dot:
    """How one candidate did on train."""

    generation: int
    fitness: float
    optimum_ratio: float


@dataclass(frozen=True)
class FailureRow:
    """Failures of one kind: how many, and the first candidate's reason."""

    kind: str
    count: int
    id: str
    reason: str


@dataclass(frozen=True)
class Champion:
    """The rule that was found.

    Attributes:
        scored: The candidate with its origin and its recorded scores.
        template: Its code template.
        source: Its rendered source.
        seed: The seed heuristic's name if the champion is one, unchanged; else empty.
        same_as: Name of another known heuristic that is the same rule; else empty.
    """

    scored: Scored
    template: Template
    source: str
    seed: str
    same_as: str

    @property
    def candidate(self) -> Candidate:
        """The candidate."""
        return self.scored.candidate

    @property
    def parameters_read(self) -> frozenset[str]:
        """The parameters that the rule reads as it is shown, by name."""
        return frozenset(name for name, _ in shown_rule(self.candidate, self.template).parameters)


@dataclass(frozen=True)
class Contents:
    """Everything a report shows.

    Attributes:
        dataset: Name of the data set.
        signals: The information level of the run.
        objective: What was maximised; empty for the cliff.
        copies: Altered copies of each model that the search had beside it.
        fit: Whether it fitted predicted losses to measured ones.
        priced: Whether it set prices by what each would bring.
        tied: Whether any model has tied layers.
        single_file: Whether one model served as train and valid.
        chosen_on_valid: Whether there is a valid split besides train.
        tested: Whether there is a test split, which the search never saw.
        planned: Generations that were asked for, or that the evaluations asked for have taken.
        plateau: Generations without gain after which the search was to stop, None if never.
        finished: False if the search was stopped before its end.
        seeds: Names of the seed heuristics.
        search_splits: The splits that scores of the search are shown on.
        champion: The rule; None where no candidate worked.
        tables: All rules, per split.
        generations: One row a generation.
        dots: Every candidate that worked.
        failures: Failures by kind, the most frequent first.
        maps: Allocations of the models that are drawn.
        undrawn: How many models are not drawn.
        lineage: The champion's ancestry.
        operators: What each operator earned.
        front: The rules that no other beats in everything at once.
        verdicts: What is judged of the champion; None without one.
        networks: What was measured of real networks; None without any.
        reproduction: How to make the run again.
    """

    dataset: str
    signals: str
    objective: str
    copies: int
    fit: bool
    priced: bool
    tied: bool
    single_file: bool
    chosen_on_valid: bool
    tested: bool
    planned: int
    plateau: int | None
    finished: bool
    seeds: tuple[str, ...]
    search_splits: tuple[str, ...]
    champion: Champion | None
    tables: tuple[SplitTable, ...]
    generations: tuple[GenerationRow, ...]
    dots: tuple[Dot, ...]
    failures: tuple[FailureRow, ...]
    maps: tuple[ModelMap, ...]
    undrawn: int
    lineage: tuple[Step, ...]
    operators: tuple[OperatorRow, ...]
    front: Front
    verdicts: Verdicts | None
    networks: MeasuredNetworks | None
    reproduction: Reproduction

    @property
    def evaluations(self) -> int:
        """Candidates evaluated in the whole run."""
        return sum(row.evaluations for row in self.generations)


def _planned(setup: Setup, outcome: Outcome) -> int:
    """Return the generations asked for; where so many evaluations were, those that they took."""
    limit = setup.config.evaluations
    spent = limit is not None and len(outcome.scored) >= limit
    return len(outcome.generations) if spent else setup.config.generations


def collect(store: RunStore, setup: Setup, outcome: Outcome) -> Contents:
    """Collect everything a report shows; scores on test are computed here, and only here."""
    dataset, templates = setup.dataset, setup.problem.templates
    splits = shown_splits(dataset)
    search_splits = tuple(split for split in splits if split != "test")
    champion = _champion(setup, outcome.champion)
    read = None if champion is None else champion.parameters_read
    maps, undrawn = model_maps(setup, None if champion is None else champion.candidate, splits)
    return Contents(
        dataset=dataset.name,
        signals=setup.config.signals,
        objective="" if setup.arena.budgets is None else setup.config.objective,
        copies=setup.config.copies,
        fit=setup.problem.fit is not None,
        priced=setup.problem.prices is not None,
        tied=any(each.tied_layers for _, each in dataset.splits()),
        single_file=dataset.single_file,
        chosen_on_valid="valid" in splits,
        tested="test" in splits,
        planned=_planned(setup, outcome),
        plateau=setup.config.plateau,
        finished=outcome.finished,
        seeds=tuple(each.change for each in setup.problem.seeds),
        search_splits=search_splits,
        champion=champion,
        tables=split_tables(setup, None if champion is None else (champion.candidate, champion.template)),
        generations=generation_rows(outcome, search_splits),
        dots=tuple(
            Dot(each.generation, each.evaluation.train.fitness, each.evaluation.train.optimum_ratio)
            for each in outcome.scored
            if each.evaluation.train is not None
        ),
        failures=_failure_rows(outcome.scored, templates),
        maps=maps,
        undrawn=undrawn,
        lineage=()
        if champion is None
        else ancestry(champion.scored, outcome.scored, templates, search_splits),
        operators=operator_rows(setup, outcome),
        front=collect_front(setup, outcome),
        verdicts=judge(store, setup, outcome, read),
        networks=collect_networks(setup, None if champion is None else champion.candidate, splits),
        reproduction=reproduction(store, setup),
    )


def _champion(setup: Setup, scored: Scored | None) -> Champion | None:
    if scored is None:
        return None
    template = setup.problem.templates[scored.candidate.template]
    seed = scored.offspring.change if scored.offspring.operator == "seed" else ""
    same = (
        name
        for name, each in setup.catalogue.heuristics.items()
        if each.role in COMPARED_ROLES and each.candidate.id == scored.candidate.id
    )
    return Champion(scored, template, template.source(scored.candidate), seed, "" if seed else next(same, ""))


def _failure_rows(scored: Sequence[Scored], templates: Mapping[str, Template]) -> tuple[FailureRow, ...]:
    failed = [each for each in scored if each.evaluation.status == "failed"]
    counts = Counter(each.evaluation.failure for each in failed)
    rows = []
    for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        first = next(each for each in failed if each.evaluation.failure == kind)
        reason = without_path(first.evaluation.reason, templates[first.candidate.template])
        rows.append(FailureRow(kind, count, first.candidate.id, reason))
    return tuple(rows)
