"""Islands: several populations that search apart and now and then exchange their best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from evolve.candidates import Offspring, Scored
from evolve.search.base import Novelty, Problem, Strategy, check_count, rank_key

#: Makes a strategy of a problem; islands give all of theirs one `Novelty`.
StrategyFactory = Callable[[Problem, Novelty | None], Strategy]

#: Islands, where none is said.
ISLANDS = 4
#: Generations between migrations.
_INTERVAL = 5
#: No island has fewer candidates a generation than this.
_LEAST_POPULATION = 4
#: Between the seeds of neighbouring islands; the first has the run's own.
_SEED_STEP = 1_000_003


class Islands:
    """The island model (Whitley 1999): a ring on which each island's best moves to the next.

    The population is divided among the islands. No island spends an evaluation on what another
    has tried. One island is its strategy.

    Args:
        problem: What is searched.
        make: Makes an island's strategy.
        count: How many islands, if the population is large enough.
        novelty: Knows what was tried.
    """

    def __init__(
        self,
        problem: Problem,
        make: StrategyFactory,
        count: int = ISLANDS,
        novelty: Novelty | None = None,
    ) -> None:
        count = max(1, min(count, problem.population // _LEAST_POPULATION))
        shared = novelty if count == 1 else novelty or Novelty(problem)
        share, rest = divmod(problem.population, count)
        self._islands = [
            make(
                replace(problem, population=share + (index < rest), seed=problem.seed + index * _SEED_STEP),
                shared,
            )
            for index in range(count)
        ]
        self._best: list[Scored | None] = [None] * count
        self._generation = 0
        self._asked: list[list[Offspring]] = []

    def ask(self) -> list[Offspring]:
        """Return every island's offspring, one island after the other."""
        self._asked = [each.ask() for each in self._islands]
        return [each for asked in self._asked for each in asked]

    def tell(self, scored: Sequence[Scored]) -> None:
        """Tell each island about its own; every few generations, let the best move on."""
        check_count([each for asked in self._asked for each in asked], scored)
        start = 0
        for index, (island, asked) in enumerate(zip(self._islands, self._asked, strict=True)):
            own = scored[start : start + len(asked)]
            start += len(asked)
            island.tell(own)
            self._note(index, own)
        self._generation += 1
        if len(self._islands) > 1 and self._generation % _INTERVAL == 0:
            self._migrate()

    def _note(self, index: int, scored: Sequence[Scored]) -> None:
        for each in scored:
            best = self._best[index]
            if best is None or rank_key(each) > rank_key(best):
                self._best[index] = each

    def _migrate(self) -> None:
        """Send each island's best to the next one on the ring, all at the same time."""
        for index, best in enumerate(list(self._best)):
            target = (index + 1) % len(self._islands)
            if best is not None:
                self._islands[target].welcome([best])
                self._note(target, [best])

    def welcome(self, immigrants: Sequence[Scored]) -> None:
        """Let immigrants land on the first island."""
        self._islands[0].welcome(immigrants)
        self._note(0, immigrants)

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "islands": [each.state() for each in self._islands],
            "best": [None if each is None else each.candidate.id for each in self._best],
            "generation": self._generation,
        }

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        for island, own in zip(self._islands, state["islands"], strict=True):
            island.restore(own, archive)
        self._best = [None if each is None else archive[each] for each in state["best"]]
        self._generation = state["generation"]
