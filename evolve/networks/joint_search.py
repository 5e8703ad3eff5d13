"""Searches allocations on the real network, all layers quantized at once, with the profile as a cheap guide.

Where losses no longer add up, a profile still says well in which order to try things. First the allocation
given, the profile's own best ones of that size and the uniform formats are measured. From the best of them
a local search moves one group of tied layers to another format, or one up and another down, within the
same bits, the moves that are expected to gain most first; what measures better is kept. Moves lead to
formats close by in bits, and where none of these is left, to any format. The expectation
starts as the profile's table, and each measurement corrects the entries it touched by equal shares of what
it was wrong by (Kaczmarz 1937).

Shapes: L layers, K formats, G groups of tied layers, M moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolve.allocations import names_of
from evolve.constraints import Choices
from evolve.networks.joint_measuring import JointMeasurer
from evolve.optimum import minimise_loss, sum_groups, tied_groups
from evolve.profiles import ModelProfile
from evolve.scoring import FloatArray

#: Told of evaluations done, of all evaluations, and of what is measured next.
Progress = Callable[[int, int, str], None]
IndexArray = NDArray[np.int64]

#: A format's neighbours: so many of the next that take more bits, and as many that take fewer, of those
#: that no other one beats.
REACH = 2
#: So many steps to wider formats, and to narrower ones, are paired at most: those expected to be best.
_MOST_STEPS = 1000
#: What is learnt of a divergence ends here, where a profile's does: beyond, a network is broken, by no
#: matter how much, and an entry that has only a share in it would hardly ever be tried again.
_MOST = 37.0
#: Budgets are kept give or take this, relative.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Improvement:
    """A measurement that was better than all before it.

    Attributes:
        evaluation: Its number, from 1.
        change: What was changed, in words.
        divergence: Measured on the data that is searched on.
    """

    evaluation: int
    change: str
    divergence: float


@dataclass(frozen=True, eq=False)
class Refinement:
    """What a search found.

    Attributes:
        choices: Format index of each layer, (L,).
        start: Divergence of the allocation it began with.
        divergence: Divergence of the one it found, never above the start's.
        evaluations: Allocations looked at, those from the cache counted.
        improvements: How it went, the start first.
        exhausted: Whether no move was left to try.
        looked_at: Of each allocation looked at, in order, the sum that the profile predicts and what it
            measured.
    """

    choices: Choices
    start: float
    divergence: float
    evaluations: int
    improvements: tuple[Improvement, ...]
    exhausted: bool
    looked_at: tuple[tuple[float, float], ...] = ()


def refine(
    profile: ModelProfile,
    start: Choices,
    measurer: JointMeasurer,
    evaluations: int,
    progress: Progress | None = None,
) -> Refinement:
    """Return an allocation of at most the same bits that measures at least as well.

    The same arguments give the same search, whatever the cache holds; so a killed search goes on where
    it was when it is started again with the same cache.

    Args:
        profile: The network's profile; its layers are those of the network.
        start: Format index of each layer, (L,), ties kept.
        measurer: Measures on the calibration data.
        evaluations: Allocations to look at, at least 1.
        progress: Called before each of them and at the end.
    """
    return _Search(profile, start, measurer, evaluations, progress).run()


@dataclass(frozen=True)
class _Move:
    """Groups that change, and their new formats."""

    changes: tuple[tuple[int, int], ...]


class _Search:
    def __init__(
        self,
        profile: ModelProfile,
        start: Choices,
        measurer: JointMeasurer,
        evaluations: int,
        progress: Progress | None,
    ) -> None:
        self.profile, self.measurer = profile, measurer
        self.limit, self.progress = evaluations, progress
        self.groups = tied_groups(profile.tied_layers, profile.num_layers)
        self.members = [np.flatnonzero(self.groups == at) for at in range(self.groups.max() + 1)]
        size = profile.num_params[:, None] * profile.bits_table
        self.bits = sum_groups(size, self.groups)  # (G, K)
        self.table = sum_groups(np.array(profile.loss), self.groups)  # (G, K)
        self.alone = self.table.copy()  # as measured, never corrected
        self.current = start[[members[0] for members in self.members]].astype(np.int64)  # (G,)
        self.budget = self._size(self.current) * (1 + _ROUNDING)
        self.seen: dict[bytes, float] = {}
        self.improvements: list[Improvement] = []
        self.ladders = [self._ladder(at) for at in range(len(self.members))]
        self.reach = REACH

    def run(self) -> Refinement:
        first = self._measure(self.current, "the allocation given")
        self.improvements.append(Improvement(1, "the allocation given", first))
        best = first
        for words, choice in self._starts():
            if len(self.seen) >= self.limit:
                break
            if choice.tobytes() not in self.seen:
                best = self._keep(choice, words, best)
        expected = self._expected(self.current)
        if expected > 0 and 0 < best < _MOST:
            # What does not add up is off by a factor first of all.
            self.table *= best / expected
        exhausted = False
        while len(self.seen) < self.limit:
            move = self._next_move()
            if move is not None:
                best = self._try(move, best)
            elif self.reach == REACH:
                self.reach = len(self.bits[0])
                self.ladders = [list(np.argsort(each, kind="stable")) for each in self.bits]
            else:
                exhausted = True
                break
        if self.progress is not None:
            self.progress(len(self.seen), self.limit, "")
        choices = self.current[self.groups].astype(np.uint8)
        groups = np.arange(len(self.members))
        looked_at = tuple(
            (float(self.alone[groups, np.frombuffer(choice, dtype=np.int64)].sum()), found)
            for choice, found in self.seen.items()
        )
        return Refinement(
            choices, first, best, len(self.seen), tuple(self.improvements), exhausted, looked_at
        )

    def _starts(self) -> Iterator[tuple[str, IndexArray]]:
        """Yield what the profile itself would choose within the budget."""
        tables: Mapping[str, FloatArray] = {
            "divergence": self.profile.loss,
            "Fisher information": self.profile.measurements.get("fisher_loss", self.profile.loss),
        }
        size = self.profile.num_params[:, None] * self.profile.bits_table
        for words, table in tables.items():
            if np.ndim(table) == 2:
                found = minimise_loss(size, np.maximum(table, 0), self.budget, self.profile.tied_layers)
                leaders = [members[0] for members in self.members]
                yield f"the profile's best by {words}", found.allocation[leaders].astype(np.int64)
        for index, name in enumerate(self.profile.format_names):
            choice = np.full(len(self.members), index)
            if self._size(choice) <= self.budget:
                yield f"{name} everywhere", choice

    def _try(self, move: _Move, best: float) -> float:
        """Measure a move, learn from it, keep it if it is better, and return the least divergence."""
        choice = self.current.copy()
        for group, index in move.changes:
            choice[group] = index
        expected = self._expected(choice) - self._expected(self.current)
        changes = [(group, int(self.current[group]), index) for group, index in move.changes]
        before = self.seen[self.current.tobytes()]
        least = self._keep(choice, self._words(changes), best)
        wrong = min(self.seen[choice.tobytes()], _MOST) - min(before, _MOST) - expected
        for group, _, index in changes:
            self.table[group, index] += wrong / len(changes)
        return least

    def _keep(self, choice: IndexArray, words: str, best: float) -> float:
        found = self._measure(choice, words)
        if found < best:
            self.current = choice
            self.improvements.append(Improvement(len(self.seen), words, found))
        return min(found, best)

    def _measure(self, choice: IndexArray, words: str) -> float:
        if self.progress is not None:
            self.progress(len(self.seen), self.limit, words)
        layers = zip(names_of(self.profile), choice[self.groups], strict=True)
        formats = {name: self.profile.format_names[index] for name, index in layers}
        self.seen[choice.tobytes()] = found = self.measurer.measure(formats).divergence
        return found

    def _next_move(self) -> _Move | None:
        """Return the move that is expected to gain most and was not measured yet, None if none is left."""
        groups, indices = self._steps()
        bits = self.bits[groups, indices] - self.bits[groups, self.current[groups]]
        loss = self.table[groups, indices] - self.table[groups, self.current[groups]]
        room = self.budget - self._size(self.current)
        alone = np.flatnonzero(bits <= room)
        order = np.argsort(loss, kind="stable")
        up, down = (order[sign * bits[order] > 0][:_MOST_STEPS] for sign in (1, -1))
        fits = (bits[up][:, None] + bits[down] <= room) & (groups[up][:, None] != groups[down])
        first, second = np.nonzero(fits)
        pairs = np.column_stack([up[first], down[second]])
        gains = np.concatenate([loss[alone], loss[pairs].sum(axis=1)])
        for at in np.argsort(gains, kind="stable"):
            steps = [alone[at]] if at < len(alone) else pairs[at - len(alone)]
            choice = self.current.copy()
            choice[groups[steps]] = indices[steps]
            if choice.tobytes() not in self.seen:
                return _Move(tuple((int(groups[each]), int(indices[each])) for each in steps))
        return None

    def _steps(self) -> tuple[IndexArray, IndexArray]:
        """Return the groups and formats of all single steps from where the search is, (M,) each."""
        steps = [
            (group, index)
            for group, ladder in enumerate(self.ladders)
            for index in _near(ladder, self.bits[group], int(self.current[group]), self.reach)
        ]
        made = np.array(steps, dtype=np.int64).reshape(-1, 2)
        return made[:, 0], made[:, 1]

    def _ladder(self, group: int) -> list[int]:
        """Return the formats of a group that no other one beats in bits and loss, by bits."""
        order = np.lexsort((self.table[group], self.bits[group]))
        kept: list[int] = []
        for index in order:
            if not kept or self.table[group, index] < self.table[group, kept[-1]]:
                kept.append(int(index))
        return kept

    def _size(self, choice: IndexArray) -> float:
        return float(self.bits[np.arange(len(choice)), choice].sum())

    def _expected(self, choice: IndexArray) -> float:
        return float(self.table[np.arange(len(choice)), choice].sum())

    def _words(self, changes: list[tuple[int, int, int]]) -> str:
        names, formats = names_of(self.profile), self.profile.format_names
        return ", ".join(
            f"{' + '.join(names[at] for at in self.members[group])} {formats[old]} → {formats[new]}"
            for group, old, new in changes
        )


def _near(ladder: list[int], bits: FloatArray, current: int, reach: int) -> list[int]:
    """Return the formats of a ladder that are next to one by their bits."""
    above = [index for index in ladder if bits[index] > bits[current]][:reach]
    below = [index for index in ladder if bits[index] < bits[current]][-reach:]
    beside = [index for index in ladder if bits[index] == bits[current] and index != current]
    return below + beside + above
