"""What a PyTorch network did with one batch, operator by operator, so that parts of it can run again.

The tape holds the very operators that ran, so that running them again gives the same bits. Operators
that write into their argument are given a copy, which then stands for the argument in later steps;
where another view of the same memory is read later, all steps from the making of that memory to its
last use of that kind are one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from evolve.networks.network import Step, Value

#: Prepared parts that are kept for the next batch.
_KEPT_PLANS = 8


@dataclass(frozen=True)
class Call:
    """One call of an operator.

    Attributes:
        operator: The operator.
        leaves: Its arguments, keywords and lists unpacked; None where a tensor goes.
        spec: How the leaves are packed again.
        reads: Which leaves are tensors, and the values that they hold.
        writes: Which leaves are written into, and what these values are called then.
        makes: Which results are new tensors, and the values that they are.
        in_place: Values that it may write into for good, for their memory is made in the same step.
        keywords: Where tensors are only arguments of their own, as in most calls: the leaves are then
            the arguments, and these the keywords.
    """

    operator: Any
    leaves: tuple[Any, ...]
    spec: TreeSpec
    reads: tuple[tuple[int, Value], ...]
    writes: tuple[tuple[int, Value], ...]
    makes: tuple[tuple[int, Value], ...]
    in_place: frozenset[Value] = frozenset()

    keywords: Mapping[str, Any] | None = None

    def run(self, values: dict[Value, Any], constants: Mapping[Value, Any]) -> None:
        """Call the operator on values, and add those that it makes."""
        leaves = list(self.leaves)
        for place, value in self.reads:
            leaves[place] = values[value] if value in values else constants[value]
        for place, value in self.writes:
            if value not in self.in_place:
                leaves[place] = leaves[place].clone()
            values[value] = leaves[place]
        if self.keywords is not None:
            results = self.operator(*leaves, **self.keywords)
        else:
            args, kwargs = tree_unflatten(leaves, self.spec)
            results = self.operator(*args, **kwargs)
        if isinstance(results, torch.Tensor):
            for _, value in self.makes:
                values[value] = results
        elif self.makes:
            # Nearly always a tuple of tensors; unpacking anything costs more than many operators.
            plain = type(results) is tuple and all(isinstance(each, torch.Tensor) for each in results)
            made = results if plain else tree_flatten(results)[0]
            for place, value in self.makes:
                values[value] = made[place]


@dataclass(frozen=True)
class _Plan:
    #: Each step's calls, and the values that no later step reads.
    steps: tuple[tuple[tuple[Call, ...], tuple[Value, ...]], ...]
    wanted: frozenset[Value]


class Tape:
    """A recorded forward pass: a `evolve.networks.network.Program`.

    Attributes:
        steps: What each step reads and makes.
        output: The network's output.
        constants: Weights by layer, and all other tensors that no step makes.
    """

    def __init__(
        self, calls: Sequence[Sequence[Call]], output: Value, constants: Mapping[Value, torch.Tensor]
    ) -> None:
        self._calls = [tuple(each) for each in calls]
        self.output = output
        self.constants = constants
        self.steps = [_step(each) for each in self._calls]
        self._plans: dict[Any, _Plan] = {}
        self._own = {each.untyped_storage().data_ptr() for each in constants.values()}

    def __len__(self) -> int:
        return sum(map(len, self._calls))

    @property
    def operators(self) -> list[tuple[str, ...]]:
        """The names of each step's operators: ``aten.addmm.default``."""
        return [tuple(str(call.operator) for call in calls) for calls in self._calls]

    def same_as(self, other: Tape | None) -> bool:
        """Whether both do the same, so that one can stand for the other."""
        return other is not None and (
            self.output == other.output
            and self._calls == other._calls
            and self.constants.keys() == other.constants.keys()
            and all(self.constants[each] is other.constants[each] for each in self.constants)
        )

    def plan(self, steps: Sequence[int], wanted: frozenset[Value]) -> _Plan:
        """Prepare steps: find out which values are no longer needed after each."""
        key = (tuple(steps), frozenset(wanted))
        if key not in self._plans:
            if len(self._plans) > _KEPT_PLANS:
                self._plans.clear()
            self._plans[key] = self._plan(*key)
        return self._plans[key]

    def _plan(self, steps: Sequence[int], wanted: frozenset[Value]) -> _Plan:
        planned = []
        needed = set(wanted)
        for position in reversed(steps):
            step = self.steps[position]
            released = tuple(
                value
                for value in {*step.inputs, *step.outputs}
                if value not in needed and value not in self.constants
            )
            needed.update(step.inputs)
            planned.append((self._calls[position], released))
        return _Plan(tuple(planned[::-1]), wanted)

    def run(self, plan: Any, values: Mapping[Value, Any]) -> dict[Value, Any]:
        """Run prepared steps and return the values wanted."""
        now = dict(values)
        with torch.no_grad():
            for calls, released in plan.steps:
                for call in calls:
                    call.run(now, self.constants)
                for value in released:
                    now.pop(value, None)
        return {value: now[value] for value in plan.wanted}

    def array(self, value: Any) -> NDArray[Any]:
        """Return a tensor as an array; one of few bits as float32."""
        plain = value.detach().cpu()
        short = plain.dtype in (torch.bfloat16, torch.float16)
        array: NDArray[Any] = (plain.float() if short else plain).numpy()
        return array

    def num_bytes(self, values: Mapping[Value, Any]) -> int:
        """Return the memory of the values' storages, those of the network's own left out."""
        storages = {each.untyped_storage().data_ptr(): each.untyped_storage() for each in values.values()}
        return sum(each.nbytes() for place, each in storages.items() if place not in self._own)


def _step(calls: Sequence[Call]) -> Step:
    inputs: dict[Value, None] = {}
    made: dict[Value, None] = {}
    for call in calls:
        inputs |= {value: None for _, value in call.reads if value not in made}
        made |= {value: None for _, value in (*call.makes, *call.writes)}
    return Step(tuple(inputs), tuple(made))
