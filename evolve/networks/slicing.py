"""Which steps of a program a weight can change, and which values must be kept to run only those."""

from __future__ import annotations

from dataclasses import dataclass

from evolve.networks.network import Program, Value


@dataclass(frozen=True)
class Slice:
    """What a changed weight makes it necessary to run.

    Attributes:
        first: The first step that depends on it.
        beside: Later steps that do not, though those that do read what they make.
        dependent: The steps that do, and that the output depends on.
        frontier: The values that ``dependent`` reads and does not make.
    """

    first: int
    beside: tuple[int, ...]
    dependent: tuple[int, ...]
    frontier: frozenset[Value]


class Slices:
    """The slices of one program.

    Args:
        program: Its steps are read once.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self.needed = self._ancestors({program.output}, range(len(program.steps)))
        self._made: dict[Value, int] = {}
        self._last_use: dict[Value, int] = {program.output: len(program.steps)}
        for position in self.needed:
            for value in program.steps[position].inputs:
                self._last_use[value] = max(position, self._last_use.get(value, -1))
        for position, step in enumerate(program.steps):
            self._made.update(dict.fromkeys(step.outputs, position))
        self._found: dict[Value, Slice | None] = {}

    def of(self, weight: Value) -> Slice | None:
        """Return a weight's slice, None where the output does not depend on it."""
        if weight not in self._found:
            self._found[weight] = self._slice(weight)
        return self._found[weight]

    def live(self, position: int) -> frozenset[Value]:
        """Return the values, constants left out, made before a step and read by it or a later one."""
        return frozenset(
            value
            for value, last in self._last_use.items()
            if last >= position
            and self._made.get(value, -1) < position
            and value not in self._program.constants
        )

    def _slice(self, weight: Value) -> Slice | None:
        steps = self._program.steps
        changed = {weight}
        dependent = []
        for position in self.needed:
            if not changed.isdisjoint(steps[position].inputs):
                dependent.append(position)
                changed.update(steps[position].outputs)
        if self._program.output not in changed:
            return None
        constants = self._program.constants
        frontier = {
            value
            for position in dependent
            for value in steps[position].inputs
            if value not in changed and value not in constants
        }
        first = dependent[0]
        beside = self._ancestors(set(frontier), range(first, len(steps)))
        return Slice(first, tuple(beside), tuple(dependent), frozenset(frontier))

    def _ancestors(self, wanted: set[Value], positions: range) -> list[int]:
        """Return those of the steps that the wanted values depend on, in order."""
        found = []
        for position in reversed(positions):
            step = self._program.steps[position]
            if not wanted.isdisjoint(step.outputs):
                found.append(position)
                wanted.update(step.inputs)
        return found[::-1]
