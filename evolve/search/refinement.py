"""Refinement of a rule's numbers by CMA-ES (Hansen 2001), spread over the generations of a search.

A strategy never evaluates, so a refinement cannot be run to its end when it is wanted: asked for
offspring it hands out the samples of the generation that CMA-ES is at, and once all of these were
told, CMA-ES moves on. `evolve.search.refiner` says which structures are refined.

A run's state is its start, its seed and the candidates told so far, in order: CMA-ES draws from
nothing but its seed, so replaying what it was told makes the same object again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from evolve.candidates import Offspring, Scored
from evolve.search.base import FloatArray
from evolve.templates import Template

#: Spread of the first samples, in parts of each parameter's range.
_SPREAD = 0.05
#: The same for samples that are drawn widely.
_SCATTER = 0.12
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
        scattered: So many samples are drawn widely around the start, and CMA-ES begins from the best of them;
            0 begins from the start.
    """

    def __init__(
        self,
        template: Template,
        start: Scored,
        seed: int,
        spread: float = _SPREAD,
        samples: int = 0,
        scattered: int = 0,
    ) -> None:
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
        self._cma = self._new_cma(np.array(units), samples)
        self.samples: int = self._cma.population_size
        self.scattered = scattered
        self._handed_out = 0
        self._values: list[float] = []
        self._improved = False
        # From another place it has to rise by itself first.
        self._reached = -np.inf if scattered else start.evaluation.objective
        if scattered:
            random = np.random.default_rng(seed)
            drawn = random.normal(units, _SCATTER, (scattered, len(units)))
            self._points = list(np.clip(drawn, 0.0, 1.0))
        else:
            self._sample()

    def _new_cma(self, mean: FloatArray, samples: int) -> Any:
        # Imported where it is used: most commands search nothing.
        from cmaes import CMA

        box = np.array([(0.0, 1.0)] * len(mean))
        size = samples or None
        return CMA(mean=mean, sigma=self.spread, bounds=box, seed=self.seed, population_size=size)

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
        if objective > self._reached + _LEAST_GAIN:
            self._reached, self._improved = objective, True
        if objective > self.best.evaluation.objective + _LEAST_GAIN:
            self.best = scored
        if len(self._values) == len(self._points):
            if self.scattered and len(self.told) == self.scattered:
                self._cma = self._new_cma(self._points[int(np.argmin(self._values))], self.samples)
            else:
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
            "scattered": self.scattered,
            "told": [each.candidate.id for each in self.told],
        }

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], archive: Mapping[str, Scored], templates: Mapping[str, Template]
    ) -> Refinement:
        """Make a refinement from its state, by telling it again what it was told."""
        start = archive[state["start"]]
        template = templates[start.candidate.template]
        made = cls(template, start, state["seed"], state["spread"], state["samples"], state["scattered"])
        for name in state["told"]:
            made._handed_out += 1
            made.tell(archive[name])
        return made
