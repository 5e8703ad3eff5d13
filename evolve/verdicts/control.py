"""The permuted control: what is left of a result where the layers a rule sees are not those it decides for.

In every model the sensitivities, and the sizes that go with them, are permuted among the layers against
everything a rule may read: it sees the model as it is, and what it decides for a layer is applied to
another one. One control serves all information levels. Permuting sensitivities in what is seen *and* in
what is scored would break only the bond of types and positions to sensitivities: a rule that reads
curves would still read the right ones, and rightly lose nothing. Were sizes left in place, a rule could
still save bits on the largest layers, which is no luck either. So both stay together, and what is left
is knowledge of the model as a whole. With that, one can choose a uniform format for each model, and
nothing better: the best uniform format and the optimum are those of the model unpermuted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evolve.candidates import Candidate
from evolve.engine import Outcome, recorded_outcome, search
from evolve.profiles import ModelProfile
from evolve.setup import Setup
from evolve.store import RunStore, Snapshot
from evolve.templates import Template
from evolve.verdicts.models import DisguisedArena, DisguisedSearchArena, FloatArray, Split, shares

#: The folder of a control search in that of its run.
CONTROL = "control"
#: Candidates times models of a control search that every report makes.
_AFFORDABLE = 10_000
_DRAWS = 5


def permuted(profiles: Sequence[ModelProfile], seed: int) -> list[ModelProfile]:
    """Return models whose sizes and sensitivities, row by row, belong to other layers."""
    generator = np.random.default_rng(seed)
    found = []
    for each in profiles:
        order = generator.permutation(each.num_layers)
        bits = None if each.layer_bits is None else each.layer_bits[order]
        sizes, losses = each.num_params[order], each.sensitivity[order]
        # Shapes belong to the sizes that layers had before; no rule reads them.
        moved = replace(each, num_params=sizes, sensitivity=losses, layer_bits=bits, layer_shapes=())
        found.append(moved)
    return found


def permuted_shares(
    champion: Candidate, templates: Mapping[str, Template], split: Split, seed: int
) -> FloatArray:
    """Return (M,) a rule's shares of the optimum on permuted models, the mean of several permutations."""
    arenas = (_permuted_arena(split, seed + draw) for draw in range(_DRAWS))
    found: FloatArray = np.array([shares([champion], templates, arena)[0] for arena in arenas])
    means: FloatArray = found.mean(axis=0)
    return means


def searched_shares(
    champion: Candidate, templates: Mapping[str, Template], split: Split, seed: int
) -> FloatArray:
    """Return (M,) what a rule found by a control search reaches on the permuted models it was found with."""
    found: FloatArray = shares([champion], templates, _permuted_arena(split, seed))[0]
    return found


def _permuted_arena(split: Split, seed: int) -> DisguisedArena:
    arena = split.arena
    truth = permuted(split.profiles, seed)
    return DisguisedArena(split.profiles, truth, arena.level, arena.optimum_fitness, arena.budgets)


def control_search(store: RunStore, setup: Setup) -> Outcome:
    """Return what the same search finds on permuted models.

    That is the full control kept with the run, if `run_control` has made one; otherwise one of at
    most as many evaluations as a report can afford is made now, which always gives the same.
    """
    kept = RunStore(store.path / CONTROL)
    if (kept.path / "snapshot.json").is_file():
        outcome = recorded_outcome(kept)
        if outcome.finished:
            return outcome
    affordable = _AFFORDABLE // len(setup.arena.profiles)
    population = min(setup.config.population, max(8, affordable))
    generations = min(setup.config.generations, max(1, affordable // population))
    config = replace(setup.config, population=population, generations=generations)
    smaller = replace(setup, config=config, problem=replace(setup.problem, population=population))
    return search(permuted_setup(smaller), _Memory())


def plan_control(store: RunStore) -> None:
    """Note in a run's directory that it is to have a full control search, for whoever resumes it."""
    (store.path / CONTROL).mkdir(exist_ok=True)


def planned_control(store: RunStore) -> RunStore | None:
    """Return where the full control search of a run is kept, begun or not; None if it is to have none."""
    kept = RunStore(store.path / CONTROL)
    return kept if kept.path.is_dir() else None


def run_control(store: RunStore, setup: Setup, should_stop: Callable[[], bool] = lambda: False) -> bool:
    """Make the full control search, with the settings of the run, or what is missing of it.

    Args:
        store: The run, in whose directory it is kept.
        setup: What the run searched.
        should_stop: Asked after each generation; True ends the search so that it can be resumed.

    Returns:
        Whether it has ended.
    """
    plan_control(store)
    return search(permuted_setup(setup), RunStore(store.path / CONTROL), should_stop=should_stop).finished


def permuted_setup(setup: Setup) -> Setup:
    """Return what a control search searches: the same, scored on permuted models."""
    seen = [setup.dataset.train, setup.dataset.valid]
    if setup.arena.copied is not None:
        seen.append(setup.arena.copied.profiles)
    truth = {each.name: each for profiles in seen for each in permuted(profiles, setup.config.seed)}
    arena = DisguisedSearchArena(
        setup.dataset, setup.config.signals, truth, setup.arena.budgets, setup.config.copies
    )
    return replace(setup, arena=arena)


class _Memory(RunStore):
    """A run that is kept nowhere."""

    def __init__(self) -> None:
        super().__init__(Path(CONTROL))
        self._snapshot: Snapshot | None = None

    def snapshot(self) -> Snapshot | None:
        """Return the last committed state."""
        return self._snapshot

    def records(self) -> list[dict[str, Any]]:
        """Return nothing: no one continues this run."""
        return []

    def commit(
        self,
        records: Iterable[Mapping[str, Any]],  # noqa: ARG002 - as in RunStore
        generation: int,
        strategy: Mapping[str, Any],
        finished: bool,
    ) -> None:
        """Remember the state."""
        self._snapshot = Snapshot(generation, 0, strategy, finished)

    def write(self, name: str, value: Any) -> None:
        """Write nothing."""
