"""Refinement of a rule's numbers by CMA-ES (Hansen 2001), spread over the generations of a search.

A strategy never evaluates, so a refinement cannot be run to its end when it is wanted. The
`Refiner` holds one CMA-ES a structure: asked for offspring it hands out the samples of the
generation that CMA-ES is at, and once all of these were told, CMA-ES moves on.

A run's state is its start, its seed and the candidates told so far, in order: CMA-ES draws from
nothing but its seed, so replaying what it was told makes the same object again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np

from evolve.candidates import Candidate, Offspring, Scored
from evolve.search.base import Problem, rank_key
from evolve.templates import Template

#: Structures refined at the same time: at least so many, …
_STRUCTURES = 4
#: … and one for each so many samples that are wanted, about as many as CMA-ES draws in a generation.
_SAMPLES = 8
#: Refinements kept while better structures are refined, in multiples of those at work.
_KEPT = 3
#: Spread of the first samples, in parts of each parameter's range; where a structure was refined before.
_SPREAD, _SPREAD_AGAIN = 0.05, 0.02
#: Times that a structure is refined, each time by generations twice as large, as in IPOP-CMA-ES (Auger and
#: Hansen 2005): shares of the optimum are rugged, and small generations lose their way there.
_ROUNDS = 3
#: What is known of a structure that was never refined.
_NEVER = (-math.inf, 0)
#: CMA-ES generations without a better rule after which a refinement ends.
_PATIENCE = 10
#: A gain below this is none.
_LEAST_GAIN = 1e-7
#: Significant digits: the search at large makes do with three.
_DIGITS = 5
#: What stands for the loss of a candidate that failed: worse than any objective.
_FAILED = 1e9


class Refinement:
    """One CMA-ES over the numbers of one structure.

    Args:
        template: The structure's template.
        start: The candidate whose numbers it starts from.
        seed: Seed of the samples, below 2³².
        spread: Standard deviation of the first samples, the range of each parameter being 1.
        samples: Samples of a CMA-ES generation; 0 for as many as are usual for so many parameters.
    """

    def __init__(
        self, template: Template, start: Scored, seed: int, spread: float = _SPREAD, samples: int = 0
    ) -> None:
        # Imported where it is used: most commands search nothing.
        from cmaes import CMA

        self.start = start
        self.best = start
        self.seed = seed
        self.spread = spread
        self.told: list[Scored] = []
        self.idle = 0
        self._parameters = template.parameters_of(start.candidate)
        units = [each.to_unit(each.default) for each in self._parameters]
        # CMA-ES needs two dimensions: beside a single parameter stands one that nothing reads.
        units += [0.5] * (2 - len(units))
        box = np.array([(0.0, 1.0)] * len(units))
        self._cma = CMA(
            mean=np.array(units),
            sigma=spread,
            bounds=box,
            seed=seed,
            population_size=samples or None,
        )
        self.samples: int = self._cma.population_size
        self._handed_out = 0
        self._values: list[float] = []
        self._improved = False
        self._sample()

    def _sample(self) -> None:
        self._points = [self._cma.ask() for _ in range(self._cma.population_size)]

    @property
    def waiting(self) -> int:
        """Samples of the current CMA-ES generation that were not yet handed out."""
        return len(self._points) - self._handed_out

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to gain here."""
        return self.idle >= _PATIENCE or self.converged

    @property
    def converged(self) -> bool:
        """Whether CMA-ES itself sees no more to gain; it may rise again after long rest."""
        return bool(self._cma.should_stop())

    def ask(self) -> Offspring:
        """Return the next sample; only while some are `waiting`."""
        point = self._points[self._handed_out]
        self._handed_out += 1
        numbers = {
            each.name: each.from_unit(float(unit), _DIGITS)
            for each, unit in zip(self._parameters, point, strict=False)
        }
        before = dict(self.best.candidate.parameters)
        words = ", ".join(f"{name} {before[name]:.5g} → {value:.5g}" for name, value in numbers.items())
        parameters = tuple((name, numbers[name]) for name, _ in self.start.candidate.parameters)
        candidate = replace(self.start.candidate, parameters=parameters)
        return Offspring(candidate, "refine", (self.best.candidate.id,), words)

    def tell(self, scored: Scored) -> None:
        """Take the evaluation of the earliest sample that has none yet."""
        self.told.append(scored)
        objective = scored.evaluation.objective
        self._values.append(-objective if np.isfinite(objective) else _FAILED)
        if objective > self.best.evaluation.objective + _LEAST_GAIN:
            self.best, self._improved = scored, True
        if len(self._values) == len(self._points):
            self._cma.tell(list(zip(self._points, self._values, strict=True)))
            self.idle = 0 if self._improved else self.idle + 1
            self._handed_out, self._values, self._improved = 0, [], False
            self._sample()

    def state(self) -> dict[str, Any]:
        """Return what makes this refinement again, as JSON."""
        return {
            "start": self.start.candidate.id,
            "seed": self.seed,
            "spread": self.spread,
            "samples": self.samples,
            "told": [each.candidate.id for each in self.told],
        }

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], archive: Mapping[str, Scored], templates: Mapping[str, Template]
    ) -> Refinement:
        """Make a refinement from its state, by telling it again what it was told."""
        start = archive[state["start"]]
        template = templates[start.candidate.template]
        made = cls(template, start, state["seed"], state["spread"], state["samples"])
        for name in state["told"]:
            made._handed_out += 1
            made.tell(archive[name])
        return made


