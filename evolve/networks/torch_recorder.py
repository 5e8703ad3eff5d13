"""Records what a PyTorch network does with one batch as a tape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakTensorKeyDictionary

from evolve.networks.network import Value
from evolve.networks.torch_memory import SharedMemory
from evolve.networks.torch_tape import Call, Tape

#: What hands the numbers of a tensor to Python without an operator that a recorder would see.
_READERS = frozenset(
    (
        *(torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.__dlpack__),
        *(torch.Tensor.data_ptr, torch.Tensor.untyped_storage),
    )
)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own metaclass
    """Writes a tape while a network runs inside ``with``.

    Args:
        weights: The weights of each layer, by name.
        inputs: The batch's tensors; they are the values ``("input", 0)``, ….
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], inputs: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's
        self._names: Any = WeakTensorKeyDictionary()
        self._constants: dict[Value, torch.Tensor] = {}
        self._calls: list[Call] = []
        self._count = 0
        self._given = {("input", at) for at in range(len(inputs))}
        # Values that depend on a weight, and whether one of them decided what Python did.
        self._changeable: set[Value] = set(weights)
        self._exact = True
        self._memory = SharedMemory()
        for name, tensor in weights.items():
            self._constants[name] = tensor
            self._name(tensor, name)
        for at, tensor in enumerate(inputs):
            self._name(tensor, ("input", at))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator and write it down."""
        if func.namespace == "profiler":
            return func(*args, **(kwargs or {}))  # marks of time, which compute nothing
        keywords = kwargs or {}
        leaves, spec = tree_flatten((args, keywords))
        plain = sum(map(_is_tensor, args)) == sum(map(_is_tensor, leaves))
        if plain:
            leaves = list(args)
        at = len(self._calls)
        reads = [(place, self._read(leaf, at)) for place, leaf in enumerate(leaves) if _is_tensor(leaf)]
        written = _written(func, args, kwargs or {})
        results = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            # Attention may drop at random, but seldom does here: a second run tells.
            again = func(*args, **(kwargs or {}))
            self._exact &= not written and _equal(results, again)
        writes = []
        for place, value in reads:
            if any(leaves[place] is each for each in written):
                writes.append((place, self._rename(leaves[place], value, at)))
        old = {id(leaf) for leaf in leaves if _is_tensor(leaf)}
        makes = [
            (place, self._name(leaf, self._new(), at))
            for place, leaf in enumerate(tree_flatten(results)[0])
            if _is_tensor(leaf) and id(leaf) not in old
        ]
        kept = tuple(None if _is_tensor(leaf) else leaf for leaf in leaves)
        self._calls.append(
            Call(
                func,
                kept,
                spec,
                tuple(reads),
                tuple(writes),
                tuple(makes),
                keywords=dict(keywords) if plain else None,
            )
        )
        self._follow(func, leaves, reads, [value for _, value in (*writes, *makes)])
        return results

    def handed_out(self, tensor: Any) -> None:
        """Note that Python reads the numbers of a tensor, and may do anything with them."""
        if _is_tensor(tensor) and self._names.get(tensor) in self._changeable:
            self._exact = False

    def tape(self, output: torch.Tensor) -> Tape | None:
        """Return the tape of what ran, None if running parts of it could give other numbers."""
        value = self._names.get(output)
        if value is None or not self._exact:
            return None
        self._memory.read(value, len(self._calls))
        spans = self._memory.spans()
        if spans is None:
            return None
        shared = self._memory.shared()
        calls = [
            replace(call, in_place=shared.intersection(value for _, value in call.writes))
            for call in self._calls
        ]
        return Tape(_merge(calls, spans), value, self._constants)

    def _new(self) -> Value:
        self._count += 1
        return self._count

    def _name(self, tensor: torch.Tensor, value: Value, at: int = -1) -> Value:
        self._names[tensor] = value
        self._memory.make(tensor, value, at)
        return value

    def _read(self, tensor: torch.Tensor, at: int) -> Value:
        value: Value | None = self._names.get(tensor)
        if value is None:
            # A buffer, or a tensor that Python made of numbers.
            value = self._name(tensor, self._new())
            self._constants[value] = tensor
        self._memory.read(value, at)
        return value

    def _rename(self, tensor: torch.Tensor, before: Value, at: int) -> Value:
        value = self._new()
        self._names[tensor] = value
        self._memory.write(before, value, at)
        return value

    def _follow(
        self, func: Any, leaves: Sequence[Any], reads: Sequence[tuple[int, Value]], made: Sequence[Value]
    ) -> None:
        """Note what depends on a weight, and whether Python could have seen it."""
        changeable = [place for place, value in reads if value in self._changeable]
        if not changeable:
            return
        self._changeable.update(made)
        if torch.Tag.data_dependent_output in func.tags:
            self._exact = False
        if torch.Tag.dynamic_output_shape in func.tags:
            masks = (torch.bool, torch.uint8)
            indexing = func.overloadpacket is torch.ops.aten.index
            if not indexing or any(leaves[place].dtype in masks for place in changeable):
                self._exact = False


class Handing(TorchFunctionMode):
    """Tells a recorder, inside ``with``, which tensors hand their numbers to Python."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch."""
        if func in _READERS and args:
            self._recorder.handed_out(args[0])
        return func(*args, **(kwargs or {}))


def _merge(calls: Sequence[Call], spans: Sequence[tuple[int, int]]) -> list[list[Call]]:
    merged: list[list[Call]] = []
    end = -1
    starts = dict[int, int]()
    for first, last in spans:
        starts[first] = max(last, starts.get(first, -1))
    for at, call in enumerate(calls):
        if at > end:
            merged.append([])
        end = max(end, at, starts.get(at, -1))
        merged[-1].append(call)
    return merged


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor)


def _equal(results: Any, others: Any) -> bool:
    pairs = zip(tree_flatten(results)[0], tree_flatten(others)[0], strict=True)
    return all(torch.equal(*pair) if _is_tensor(pair[0]) else pair[0] == pair[1] for pair in pairs)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Return the tensors that an operator writes into."""
    if not func._schema.is_mutable:
        return []
    written = []
    for at, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[at] if at < len(args) else kwargs.get(argument.name)
            written += [each for each in tree_flatten(value)[0] if _is_tensor(each)]
    return written
