"""Which structures are refined, and for how long.

What a structure is worth shows only once its numbers are tuned, which takes hundreds of samples; there
are thousands of structures. So refinement goes in stages, each longer than the one before, and between
them a structure waits for another turn. Half of the places go to structures that were never refined, the
better ones rather. The other half go to those that promise most: what they have reached, and once more
what the last stage has gained. So one that rises from far below is followed for as long as it rises, in
the spirit of successive halving (Jamieson & Talwalkar 2016) and of predictions from learning curves
(Domhan, Springenberg & Hutter 2015). Where losses are fitted, half of the new ones are well-fitted
structures, whatever they reach: `evolve.search.well_fitted`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import numpy as np

from evolve.candidates import Candidate, Offspring, Scored
from evolve.search.base import Problem, rank_key
from evolve.search.refinement import Refinement

#: Structures refined at the same time at least.
_STRUCTURES = 4
#: Samples of the first stage; each later one is so many times longer, up to a longest.
_STAGE, _LONGER, _LONGEST = 20, 2, 320
#: How much rather the best of the new structures are begun with: the power of a uniform draw of the rank.
#: Of so many drawn the simplest is taken.
_BEST_FIRST, _DRAWN = 3, 3
#: Part of the new structures that are well-fitted ones.
_FITTED_SHARE = 0.5
#: Refinements kept between stages; others begin anew from the best there is.
_KEPT = 30
#: Spread of the first samples: that of the gap to the optimum, within these bounds. A structure that is good
#: when it comes has tuned numbers, and wide samples of nine of them are all worse.
_NARROW, _WIDE = 0.01, 0.05
#: The same where a structure was refined before.
_SPREAD_AGAIN = 0.02
#: The same where numbers were fitted: they are near the best ones, and prices decide by a few per cent.
_SPREAD_FITTED = 0.003
#: Times that a structure is refined to the end. Shares of the optimum are rugged: by turns it is refined
#: again from where it is, by generations twice as large, as in IPOP-CMA-ES (Auger and Hansen 2005), and
#: from the best of so many samples around it.
_ROUNDS, _SCATTERED = 6, 16


@dataclass
class _Record:
    """What refining a structure has come to.

    Attributes:
        reached: Its best objective when it was first refined, and after each stage.
        left: Samples that are left of the stage it is in.
        rounds: How often it was refined to the end.
        seed: Seed of its samples.
    """

    reached: list[float] = field(default_factory=list)
    left: int = 0
    rounds: int = 0
    seed: int = 0

    @property
    def stages(self) -> int:
        """How many stages it has gone through."""
        return len(self.reached) - 1

    @property
    def promise(self) -> float:
        """What it would reach if the next stage gained as much as the last."""
        return 2 * self.reached[-1] - self.reached[-2]

    def state(self) -> dict[str, Any]:
        """Return what makes this record again, as JSON."""
        return {"reached": list(self.reached), "left": self.left, "rounds": self.rounds, "seed": self.seed}

    def begin_stage(self) -> None:
        """Give it the samples of its next stage."""
        self.left = min(_LONGEST, _STAGE * _LONGER**self.stages)


class Refiner:
    """Refines structures that have numbers, in stages; what any strategy asks for `refine`."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._running: dict[str, Refinement] = {}
        self._resting: dict[str, Refinement] = {}
        self._records: dict[str, _Record] = {}
        self._asked: list[str] = []

    def ask(
        self,
        pool: Sequence[Scored],
        wanted: int,
        draw_seed: Callable[[], int],
        well_fitted: Collection[str] = (),
    ) -> list[Offspring]:
        """Return up to so many samples; fewer where there is little left to refine.

        Args:
            pool: The candidates that are worth refining; the best of a structure counts.
            wanted: How many samples at most.
            draw_seed: Draws the seed of a new refinement.
            well_fitted: Ids of structures whose predicted loss is near the measured one. Half of those that
                are begun with are of these, as long as there are any.
        """
        if wanted > 0:
            self._end_stages()
            self._choose(pool, wanted, draw_seed, well_fitted)
        samples: list[Offspring] = []
        self._asked = []
        for name, refinement in list(self._running.items()):
            for _ in range(min(refinement.waiting, wanted - len(samples))):
                samples.append(refinement.ask())
                self._asked.append(name)
            if name in self._asked:
                # Whom there was nothing left for comes first next time.
                self._running[name] = self._running.pop(name)
        return samples

    @property
    def best(self) -> list[Scored]:
        """The best of each structure that is being refined."""
        return [each.best for each in self._running.values()]

    def _end_stages(self) -> None:
        """Let those rest whose stage is over, and forget what is at its end."""
        for name, refinement in list(self._running.items()):
            record = self._records[name]
            if record.left > 0 and not refinement.finished:
                continue
            record.reached.append(refinement.best.evaluation.objective)
            del self._running[name]
            if refinement.finished:
                record.rounds += 1
            else:
                self._resting[name] = refinement
        kept = sorted(self._resting, key=lambda name: self._records[name].promise, reverse=True)[:_KEPT]
        self._resting = {name: self._resting[name] for name in kept}

    def _choose(
        self,
        pool: Sequence[Scored],
        wanted: int,
        draw_seed: Callable[[], int],
        well_fitted: Collection[str],
    ) -> None:
        """Let so many be at work that they want the samples: half of them structures never refined before."""
        best: dict[str, Scored] = {}
        for each in sorted(pool, key=rank_key, reverse=True):
            if each.candidate.parameters and each.evaluation.status == "ok":
                best.setdefault(structure_id(each.candidate), each)
        new = _in_turns({name: each for name, each in best.items() if name not in self._records})
        fitted = [name for name in best if name in well_fitted and name not in self._records]
        known = [name for name in self._records if name not in self._running and self._may_go_on(name, best)]
        known.sort(key=lambda name: self._records[name].promise, reverse=True)
        while (new or known) and (
            len(self._running) < _STRUCTURES or sum(each.waiting for each in self._running.values()) < wanted
        ):
            begun = sum(1 for name in self._running if self._records[name].stages == 0)
            if new and (2 * begun <= len(self._running) or not known):
                seed = draw_seed() % 2**32
                random = np.random.default_rng(seed)
                if fitted and random.random() < _FITTED_SHARE:
                    name = fitted[int(len(fitted) * random.random() ** _BEST_FIRST)]
                else:
                    drawn = [new[int(len(new) * rank)] for rank in random.random(_DRAWN) ** _BEST_FIRST]
                    name = min(drawn, key=lambda name: best[name].evaluation.complexity)
                new.remove(name)
                fitted = [each for each in fitted if each != name]
                self._records[name] = _Record([best[name].evaluation.objective], seed=seed)
            else:
                name = known.pop(0)
            rested = self._resting.pop(name, None)
            self._running[name] = rested or self._begin(name, best[name], name in well_fitted)
            self._records[name].begin_stage()

    def _may_go_on(self, name: str, best: Mapping[str, Scored]) -> bool:
        if name in self._resting:
            return True
        record = self._records[name]
        better = name in best and best[name].evaluation.objective > record.reached[-1]
        return better or (name in best and record.rounds < _ROUNDS)

    def _begin(self, name: str, scored: Scored, well_fitted: bool) -> Refinement:
        template = self._problem.templates[scored.candidate.template]
        record = self._records[name]
        gap = 1.0 - scored.evaluation.objective
        spread = _SPREAD_FITTED if well_fitted else min(_WIDE, max(_NARROW, gap))
        refinement = Refinement(template, scored, record.seed, spread)
        if record.stages == 0:
            return refinement
        seed = (record.seed + record.rounds) % 2**32
        if record.rounds and record.rounds % 2 == 0:
            return Refinement(template, scored, seed, scattered=_SCATTERED)
        return Refinement(template, scored, seed, _SPREAD_AGAIN, 2 * refinement.samples)

    def tell(self, scored: Sequence[Scored]) -> None:
        """Take the evaluations of the samples asked for, in the same order."""
        for name, each in zip(self._asked, scored, strict=True):
            self._running[name].tell(each)
            self._records[name].left -= 1
        self._asked = []

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "running": {name: each.state() for name, each in self._running.items()},
            "resting": {name: each.state() for name, each in self._resting.items()},
            "records": {name: each.state() for name, each in self._records.items()},
        }

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        templates = self._problem.templates
        self._running, self._resting = (
            {name: Refinement.from_state(each, archive, templates) for name, each in state[kind].items()}
            for kind in ("running", "resting")
        )
        self._records = {name: _Record(**each) for name, each in state["records"].items()}
        self._asked = []


def _in_turns(ranked: dict[str, Scored]) -> list[str]:
    """Return the structures in order, the best of each template taking turns with the best of all.

    Before its numbers are tuned, the form that will win is often far below another.
    """
    first = {each.candidate.template: name for name, each in reversed(list(ranked.items()))}
    niches = [name for name in ranked if name in first.values()]
    turns = zip_longest(ranked, niches)
    return list(dict.fromkeys(name for turn in turns for name in turn if name is not None))


def structure_id(candidate: Candidate) -> str:
    """Return a text that candidates share which differ only in their numbers."""
    return replace(candidate, parameters=()).id
