"""The generational loop, and the champion it chooses."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from searches import REFERENCE, RESNETS, SMALL, files, run

from evolve import engine
from evolve.candidates import Candidate, Evaluation, Offspring, Scored
from evolve.configuration import RunConfig
from evolve.datasets import Dataset, generate_dataset, write_dataset
from evolve.engine import FINALISTS, recorded_outcome, search
from evolve.errors import RunError
from evolve.search import STRATEGIES
from evolve.setup import prepare_run, stored_config
from evolve.store import RunStore, create_run, open_run

#: For seed 0: evaluations, the champion's id, and a digest of the journal, its scores rounded to nine
#: digits. A change of these is a change of every search's result. Where that is meant, run
#: ``python tests/test_engine.py`` and copy what it prints.
GOLDEN = {
    "genetic": (138, "84873ebcfbfc", "c198ab4605c69ed8"),
    "random": (47, "e64b83ac2783", "6abda6bdfbd1acdc"),
    "hillclimb": (48, "184f7537cead", "e9da2b22813772c5"),
    "islands": (46, "95099fbfd57e", "5b9362ba52d3df83"),
    "map-elites": (47, "84873ebcfbfc", "a2763be7c2b25621"),
    "nsga2": (48, "84873ebcfbfc", "41333b4e6099e317"),
}


def digest(store: RunStore) -> str:
    """Digest a journal, its numbers rounded to nine digits: their last bits depend on the processor."""

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.9g}")
        if isinstance(value, dict):
            return {key: rounded(each) for key, each in value.items()}
        return [rounded(each) for each in value] if isinstance(value, list) else value

    text = json.dumps([rounded(each) for each in store.records()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def golden(strategy: str, folder: Path) -> tuple[int, str, str]:
    size = {} if strategy == "genetic" else SMALL
    store, outcome = run(folder, strategy.replace(":", "-"), strategy=strategy, **size)
    assert outcome.champion is not None
    return len(outcome.scored), outcome.champion.candidate.id, digest(store)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_golden_run(strategy, tmp_path):
    """The default run of the genetic algorithm, small ones of the others."""
    assert golden(strategy, tmp_path) == GOLDEN[strategy]


def test_every_strategy_has_a_golden_run():
    assert set(GOLDEN) == set(STRATEGIES)


def test_the_champion_of_a_run_follows_the_rules(tmp_path):
    store, outcome = run(tmp_path, **SMALL)
    working = [each for each in outcome.scored if each.evaluation.status == "ok"]
    ranked = sorted(working, key=engine.rank_key, reverse=True)
    structures = list(dict.fromkeys((each.candidate.template, each.candidate.slots) for each in ranked))
    admitted = {
        structure: next(
            each for each in ranked if (each.candidate.template, each.candidate.slots) == structure
        )
        for structure in structures[:FINALISTS]
    }.values()
    best = max(round(each.evaluation.valid.objective, 9) for each in admitted)
    equals = [each for each in admitted if round(each.evaluation.valid.objective, 9) == best]
    assert outcome.champion in equals
    assert outcome.champion.evaluation.complexity == min(each.evaluation.complexity for each in equals)
    assert outcome.generations[-1].champion == outcome.champion.candidate.id
    assert json.loads((store.path / "champion.json").read_text())["id"] == outcome.champion.candidate.id


def test_the_test_split_changes_nothing(tmp_path):
    """Two data sets that differ in nothing but test give the same search."""
    other = generate_dataset("other", {"train": 0, "valid": 0, "test": 3}, 5, RESNETS)
    results = []
    for name, test in (("a", REFERENCE.test), ("b", other.test), ("c", ())):
        write_dataset(Dataset(name, REFERENCE.train, REFERENCE.valid, test), tmp_path / name)
        store, _ = run(tmp_path / "runs", name, datasets=str(tmp_path / name), **SMALL)
        results.append({name: data for name, data in files(store).items() if name != "config.json"})
    assert results[0] == results[1] == results[2]
    assert set(results[0]) == {"journal.jsonl", "snapshot.json", "champion.json"}


def test_nothing_of_test_is_prepared_for_a_search():
    setup = prepare_run(RunConfig())
    probe = setup.problem.fingerprint.keywords["probe"]
    for arena in (setup.arena, probe):
        assert not set(arena.profiles) & set(REFERENCE.test)


def test_a_plateau_ends_the_search(tmp_path):
    whole, _ = run(tmp_path, "whole", generations=12, population=16)
    store, outcome = run(tmp_path, "short", generations=12, population=16, plateau=2)
    best = [each.best_objective for each in outcome.generations]
    assert len(best) < 12
    assert best[-1] == best[-2] == best[-3]
    assert all(best[place] > best[place - 2] for place in range(2, len(best) - 1))
    assert outcome.finished
    # Until then it was the same search.
    assert files(whole)["journal.jsonl"].startswith(files(store)["journal.jsonl"])
    before = files(store)
    again = search(prepare_run(RunConfig(generations=12, population=16, plateau=2)), store)
    assert (again, files(store)) == (outcome, before)


def test_a_limit_of_evaluations_is_met_exactly(tmp_path):
    store, outcome = run(tmp_path, generations=50, population=16, evaluations=40)
    assert len(outcome.scored) == outcome.generations[-1].total == 40
    assert outcome.finished
    before = files(store)
    search(prepare_run(RunConfig(generations=50, population=16, evaluations=40)), store)
    assert files(store) == before
    whole, _ = run(tmp_path, "whole", generations=3, population=16)
    told = [json.loads(line)["id"] for line in files(whole)["journal.jsonl"].splitlines() if b'"id"' in line]
    assert [each.candidate.id for each in outcome.scored] == told[:40]


class Repeating:
    """A strategy that always asks for the seeds, each twice, and for one rule more."""

    def __init__(self, seeds: tuple[Offspring, ...]) -> None:
        self.seeds = list(seeds)
        self.told: list[list[Scored]] = []

    def ask(self) -> list[Offspring]:
        extra = Candidate(
            self.seeds[0].candidate.template, self.seeds[0].candidate.slots, (("x", len(self.told)),)
        )
        more = Offspring(extra, "parameters", (self.seeds[0].candidate.id,), "x")
        return [*self.seeds, *self.seeds, more]

    def tell(self, scored: list[Scored]) -> None:
        self.told.append(list(scored))

    def state(self) -> dict[str, Any]:
        return {}


def test_what_is_known_is_not_evaluated_again(tmp_path, monkeypatch):
    setup = prepare_run(RunConfig(generations=3, start_from=("uniform_fp16", "uniform_int8")))
    strategy = Repeating(setup.problem.seeds)
    evaluated: list[str] = []
    real = engine.evaluate_candidates

    def counting(candidates: list[Candidate], *rest: Any) -> list[Evaluation]:
        evaluated.extend(each.id for each in candidates)
        return real(candidates, *rest)

    monkeypatch.setattr(type(setup), "new_strategy", lambda *_: strategy)
    monkeypatch.setattr(engine, "evaluate_candidates", counting)
    store, outcome = run(tmp_path, setup=setup)
    assert len(evaluated) == len(set(evaluated)) == len(outcome.scored) == 2 + 3
    assert [(each.evaluations, each.duplicates, each.total) for each in outcome.generations] == [
        (3, 2, 3),
        (1, 4, 4),
        (1, 4, 5),
    ]
    # It is told the evaluation of each, known or not, in the order asked for.
    for told in strategy.told:
        assert [each.candidate.id for each in told[:2]] == [each.candidate.id for each in told[2:4]]
        assert [each.candidate for each in told[:2]] == [each.candidate for each in setup.problem.seeds]
        assert {each.generation for each in told[:4]} == {0}
    ids = [record["id"] for record in store.records() if record["kind"] == "candidate"]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_ancestry_reaches_its_seeds(strategy, tmp_path):
    setup = prepare_run(RunConfig(strategy=strategy, seed=1, **SMALL))
    _, outcome = run(tmp_path, setup=setup)
    seeds = {each.candidate.id for each in setup.problem.seeds}
    known: dict[str, Scored] = {}
    for each in outcome.scored:
        assert set(each.offspring.parents) <= set(known), "parents stand before their children"
        assert (each.offspring.operator == "seed") == (not each.offspring.parents)
        assert (each.offspring.operator == "seed") == (each.candidate.id in seeds)
        known[each.candidate.id] = each
    for each in outcome.scored:
        steps = replace(outcome, champion=each).ancestry()
        assert steps[-1] == each
        ids = {step.candidate.id for step in steps}
        assert all(set(step.offspring.parents) <= ids for step in steps)
        assert any(step.candidate.id in seeds for step in steps)
    assert replace(outcome, champion=None).ancestry() == ()


def test_where_everything_fails_there_is_no_champion(tmp_path):
    """At level metadata, a threshold on sensitivities fails whatever its number."""
    store, outcome = run(
        tmp_path,
        signals="metadata",
        operators={"parameters": 1.0},
        start_from=("sensitivity_threshold", "greedy_sensitivity"),
        **SMALL,
    )
    assert outcome.champion is None
    assert outcome.finished
    assert outcome.ancestry() == ()
    assert len(outcome.generations) == 3
    assert {each.evaluation.failure for each in outcome.scored} == {"signal above the level"}
    last = outcome.generations[-1]
    assert (last.best, last.median, last.best_objective, last.champion) == (None, None, None, None)
    assert sum(each.failures for each in outcome.generations) == len(outcome.scored)
    assert not (store.path / "champion.json").exists()
    assert recorded_outcome(store) == outcome


@pytest.mark.parametrize("level", ["metadata", "statistics", "gradient"])
def test_a_search_at_a_lower_level_finds_rules_that_keep_to_it(level, tmp_path):
    _, outcome = run(tmp_path, signals=level, **SMALL)
    failed = [each for each in outcome.scored if each.evaluation.status == "failed"]
    assert {each.evaluation.failure for each in failed} <= {"signal above the level"}
    assert any(each.evaluation.status == "ok" for each in outcome.scored if each.offspring.operator != "seed")
    assert outcome.champion is not None


def test_generations_are_told_after_they_are_committed(tmp_path):
    setup = prepare_run(RunConfig(**SMALL))
    store = create_run("run", setup.resolved(), tmp_path)
    seen = []

    def observe(summary: engine.GenerationSummary) -> None:
        snapshot = store.snapshot()
        assert snapshot is not None
        assert snapshot.generation == summary.generation + 1
        assert len(store.scored()) == summary.total
        seen.append(summary)

    outcome = search(setup, store, observe=observe)
    assert tuple(seen) == outcome.generations
    assert [each.generation for each in seen] == [0, 1, 2]
    assert all(one.best_objective <= other.best_objective for one, other in pairwise(seen))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_stopped_and_continued_is_as_never_stopped(strategy, tmp_path):
    config = {"strategy": strategy, "generations": 4, "population": 12, "seed": 2}
    whole, expected = run(tmp_path, "whole", **config)
    setup = prepare_run(RunConfig(**config))
    create_run("parts", setup.resolved(), tmp_path)
    for generation in range(1, 5):
        # Everything anew each time, as in a process of its own.
        store = open_run("parts", tmp_path)
        outcome = search(prepare_run(stored_config(store.config())), store, should_stop=lambda: True)
        assert len(outcome.generations) == generation
        assert outcome.finished == (generation == 4)
        assert (store.path / "champion.json").exists() == outcome.finished
    assert outcome == expected == recorded_outcome(store)
    assert files(store) == files(whole)


def test_the_seed_decides(tmp_path):
    (one, _), (same, _), (other, _) = (
        run(tmp_path, name, seed=seed, **SMALL) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert files(one) == files(same)
    assert files(one)["journal.jsonl"] != files(other)["journal.jsonl"]


def test_a_damaged_generation_is_an_error_that_names_its_line(tmp_path):
    store, _ = run(tmp_path, generations=1, population=2)
    journal = store.path / "journal.jsonl"
    text = journal.read_text()
    journal.write_text(text.replace('"median"', '"medium"'))
    for read in (
        recorded_outcome,
        lambda store: search(prepare_run(RunConfig(generations=1, population=2)), store),
    ):
        with pytest.raises(RunError, match="damaged") as caught:
            read(store)
        last = f"line {len(text.splitlines())}"
        assert (caught.value.file, caught.value.place) == (str(journal), last)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("state", [{}, {"breeder": {}}, {"seeds": 3}, {"elites": ["unknown"]}])
def test_a_state_that_does_not_fit_is_an_error_that_says_so(tmp_path, strategy, state):
    config = {"generations": 2, "population": 2, "strategy": strategy, "start_from": ("uniform_fp16",)}
    setup = prepare_run(RunConfig(**config))
    store = create_run("run", setup.resolved(), tmp_path)
    search(setup, store, should_stop=lambda: True)
    snapshot = json.loads((store.path / "snapshot.json").read_text())
    (store.path / "snapshot.json").write_text(json.dumps({**snapshot, "strategy": state}))
    with pytest.raises(RunError, match=r"cannot be taken over.*start a new run") as caught:
        search(setup, store)
    assert caught.value.file == str(store.path / "snapshot.json")


if __name__ == "__main__":
    import tempfile

    print("GOLDEN = {")
    for each in STRATEGIES:
        print(f'    "{each}": {golden(each, Path(tempfile.mkdtemp()))},'.replace("'", '"'))
    print("}")