class Refiner:
    """Refines the best few structures that have numbers; what any strategy asks for `refine`."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._running: dict[str, Refinement] = {}
        # For each structure, the best objective that refining it has come to, and how often it was.
        self._done: dict[str, tuple[float, int]] = {}
        self._risen: list[str] = []
        self._asked: list[str] = []

    def ask(
        self,
        pool: Sequence[Scored],
        wanted: int,
        draw_seed: Callable[[], int],
        rising: Sequence[Scored] = (),
    ) -> list[Offspring]:
        """Return up to so many samples; fewer where there is little left to refine.

        Args:
            pool: The candidates that are worth refining; the best of a structure counts.
            wanted: How many samples at most.
            draw_seed: Draws the seed of a new refinement.
            rising: What is refined beside the best, the first first.
        """
        if wanted > 0:
            self._choose(pool, rising, max(_STRUCTURES, wanted // _SAMPLES), draw_seed)
        samples: list[Offspring] = []
        self._asked = []
        for name, refinement in self._running.items():
            for _ in range(min(refinement.waiting, wanted - len(samples))):
                samples.append(refinement.ask())
                self._asked.append(name)
        return samples

    @property
    def best(self) -> list[Scored]:
        """The best of each structure that is being refined."""
        return [each.best for each in self._running.values()]

    def _choose(
        self, pool: Sequence[Scored], rising: Sequence[Scored], slots: int, draw_seed: Callable[[], int]
    ) -> None:
        """Refine so many of the pool's best structures: end what is finished, give way to what is better."""
        for name, refinement in list(self._running.items()):
            if refinement.finished:
                _, done = self._done.get(name, _NEVER)
                self._done[name] = refinement.best.evaluation.objective, done + 1
                del self._running[name]
        candidates: dict[str, Scored] = {name: refinement.best for name, refinement in self._running.items()}
        for each in sorted((*pool, *rising), key=rank_key, reverse=True):
            if not each.candidate.parameters or each.evaluation.status != "ok":
                continue
            name = structure_id(each.candidate)
            reached, done = self._done.get(name, _NEVER)
            if name not in candidates and (done < _ROUNDS or each.evaluation.objective > reached):
                candidates[name] = each
        ranked = sorted(candidates.items(), key=lambda item: rank_key(item[1]), reverse=True)
        # The best of each template takes turns with the best of all: before its numbers are tuned, the
        # form that will win is often far below another.
        first = {each.candidate.template: name for name, each in reversed(ranked)}
        niches = [name for name, _ in ranked if name in first.values()]
        turns = zip_longest((name for name, _ in ranked), niches)
        names = list(dict.fromkeys(name for turn in turns for name in turn if name is not None))
        if rising:
            # Half of the places go to what rises, those that began to be refined before the others.
            wanted = [*self._risen, *(structure_id(each.candidate) for each in rising)]
            self._risen = [name for name in dict.fromkeys(wanted) if name in candidates][: slots // 2]
            names = [*self._risen, *(name for name in names if name not in self._risen)]
        paused = [name for name in names[slots : slots * _KEPT] if name in self._running]
        chosen = {
            name: self._running.get(name) or self._begin(name, candidates[name], draw_seed)
            for name in names[:slots]
        }
        self._running = chosen | {name: self._running[name] for name in paused}

    def _begin(self, name: str, scored: Scored, draw_seed: Callable[[], int]) -> Refinement:
        template = self._problem.templates[scored.candidate.template]
        _, done = self._done.get(name, _NEVER)
        refinement = Refinement(template, scored, draw_seed() % 2**32)
        if done == 0:
            return refinement
        larger = refinement.samples * 2 ** min(done, _ROUNDS - 1)
        return Refinement(template, scored, refinement.seed, _SPREAD_AGAIN, larger)

    def tell(self, scored: Sequence[Scored]) -> None:
        """Take the evaluations of the samples asked for, in the same order."""
        for name, each in zip(self._asked, scored, strict=True):
            self._running[name].tell(each)
        self._asked = []

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "running": {name: each.state() for name, each in self._running.items()},
            "done": {name: list(each) for name, each in self._done.items()},
            "risen": list(self._risen),
        }

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        templates = self._problem.templates
        self._running = {
            name: Refinement.from_state(each, archive, templates) for name, each in state["running"].items()
        }
        self._done = {name: (reached, done) for name, (reached, done) in state["done"].items()}
        self._risen = list(state["risen"])
        self._asked = []


def structure_id(candidate: Candidate) -> str:
    """Return a text that candidates share which differ only in their numbers."""
    return replace(candidate, parameters=()).id
