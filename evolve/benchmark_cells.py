"""The cells of a benchmark: one run each, resumed where it was left, scored when it has ended.

runs/bench-NAME/SETTING/seed-S/                 an ordinary run
runs/bench-NAME/SETTING/seed-S/result.json      what it found, once it has ended
runs/bench-NAME/SETTING/seed-S/timing.jsonl     seconds by generation; differ between equal runs
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evolve.configuration import RunConfig
from evolve.datasets import SPLITS, Dataset
from evolve.engine import GenerationSummary, Outcome, search
from evolve.errors import PluginError, RunError
from evolve.results import evaluate_rules
from evolve.setup import Setup, prepare_run
from evolve.store import RunStore, create_run


@dataclass(frozen=True)
class CellResult:
    """What one run found.

    Attributes:
        setting: Its setting.
        seed: Its seed.
        evaluations: Candidates evaluated: as planned, or fewer if the strategy ran dry.
        champion: The champion's id; None if every candidate failed.
        complexity: Nodes of the champion's syntax tree.
        source: The champion's source.
        parameters: Values of the champion's parameters.
        shares: By split, the champion's share of each model's optimum; 0 where it fails.
        improvements: (evaluation, best share of the optimum on train up to it), where that rose.
    """

    setting: str
    seed: int
    evaluations: int
    champion: str | None
    complexity: int
    source: str
    parameters: Mapping[str, float]
    shares: Mapping[str, tuple[float, ...]]
    improvements: tuple[tuple[int, float], ...]

    def mean(self, split: str) -> float:
        """Return the champion's mean share of the optimum on a split."""
        return sum(self.shares[split]) / len(self.shares[split])

    def worst(self, split: str) -> float:
        """Return the champion's least share of the optimum on any model of a split."""
        return min(self.shares[split])

    @property
    def best(self) -> float:
        """The best mean share of the optimum on train of any candidate."""
        return self.improvements[-1][1] if self.improvements else 0.0

    def evaluations_to(self, target: float) -> int | None:
        """Return after how many evaluations the best share on train reached a target, None if never."""
        return next((number for number, share in self.improvements if share >= target), None)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CellResult:
        """Make a result from its JSON object."""
        shares = {split: tuple(values) for split, values in data["shares"].items()}
        improvements = tuple((number, share) for number, share in data["improvements"])
        return cls(**{**data, "shares": shares, "improvements": improvements})


@dataclass(frozen=True)
class Cell:
    """One run of a benchmark, as it is sent to the process that makes it.

    Attributes:
        setting: Name of its setting.
        config: Its configuration.
        resolved: What its ``config.json`` holds.
        folder: The folder of its setting.
    """

    setting: str
    config: RunConfig
    resolved: Mapping[str, Any]
    folder: Path

    @property
    def path(self) -> Path:
        """Its run directory."""
        return self.folder / f"seed-{self.config.seed}"


def read_result(cell: Cell) -> CellResult | None:
    """Return what a run found, None if it has not ended.

    Raises:
        RunError: The file is damaged.
    """
    file = cell.path / "result.json"
    if not file.is_file():
        return None
    try:
        return CellResult.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"cannot be read: {error}", file=file, cure="Delete it to score the run again."
        ) from None


def run_cell(cell: Cell, should_stop: Callable[[], bool]) -> CellResult | None:
    """Make one run, or what is missing of it; None if it was stopped before its end.

    Raises:
        PluginError: A plugin of its setting, which is named too, does not keep its contract.
    """
    if should_stop():
        return None
    try:
        return _run(cell, should_stop)
    except PluginError as error:
        named = PluginError(
            f"in the setting {cell.setting}, {error.problem}",
            file=error.file,
            place=error.place,
            field=error.field,
            expected=error.expected,
            found=error.found,
            cure=error.cure,
        )
        named.found = None  # the message has it; what a plugin returns may not go from process to process
        raise named from error


def _run(cell: Cell, should_stop: Callable[[], bool]) -> CellResult | None:
    setup = prepare_run(cell.config)
    if (cell.path / "config.json").is_file():
        store = RunStore(cell.path)
    else:
        store = create_run(cell.path.name, cell.resolved, cell.folder)
    with store.locked():
        snapshot = store.snapshot()
        clock = _Clock(cell.path, 0 if snapshot is None else snapshot.generation)
        outcome = search(setup, store, observe=clock.note, should_stop=should_stop)
        if not outcome.finished:
            return None
        store.write_manifest(workers=1, seconds=clock.seconds, evaluations=len(outcome.scored))
        result = _score(cell, setup, outcome)
        store.write("result.json", asdict(result))
    return result


def _score(cell: Cell, setup: Setup, outcome: Outcome) -> CellResult:
    """Score the champion on every split; test only now, when nothing is left to choose."""
    champion = outcome.champion
    improvements: list[tuple[int, float]] = []
    for number, each in enumerate(outcome.scored, 1):
        train = each.evaluation.train
        if train is not None and (not improvements or train.optimum_ratio > improvements[-1][1]):
            improvements.append((number, train.optimum_ratio))
    shares = {split: (0.0,) * len(setup.dataset.split(split)) for split in shown_splits(setup.dataset)}
    source = ""
    if champion is not None:
        template = setup.problem.templates[champion.candidate.template]
        source = template.source(champion.candidate)
        rules = {"champion": (champion.candidate, template)}
        for split in shares:
            # Each split on its own: what fails on the models of one may work on those of another.
            alone = replace(setup.dataset, train=(), valid=(), test=setup.dataset.split(split))
            results = evaluate_rules(rules, alone, cell.config.signals, setup.arena.budgets)
            shares[split] = tuple(each.optimum_ratio or 0.0 for each in results)
    return CellResult(
        setting=cell.setting,
        seed=cell.config.seed,
        evaluations=len(outcome.scored),
        champion=None if champion is None else champion.candidate.id,
        complexity=0 if champion is None else champion.evaluation.complexity,
        source=source,
        parameters={} if champion is None else dict(champion.candidate.parameters),
        shares=shares,
        improvements=tuple(improvements),
    )


def shown_splits(dataset: Dataset) -> list[str]:
    """Return the splits that have models; valid only if it is not the same as train."""
    splits = [split for split in SPLITS if dataset.split(split)]
    return [split for split in splits if split != "valid" or dataset.valid != dataset.train]


class _Clock:
    """Notes the seconds of a run by generation, also of one that goes on after a kill."""

    def __init__(self, run: Path, generation: int) -> None:
        self._file = run / "timing.jsonl"
        kept = [each for each in read_timing(run) if each["generation"] < generation]
        self._file.write_text("".join(json.dumps(each) + "\n" for each in kept), encoding="utf-8")
        self._before = kept[-1]["seconds"] if kept else 0.0
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._start

    def note(self, summary: GenerationSummary) -> None:
        line = {"generation": summary.generation, "evaluations": summary.total, "seconds": self.seconds}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_timing(run: Path) -> list[dict[str, Any]]:
    """Return the seconds of a run by generation: objects with generation, evaluations and seconds."""
    lines = []
    if (run / "timing.jsonl").is_file():
        for line in (run / "timing.jsonl").read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break  # torn by a kill
    return lines


def seconds_to(timing: Sequence[Mapping[str, Any]], evaluations: int | None) -> float | None:
    """Return the seconds until the generation with so many evaluations had been committed."""
    if evaluations is None:
        return None
    return next((float(each["seconds"]) for each in timing if each["evaluations"] >= evaluations), None)
